"""What is kept on disk: inputs read, plans frozen, events appended, results stored, outputs published."""

import os

# Arrow's own allocator keeps what it once had: 60 to 100 MB more at the peak of 100,000 rows, and no faster. It looks
# at this when pyarrow is first imported, which is why it stands here and not in a function.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

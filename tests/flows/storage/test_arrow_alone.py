"""Arrow is used without pandas, and still works with it."""

import subprocess
import sys

PROGRAM = """
import sys
from flows.storage.tables import write_table
import pyarrow as pa
table = pa.table({"a": pa.array([1, 2])})
assert "pandas" not in sys.modules
frame = table.to_pandas()
import pandas
assert list(frame["a"]) == [1, 2]
assert pa.array(pandas.Series([1, None])).null_count == 1
"""


def test_arrays_are_made_without_pandas_and_frames_with_it() -> None:
    """Our arrays do not load it, and a user's own frames are read and made as ever."""
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)

"""Arrow is used without pandas, and still works with it."""

import subprocess
import sys
from pathlib import Path

ALONE = """
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

NANOSECONDS = """
import sys
from pathlib import Path
import pyarrow as pa
import pyarrow.parquet as pq
from flows.storage.source import SourceFile
path = Path(sys.argv[1])
times = pa.array([1_700_000_000_123_456_789], pa.int64())
column = pa.StructArray.from_arrays([times.cast(pa.timestamp("ns"))], ["at"])
pq.write_table(pa.table({"nested": column}), path)
source = SourceFile.open(path, "x")
(window,) = source.windows()
(value,) = window.column("nested").to_pylist()
assert value["at"].nanosecond == 789
"""


def test_arrays_are_made_without_pandas_and_frames_with_it() -> None:
    """Our arrays do not load it, and a user's own frames are read and made as ever."""
    assert subprocess.run([sys.executable, "-c", ALONE], check=False).returncode == 0


def test_nanoseconds_are_read(tmp_path: Path) -> None:
    """They need a type of pandas, which is then there, also inside of other types."""
    command = [sys.executable, "-c", NANOSECONDS, str(tmp_path / "times.parquet")]
    assert subprocess.run(command, check=False).returncode == 0

"""Arrow with pandas only where its types are needed; imported before the first array is made.

Arrow imports pandas to see whether the first list that it is given is one of its series: 0.15 s and 30 MB for each
process, mostly for nothing. It looks once. Whoever wants a DataFrame of a table later still gets one.
"""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder

import pyarrow as pa


class _NoPandas(MetaPathFinder):
    def find_spec(self, fullname: str, *_: object) -> None:
        """As if it were not installed."""
        if fullname == "pandas":
            raise ModuleNotFoundError(fullname)


if "pandas" not in sys.modules:
    _hiding = _NoPandas()
    sys.meta_path.insert(0, _hiding)
    try:
        pa.array([0])
    finally:
        sys.meta_path.remove(_hiding)


def ready_for(schema: pa.Schema) -> None:
    """Let Arrow find pandas if a column has nanoseconds: Python's own types, which it would fail with, have none."""
    if any("[ns" in str(field.type) for field in schema):
        pa.array([0]).to_pandas()

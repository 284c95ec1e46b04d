"""Arrow without pandas: imported for its effect, before the first array is made.

Arrow imports pandas to see whether the first list that it is given is one of its series: 0.15 s and 30 MB for each
process, for nothing. It looks once. Whoever wants a DataFrame of a table later still gets one.
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

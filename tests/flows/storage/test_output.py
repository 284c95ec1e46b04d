"""The layout of an output."""

import pyarrow as pa

from flows.domain.schema import OutputSchema
from flows.storage.output import OutputLayout


def test_a_field_called_like_a_status_is_a_column_of_its_own() -> None:
    """So that the clash of names can be seen before anything is sent."""
    layout = OutputLayout(OutputSchema({"_status": {"type": "string"}}), {}, "m", "zstd", 9)
    names = layout.arrow_schema(pa.schema([("text", pa.string())])).names
    assert names.count("_status") == 2

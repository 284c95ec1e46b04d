"""The custom_id: it fits everywhere."""

import re

from blocks.batch import PORTABLE_ID
from flows.domain.custom_ids import LONGEST_ID, custom_id


def test_a_custom_id_fits_everywhere() -> None:
    """It is one that every provider takes."""
    longest = custom_id(f"abcd2345-{10**8}-r4nd0m", 10**12, 10**3)
    assert len(longest) <= len(LONGEST_ID)
    assert re.fullmatch(PORTABLE_ID, longest)

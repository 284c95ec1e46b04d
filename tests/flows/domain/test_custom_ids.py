"""The custom_id: it fits everywhere, and proves whose answer it is."""

import re

import pytest

from blocks.batch import PORTABLE_ID
from flows.domain.custom_ids import LONGEST_ID, custom_id, parse_custom_id

RUN = "abcd2345"


def test_a_custom_id_fits_everywhere() -> None:
    """It is one that every provider takes."""
    longest = custom_id(f"{RUN}-{10**8}-r4nd0m", 10**12, 10**3)
    assert len(longest) <= len(LONGEST_ID)
    assert re.fullmatch(PORTABLE_ID, longest)


@pytest.mark.parametrize(("request_number", "attempt"), [(0, 1), (7, 2), (10**12, 10**3)])
def test_what_was_written_is_read(request_number: int, attempt: int) -> None:
    """Under its own batch's tag only."""
    written = custom_id(f"{RUN}-7", request_number, attempt)
    assert parse_custom_id(written, f"{RUN}-7-") == (request_number, attempt)
    assert parse_custom_id(written, f"{RUN}-70-") is None
    assert parse_custom_id(written, f"{RUN}-8-") is None

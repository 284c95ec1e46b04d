"""The custom_id of a request: `<tag>-<request>-<attempt>`, never reused.

It proves which request, and which submission of it, an answer belongs to. The tag of the batch is
`<run>-<batch>-<random>`: a copy of the state directory numbers its batches alike, but draws other tags.
"""

from __future__ import annotations

MOST_DIGITS = 15  # of a number in an id
LONGEST_ID = "x" * 48  # placeholder for measuring a request that has no custom_id yet


def custom_id(tag: str, request: int, attempt: int) -> str:
    """The custom_id of a request in the batch with this tag."""
    return f"{tag}-{request}-{attempt}"


def parse_custom_id(text: str, prefix: str) -> tuple[int, int] | None:
    """Request and attempt; None for an id of another batch. `prefix`: the batch's tag and a hyphen."""
    if not text.startswith(prefix):
        return None
    request, _, attempt = text[len(prefix) :].partition("-")
    found = _number(request), _number(attempt)
    return None if found[0] is None or found[1] is None else (found[0], found[1])


def _number(text: str) -> int | None:
    """A number as `custom_id` writes it, in one way only and with no more digits than one has."""
    if not (text.isascii() and text.isdecimal() and len(text) <= MOST_DIGITS) or (text[0] == "0" and len(text) > 1):
        return None
    return int(text)

"""The custom_id of a request: `<tag>-<request>-<attempt>`, never reused.

It proves which request, and which submission of it, an answer belongs to. The tag of the batch is
`<run>-<batch>-<random>`: a copy of the state directory numbers its batches alike, but draws other tags.
"""

from __future__ import annotations

LONGEST_ID = "x" * 48  # placeholder for measuring a request that has no custom_id yet


def custom_id(tag: str, request: int, attempt: int) -> str:
    """The custom_id of a request in the batch with this tag."""
    return f"{tag}-{request}-{attempt}"

"""What a model is told after an answer that was rejected.

The note is part of the one prompt, in every dialect: a second message of the user is refused by servers with strict
chat templates, which want roles to alternate, and an assistant's turn to reply to by models that take no prefilled
answer. What encodes requests therefore knows nothing of corrections.
"""

from __future__ import annotations


def corrected(prompt: str, reason: str) -> str:
    """The prompt once more, with the reason why the last answer to it was rejected."""
    note = f"Your previous answer was rejected: {reason}\nAnswer again, exactly in the form that was asked for."
    return f"{prompt}\n\n{note}"

"""What can be wrong with bytes that were right: seen as bytes, as lines, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

from hypothesis import strategies as st

DEEP = json.loads("[" * 150 + "]" * 150)
ODD: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**40, 2**63, 2**70, -(2**70), 10**400, 0.5, 1e300, -0.0, float("nan"),
    float("inf"), "", " ", "x" * 5000, "\ud800", "\u0000", "\u2028", "a\nb", "0", "-1", "1e5", [], {}, [None], [[]],
    [{}], {"": None}, {"error": "x"}, {"error": {"message": 7, "code": []}}, {"detail": {"message": {}}}, DEEP,
]  # fmt: skip


Mutation = Callable[[bytes], bytes]


@st.composite
def mutations(draw: st.DrawFn) -> tuple[str, int]:
    """The kind of a mutation, and the seed of what it does."""
    return draw(st.sampled_from(list(KINDS))), draw(st.integers(0, 2**32))


def mutated(content: bytes, kind: str, number: int) -> bytes:
    """The content, changed in that way."""
    return KINDS[kind](content, Random(number))  # noqa: S311  # chooses, keeps no secret


def _flip(content: bytes, dice: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(dice.randint(1, 4)):
        if changed:
            changed[dice.randrange(len(changed))] = dice.randrange(256)
    return bytes(changed)


def _cut(content: bytes, dice: Random) -> bytes:
    return content[: dice.randint(0, len(content))]


def _lose(content: bytes, dice: Random) -> bytes:
    start = dice.randint(0, len(content))
    return content[:start] + content[start + dice.randint(1, 200) :]


def _insert(content: bytes, dice: Random) -> bytes:
    start = dice.randint(0, len(content))
    odd = [b"\n", b"\n\n", b"\r\n", b"\x00", b"\xff\xfe", b"{}", b"[]", b",", b'"', b"<html>", b"\xe2\x80\xa8"]
    return content[:start] + dice.choice(odd) + content[start:]


def _lines(content: bytes, dice: Random) -> bytes:
    lines = content.split(b"\n")
    for _ in range(dice.randint(1, 3)):
        at = dice.randrange(len(lines))
        match dice.randrange(4):
            case 0:
                lines.insert(dice.randrange(len(lines) + 1), lines[at])
            case 1:
                dice.shuffle(lines)
            case 2:
                lines[at] = lines[at][: dice.randint(0, len(lines[at]))]
            case _:
                lines.insert(at, dice.choice([b"", b"null", b"7", b'"x"', b"[]", b"{}", b"<html>"]))
    return b"\n".join(lines)


def _json(content: bytes, dice: Random) -> bytes:
    lines = content.split(b"\n")
    for _ in range(dice.randint(1, 3)):
        at = dice.randrange(len(lines))
        try:
            whole = {"": json.loads(lines[at])}
        except ValueError:
            continue
        _change(whole, dice)
        lines[at] = json.dumps(whole.get(""), ensure_ascii=dice.random() < 0.5).encode(errors="surrogatepass")
    return b"\n".join(lines)


def _change(whole: dict[str, Any], dice: Random) -> None:
    """Replace, delete or rename one place of it."""
    places = list(_places(whole))
    holder, key = dice.choice(places)
    match dice.randrange(6):
        case 0 if isinstance(holder, dict) and holder is not whole:
            del holder[key]
        case 1 if isinstance(holder, dict) and holder is not whole:
            holder[f"{key}_"] = holder.pop(key)
        case 2:
            holder[key] = [holder[key]]
        case 3:
            holder[key] = str(holder[key])
        case _:
            holder[key] = dice.choice(ODD)


def _places(value: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    for key in keys:
        found.append((value, key))
        found += _places(value[key])
    return found


KINDS: dict[str, Callable[[bytes, Random], bytes]] = {
    "json": _json,
    "flip": _flip,
    "cut": _cut,
    "lose": _lose,
    "insert": _insert,
    "lines": _lines,
}
KEEPS_TEXTS = {"json", "cut", "lines"}  # of answers: none can become another valid one

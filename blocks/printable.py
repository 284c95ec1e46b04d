"""Text made fit to print: rows, providers and file names may hold what a terminal obeys; a number has its noun.

Every text that somebody else wrote passes here before it is shown: an escape sequence would set the clipboard or the
title of a terminal, a line break would forge a line of a log, a reversed text would hide what it says.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

SHOWN = 200  # characters of a text of others
LONGEST_LINE = 2_000  # characters of a message or a line of a log, which may hold several of them
NAMES = 3  # of those in a file that is not right
SHORT = 40  # characters of such a name
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # categories of Unicode that show nothing, or move what is shown
_JOINERS = "\u200c\u200d"  # hidden too, but Persian, Indic scripts and emoji need them
_BY_NAME = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(text: str, most: int = SHOWN) -> str:
    """The text on one line, at most this long, with what is not visible written as JSON would write it.

    Doing it twice changes nothing.
    """
    cut = text[: most + 1]
    shown = cut if cut.isprintable() else "".join(map(_shown, cut))
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def printable_lines(text: str) -> str:
    """The same for a text of several lines, of any length; JSON stays JSON."""
    return "\n".join(line if line.isprintable() else "".join(map(_shown_or_tab, line)) for line in text.split("\n"))


def some_names(names: Iterable[object], most: int = NAMES) -> str:
    """A few names out of a file, short enough to show nothing else of it."""
    listed = [printable(str(name), SHORT) for name in names]
    more = f" and {len(listed) - most:,} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def counted(count: int, one: str, many: str | None = None) -> str:
    """A number with its noun, as in "1 row" and "2,000 rows". `many`: a plural that is more than an s."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def _shown(character: str) -> str:
    if unicodedata.category(character) not in _HIDDEN or character in _JOINERS:
        return character
    code = ord(character)
    if code > 0xFFFF:
        high, low = divmod(code - 0x10000, 0x400)
        return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
    return _BY_NAME.get(character, f"\\u{code:04x}")


def _shown_or_tab(character: str) -> str:
    return character if character == "\t" else _shown(character)

"""One spelling for each address: the same service, spelled otherwise, must not be asked and paid a second time."""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import SplitResult

DEFAULT_PORTS = {"http": 80, "https": 443}
_ESCAPED = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]")


def normal_address(parts: SplitResult, added: Collection[str] = ()) -> str:
    """A web address without a slash at its end, as RFC 3986 (section 6.2) makes different spellings equal.

    `added`: endings that the client puts behind the address itself, such as `/v1`; they are left out here.
    """
    host = parts.hostname or ""  # in small letters
    place = f"[{host}]" if ":" in host else host
    if parts.port is not None and parts.port != DEFAULT_PORTS.get(parts.scheme):
        place += f":{parts.port}"
    return f"{parts.scheme}://{place}{_without(_normal_path(parts.path), added)}"


def _normal_path(path: str) -> str:
    """Without empty and dot segments; each ends up empty or begins with a slash."""
    kept: list[str] = []
    for step in _ESCAPED.sub(_unescaped, path).split("/"):
        if step == "..":
            del kept[-1:]
        elif step not in ("", "."):
            kept.append(step)
    return "".join(f"/{step}" for step in kept)


def _unescaped(escape: re.Match[str]) -> str:
    """The character itself if it needs no escape, else the escape in capitals."""
    character = chr(int(escape[1], 16))
    return character if _UNRESERVED.fullmatch(character) else escape[0].upper()


def _without(path: str, added: Collection[str]) -> str:
    return next((path.removesuffix(ending) for ending in added if path.endswith(ending)), path)

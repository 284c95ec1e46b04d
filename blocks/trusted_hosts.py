"""Where a key may be sent: the one check, made whenever a connection is opened.

Addresses come from forms, from Prefect's API and from files of a state directory, so from people who may not have the
key. Only the environment of the process that works, and what a person types on a shell beside the key, can add to
the addresses that the provider's entry or the saved block names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import urlsplit

from blocks.addresses import DEFAULT_PORTS
from blocks.errors import UsageError

ALLOWED_HOSTS = "BATCHWERK_ALLOWED_HOSTS"  # of the environment: host, host:port or http://host:port, by commas


class Origin(NamedTuple):
    """What is asked at an address: everything but the path."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        shown = host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"
        return shown if self.scheme == "https" else f"{self.scheme}://{shown}"


def check_address(url: str, own: str, *, typed_url: str | None = None, loopback: bool = True) -> None:
    """Raises UsageError if the key may not be sent to `url`.

    `own`: the address of the provider's entry, or of the block that holds the key. `typed_url`: an address that was
    typed on a shell. `loopback`: whether servers of this machine may have the key; they may not have that of a block.
    """
    asked = origin_of(url)
    if asked == origin_of(own) and (asked.scheme == "https" or is_loopback(url)):
        return
    if (typed_url is not None and asked == origin_of(typed_url)) or (loopback and is_loopback(url)):
        return
    if asked not in _allowed():
        raise UsageError(
            f"the key may not be sent to {asked}: it is neither the provider's nor the saved block's own address"
            + (", or it is not encrypted" if asked.scheme == "http" else ""),
            next_step=f"allow it where the run works: export {ALLOWED_HOSTS}={asked}",
        )


def origin_of(url: str) -> Origin:
    """Raises UsageError for what is no web address."""
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme, parts.hostname or "", parts.port
    except ValueError:
        scheme, host, port = "", "", None
    if (
        scheme not in DEFAULT_PORTS
        or not host
        or not host.isascii()
        or "@" in url
        or "\\" in url
        or not url.isprintable()
    ):
        raise UsageError(f"{url!r} is not a web address", next_step="it begins with https://")
    return Origin(scheme, host.rstrip("."), DEFAULT_PORTS[scheme] if port is None else port)


def is_loopback(url: str) -> bool:
    """Whether the address is of this machine, whatever a name server says."""
    try:
        host = origin_of(url).host
        return host == "localhost" or ip_address(host).is_loopback
    except (UsageError, ValueError):
        return False


def _allowed() -> Iterator[Origin]:
    for entry in os.environ.get(ALLOWED_HOSTS, "").split(","):
        if entry.strip():
            yield origin_of(entry.strip() if "://" in entry else f"https://{entry.strip()}")


def keep_loopback_direct() -> None:
    """Tell this process and its children that no proxy leads to this machine."""
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    direct = [*filter(None, known.split(",")), "127.0.0.1", "localhost", "::1"]
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(dict.fromkeys(direct))

"""The key of a request: rows with the same key share one request.

The encoding is our own and fixed by golden tests, so that a library upgrade, a time zone or another machine never
changes a key, which would bill a dataset again. Every value is tagged with its type and prefixed with its length;
nulls are distinct from empty texts; times are nanoseconds in UTC; decimals keep their scale.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from hashlib import blake2b
from operator import itemgetter
from typing import Any
from uuid import UUID

KEY_BYTES = 16
VERSION = b"batchwerk-key-1"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  # for times without a zone


def encode(value: Any) -> bytes:
    """`value` as tagged, length-prefixed bytes. Raises TypeError for types without a canonical encoding."""
    if value is None:
        return b"n"
    encoder = _ENCODERS.get(type(value)) or _inherited(type(value))
    tag, payload = encoder(value)
    return tag + len(payload).to_bytes(8, "big") + payload


def encode_text(value: str | None) -> bytes:
    """`encode` for the usual case, text."""
    if value is None:
        return b"n"
    payload = value.encode()
    return b"s" + len(payload).to_bytes(8, "big") + payload


def form_digest(parts: Mapping[str, Any]) -> bytes:
    """Digest of all that a job's requests share: endpoint, model, prompt template, system text, schema, parameters."""
    return blake2b(VERSION + encode(dict(parts)), digest_size=32).digest()


def row_keys(digest: bytes, names: Sequence[str], columns: Sequence[Sequence[Any]]) -> list[bytes]:
    """The key of every row, from the values of the columns that the prompt uses; column order does not matter."""
    ordered = sorted(zip(names, columns, strict=True), key=itemgetter(0))
    base = blake2b(digest + encode([name for name, _ in ordered]), digest_size=KEY_BYTES)
    keys: list[bytes] = []
    for payload in _payloads([column for _, column in ordered]):
        hasher = base.copy()
        hasher.update(payload)
        keys.append(hasher.digest())
    return keys


def _payloads(columns: Sequence[Sequence[Any]]) -> Iterable[bytes]:
    encoded = [[encode_text(v) if type(v) is str else encode(v) for v in column] for column in columns]
    if len(encoded) == 1:
        return encoded[0]
    return map(b"".join, zip(*encoded, strict=True))


def _number(value: int) -> tuple[bytes, bytes]:
    return b"i", str(value).encode()


def _float(value: float) -> tuple[bytes, bytes]:
    # All NaNs are equal, whatever their bits; -0.0 prints differently from 0.0 and stays distinct.
    return b"f", b"nan" if value != value else struct.pack(">d", value)  # noqa: PLR0124  # only NaN differs from itself


def _decimal(value: Decimal) -> tuple[bytes, bytes]:
    sign, digits, exponent = value.as_tuple()
    return b"d", f"{sign}|{''.join(map(str, digits))}|{exponent}".encode()


def _datetime(value: datetime) -> tuple[bytes, bytes]:
    tag, epoch = (b"t", _EPOCH) if value.tzinfo else (b"u", _NAIVE_EPOCH)
    nanoseconds = (value - epoch) // timedelta(microseconds=1) * 1000 + getattr(value, "nanosecond", 0)
    return tag, str(nanoseconds).encode()


def _timedelta(value: timedelta) -> tuple[bytes, bytes]:
    nanoseconds = value // timedelta(microseconds=1) * 1000 + getattr(value, "nanoseconds", 0)
    return b"e", str(nanoseconds).encode()


def _sequence(value: Iterable[Any]) -> tuple[bytes, bytes]:
    return b"l", b"".join(map(encode, value))


def _mapping(value: Mapping[str, Any]) -> tuple[bytes, bytes]:
    return b"o", b"".join(encode(name) + encode(value[name]) for name in sorted(value))


_Encoder = Callable[[Any], tuple[bytes, bytes]]
_ENCODERS: dict[type, _Encoder] = {
    str: lambda v: (b"s", v.encode()),
    bool: lambda v: (b"b", b"1" if v else b"0"),
    int: _number,
    float: _float,
    bytes: lambda v: (b"y", v),
    Decimal: _decimal,
    datetime: _datetime,
    date: lambda v: (b"D", v.isoformat().encode()),
    time: lambda v: (b"T", v.isoformat(timespec="microseconds").encode()),
    timedelta: _timedelta,
    UUID: lambda v: (b"U", v.bytes),
    list: _sequence,
    tuple: _sequence,
    dict: _mapping,
}


def _inherited(kind: type) -> _Encoder:
    """The encoder of a subclass, such as pandas' Timestamp."""
    for base in (datetime, date, timedelta, str, int, float):
        if issubclass(kind, base):
            return _ENCODERS[base]
    raise TypeError(f"a value of type {kind.__name__} can't be part of a prompt")

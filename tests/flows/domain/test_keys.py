"""Keys: fixed for ever, different for different values, equal for equal ones."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.domain.keys import KEY_BYTES, encode, encode_text, form_digest, row_keys

BERLIN = timezone(timedelta(hours=1))
DIGEST = form_digest({"endpoint": "e", "model": "m", "prompt": "{{ a }}"})

# Never change one of these: every dataset would be billed again.
GOLDEN: list[tuple[Any, str]] = [
    (None, "6e"),
    ("", "730000000000000000"),
    ("ä🙂", "730000000000000006c3a4f09f9982"),
    (True, "62000000000000000131"),
    (1, "69000000000000000131"),
    (-(2**70), "6900000000000000172d31313830353931363230373137343131333033343234"),
    (1.0, "6600000000000000083ff0000000000000"),
    (-0.0, "6600000000000000088000000000000000"),
    (float("nan"), "6600000000000000036e616e"),
    (b"\x00a", "7900000000000000020061"),
    (Decimal("1.50"), "640000000000000008307c3135307c2d32"),
    (date(2026, 4, 1), "44000000000000000a323032362d30342d3031"),
    (time(1, 2, 3), "54000000000000000f30313a30323a30332e303030303030"),
    (datetime(2026, 4, 1, 12, tzinfo=UTC), "74000000000000001331373735303434383030303030303030303030"),
    (datetime(2026, 4, 1, 12), "75000000000000001331373735303434383030303030303030303030"),  # noqa: DTZ001  # naive on purpose
    (timedelta(seconds=1), "65000000000000000a31303030303030303030"),
    (UUID(int=1), "55000000000000001000000000000000000000000000000001"),
    (["a", None], "6c00000000000000" + "0b" + "730000000000000001616e"),
    (
        {"b": 1, "a": None},
        "6f00000000000000" + "1f" + "730000000000000001616e" + "73000000000000000162" + "69000000000000000131",
    ),
]


@pytest.mark.parametrize(("value", "encoded"), GOLDEN, ids=lambda part: repr(part)[:24])
def test_encodings_never_change(value: Any, encoded: str) -> None:
    """A library upgrade must not change what a value is in a key."""
    assert encode(value).hex() == encoded


def test_keys_never_change() -> None:
    """The whole way from a job and a row to a key is fixed."""
    assert DIGEST.hex() == "ed8ac7fba22666b9c6bd62b19727ac23d3a65d83f3a8b7480c4ed7efceadfc90"
    keys = row_keys(DIGEST, ["a", "b"], [["x", None], [1, 2.5]])
    assert [key.hex() for key in keys] == ["b7f14376dfd0cefc8305faa15edaf974", "0741ddaa1b9b2472a060feb2178020e2"]
    assert {len(key) for key in keys} == {KEY_BYTES}


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.decimals(allow_nan=False, allow_infinity=False, places=2)
    | st.dates()
    | st.times()
    | st.datetimes()
    | st.datetimes(timezones=st.just(UTC))
    | st.timedeltas()
    | st.uuids()
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)


def canonical(value: Any) -> Any:
    """Equal exactly where a prompt could not tell two values apart; Python itself has True == 1 == 1.0."""
    match value:
        case list():
            return ("list", *map(canonical, value))
        case dict():
            return ("dict", *((name, canonical(value[name])) for name in sorted(value)))
        case float():
            return ("float", "nan" if value != value else value.hex())  # noqa: PLR0124
        case Decimal():
            return ("decimal", str(value.as_tuple()))
        case datetime():
            return ("naive" if value.tzinfo is None else "aware", value.isoformat())
        case _:
            return (type(value).__name__, repr(value))


@given(values, values)
def test_different_values_have_different_encodings(first: Any, second: Any) -> None:
    """Two values share an encoding only where they are the same value of the same kind."""
    assert (encode(first) == encode(second)) == (canonical(first) == canonical(second))


@given(st.lists(values, min_size=1, max_size=3), st.lists(values, min_size=1, max_size=3))
def test_no_ambiguity_across_columns(first: list[Any], second: list[Any]) -> None:
    """What ends one column and begins the next is never mixed up."""
    joined = [b"".join(map(encode, row)) for row in (first, second)]
    assert (joined[0] == joined[1]) == (list(map(canonical, first)) == list(map(canonical, second)))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (["ab", "c"], ["a", "bc"]),
        (["a", ""], ["", "a"]),
        ([None, ""], ["", None]),
        (["1", 1], [1, "1"]),
        ([["a"], []], [[], ["a"]]),
    ],
)
def test_rows_that_would_concatenate_alike_differ(first: list[Any], second: list[Any]) -> None:
    """Separators can be forged, lengths can't."""
    one, two = row_keys(DIGEST, ["a", "b"], list(zip(first, second, strict=True)))
    assert one != two


@given(st.text() | st.none())
def test_text_has_one_encoding(value: str | None) -> None:
    """The quick way for text is the same as the general one."""
    assert encode_text(value) == encode(value)


def test_the_same_instant_is_the_same_in_every_zone() -> None:
    """A table that was read in another time zone asks nothing new."""
    utc = datetime(2026, 4, 1, 12, 30, tzinfo=UTC)
    assert encode(utc) == encode(utc.astimezone(BERLIN)) == encode(pd.Timestamp(utc).tz_convert("Asia/Tokyo"))


def test_a_time_without_a_zone_is_not_utc() -> None:
    """Noon somewhere is not noon in Greenwich."""
    aware = datetime(2026, 4, 1, 12, tzinfo=UTC)
    assert encode(aware) != encode(aware.replace(tzinfo=None))


def test_nanoseconds_count() -> None:
    """Two moments that only nanoseconds tell apart are two, also before 1970."""
    at = pd.Timestamp("1969-12-31 23:59:59.123456", tz="UTC")
    later = at + pd.Timedelta(1, "ns")
    assert encode(at) == encode(at.to_pydatetime())
    assert encode(at) != encode(later)
    assert encode(pd.Timedelta(-1, "ns")) == b"e" + (2).to_bytes(8, "big") + b"-1"


def test_the_scale_of_a_decimal_counts() -> None:
    """1.5 and 1.50 read differently in a prompt."""
    assert len({encode(Decimal(text)) for text in ("1.5", "1.50", "1.500", "15E-1", "-1.5")}) == 4


def test_every_nan_is_the_same() -> None:
    """NaN has many bit patterns and one meaning."""
    quiet, negative = float("nan"), -float("nan")
    assert encode(quiet) == encode(negative)


def test_subclasses_are_what_they_inherit_from() -> None:
    """What a library wraps a value in doesn't make it another."""
    assert encode(pd.Timestamp("2026-04-01")) == encode(datetime(2026, 4, 1))  # noqa: DTZ001
    assert encode(("a", 1)) == encode(["a", 1])


@pytest.mark.parametrize("value", [object(), {1, 2}, 1j])
def test_what_has_no_fixed_meaning_is_refused(value: Any) -> None:
    """A value whose text could change from run to run is no part of a key."""
    with pytest.raises(TypeError, match=type(value).__name__):
        encode(value)


@pytest.mark.parametrize("part", ["endpoint", "model", "prompt", "system", "schema", "max_output_tokens"])
def test_every_part_of_a_job_counts(part: str) -> None:
    """Another model or prompt is another question, and none is not the same as empty."""
    parts = dict.fromkeys(["endpoint", "model", "prompt", "system", "schema", "max_output_tokens"], "x")
    digests = [form_digest(parts | {part: value}) for value in ("x", "y", "", None)]
    digests.append(form_digest({name: value for name, value in parts.items() if name != part}))
    assert len(set(digests)) == 5


def test_columns_are_told_apart_by_name() -> None:
    """The same value in another column is another question."""
    columns: Sequence[Sequence[str]] = [["x"]]
    assert row_keys(DIGEST, ["a"], columns) != row_keys(DIGEST, ["b"], columns)


def test_the_order_of_the_inputs_columns_does_not_count() -> None:
    """An input whose columns were put into another order is not billed again."""
    assert row_keys(DIGEST, ["a", "b"], [["x"], ["y"]]) == row_keys(DIGEST, ["b", "a"], [["y"], ["x"]])


def test_no_rows_have_no_keys() -> None:
    """An empty window is no trouble."""
    assert row_keys(DIGEST, ["a", "b"], [[], []]) == []

"""The output: every input row once, in its place, with the result of its request and its cost."""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blocks.batch import Answer, Failure, FailureKind, Usage
from flows.domain.events import Slice
from flows.domain.money import to_usd
from flows.domain.prices import UNPRICED
from flows.storage.output import STATUS_COLUMNS
from tests.flows.domain import histories
from tests.flows.domain.answers import LABEL, answer
from tests.flows.storage.building import Collecting, Work, generations, parquet

COST = Decimal(100 * 10 + 10 * 40).scaleb(-12)  # of one `answer`
NONE = Decimal(0)


def work(folder: Path, **columns: Any) -> Work:
    return Work(folder, parquet(folder / "in.parquet", columns))


def output(job: Work) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(job.state.output).to_pylist()
    return found


def label(number: int, text: str, attempt: int = 1, usage: Usage | None = Usage(100, 10)) -> Answer:  # noqa: B008  # a tuple
    return answer(number, f'{{"label": "{text}"}}', attempt, usage)


def final(number: int, attempt: int = 1, usage: Usage | None = None) -> Answer:
    return Answer(
        f"{histories.TAG}-{number}-{attempt}", None, usage, Failure(FailureKind.TERMINAL, "content_policy", "refused")
    )


def test_every_row_comes_out_once_in_its_place(tmp_path: Path) -> None:
    """Duplicates show their request's answer and carry no cost: the rows add up to the ledger."""
    job = work(tmp_path, text=["b", "a", "b", "c", "a"], n=[1, 2, 3, 4, 5])
    job.ask()
    collecting = Collecting(job.state)
    collecting.batch([Slice(0, 3)], [label(2, "C"), label(0, "B"), label(1, "A")])
    held = collecting.publish(job)
    rows = output(job)
    assert [(row["n"], row["text"], row["label"]) for row in rows] == [
        (1, "b", "B"),
        (2, "a", "A"),
        (3, "b", "B"),
        (4, "c", "C"),
        (5, "a", "A"),
    ]
    assert [row["_cost_usd"] for row in rows] == [COST, COST, NONE, COST, NONE]
    assert [row["_input_tokens"] for row in rows] == [100, 100, 0, 100, 0]
    assert [row["_attempts"] for row in rows] == [1] * 5
    assert {row["_model"] for row in rows} == {"emulated:m"}
    assert {row["_error"] for row in rows} == {None}
    spent = collecting.ledger.spent()
    assert spent is not None
    assert held.rows_cost == spent
    assert sum(row["_cost_usd"] for row in rows) == to_usd(spent)
    assert (held.rows, dict(held.statuses), to_usd(held.shared_cost)) == (5, {"ok": 5}, 2 * COST)


def test_each_status_says_why(tmp_path: Path) -> None:
    """Done, refused, skipped, unsendable, not yet sent, and waiting for another try."""
    job = work(tmp_path, text=["ok", "no", " ", "later", "again", "0"], n=[1, 1, 1, 1, 1, 0])
    job.ask("{{ text }}{{ 1 // n }}", skip_empty=("text",))
    assert job.requests() == [0, 1, None, 2, 3, None]
    collecting = Collecting(job.state)
    collecting.batch([Slice(0, 2), Slice(3, 4)], [label(0, "x"), final(1), answer(3, "not json")])
    held = collecting.publish(job)
    rows = output(job)
    assert [row["_status"] for row in rows] == ["ok", "failed", "skipped", "pending", "pending", "failed"]
    assert dict(held.statuses) == {"ok": 1, "failed": 2, "skipped": 1, "pending": 2}
    errors = [row["_error"] for row in rows]
    assert errors[:4] == [None, "content_policy: refused", "text is empty", None]
    assert "not JSON" in errors[4]
    assert "could not be rendered" in errors[5]
    assert [row["label"] for row in rows] == ["x", None, None, None, None, None]
    assert [row["_attempts"] for row in rows] == [1, 1, 0, 0, 1, 0]
    assert [row["_cost_usd"] for row in rows] == [COST, None, None, None, COST, None]
    assert [row["_model"] is None for row in rows] == [False, False, True, True, False, True]


def test_a_good_answer_stands_over_failures(tmp_path: Path) -> None:
    """Whichever came first; and the cost is that of all attempts."""
    job = work(tmp_path, text=["a", "b"])
    job.ask()
    collecting = Collecting(job.state)
    first = collecting.batch([Slice(0, 2)], [answer(0, "bad"), label(1, "B")])
    collecting.batch(first.retry, [label(0, "A", attempt=2)])
    collecting.batch([Slice(1, 2, 2, 1)], [final(1, attempt=2)])
    collecting.publish(job)
    rows = output(job)
    assert [(row["label"], row["_status"], row["_error"]) for row in rows] == [("A", "ok", None), ("B", "ok", None)]
    assert [row["_cost_usd"] for row in rows] == [2 * COST, COST]
    assert [row["_attempts"] for row in rows] == [2, 2]


def test_the_oldest_good_answer_stands(tmp_path: Path) -> None:
    """A value that somebody has read doesn't change."""
    job = work(tmp_path, text=["a"])
    job.ask()
    collecting = Collecting(job.state)
    collecting.batch([Slice(0, 1)], [label(0, "first")])
    collecting.batch([Slice(0, 1, 2)], [label(0, "second", attempt=2)])
    collecting.publish(job)
    assert output(job)[0]["label"] == "first"
    assert output(job)[0]["_cost_usd"] == 2 * COST


def test_the_newest_of_several_failures_is_told(tmp_path: Path) -> None:
    """What was wrong last is what has to be mended."""
    job = work(tmp_path, text=["a"])
    job.ask()
    collecting = Collecting(job.state)
    result = collecting.batch([Slice(0, 1)], [answer(0, "bad")])
    collecting.batch(result.retry, [final(0, attempt=2)])
    collecting.publish(job)
    (row,) = output(job)
    assert (row["_status"], row["_error"], row["_attempts"]) == ("failed", "content_policy: refused", 2)


def test_requests_of_rows_that_left_are_not_on_the_rows(tmp_path: Path) -> None:
    """What they cost is in the ledger and on no row."""
    job = work(tmp_path, text=["gone", "stays"])
    job.ask()
    collecting = Collecting(job.state)
    collecting.batch([Slice(0, 2)], [label(0, "G"), label(1, "S")])
    parquet(job.input, {"text": ["stays", "new"]})
    job.ask()
    held = collecting.publish(job)
    assert [(row["label"], row["_status"]) for row in output(job)] == [("S", "ok"), (None, "pending")]
    spent = collecting.ledger.spent()
    assert spent is not None
    assert to_usd(spent - held.rows_cost) == COST


def test_what_is_not_known_is_null(tmp_path: Path) -> None:
    """An answer without usage, and an unpriced model, cost null and not nothing, on duplicates too."""
    job = work(tmp_path, text=["a", "a"])
    job.ask()
    unmetered = Collecting(job.state)
    unmetered.batch([Slice(0, 1)], [label(0, "A", usage=None)])
    unmetered.publish(job)
    assert [(row["_cost_usd"], row["_input_tokens"], row["label"]) for row in output(job)] == [(None, None, "A")] * 2
    unpriced = Collecting(job.state, price=UNPRICED)
    unpriced.batch([Slice(0, 1)], [label(0, "A")])
    unpriced.publish(job)
    assert [(row["_cost_usd"], row["_input_tokens"]) for row in output(job)] == [(None, 100), (None, 0)]


def test_nothing_collected_is_an_output_too(tmp_path: Path) -> None:
    """All pending, with every column."""
    job = work(tmp_path, text=["a", "b"])
    job.ask()
    held = Collecting(job.state).publish(job)
    assert dict(held.statuses) == {"pending": 2}
    assert [row["label"] for row in output(job)] == [None, None]


@pytest.mark.parametrize("skip", [(), ("text",)])
def test_an_input_without_rows_has_an_output_without_rows(tmp_path: Path, skip: tuple[str, ...]) -> None:
    """With all columns and types."""
    job = work(tmp_path, text=pa.array([], pa.large_string()))
    job.ask(skip_empty=skip)
    collecting = Collecting(job.state)
    assert collecting.publish(job).rows == 0
    found = pq.read_table(job.state.output)
    assert found.num_rows == 0
    assert found.schema.names == ["text", "label", *STATUS_COLUMNS]


def test_a_limit_publishes_that_many_rows(tmp_path: Path) -> None:
    """The output of `--limit` holds the rows that were looked at."""
    job = work(tmp_path, text=["a", "b", "c"])
    job.ask(limit=2)
    assert Collecting(job.state).publish(job, limit=2).rows == 2
    assert [row["text"] for row in output(job)] == ["a", "b"]


AT = datetime(2026, 4, 1, 12, tzinfo=UTC)
ROWS = 3
COLUMNS: dict[str, pa.Array] = {
    "text": pa.array(["a", "b", None]),
    "nested": pa.array([{"x": [1, None], "y": {"z": "q"}}, None, {"x": [], "y": None}]),
    "decimal": pa.array([Decimal("1.50"), None, Decimal("-9.99")], pa.decimal128(9, 2)),
    "decimal256": pa.array([Decimal("1.50"), None, Decimal("-9.99")], pa.decimal256(50, 2)),
    "zone": pa.array([AT, None, AT], pa.timestamp("us", "Europe/Berlin")),
    "nanoseconds": pa.array([1, None, 2**60], pa.timestamp("ns")),
    "milliseconds": pa.array([1, None, 3], pa.timestamp("ms")),
    "far": pa.array([2**60, None, 0], pa.timestamp("us")),
    "date": pa.array([1, None, 3], pa.date32()),
    "time": pa.array([1, None, 3], pa.time64("ns")),
    "duration": pa.array([1, None, 3], pa.duration("ns")),
    "dictionary": pa.array(["a", None, "a"]).dictionary_encode(),
    "ordered": pa.DictionaryArray.from_arrays(pa.array([1, None, 0], pa.int8()), ["lo", "hi"], ordered=True),
    "large_string": pa.array(["a", None, ""], pa.large_string()),
    "large_binary": pa.array([b"\xff", None, b""], pa.large_binary()),
    "string_view": pa.array(["a" * 30, None, ""], pa.string_view()),
    "binary_view": pa.array([b"\xff" * 30, None, b""], pa.binary_view()),
    "fixed": pa.array([b"ab", None, b"cd"], pa.binary(2)),
    "nulls": pa.nulls(ROWS),
    "null_int": pa.nulls(ROWS, pa.int16()),
    "list": pa.array([["a", None], None, []], pa.list_(pa.string())),
    "large_list": pa.array([[1], None, []], pa.large_list(pa.int8())),
    "fixed_list": pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int8(), 2)),
    "map": pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int64())),
    "half": pa.array([1.5, None, float("nan")], pa.float16()),
    "unsigned": pa.array([2**64 - 1, None, 0], pa.uint64()),
    "uuid": pa.array([b"0" * 16, None, b"1" * 16], pa.uuid()),
    "not_utf8": pa.StringArray.from_buffers(
        ROWS, pa.py_buffer(b"\0\0\0\0\1\0\0\0\1\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")
    ),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_a_column_of_the_input_is_not_changed(tmp_path: Path, kind: str) -> None:
    """Neither its type nor a value, nor what the schema says of it."""
    field = pa.field(kind, COLUMNS[kind].type, metadata={"unit": "ü"})
    key = pa.field("key", pa.int64(), nullable=False)
    schema = pa.schema([field, key], metadata={"owner": "data", "pandas": "{}"})
    table = pa.Table.from_arrays([COLUMNS[kind], pa.array(range(ROWS))], schema=schema)
    job = Work(tmp_path, parquet(tmp_path / "in.parquet", table))
    job.ask("{{ key }}")
    collecting = Collecting(job.state)
    collecting.batch([Slice(0, 3)], [label(1, "B")])
    collecting.publish(job)
    before, after = pq.ParquetFile(job.input), pq.ParquetFile(job.state.output)
    assert after.schema_arrow.field(0).equals(before.schema_arrow.field(0), check_metadata=True)
    assert after.schema_arrow.field(1).equals(before.schema_arrow.field(1), check_metadata=True)
    assert after.schema_arrow.metadata == before.schema_arrow.metadata
    assert after.schema_arrow.names[:2] == before.schema_arrow.names
    (got,), (expected,) = after.iter_batches(columns=[kind]), before.iter_batches(columns=[kind])
    first, second = got.column(0), expected.column(0)
    assert first.equals(second) or str(first) == str(second)  # NaN equals nothing, and reads like itself


def test_pandas_reads_the_output_as_it_reads_the_input(tmp_path: Path) -> None:
    """With its index and categories, and the new columns beside them."""
    frame = pd.DataFrame({"text": ["a", "b"], "kind": pd.Categorical(["x", "y"])}, index=pd.Index([7, 9], name="id"))
    path = tmp_path / "in.parquet"
    frame.to_parquet(path)
    job = Work(tmp_path, path)
    job.ask()
    collecting = Collecting(job.state)
    collecting.batch([Slice(0, 2)], [label(0, "A"), label(1, "B")])
    collecting.publish(job)
    found = pd.read_parquet(job.state.output)
    pd.testing.assert_frame_equal(found[["text", "kind"]], frame)
    assert list(found["label"]) == ["A", "B"]
    assert list(found["_cost_usd"]) == [COST, COST]


def test_an_exception_leaves_the_old_output(tmp_path: Path) -> None:
    """Half an output is not published, and nothing lies about."""
    job = work(tmp_path, text=["a", "b"])
    job.ask()
    collecting = Collecting(job.state)
    collecting.batch([Slice(0, 2)], [label(0, "A"), label(1, "B")])
    collecting.publish(job)
    before, names = job.state.output.read_bytes(), sorted(path.name for path in tmp_path.iterdir())
    collecting.part(1).write_bytes(b"damaged")
    with pytest.raises(pa.ArrowInvalid):
        collecting.publish(job)
    assert job.state.output.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_an_orphan_of_a_crash_is_never_counted(tmp_path: Path) -> None:
    """A part whose batch the ledger doesn't call collected is not read."""
    job = work(tmp_path, text=["a"])
    job.ask()
    collecting = Collecting(job.state)
    collecting.batch([Slice(0, 1)], [label(0, "A")])
    collecting.events.pop()
    held = collecting.publish(job)
    assert dict(held.statuses) == {"pending": 1}


def test_every_type_of_answer_is_a_column(tmp_path: Path) -> None:
    """Enum, list, integer, number, object and what has no type; renamed where the job says so."""
    fields: dict[str, Any] = {
        "enum": {"enum": ["a"]},
        "list": {"type": "array", "items": {"type": "integer"}},
        "integer": {"type": "integer"},
        "number": {"type": "number"},
        "boolean": {"type": "boolean"},
        "object": {"type": "object", "properties": {"x": {"type": "array", "items": {"type": "string"}}}},
        "anything": {},
    }
    said = (
        '{"enum": "a", "list": [1], "integer": 2, "number": 3, "boolean": true, "object": {"x": []}, "anything": [1]}'
    )
    job = work(tmp_path, text=["a", "b"])
    job.ask()
    collecting = Collecting(job.state, fields)
    collecting.batch([Slice(0, 2)], [answer(0, said)])
    collecting.publish(job, rename={"enum": "renamed", "_status": "state"})
    found = pq.read_table(job.state.output)
    types = [str(found.schema.field(name).type) for name in ("renamed", *list(fields)[1:])]
    assert types[0] == "string"
    assert types[1].startswith("list<")
    assert types[2:5] == ["int64", "double", "bool"]
    assert types[5].startswith("struct<x: list<")
    assert types[6] == "string"
    first, second = found.to_pylist()
    assert [first[name] for name in ("renamed", "list", "integer", "number", "object", "anything", "state")] == [
        "a",
        [1],
        2,
        3.0,
        {"x": []},
        "[1]",
        "ok",
    ]
    assert [second[name] for name in ("renamed", "list", "object", "state")] == [None, None, None, "pending"]


def test_many_rows_over_many_windows_and_parts(tmp_path: Path) -> None:
    """Windows, row groups and batches end at different places, batches come in any order, and each row gets its own."""
    rows, distinct, size = 40_000, 25_000, 3_000
    dice = Random(3)  # noqa: S311  # a test's dice
    order = [dice.randrange(distinct) for _ in range(rows)]
    job = work(tmp_path, text=[f"t{n}" for n in order])
    plan = job.ask()
    numbers = job.requests()
    text_of = dict(zip(numbers, order, strict=True))
    collecting = Collecting(job.state)
    starts = list(range(0, plan.requests, size))
    dice.shuffle(starts)
    for start in starts:
        stop = min(start + size, plan.requests)
        answers = [label(n, f"L{text_of[n]}") for n in range(start, stop) if n % 10]
        dice.shuffle(answers)
        collecting.batch([Slice(start, stop)], answers)
    held = collecting.publish(job)
    found = pq.read_table(job.state.output)
    expected = [
        f"L{n}" if number is not None and number % 10 else None for n, number in zip(order, numbers, strict=True)
    ]
    assert found.column("label").to_pylist() == expected
    assert held.rows_cost == collecting.ledger.spent()
    assert sum(cost for cost in found.column("_cost_usd").to_pylist() if cost is not None) == to_usd(held.rows_cost)


def test_a_final_request_that_was_reopened_is_pending(tmp_path: Path) -> None:
    """`--retry-failed` gives it a new allowance; until then it shows what was wrong."""
    job = work(tmp_path, text=["a"])
    job.ask()
    collecting = Collecting(job.state, LABEL)
    result = collecting.batch([Slice(0, 1)], [final(0)])
    collecting.events.append(histories.reopened(*[piece._replace(attempt=2, used=0) for piece in result.final]))
    collecting.publish(job)
    assert [(row["_status"], row["_error"]) for row in output(job)] == [("pending", "content_policy: refused")]


def test_a_large_dictionary_makes_neither_small_windows_nor_small_row_groups(tmp_path: Path) -> None:
    """Every piece of a dictionary column has the whole dictionary: it counts for what its rows use of it."""
    rows, entries = 40_000, [f"{n} {'x' * 190}" for n in range(4_000)]
    texts = pa.DictionaryArray.from_arrays(pa.array([n * 7 % len(entries) for n in range(rows)], pa.int32()), entries)
    job = work(tmp_path, text=texts)
    plan = job.ask()
    assert len(list(job.question.source.windows(["text"]))) <= 5
    assert plan.requests == len(entries)
    assert pq.read_metadata(*generations(job.state.requests)).num_row_groups == 1
    Collecting(job.state).publish(job)
    with pq.ParquetFile(job.state.output) as written:
        assert written.num_row_groups == 1
        assert written.schema_arrow.field("text").type == texts.type
        assert written.read(["text"]).column("text").to_pylist() == texts.to_pylist()

"""Planning: numbers in order of first appearance, duplicates share, nothing is frozen twice."""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blocks.errors import StateError, UsageError
from flows.storage.plan import VALUE, read_plan, wanted_requests
from flows.storage.planner import make_plan
from flows.storage.sealing import seal_of
from flows.storage.source import Source
from flows.storage.where import NOT_SELECTED
from tests.flows.domain.numbers import from_numbers
from tests.flows.storage.building import Work, generations, known, parquet, question


def work(folder: Path, **columns: Any) -> Work:
    return Work(folder, parquet(folder / "in.parquet", columns))


def test_numbers_follow_the_first_appearance_and_duplicates_share(tmp_path: Path) -> None:
    """A request for each distinct text, in the order in which the texts come."""
    job = work(tmp_path, text=["b", "a", "b", None, "", "a", "c", None])
    plan = job.ask()
    assert job.requests() == [0, 1, 0, 2, 3, 1, 4, 2]
    assert [row["first"] for row in job.rows()] == [True, True, False, True, True, False, True, False]
    assert (plan.rows, plan.requests, plan.start, plan.stop, known(plan), plan.duplicates) == (8, 5, 0, 5, 0, 3)
    assert list(wanted_requests(job.state.rows, "100MB")) == [(0, 5)]


def test_what_is_frozen_is_what_the_prompt_uses(tmp_path: Path) -> None:
    """Columns that the prompt doesn't use are no part of a request."""
    job = work(tmp_path, text=["a", "a", "b"], other=[1, 2, 3])
    job.ask()
    (frozen,) = generations(job.state.requests)
    assert [name for name in pq.read_schema(frozen).names if name.startswith(VALUE)] == [f"{VALUE}text"]
    assert pq.read_table(frozen).column(f"{VALUE}text").to_pylist() == ["a", "b"]


def test_a_second_plan_freezes_only_what_is_new(tmp_path: Path) -> None:
    """The next night's rows get numbers after the last one's; what is known keeps its own."""
    job = work(tmp_path, text=["a", "b", "c"])
    job.ask()
    parquet(job.input, {"text": ["c", "x", "a", "y", "x"]})
    plan = job.ask()
    assert job.requests() == [2, 3, 0, 4, 3]
    assert (plan.start, plan.stop, known(plan), plan.requests) == (3, 5, 2, 4)
    assert [path.stem for path in generations(job.state.requests)] == ["000000000000", "000000000003"]
    assert list(wanted_requests(job.state.rows, "100MB")) == [(0, 1), (2, 5)]


def test_nothing_new_makes_no_generation(tmp_path: Path) -> None:
    """The same rows in another order are the same requests."""
    job = work(tmp_path, text=["a", "b"])
    job.ask()
    parquet(job.input, {"text": ["b", "b", "a"]})
    plan = job.ask()
    assert (plan.start, plan.stop, known(plan)) == (2, 2, 2)
    assert len(generations(job.state.requests)) == 1


def test_columns_in_another_order_are_the_same_question(tmp_path: Path) -> None:
    """An input whose columns moved asks nothing new, and its frozen values still go where they belong."""
    job = work(tmp_path, a=["1", "3"], b=["2", "4"])
    job.ask("{{ a }}-{{ b }}")
    parquet(job.input, {"b": ["2", "6"], "x": [0, 0], "a": ["1", "5"]})
    plan = job.ask("{{ a }}-{{ b }}")
    assert job.requests() == [0, 2]
    assert known(plan) == 1


def test_a_limit_first_and_all_of_it_later(tmp_path: Path) -> None:
    """`--limit 1` is the first step; the next run extends it."""
    job = work(tmp_path, text=["a", "b", "a", "c"])
    first = job.ask(limit=1)
    assert (first.rows, first.total_rows, first.requests, job.requests()) == (1, 4, 1, [0])
    assert known(job.ask(limit=3)) == 1
    assert job.requests() == [0, 1, 0]
    assert known(job.ask()) == 2
    assert job.requests() == [0, 1, 0, 2]


def test_blank_rows_are_skipped_with_the_reason(tmp_path: Path) -> None:
    """Null, empty or white space: nothing is sent for them, unless the job wants it."""
    job = work(tmp_path, text=["a", None, "  \n", ""], title=["t", "t", "t", None])
    plan = job.ask("{{ text }}{{ title }}", skip_empty=("text", "title"))
    assert job.requests() == [0, None, None, None]
    assert [row["skipped"] for row in job.rows()] == [None, "text is empty", "text is empty", "title is empty"]
    assert (plan.skipped, plan.requests, plan.duplicates) == (3, 1, 0)


def test_a_skipped_row_is_never_the_first_of_its_request(tmp_path: Path) -> None:
    """The first row that asks carries the cost, not one that asks for nothing."""
    job = work(tmp_path, text=["a", "a", "a"], n=[None, 1, 1])
    job.ask(skip_empty=("n",))
    assert [(row["request"], row["first"]) for row in job.rows()] == [(None, False), (0, True), (0, False)]


def test_a_condition_selects_rows(tmp_path: Path) -> None:
    """Rows that it leaves out come out as such; a null is not selected."""
    job = work(tmp_path, text=["a", "b", "c", "d"], stars=[5, 1, None, 4], **{"odd name": ["x", "y", "z", "it's"]})
    job.ask(where="stars >= 4 -- good ones")
    assert job.requests() == [0, None, None, 1]
    assert [row["skipped"] for row in job.rows()] == [None, NOT_SELECTED, NOT_SELECTED, None]
    job.ask(where="\"odd name\" = 'it''s'")
    assert job.requests() == [None, None, None, 1]
    job.ask(where="false")
    assert job.requests() == [None] * 4


NAMES = {
    "part[1].parquet": "part1.parquet",
    "a*.parquet": "ab.parquet",
    "what?.parquet": "whatX.parquet",
    "{a,b}.parquet": "a.parquet",
    "it's.parquet": "its.parquet",
    "ä ö.parquet": "o.parquet",
}


@pytest.mark.parametrize(("name", "matched"), NAMES.items(), ids=NAMES)
def test_any_file_name_will_do(tmp_path: Path, name: str, matched: str) -> None:
    """A name that reads like a pattern is a name, for the input and for the state beside the output."""
    wrong = Work(
        tmp_path / f"for {matched}" / "request=7",
        parquet(tmp_path / matched, {"text": ["wrong", "wrong", "wrong"], "n": [1, 1, 1]}),
    )
    wrong.ask()
    job = Work(
        tmp_path / f"for {name}" / "request=7", parquet(tmp_path / name, {"text": ["a", "b", "a"], "n": [0, 1, 1]})
    )
    job.ask(where="n = 1")
    assert job.requests() == [None, 0, 1]
    job.ask()
    assert job.requests() == [1, 0, 1]
    assert list(wanted_requests(job.state.rows, "100MB")) == [(0, 2)]


def test_a_row_that_can_not_be_rendered_is_known_before_anything_is_sent(tmp_path: Path) -> None:
    """It has no request, comes out with the reason, and leaves no gap in the numbers."""
    job = work(tmp_path, n=[5, 0, 2, 0])
    plan = job.ask("{{ 10 // n }}")
    assert job.requests() == [0, None, 1, None]
    assert all("could not be rendered" in row["unsendable"] for row in job.rows() if row["request"] is None)
    assert [row["first"] for row in job.rows()] == [True, False, True, False]
    assert (plan.unsendable, plan.requests, plan.stop, plan.duplicates) == (2, 2, 2, 0)


def test_a_request_that_the_provider_does_not_take_is_known_before(tmp_path: Path) -> None:
    """With both numbers, so that the user can tell which limit it was."""
    job = work(tmp_path, text=["a" * 50, "b" * 500, "c" * 50, "b" * 500])
    plan = job.ask(max_request_bytes=200)
    assert job.requests() == [0, None, 1, None]
    assert "the provider accepts at most 200" in job.rows()[1]["unsendable"]
    assert plan.unsendable == 2


def test_nothing_that_can_be_sent_makes_no_generation(tmp_path: Path) -> None:
    """A plan may find no request at all."""
    job = work(tmp_path, n=[0, 0])
    plan = job.ask("{{ 1 // n }}")
    assert (plan.requests, plan.unsendable, generations(job.state.requests)) == (0, 2, [])


def test_no_rows_are_a_plan(tmp_path: Path) -> None:
    """An empty input asks for nothing."""
    job = work(tmp_path, text=pa.array([], pa.string()))
    plan = job.ask()
    assert (plan.rows, plan.requests, job.rows()) == (0, 0, [])
    assert read_plan(job.state.rows, job.question, seal_of(job.state.rows)) == plan


def test_a_generation_without_its_plan_is_known(tmp_path: Path) -> None:
    """A process that died between the two leaves requests that the next plan counts on from."""
    job = work(tmp_path, text=["a", "b"])
    job.ask()
    job.state.rows.unlink()
    plan = job.ask()
    assert (job.requests(), known(plan), plan.start) == ([0, 1], 2, 2)


def test_a_plan_that_fails_leaves_no_trace(tmp_path: Path) -> None:
    """Neither half a generation nor its scratch space."""
    job = work(tmp_path, text=["a", "b"], bad=pa.array([0, 2**60], pa.timestamp("us")))
    with pytest.raises(UsageError):
        job.ask("{{ text }}{{ bad }}")
    assert generations(job.state.requests) == []
    assert not job.state.rows.exists()
    assert [path.name for path in job.state.path.rglob("*") if path.is_file()] == []


AT = datetime(2026, 4, 1, 12, tzinfo=UTC)
TYPES: dict[str, pa.Array] = {
    "timestamp with zone": pa.array([AT, AT, None], pa.timestamp("us", "Europe/Berlin")),
    "nanoseconds": pa.array([1, 1, 2], pa.timestamp("ns")),
    "duration": pa.array([1, 1, 1001], pa.duration("ns")),
    "decimal": pa.array([Decimal("1.50"), Decimal("1.50"), None], pa.decimal128(9, 2)),
    "decimal256": pa.array([Decimal("1.50"), Decimal("1.50"), None], pa.decimal256(50, 2)),
    "list": pa.array([["a", None], ["a", None], []], pa.list_(pa.string())),
    "struct": pa.array([{"x": 1, "y": "z"}, {"x": 1, "y": "z"}, {"x": None, "y": "z"}]),
    "map": pa.array([[("k", 1)], [("k", 1)], []], pa.map_(pa.string(), pa.int64())),
    "dictionary": pa.array(["a", "a", "b"]).dictionary_encode(),
    "large_string": pa.array(["a", "a", "b"], pa.large_string()),
    "string_view": pa.array(["a" * 20, "a" * 20, "b"], pa.string_view()),
    "list of views": pa.array([["a" * 20], ["a" * 20], ["b"]], pa.list_(pa.string_view())),
    "binary": pa.array([b"\xff\x00", b"\xff\x00", b""], pa.binary()),
    "binary_view": pa.array([b"\xff\x00", b"\xff\x00", b""], pa.binary_view()),
    "float": pa.array([float("nan"), float("nan"), 0.5]),
    "half": pa.array([1.5, 1.5, None], pa.float16()),
    "date": pa.array([1, 1, None], pa.date32()),
    "time": pa.array([1000, 1000, None], pa.time64("ns")),
    "boolean": pa.array([True, True, None]),
    "unsigned": pa.array([2**64 - 1, 2**64 - 1, 0], pa.uint64()),
    "uuid": pa.array([b"0" * 16, b"0" * 16, None], pa.uuid()),
    "fixed list": pa.array([[1, 2], [1, 2], [3, 4]], pa.list_(pa.int8(), 2)),
}


@pytest.mark.parametrize("kind", TYPES)
def test_a_prompt_may_use_any_type(tmp_path: Path, kind: str) -> None:
    """Equal values share a request, and what is frozen renders as the input did."""
    job = work(tmp_path, value=TYPES[kind])
    plan = job.ask("{{ value }}")
    assert job.requests() == [0, 0, 1]
    read = Source.open(job.input)
    (window,) = read.files[0].windows()
    frozen = pq.read_table(generations(job.state.requests)[0]).column(f"{VALUE}value").to_pylist()
    assert repr(frozen) == repr([window.column("value").to_pylist()[at] for at in (0, 2)])
    assert plan.first_prompt is not None


def test_a_column_of_nulls_is_one_request(tmp_path: Path) -> None:
    """Even where it has no type at all."""
    job = work(tmp_path, value=pa.nulls(3))
    job.ask("<{{ value }}>")
    assert job.requests() == [0, 0, 0]


def test_columns_may_be_called_as_our_own(tmp_path: Path) -> None:
    """`hi`, `request`, `row`, `first` and names with blanks, dots and quotes."""
    names = ["hi", "lo", "request", "row", "first", "bytes", "chunk", "a b", "a.b", "a", 'q"q', "value:a", "loop", "ä"]
    job = work(tmp_path, **{name: [f"{name}1", f"{name}2", f"{name}1"] for name in names})
    plan = job.ask("".join(f"{{{{ row[{name!r}] }}}}|" for name in names), skip_empty=("a.b",))
    assert job.requests() == [0, 1, 0]
    assert plan.first_prompt == "".join(f"{name}1|" for name in names)


texts = st.lists(st.sampled_from(["a", "b", "", None, "ab", "a\x00", "ä", "🙂"]), max_size=12)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(texts, min_size=1, max_size=4), st.integers(1, 6))
def test_plans_over_any_history(
    tmp_path_factory: pytest.TempPathFactory, nights: list[list[str | None]], limit: int
) -> None:
    """Each text has one number for ever, numbers have no gaps, and no plan knows less than the one before."""
    folder = tmp_path_factory.mktemp("work")
    numbers: dict[str | None, int] = {}
    for night, rows in enumerate(nights):
        job = Work(folder, parquet(folder / "in.parquet", {"text": pa.array(rows, pa.string())}))
        most = limit if night % 2 else None
        plan = job.ask(limit=most)
        for text in rows[:most]:
            numbers.setdefault(text, len(numbers))
        assert job.requests() == [numbers[text] for text in rows[:most]]
        assert plan.stop == len(numbers)
        if plan.requests:
            asked = {numbers[text] for text in rows[:most]}
            assert list(wanted_requests(job.state.rows, "100MB")) == from_numbers(sorted(asked))


def test_fifty_thousand_rows_keep_their_order(tmp_path: Path) -> None:
    """Over many windows and row groups, with duplicates that are far apart."""
    rows = 50_000
    texts = [f"review {n % 30_000}" for n in range(rows)]
    job = work(tmp_path, text=texts)
    plan = job.ask()
    assert job.requests() == [n % 30_000 for n in range(rows)]
    assert (plan.requests, plan.duplicates) == (30_000, 20_000)


def test_dictionaries_that_change_from_group_to_group(tmp_path: Path) -> None:
    """Each row group of the input has a dictionary of its own."""
    pieces = [pa.array([f"{part}-{n % 3}" for n in range(9_000)]).dictionary_encode() for part in range(3)]
    path = tmp_path / "in.parquet"
    with pq.ParquetWriter(path, pa.schema([("text", pieces[0].type), ("n", pa.int64())])) as writer:
        for piece in pieces:
            writer.write_table(pa.table({"text": piece, "n": list(range(9_000))}))
    job = Work(tmp_path, path)
    plan = job.ask()
    assert (plan.requests, job.requests()[::9_000]) == (9, [0, 3, 6])
    assert job.ask("{{ text }}{{ n }}").requests == 27_000


def test_too_little_memory_says_which_option_gives_more(tmp_path: Path) -> None:
    """Not DuckDB's own words."""
    job = work(tmp_path, n=list(range(120_000)))
    job.question = question(job.input, "{{ n }}")
    with pytest.raises(StateError) as caught:
        make_plan(job.question, [], job.state.requests, job.state.rows, memory="1MB")
    assert "--memory-limit" in caught.value.next_step


def test_planning_needs_little_memory_for_large_inputs(tmp_path: Path) -> None:
    """Keys that don't fit into DuckDB's memory go to disk."""
    job = work(tmp_path, n=list(range(120_000)))
    job.question = question(job.input, "{{ n }}")
    plan = make_plan(job.question, [], job.state.requests, job.state.rows, memory="50MB")
    assert plan.requests == 120_000
    assert job.requests() == list(range(120_000))

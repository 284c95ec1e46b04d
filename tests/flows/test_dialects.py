"""The pipeline's fault cases in every dialect: each row comes out, and every token is paid once and counted."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import stamina

from blocks.batch import LONGER, BatchPhase, BatchStatus
from blocks.catalog import PROVIDERS
from blocks.emulator import EmulatorOptions, running_emulator
from blocks.errors import BatchRefused, NotFound, UnknownOutcome
from blocks.providers.calls import Calls
from blocks.retries import ATTEMPTS
from blocks.transport import Transport
from flows.domain.batches import State
from flows.domain.events import Collected, Event, Refused, Submitting
from flows.domain.ledger import Ledger
from flows.report.figures import Figures
from flows.report.verdict import Exit
from flows.storage.journal import read_events
from flows.storage.state import StateDirectory
from tests.flows.undecorated import JOB, cancel, emulator_ledger, enrich, reviews, write_job, write_texts
from tests.price_table import row_of

MODELS = {
    "holysheep": "gpt-4.1",
    "openai": "gpt-4.1-mini",
    "anthropic": "claude-haiku-4-5",
    "mistral": "mistral-small-latest",
    "gemini": "gemini-2.5-flash",
}
DIALECTS = list(MODELS)
LIMIT = 400  # output tokens: more than the emulator ever writes or thinks
LIMITED_JOB = JOB + f"max_output_tokens: {LIMIT}\n"
LIMITED = ["openai", "anthropic", "mistral", "gemini"]  # HolySheep's requests have no limit of output tokens
SAYING_TOO_LARGE = ["holysheep", "openai", "anthropic", "mistral"]  # Gemini's 400 tells it in its words alone
ECHO = {"gemini": 64}  # tokens that a request may have beyond its limit, for what its answer repeats
KEY = "a-key-for-tests"
PAID_AGAIN = """SELECT count(*) FROM billed AS later JOIN billed AS earlier
    USING (prompt_hash, model) WHERE earlier.valid AND earlier.number < later.number"""

QUICK = {"holysheep", "anthropic", "gemini"}  # the others' ways are like these; the slow tests take them all


def each_of(dialects: list[str], quick: set[str] = QUICK) -> pytest.MarkDecorator:
    """A case for each dialect, those that tell least new among the slow tests."""
    cases = [pytest.param(each, marks=[] if each in quick else [pytest.mark.slow]) for each in dialects]
    return pytest.mark.parametrize("dialect", cases)


every_dialect = each_of(DIALECTS)


@pytest.fixture(autouse=True)
def no_pauses() -> Iterator[None]:
    """Calls are repeated as often as in earnest, without waiting."""
    with stamina.set_testing(True, attempts=ATTEMPTS):
        yield


def call(folder: Path, dialect: str, rows: int = 12, *, job: str = JOB, **more: Any) -> dict[str, Any]:
    """A run on the embedded emulator; what is no parameter of the flow is a switch of the emulator."""
    known = {"batch_size", "max_attempts", "wait", "limit", "max_in_flight", "retry_failed"}
    parameters = {name: value for name, value in more.items() if name in known}
    switches = {name: str(value) for name, value in more.items() if name not in known}
    return {
        "input": write_texts(folder, reviews(rows)),
        "output": folder / "out.parquet",
        "job": write_job(folder, job),
        "model": MODELS[dialect],
        "options": {"dialect": dialect, **switches},
        **parameters,
    }


def output_of(folder: Path) -> pa.Table:
    return pq.read_table(folder / "out.parquet")


def journal_of(folder: Path) -> list[Event]:
    return read_events(StateDirectory(folder / "out.parquet").journal)


def books(folder: Path, sql: str) -> list[tuple[Any, ...]]:
    return emulator_ledger(folder / "out.parquet", sql)


def check_paid_once(folder: Path, rows: int) -> None:
    """Every question was answered and billed once."""
    assert books(folder, "SELECT count(*), count(DISTINCT prompt_hash) FROM billed") == [(rows, rows)]


# --- rows -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("structured", ["json_object", "prompt"])
def test_a_shape_that_is_said_in_words_is_answered(tmp_path: Path, structured: str) -> None:
    """For compatible services that take no schema; another way to say it is another question."""
    switches = {"structured": structured, "token_limit": "max_tokens"}
    assert enrich(**call(tmp_path, "openai", 3, **switches)).rows == {"ok": 3}
    assert enrich(**call(tmp_path, "openai", 3)).attempts == 3


@pytest.mark.parametrize(
    ("dialect", "switches"),
    [*((name, {}) for name in DIALECTS), ("openai", {"endpoint": "/v1/responses"}), ("mistral", {"inline": "never"})],
)
def test_a_correction_is_taken_by_strict_servers(tmp_path: Path, dialect: str, switches: dict[str, str]) -> None:
    """Those whose chat templates want the roles to alternate: the reason is part of the one message."""
    figures = enrich(**call(tmp_path, dialect, 5, invalid_rate=1, alternating=1, **switches))
    assert figures.rows == {"ok": 5}
    assert figures.outcomes["ok"] == 5
    again = [prompt for (prompt,) in books(tmp_path, "SELECT prompt FROM requests WHERE attempt = 2")]
    assert again
    assert all("Your previous answer was rejected: " in prompt for prompt in again) or dialect == "gemini"


@every_dialect
def test_failures_and_invalid_answers_go_again_until_ok(tmp_path: Path, dialect: str) -> None:
    """Failed, timed out, missing, unexplained and broken ones; what was answered well is never asked again."""
    rates: dict[str, Any] = dict.fromkeys(
        ["failure_rate", "invalid_rate", "missing_rate", "unexplained_rate", "timeout_rate"], 0.15
    )
    figures = enrich(**call(tmp_path, dialect, 40, seed=2, **rates))
    assert figures.rows == {"ok": 40}
    assert figures.outcomes["ok"] == 40
    assert {"failed", "missing", "rejected"} <= set(figures.outcomes)
    assert books(tmp_path, PAID_AGAIN) == [(0,)]


@every_dialect
def test_a_refusal_is_final_and_says_so(tmp_path: Path, dialect: str) -> None:
    """The same question would be refused again: it is asked once. Mistral's refusals look like any wrong answer."""
    figures = enrich(**call(tmp_path, dialect, 8, refusal_rate=1))
    reasons = {reason.partition(":")[0] for reason in output_of(tmp_path).column("_error").to_pylist()}
    known = {
        "holysheep": {"content_policy"},
        "openai": {"refusal"},
        "anthropic": {"refusal"},
        "mistral": {"the answer is not JSON"},
        "gemini": {"SAFETY", "PROHIBITED_CONTENT"},
    }
    assert figures.rows == {"failed": 8}
    assert reasons <= known[dialect]
    assert figures.attempts == (24 if dialect == "mistral" else 8)


@each_of(LIMITED)
def test_an_answer_that_was_cut_off_goes_again_with_a_larger_limit(tmp_path: Path, dialect: str) -> None:
    """The provider's books show what was asked for: four times the tokens, once."""
    figures = enrich(**call(tmp_path, dialect, 6, job=LIMITED_JOB, length_rate=1))
    assert figures.rows == {"ok": 6}
    assert figures.outcomes == {"cut_off": 6, "ok": 6}
    more = ECHO.get(dialect, 0)
    sql = "SELECT DISTINCT attempt, max_tokens FROM requests ORDER BY attempt"
    assert books(tmp_path, sql) == [(1, LIMIT + more), (2, LIMIT * LONGER + more)]
    assert figures.money.rejected


@each_of(LIMITED)
def test_an_answer_that_was_cut_off_twice_is_final(tmp_path: Path, dialect: str) -> None:
    """A still larger limit would only cost more."""
    figures = enrich(**call(tmp_path, dialect, 4, job=LIMITED_JOB, length_rate=1, fault_attempts=9, max_attempts=5))
    assert (figures.rows, figures.attempts) == ({"failed": 4}, 8)
    assert all(reason.startswith("length: ") for reason in output_of(tmp_path).column("_error").to_pylist())


@every_dialect
def test_a_line_that_comes_twice_counts_once(tmp_path: Path, dialect: str) -> None:
    """Also in the sums."""
    figures = enrich(**call(tmp_path, dialect, 6, duplicate_rate=1))
    assert figures.rows == {"ok": 6}
    check_money(tmp_path, dialect, figures)


@every_dialect
def test_answers_without_usage_are_counted_and_never_look_free(tmp_path: Path, dialect: str) -> None:
    """Their cost is null, and the report says how many there are."""
    figures = enrich(**call(tmp_path, dialect, 6, unmetered_rate=1))
    assert (figures.rows, figures.unmetered) == ({"ok": 6}, 6)
    assert output_of(tmp_path).column("_cost_usd").null_count == 6
    assert "6 answers came without usage" in StateDirectory(tmp_path / "out.parquet").report("md").read_text()


@every_dialect
def test_a_batch_that_expires_uses_up_no_attempt_and_keeps_what_was_done(tmp_path: Path, dialect: str) -> None:
    """One attempt is all that the rows have; Gemini alone gives nothing of such a batch."""
    figures = enrich(**call(tmp_path, dialect, 16, batch_size=8, max_attempts=1, expire_every=2))
    assert figures.rows == {"ok": 16}
    assert figures.outcomes["expired"] > 0
    check_paid_once(tmp_path, 16)
    first_two = [event for event in journal_of(tmp_path) if isinstance(event, Collected) and event.batch <= 2]
    # Two lanes send them: either may be the second that the provider gets, which expires.
    assert sorted(event.result.ok for event in first_two) == [0 if dialect == "gemini" else 4, 8]


@every_dialect
def test_a_batch_that_fails_as_a_whole_goes_again(tmp_path: Path, dialect: str) -> None:
    """Nothing ran, nothing was paid. At Anthropic such a batch is one whose rows all failed."""
    attempts = 3 if dialect == "anthropic" else 1
    figures = enrich(**call(tmp_path, dialect, 12, batch_size=6, max_attempts=attempts, fail_batch_every=2))
    assert figures.rows == {"ok": 12}
    check_paid_once(tmp_path, 12)


# --- calls ----------------------------------------------------------------------------------------------------------


@every_dialect
@pytest.mark.parametrize(
    "faults",
    [
        {"rate_limit_every": 2, "retry_after": 0.1},
        {"error_rate": 0.3},
        {"unknown_status_every": 1},
        {"cut_every": 2},
        {"drop_every": 2},
    ],
    ids=lambda faults: next(iter(faults)),
)
def test_trouble_with_calls_costs_nothing(tmp_path: Path, dialect: str, faults: dict[str, Any]) -> None:
    """Rate limits, bursts of 503, states that nobody knows, broken downloads, lost creates: all ok, all paid once."""
    figures = enrich(**call(tmp_path, dialect, 12, batch_size=4, **faults))
    assert figures.rows == {"ok": 12}
    check_paid_once(tmp_path, 12)
    check_money(tmp_path, dialect, figures)


@every_dialect
def test_a_lost_batch_that_shows_up_late_is_waited_for(tmp_path: Path, dialect: str) -> None:
    """For as long as a batch may stay invisible an empty list proves nothing."""
    switches: dict[str, Any] = {"drop_every": 1, "visible_after": 0.7}
    if PROVIDERS[dialect].takes("settle"):
        switches["settle"] = 2
    figures = enrich(**call(tmp_path, dialect, 4, **switches))
    assert (figures.rows, figures.batches) == ({"ok": 4}, 1)
    check_paid_once(tmp_path, 4)


@pytest.fixture
def sent_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Something on the way sends the first create twice and loses the answer."""
    left = [1]

    def twice(create: Callable[..., Any]) -> Callable[..., Any]:
        def send(self: Transport, *arguments: Any) -> Any:
            if not left:
                return create(self, *arguments)
            left.clear()
            for _ in range(2):
                create(self, *arguments)
            raise UnknownOutcome("the answer was lost", provider="a test")

        return send

    monkeypatch.setattr(Transport, "create", twice(Transport.create))
    monkeypatch.setattr(Transport, "create_json", twice(Transport.create_json))


def check_copies_are_paid(folder: Path, dialect: str, figures: Figures) -> None:
    assert figures.rows == {"ok": 5}
    assert books(folder, "SELECT count(*), count(DISTINCT prompt_hash) FROM billed") == [(10, 5)]
    check_money(folder, dialect, figures)


@pytest.mark.usefixtures("sent_twice")
@each_of(LIMITED)
def test_a_copy_that_was_made_by_accident_is_counted_as_money(tmp_path: Path, dialect: str) -> None:
    """Both batches are billed, and both are counted."""
    check_copies_are_paid(tmp_path, dialect, enrich(**call(tmp_path, dialect, 5)))


@pytest.mark.usefixtures("sent_twice")
@each_of(LIMITED)
def test_a_copy_that_runs_longer_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dialect: str) -> None:
    """Else what it cost would never be known."""
    looks: dict[str, int] = {}
    poll = Calls.poll

    def slowly(self: Calls, batch_id: str) -> BatchStatus:
        looks[batch_id] = looks.get(batch_id, 0) + 1
        status, is_copy = poll(self, batch_id), batch_id != next(iter(looks))
        return replace(status, phase=BatchPhase.RUNNING) if is_copy and looks[batch_id] < 4 else status

    monkeypatch.setattr(Calls, "poll", slowly)
    check_copies_are_paid(tmp_path, dialect, enrich(**call(tmp_path, dialect, 5)))
    assert len(looks) == 2


@pytest.mark.usefixtures("sent_twice")
@each_of(LIMITED)
def test_a_copy_that_is_not_found_says_nothing_of_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dialect: str
) -> None:
    """The batch itself is followed to its end and read; what the copy cost is not known."""
    looks: list[str] = []
    poll = Calls.poll

    def without_the_copy(self: Calls, batch_id: str) -> BatchStatus:
        looks.append(batch_id)
        if batch_id != looks[0]:
            raise NotFound(f"{batch_id} is not known", provider="a test")
        return poll(self, batch_id)

    monkeypatch.setattr(Calls, "poll", without_the_copy)
    figures = enrich(**call(tmp_path, dialect, 5))
    assert (figures.exit, figures.rows) == (Exit.DONE, {"ok": 5})
    assert books(tmp_path, "SELECT count(*) FROM batches") == [(2,)]
    assert len(set(looks)) == 2


@pytest.mark.usefixtures("sent_twice")
@each_of(LIMITED)
def test_a_copy_of_a_batch_that_failed_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dialect: str) -> None:
    """It was billed, and it has all the answers: nothing is sent again."""
    looks: list[str] = []
    poll = Calls.poll

    def failing(self: Calls, batch_id: str) -> BatchStatus:
        looks.append(batch_id)
        status = poll(self, batch_id)
        is_kept = batch_id == looks[0] and status.phase is BatchPhase.ENDED
        return replace(status, phase=BatchPhase.FAILED, error="an accident") if is_kept else status

    monkeypatch.setattr(Calls, "poll", failing)
    figures = enrich(**call(tmp_path, dialect, 5))
    assert (figures.exit, figures.rows) == (Exit.DONE, {"ok": 5})
    assert books(tmp_path, "SELECT count(*) FROM batches") == [(2,)]
    assert len(set(looks)) == 2


# --- limits ---------------------------------------------------------------------------------------------------------


@contextmanager
def serving(folder: Path, monkeypatch: pytest.MonkeyPatch, dialect: str, **switches: Any) -> Iterator[dict[str, Any]]:
    """An emulator of its own, whose limits the client does not know; yields the parameters that lead to it."""
    monkeypatch.setenv(PROVIDERS[dialect].key_variable, KEY)
    options = EmulatorOptions(dialect=dialect, key=KEY, state=folder / "service.sqlite", **{"latency": 0.0, **switches})
    with running_emulator(options) as emulator:
        yield {
            "output": folder / "out.parquet",
            "job": write_job(folder),
            "provider": dialect,
            "base_url": emulator.base_url,
            "model": MODELS[dialect],
            "poll_interval": 0.05,
        }


def service_books(folder: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(folder / "service.sqlite")) as db:
        return db.execute(sql).fetchall()


@each_of(SAYING_TOO_LARGE)
def test_a_batch_that_the_provider_calls_too_large_is_halved_until_it_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dialect: str
) -> None:
    """It takes fewer bytes than we knew; no row is lost, none is paid twice."""
    with serving(tmp_path, monkeypatch, dialect, max_bytes=5_000) as parameters:
        source = write_texts(tmp_path, reviews(24))
        figures = enrich(input=source, batch_size=24, **parameters)
    assert figures.rows == {"ok": 24}
    refused = [event for event in journal_of(tmp_path) if isinstance(event, Refused)]
    assert refused
    assert all(event.too_large for event in refused)
    assert service_books(tmp_path, "SELECT count(*), count(DISTINCT prompt_hash) FROM billed") == [(24, 24)]


def test_a_batch_of_too_many_requests_is_halved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenAI accepts it first and fails it later, with a code of its own."""
    with serving(tmp_path, monkeypatch, "openai", max_requests=3) as parameters:
        figures = enrich(input=write_texts(tmp_path, reviews(10)), batch_size=10, **parameters)
    assert figures.rows == {"ok": 10}
    assert service_books(tmp_path, "SELECT count(*), count(DISTINCT prompt_hash) FROM billed") == [(10, 10)]


@pytest.mark.parametrize("dialect", ["holysheep", "anthropic", "gemini"])
def test_a_refusal_that_says_no_more_stops_the_run_and_keeps_its_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dialect: str
) -> None:
    """A 400 may mean anything: it is told to the user, who goes on with smaller batches."""
    with serving(tmp_path, monkeypatch, dialect, max_requests=3) as parameters:
        source = write_texts(tmp_path, reviews(10))
        with pytest.raises(BatchRefused, match="at most 3"):
            enrich(input=source, batch_size=10, **parameters)
        figures = enrich(input=source, batch_size=3, **parameters)
    assert figures.rows == {"ok": 10}
    assert service_books(tmp_path, "SELECT count(*), count(DISTINCT prompt_hash) FROM billed") == [(10, 10)]


@each_of(SAYING_TOO_LARGE)
def test_a_single_request_that_is_too_large_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dialect: str
) -> None:
    """With the provider's reason; all others come out."""
    texts = [*reviews(5), "long " * 3_000, *reviews(9)[5:]]
    with serving(tmp_path, monkeypatch, dialect, max_bytes=9_000) as parameters:
        figures = enrich(input=write_texts(tmp_path, texts), batch_size=10, **parameters)
    assert figures.exit is Exit.ROWS_FAILED
    assert output_of(tmp_path).column("_status").to_pylist() == ["ok"] * 5 + ["failed"] + ["ok"] * 4
    assert output_of(tmp_path).column("_error").to_pylist()[5]


def test_rows_wait_where_the_providers_queue_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenAI accepts such a batch first and fails it later; its rows go again when another one has ended."""
    limit = {"max_queued_tokens": 900, "latency": 0.3}
    with serving(tmp_path, monkeypatch, "openai", **limit) as parameters:
        figures = enrich(input=write_texts(tmp_path, reviews(16)), batch_size=4, **parameters)
    assert figures.rows == {"ok": 16}
    assert any(isinstance(event, Refused) and event.queue_full for event in journal_of(tmp_path))
    assert service_books(tmp_path, "SELECT count(*), count(DISTINCT prompt_hash) FROM billed") == [(16, 16)]


@every_dialect
def test_what_is_under_way_stays_below_the_limit_of_the_queue(tmp_path: Path, dialect: str) -> None:
    """At each line of the journal, counted anew."""
    figures = enrich(**call(tmp_path, dialect, 24, batch_size=4, latency=0.2, max_queued_requests=8))
    assert figures.rows == {"ok": 24}
    ledger, most = Ledger(), 0
    for event in journal_of(tmp_path):
        ledger.apply(event)
        if isinstance(event, Submitting):
            waiting = ledger.in_state(State.SUBMITTING, State.SUBMITTED)
            most = max(most, sum(batch.requests for batch in waiting))
    assert most == 8


@every_dialect
def test_cancelling_stops_at_the_provider_and_keeps_what_was_done(tmp_path: Path, dialect: str) -> None:
    """What was answered by then is ok and paid, the rest is pending and goes with a later run."""
    parameters = call(tmp_path, dialect, 40, batch_size=20, max_attempts=1, latency=3)
    assert enrich(**parameters, wait=0).exit is Exit.WAITING
    time.sleep(1.2)
    figures = cancel(tmp_path / "out.parquet")
    assert 0 < figures.rows["ok"] < 40
    assert figures.rows["ok"] + figures.rows["pending"] == 40
    parameters["options"]["latency"] = "0"
    done = enrich(**parameters)
    assert done.rows == {"ok": 40}
    check_paid_once(tmp_path, 40)
    check_money(tmp_path, dialect, done)


# --- money ----------------------------------------------------------------------------------------------------------

LONG_SYSTEM = "system: |\n  " + "You label product reviews with care and never invent anything. " * 400 + "\n"


@every_dialect
@pytest.mark.parametrize(
    "faults",
    [
        {"invalid_rate": 0.2, "length_rate": 0.2, "refusal_rate": 0.1, "duplicate_rate": 0.3, "failure_rate": 0.1},
        {"cached_share": 0.5},
        {"huge_usage_rate": 0.5},
    ],
    ids=["faults", "cached", "huge"],
)
def test_every_token_is_billed_at_its_price(tmp_path: Path, dialect: str, faults: dict[str, Any]) -> None:
    """Rows, report and an account of the provider's books at the table's prices are the same to the last digit."""
    job = LONG_SYSTEM + LIMITED_JOB if "cached_share" in faults else LIMITED_JOB
    texts = [*reviews(30), *reviews(3)]
    parameters = call(tmp_path, dialect, job=job, batch_size=16, seed=5, **faults)
    figures = enrich(**{**parameters, "input": write_texts(tmp_path, texts)})
    assert sum(figures.rows.values()) == 33
    assert (figures.cached_tokens > 0) == ("cached_share" in faults and dialect not in {"holysheep", "mistral"})
    check_money(tmp_path, dialect, figures)


def check_money(folder: Path, dialect: str, figures: Figures) -> None:
    """The sum over the rows, the report's total and the provider's books agree."""
    report = orjson.loads(StateDirectory(folder / "out.parquet").report("json").read_bytes())
    price = row_of(dialect, MODELS[dialect])
    owed = sum(cost_of(usage, price) for usage in billed_usages(folder, dialect))
    total = figures.money.total
    assert total is not None
    assert Decimal(total).scaleb(-12) == owed
    assert sum(output_of(folder).column("_cost_usd").to_pylist()) == owed
    assert report["total_cost_usd"] == float(owed)
    assert owed > 0


def cost_of(usage: dict[str, int], price: dict[str, str]) -> Decimal:
    """Dollars, from prices per million tokens in a batch."""
    return sum(
        (tokens * Decimal(price[kind] or price["input"]) for kind, tokens in usage.items()), Decimal()
    ) / Decimal(10**6)


def billed_usages(folder: Path, dialect: str) -> Iterator[dict[str, int]]:
    """Tokens by kind of all that the emulator billed: of its books and, where a cache is known of, of its own files."""
    if dialect == "anthropic":
        yield from anthropic_usages(folder)
        return
    share = StateDirectory(folder / "out.parquet").last_settings()
    knows_caches = dialect in {"openai", "gemini"}
    cached_share = float(share["options"].get("cached_share", 0)) * knows_caches
    for tokens_in, tokens_out in books(folder, "SELECT input_tokens, output_tokens FROM billed"):
        cached = int(tokens_in * cached_share)
        yield {"input": tokens_in - cached, "cache_read": cached, "output": tokens_out}


def anthropic_usages(folder: Path) -> Iterator[dict[str, int]]:
    """What the result files say, each line once; and that they say no less and no more than the books."""
    lines: dict[str, dict[str, Any]] = {}
    number_of_file = "place / (1 << 24)"
    contents: dict[int, bytes] = {}
    for number, content in books(folder, f"SELECT {number_of_file}, content FROM pieces ORDER BY place"):  # noqa: S608
        contents[number] = contents.get(number, b"") + content
    for number, content in contents.items():
        for line in content.splitlines():
            row = orjson.loads(line)
            if row["result"]["type"] == "succeeded":
                lines[f"{number}/{row['custom_id']}"] = row["result"]["message"]["usage"]
    ((tokens_in, tokens_out),) = books(folder, "SELECT sum(input_tokens), sum(output_tokens) FROM billed")
    names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    assert tokens_in == sum(usage[name] for usage in lines.values() for name in names)
    assert tokens_out == sum(usage["output_tokens"] for usage in lines.values())
    for usage in lines.values():
        written = usage["cache_creation"]
        yield {
            "input": usage["input_tokens"],
            "cache_read": usage["cache_read_input_tokens"],
            "cache_write_5m": written["ephemeral_5m_input_tokens"],
            "cache_write_1h": written["ephemeral_1h_input_tokens"],
            "output": usage["output_tokens"],
        }

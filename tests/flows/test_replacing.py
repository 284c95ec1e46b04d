"""Nobody's table by mistake: what was paid for stays in the output until the user says otherwise."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest

from blocks.emulator import EmulatorOptions, RunningEmulator, running_emulator
from blocks.errors import UsageError
from flows.domain.replacing import Asked, what_replaces
from flows.report.markdown import headline, markdown
from flows.report.status import read_status
from flows.storage.state import StateDirectory
from tests.flows.undecorated import JOB, emulator_ledger, enrich, reviews, write_job, write_texts

BEFORE = Asked("d", "reviews", "m", "openai https://a", emulated=False, skip_empty=(), where=None, limit=None)


@pytest.fixture(scope="module")
def service() -> Iterator[RunningEmulator]:
    """A service that is none of ours, as far as a run can tell: what it answers is money."""
    with (
        pytest.MonkeyPatch.context() as patch,
        running_emulator(EmulatorOptions(dialect="openai", latency=0)) as running,
    ):
        patch.setenv("OPENAI_API_KEY", "k")
        yield running


def pay(folder: Path, service: RunningEmulator) -> dict[str, Any]:
    """The parameters of a run that has ended: 12 rows, all of them ok and paid."""
    parameters = {
        "input": write_texts(folder, reviews(12)),
        "output": folder / "out.parquet",
        "job": write_job(folder),
        "provider": "openai",
        "model": "gpt-4.1-mini",
        "base_url": service.base_url,
        "poll_interval": 0.05,
        "options": {"settle": "0"},
    }
    assert enrich(**parameters).rows == {"ok": 12}
    return parameters


@pytest.fixture
def paid(tmp_path: Path, service: RunningEmulator) -> dict[str, Any]:
    """A paid output that a test may change."""
    return pay(tmp_path, service)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, service: RunningEmulator) -> dict[str, Any]:
    """A paid output that nothing may change."""
    return pay(tmp_path_factory.mktemp("kept"), service)


Change = Callable[[Path], dict[str, Any]]
TRIAL = {"provider": "local", "base_url": None, "poll_interval": None, "options": {"dialect": "openai"}}


def another_job(folder: Path) -> dict[str, Any]:
    return {"job": write_job(folder, JOB.replace("Review:", "The review:"))}


def another_service(_: Path) -> dict[str, Any]:
    return {"base_url": "http://127.0.0.1:9/v1"}


def less_rows(folder: Path) -> dict[str, Any]:
    return {"job": write_job(folder, JOB + "skip_empty: [text]\n")}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda _: TRIAL, "is a trial with the emulator"),
        (another_job, "asks another question: the job file or a provider option has changed"),
        (another_service, "asks another service, openai http://127.0.0.1:9/v1"),
        (lambda _: {"model": "gpt-4.1"}, "asks another model, gpt-4.1"),
        (lambda _: {"limit": 3}, "is limited to 3 rows"),
        (lambda _: {"where": "id < 3"}, "leaves out the rows that --where 'id < 3' does not select"),
        (less_rows, "skips rows in which text is empty"),
    ],
    ids=["trial", "job", "service", "model", "limit", "where", "skip"],
)
def test_paid_answers_are_not_replaced_without_a_word(
    kept: dict[str, Any], tmp_path: Path, change: Change, said: str
) -> None:
    """The message names what would be lost and what to do; nothing is sent, changed or remembered."""
    output = kept["output"]
    before, settings = output.read_bytes(), StateDirectory(output).last_settings()
    with pytest.raises(UsageError) as caught:
        enrich(**{**kept, **change(tmp_path)})
    spent = read_status(output).summary()["total_cost_usd"]
    dollars = re.search(r"\$([\d.]+) in all", caught.value.message)
    assert dollars
    assert float(dollars[1]) == pytest.approx(float(orjson.loads(orjson.dumps(spent))), rel=0.01)
    assert "12 rows with paid answers (test with gpt-4.1-mini, openai http://127.0.0.1:" in caught.value.message
    assert said in caught.value.message
    assert "--replace" in str(caught.value.next_step)
    assert output.read_bytes() == before
    assert StateDirectory(output).last_settings() == settings


def test_new_and_changed_rows_are_no_replacement(paid: dict[str, Any], tmp_path: Path) -> None:
    """Nor are a smaller input, other columns' names, or a limit that leaves out nothing."""
    write_texts(tmp_path, [*reviews(11), "changed", "new"])
    assert (enrich(**paid).rows, enrich(**paid, limit=20).attempts) == ({"ok": 13}, 0)
    write_job(tmp_path, JOB + "rename: {topics: subjects}\n")
    assert enrich(**paid).attempts == 0
    assert "subjects" in pq.read_schema(paid["output"]).names
    write_texts(tmp_path, reviews(4))
    assert enrich(**paid, limit=5).rows == {"ok": 4}


def test_a_word_of_the_user_replaces_and_brings_back(paid: dict[str, Any]) -> None:
    """The trial is not billed and counts apart; the earlier command brings the paid answers back for nothing."""
    before = pq.read_table(paid["output"])
    trial = enrich(**{**paid, **TRIAL}, replace=True)
    assert trial.rows == {"ok": 12}
    assert set(pq.read_table(paid["output"]).column("_model").to_pylist()) == {"emulated:gpt-4.1-mini"}
    back = enrich(**paid)
    assert back.attempts == 0
    assert pq.read_table(paid["output"]).equals(before)


def test_answers_of_a_trial_may_be_replaced(tmp_path: Path, paid: dict[str, Any]) -> None:
    """They are worth nothing: another job, and then a real provider, need no word."""
    parameters = {**paid, "output": tmp_path / "other.parquet"}
    assert enrich(**{**parameters, **TRIAL}).rows == {"ok": 12}
    assert enrich(**{**parameters, **TRIAL, **another_job(tmp_path)}, limit=3).rows == {"ok": 3}
    assert enrich(**parameters).rows == {"ok": 12}


def test_money_and_the_emulators_figures_are_never_summed(paid: dict[str, Any]) -> None:
    """A real run that collects what a trial had sent says so, and its own cost is what was billed."""
    billed = enrich(**paid).money.total
    assert billed
    waiting = {**TRIAL, "options": {"dialect": "openai", "latency": "0.3"}}
    enrich(**{**paid, **waiting}, replace=True, wait=0)
    real = enrich(**paid)
    (tokens,) = emulator_ledger(paid["output"], "SELECT sum(input_tokens), sum(output_tokens) FROM billed")
    assert all(tokens)
    assert (real.attempts, real.money.this_call, real.money.total) == (0, 0, billed)
    assert real.money.other_call == real.money.other_total != 0
    assert "its answers cost $0.00; it also collected answers of the emulator, which would have cost" in headline(real)
    assert "| the emulator's answers |" in markdown(real)
    found = orjson.loads(orjson.dumps(real.summary()))
    assert (found["billed_usd"], found["cost_usd"], found["emulated"]) == (found["total_cost_usd"], 0, False)
    assert found["emulated_usd"] > 0
    status = read_status(paid["output"]).summary()
    assert orjson.dumps(status["total_cost_usd"]) == orjson.dumps(real.summary()["billed_usd"])


def test_an_output_that_was_not_noted_in_time_is_still_protected(paid: dict[str, Any]) -> None:
    """As after a crash between the output and its note."""
    StateDirectory(paid["output"]).published.unlink()
    with pytest.raises(UsageError, match=r"holds paid answers .* is a trial with the emulator"):
        enrich(**{**paid, **TRIAL})


def test_leaving_out_less_is_no_replacement() -> None:
    """Without its condition or its limit, a run extends what is there."""
    narrow = Asked(
        "d", "reviews", "m", "openai https://a", emulated=False, skip_empty=("text",), where="id < 3", limit=2
    )
    assert what_replaces(narrow, BEFORE, 2) == ""
    assert what_replaces(narrow, narrow, 2) == ""
    assert what_replaces(BEFORE, narrow, 10) != ""

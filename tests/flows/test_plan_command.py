"""`plan` announces what `run` then does, and leaves no trace: checked against the run itself and the price table."""

from __future__ import annotations

import json
import math
import tempfile
from contextlib import redirect_stdout
from dataclasses import dataclass
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from flows.cli import call
from flows.domain.events import Submitting
from flows.domain.money import PICO, show_usd
from flows.report.figures import Figures
from flows.storage.journal import read_events
from flows.storage.plan import Plan
from flows.storage.planner import make_plan
from flows.storage.state import StateDirectory
from tests.flows.command import batchwerk
from tests.flows.undecorated import JOB, emulator_ledger, enrich, reviews, write_job, write_texts
from tests.price_table import row_of

MILLION = 10**6
BATCH_SIZE = 6
TEXTS = [*reviews(20), *reviews(5), None, "", "  "]  # 20 to ask for, 5 again, 3 that the job skips


@dataclass(frozen=True)
class Case:
    """A folder with an input and a job, and calls for it."""

    folder: Path

    @property
    def output(self) -> Path:
        return self.folder / "out.parquet"

    @property
    def parameters(self) -> dict[str, Any]:
        return {
            "input": self.folder / "input.parquet",
            "output": self.output,
            "job": self.folder / "job.yaml",
            "batch_size": BATCH_SIZE,
        }

    @property
    def arguments(self) -> list[str]:
        """Of the command `plan`."""
        places = [str(self.folder / "input.parquet"), str(self.output), "--job", str(self.folder / "job.yaml")]
        return ["plan", *places, "--provider", "local", "--batch-size", str(BATCH_SIZE)]

    def plan(self, *options: str) -> str:
        """Call the command in this process; what it printed."""
        with redirect_stdout(StringIO()) as printed:
            assert call([*self.arguments, *options]) == 0
        return printed.getvalue()

    def planned(self, *options: str) -> dict[str, Any]:
        """The object of `--json`, with exact numbers."""
        (line,) = self.plan("--json", *options).splitlines()
        return dict(json.loads(line, parse_float=Decimal))

    def submitted(self) -> list[int]:
        """Requests of each batch that was ever sent, by its number, as the journal has it from before it was."""
        events = read_events(StateDirectory(self.output).journal)
        intents = sorted((each for each in events if isinstance(each, Submitting)), key=lambda intent: intent.batch)
        return [sum(piece.requests for piece in intent.slices) for intent in intents]

    def files(self) -> dict[str, tuple[int, int]]:
        """Size and time of change of everything in the folder."""
        found = {path.relative_to(self.folder).as_posix(): path.stat() for path in self.folder.rglob("*")}
        return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in found.items()}


@dataclass(frozen=True)
class Planned:
    """What was announced before a run, and the run."""

    case: Case
    json: dict[str, Any]
    text: str
    figures: Figures


def case_in(folder: Path) -> Case:
    write_texts(folder, TEXTS)
    write_job(folder, JOB + "skip_empty: [text]\n")
    return Case(folder)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return case_in(tmp_path)


@pytest.fixture(scope="module")
def planned_and_run(tmp_path_factory: pytest.TempPathFactory) -> Planned:
    """A new output that is planned, and then run."""
    case = case_in(tmp_path_factory.mktemp("planned"))
    return Planned(case, case.planned(), case.plan(), enrich(**case.parameters))


def cost(planned: dict[str, Any], model: str, service: str) -> Decimal:
    """What the announced tokens cost, by the table itself."""
    tokens_in, tokens_out = Decimal(planned["input_tokens"]), Decimal(planned["output_tokens"])
    row = row_of("holysheep", model, service)
    return (tokens_in * Decimal(row["input"]) + tokens_out * Decimal(row["output"])) / MILLION


def test_what_is_planned_is_what_is_sent(planned_and_run: Planned) -> None:
    """Rows, requests and batches are those of the run that follows, one by one."""
    case, planned, figures = planned_and_run.case, planned_and_run.json, planned_and_run.figures
    assert (planned["rows"], planned["skipped"], planned["unsendable"]) == (28, 3, 0)
    assert (planned["requests"], planned["deduplicated"], planned["to_send"]) == (20, 5, 20)
    assert case.submitted() == [6, 6, 6, 2]
    assert planned["batches"] == len(case.submitted()) == figures.batches
    assert planned["to_send"] == sum(case.submitted()) == figures.attempts
    assert (planned["requests"], planned["deduplicated"]) == (figures.requests, figures.deduplicated)
    assert figures.rows == {"ok": 25, "skipped": 3}


def test_the_cost_is_that_of_the_announced_tokens(planned_and_run: Planned) -> None:
    """To the last digit, in a batch and as single requests."""
    planned = planned_and_run.json
    assert Decimal(planned["estimate_usd"]) == cost(planned, "gpt-4.1", "batch")
    assert Decimal(planned["single_estimate_usd"]) == cost(planned, "gpt-4.1", "standard")
    assert planned_and_run.figures.money.estimate == planned["estimate_usd"] * PICO


def test_the_announced_tokens_are_near_those_that_are_counted(planned_and_run: Planned) -> None:
    """Before anything was counted they come from the shape of prompt and schema: within a factor of two, or long."""
    planned, sums = planned_and_run.json, "SELECT sum(input_tokens), sum(output_tokens) FROM billed"
    ((tokens_in, tokens_out),) = emulator_ledger(planned_and_run.case.output, sums)
    assert tokens_in / 2 < planned["input_tokens"] < tokens_in * 2
    assert tokens_out <= planned["output_tokens"] < tokens_out * 4


def test_a_half_done_output_is_planned_to_its_end(case: Case) -> None:
    """Only what is left is announced, at the rates that the provider has counted so far."""
    enrich(**case.parameters, limit=9)
    sent = case.submitted()
    ((answers, tokens_out),) = emulator_ledger(case.output, "SELECT count(*), sum(output_tokens) FROM billed")
    planned = case.planned()
    figures = enrich(**case.parameters)
    assert (planned["rows"], planned["requests"], planned["deduplicated"]) == (28, 20, 5)
    assert (planned["to_send"], planned["batches"]) == (11, 2)
    assert case.submitted() == [*sent, 6, 5]
    assert (figures.attempts, figures.batches) == (planned["to_send"], planned["batches"])
    assert planned["output_tokens"] == math.ceil(11 * (tokens_out / answers))
    assert Decimal(planned["estimate_usd"]) == cost(planned, "gpt-4.1", "batch")


def test_a_finished_output_has_nothing_left_to_send(planned_and_run: Planned) -> None:
    """Its plan costs nothing and still shows the rows."""
    planned = planned_and_run.case.planned()
    assert (planned["rows"], planned["requests"], planned["to_send"], planned["batches"]) == (28, 20, 0, 0)
    assert (planned["input_tokens"], planned["output_tokens"], planned["estimate_usd"]) == (0, 0, 0)


@pytest.mark.parametrize("done", [0, 9, None], ids=["new", "half done", "done"])
def test_planning_writes_nothing_and_sends_nothing(
    case: Case, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, done: int | None
) -> None:
    """Not a byte stays, and none was ever in the state directory; no emulator has heard of it."""
    temporary = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    if done != 0:
        enrich(**case.parameters, limit=done)
    before = case.files()
    case.plan()
    case.plan("--json")
    assert case.files() == before
    assert list(temporary.iterdir()) == []
    assert StateDirectory(case.output).path.exists() is (done != 0)


def test_the_plan_in_words(planned_and_run: Planned) -> None:
    """The same figures as in `--json`, and the first prompt as it would be sent."""
    planned, lines = planned_and_run.json, planned_and_run.text.splitlines()
    assert lines[:3] == [
        "rows       28 of 28 (3 skipped)",
        "requests   20 distinct (5 rows share another row's)",
        "to send    20, batches: 4",
    ]
    counted, tokens = planned["counted_with"], f"{planned['input_tokens']:,} in"
    shown = (
        f"about {tokens} (" if counted is None else f"{tokens} by {counted}, about {planned['output_tokens']:,} out ("
    )
    assert lines[3].startswith(f"tokens     {shown}")
    assert lines[4].startswith(f"cost       about {show_usd(round(planned['estimate_usd'] * PICO))}, ")
    assert "emulator answers; nothing is billed" in lines[5]
    assert lines[6:] == ["", "first prompt:", f"Review: {TEXTS[0]}"]
    assert planned["first_prompt"] == f"Review: {TEXTS[0]}"


def test_the_object_has_all_that_the_words_say(planned_and_run: Planned) -> None:
    """Programs get every figure under a name, and the exit status."""
    planned = planned_and_run.json
    assert planned.keys() == {
        "rows", "skipped", "unsendable", "first_problem", "requests", "deduplicated", "to_send", "batches",
        "input_tokens", "output_tokens", "estimate_usd", "single_estimate_usd", "ceiling_usd", "counted_with",
        "input_tokens_spread", "model", "missing_key", "first_prompt", "exit",
    }  # fmt: skip
    assert (planned["model"], planned["first_problem"], planned["exit"]) == ("gpt-4.1", None, 0)


def test_a_selection_is_planned_as_it_is_run(case: Case) -> None:
    """`--limit` and `--where` change the rows and what is skipped."""
    planned = case.planned("--limit", "10", "--where", "id % 2 = 0")
    figures = enrich(**case.parameters, limit=10, where="id % 2 = 0")
    assert (planned["rows"], planned["skipped"], planned["requests"], planned["batches"]) == (10, 5, 5, 1)
    assert (figures.rows, figures.attempts) == ({"ok": 5, "skipped": 5}, 5)
    assert case.submitted() == [5]


def test_an_unpriced_model_is_planned_without_a_cost(case: Case) -> None:
    """Unknown is null for programs and a sentence for people, never 0."""
    planned = case.planned("--model", "gpt-unheard-of")
    assert planned["estimate_usd"] is planned["single_estimate_usd"] is None
    assert planned["input_tokens"] > 0
    assert "cost       unpriced: this model is not in the price table" in case.plan("--model", "gpt-unheard-of")


def test_a_plan_needs_no_prefect(case: Case) -> None:
    """The command answers before the seconds that importing Prefect takes."""
    called = batchwerk(*case.arguments)
    assert (called.status, called.started_prefect) == (0, False)
    assert called.out == case.plan()


def test_a_plan_needs_no_key(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says that a run does, and which one; what is sent needs it at once."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    arguments = [*case.arguments[:5], "--provider", "openai"]
    with redirect_stdout(StringIO()) as printed:
        assert call(arguments) == 0
    assert "\nkey        OPENAI_API_KEY is not set: `run` needs it, a plan does not\n" in printed.getvalue()
    assert call([*arguments, "--sample", "2"]) == 2
    assert call(["run", *arguments[1:]]) == 2
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-a-test")
    with redirect_stdout(StringIO()) as printed:
        assert call(arguments) == 0
    assert "key  " not in printed.getvalue()


def test_models_are_compared_without_a_key(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cheapest first, each with what `plan` alone says of it; one without a price comes last and is not free."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    others = ["claude-sonnet-4.5", "openai:gpt-4.1", "mistral:unheard-of"]
    options = [word for other in others for word in ("--compare", other)]
    before = case.files()
    compared = case.planned(*options)["compared"]
    names = [f"{each['provider']}:{each['model']}" for each in compared]
    assert {*names[:-1]} == {"local:gpt-4.1", "local:claude-sonnet-4.5", "openai:gpt-4.1"}
    assert names[-1] == "mistral:unheard-of"
    costs = [each["estimate_usd"] for each in compared]
    assert costs[-1] is None
    assert costs[:-1] == sorted(costs[:-1])
    alone = case.planned("--option", "dialect=openai")
    (theirs,) = (each for each in compared if each["provider"] == "openai")
    shared = theirs.keys() & alone.keys()
    assert len(shared) > 5
    assert {name: theirs[name] for name in shared} == {name: alone[name] for name in shared}
    *_, table, notes = case.plan(*options).split("\n\n")
    lines = table.splitlines()
    assert [line.split()[0] for line in lines[1:]] == names
    assert lines[-1].split()[4:] == ["no", "price"] * 3
    assert [note.split()[0] for note in notes.splitlines()] == ["~", "range:", "no"]
    assert case.files() == before


def each_alone(case: Case, *models: str) -> list[tuple[Any, ...]]:
    shown = ("to_send", "batches", "input_tokens", "output_tokens", "estimate_usd", "counted_with", "unsendable")
    compared = case.planned(*(word for model in models for word in ("--compare", model)))["compared"]
    found = {each["model"]: tuple(each[name] for name in shown) for each in compared}
    for model in models:
        alone = case.planned("--model", model)
        assert found[model] == tuple(alone[name] for name in shown)
    return list(found.values())


MODELS = ("gpt-4.1-mini", "claude-sonnet-4.5", "deepseek-v3.2")  # an own vocabulary, a stand-in, another own one


def test_the_input_is_read_once_for_all_models(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is told what its own plan tells, from requests that were planned for one of them."""
    assert len({found[2] for found in each_alone(case, *MODELS)}) > 2, "they count differently"
    plans = []

    def noted(*arguments: Any) -> Plan:
        plans.append(arguments)
        return make_plan(*arguments)

    monkeypatch.setattr("flows.report.preview.make_plan", noted)
    case.planned(*(word for model in MODELS for word in ("--compare", model)))
    assert len(plans) == 1


def test_rows_that_one_provider_refuses_are_planned_for_each(tmp_path: Path) -> None:
    """What is too large for one may be sent to another."""
    case = case_in(tmp_path)
    write_texts(tmp_path, [*TEXTS, "x" * 5_000_000])
    found = each_alone(case, MODELS[0])
    assert found[0][-1] == 1
    (openai,) = (e for e in case.planned("--compare", "openai:gpt-4.1")["compared"] if e["provider"] == "openai")
    assert (openai["unsendable"], openai["to_send"]) == (0, 21)


def test_what_was_answered_is_no_part_of_the_own_line(case: Case) -> None:
    """Others begin anew: the table says how much is reused."""
    enrich(**case.parameters, limit=9)
    compared = case.planned("--compare", "gpt-4.1-mini")["compared"]
    assert {(each["model"], each["to_send"], each["reused"]) for each in compared} == {
        ("gpt-4.1", 11, 9),
        ("gpt-4.1-mini", 20, 0),
    }


def test_what_tokens_may_be_off_is_a_range_of_the_cost(case: Case) -> None:
    """Around the estimate where a vocabulary stands in, and nothing where it is the model's own."""
    compared = case.planned("--compare", "claude-sonnet-4.5")["compared"]
    found = {each["model"]: (each["estimate_range_usd"], each["estimate_usd"]) for each in compared}
    (least, most), estimate = found["claude-sonnet-4.5"]
    assert least < estimate < most
    assert found["gpt-4.1"][0] == [found["gpt-4.1"][1]] * 2

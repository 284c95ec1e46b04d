"""Our books against a provider's bill."""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from blocks.batch import Connection
from flows.cli import call
from flows.domain.events import EVENTS, BatchResult, Collected, Ended, Event, Slice, Submitted, Submitting
from flows.domain.job import Job
from flows.spec import Spec
from flows.storage.state import FORMAT, StateDirectory

FIRST = datetime(2026, 9, 1, 10, tzinfo=UTC)
REQUESTS, TOKENS_IN, TOKENS_OUT = 50, 5_000, 800  # of a batch
COST = TOKENS_IN * 200_000 + TOKENS_OUT * 800_000  # pico-dollars of gpt-4.1-mini in a batch
MODEL = "gpt-4.1-mini-2025-04-14"


def spec(base_url: str = "https://api.openai.com/v1", provider: str = "openai") -> Spec:
    job = Job.model_validate({"name": "j", "model": MODEL, "prompt": "{{ a }}"})
    return Spec(job, MODEL, Connection(provider, base_url, "there"))


def batch(number: int, at: datetime, *, under: Spec, hours: float = 1.0, **fields: Any) -> list[Event]:
    """The events of a batch; `open`: it was not collected, `metered`: by how many answers with usage it was."""
    piece = Slice((number - 1) * REQUESTS, number * REQUESTS)
    sent = {"tag": f"t-{number}-x", "bytes": 1, "tokens": 1, "sha256": "h", "spec": under.fingerprint}
    result = {
        **dict.fromkeys(("cached_tokens", "unmetered", "strays"), 0),
        "schema_id": "s",
        "ok": REQUESTS,
        "retry": [],
        "final": [],
        "outcomes": {"ok": REQUESTS},
        "input_tokens": TOKENS_IN,
        "output_tokens": TOKENS_OUT,
        "metered": REQUESTS,
        "cost": COST,
        "single_cost": 2 * COST,
        "costs": {"ok": COST},
        "copies_cost": 0,
        "cache_saved": 0,
        "longest_output": 20,
        **fields,
    }
    events: list[Event] = [
        Submitting(at=at, batch=number, slices=[piece], emulated=under.connection.emulated, **sent),
        Submitted(at=at, batch=number, id=f"batch_{number}"),
    ]
    if fields.get("open"):
        return events
    end = at + timedelta(hours=hours)
    known = {name: value for name, value in result.items() if name in BatchResult.model_fields}
    collected = Collected(at=end, batch=number, result=BatchResult.model_validate(known))
    return [*events, Ended(at=end, batch=number, wording="completed"), collected]


def write_output(output: Path, events: list[Event], *specs: Spec) -> Path:
    """An output's state directory, as far as it is needed: what it was sent under, and the journal."""
    state = StateDirectory(output)
    state.prepare()
    state.run_file.write_bytes(orjson.dumps({"id": "abcd2345", "format": FORMAT, "input": "in.parquet"}))
    for each in specs or (spec(),):
        state.spec(each.fingerprint).write_bytes(orjson.dumps(each.content))
    state.journal.write_bytes(b"".join(EVENTS.dump_json(event) + b"\n" for event in events))
    return output


def openai_page(days: dict[date, tuple[int, int, int]], model: str = MODEL, **more: Any) -> dict[str, Any]:
    """A page of the usage API: by day the requests, input and output tokens of a model in batches."""
    buckets = []
    for day, (requests, tokens_in, tokens_out) in days.items():
        start = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
        counts = {"num_model_requests": requests, "input_tokens": tokens_in, "output_tokens": tokens_out}
        result = {"object": "organization.usage.completions.result", "model": model, "batch": True, **counts}
        buckets.append({"object": "bucket", "start_time": start, "end_time": start + 86_400, "results": [result]})
    return {"object": "page", "data": buckets, "has_more": False, "next_page": None, **more}


def billed(events: list[Event]) -> dict[date, list[int]]:
    """What a provider bills for these batches, by the day of their end."""
    days: dict[date, list[int]] = defaultdict(lambda: [0, 0, 0])
    for event in events:
        if isinstance(event, Collected):
            for place, count in enumerate(
                (event.result.metered, event.result.input_tokens, event.result.output_tokens)
            ):
                days[event.at.date()][place] += count
    return days


def reconcile(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, dict[str, Any]]:
    status = call(["reconcile", *map(str, arguments), "--json"])
    return status, json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event]]:
    """10,000 batches of ours in two outputs of one key, over 50 days."""
    folder, under = tmp_path_factory.mktemp("many"), spec()
    halves: list[list[Event]] = []
    for half in range(2):
        numbers = range(1, 5_001)
        halves.append([e for n in numbers for e in batch(n, FIRST + timedelta(days=n % 50, hours=half), under=under)])
        write_output(folder / f"{half}.parquet", halves[half])
    return folder, [*halves[0], *halves[1]]


@pytest.mark.parametrize("foreign", [False, True], ids=["ours", "one foreign"])
def test_one_foreign_batch_in_ten_thousand_is_found(
    many: tuple[Path, list[Event]], capsys: pytest.CaptureFixture[str], tmp_path: Path, *, foreign: bool
) -> None:
    """Two outputs of one key are summed; the batch that is in no book shows on its day, with its size."""
    folder, events = many
    days = billed(events)
    planted = date(2026, 9, 20)
    if foreign:
        days[planted] = [count + more for count, more in zip(days[planted], (7, 701, 77), strict=True)]
    export = tmp_path / "usage.json"
    export.write_bytes(orjson.dumps(openai_page({day: (a, b, c) for day, (a, b, c) in sorted(days.items())})))
    status, found = reconcile(capsys, folder / "0.parquet", folder / "1.parquet", "--usage", export)
    assert status == int(foreign)
    over = [line for line in found["lines"] if line["over"]]
    assert len(found["lines"]) == 50
    if foreign:
        (line,) = over
        assert (line["from"], line["foreign_requests"]) == ("2026-09-20", 7)
        assert [line["difference"][name] for name in ("requests", "input_tokens", "output_tokens")] == [7, 701, 77]
    else:
        assert over == []


def test_a_bill_by_batch_names_the_foreign_one_and_the_missing_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """By hand, as CSV, with the provider's ids."""
    output = write_output(tmp_path / "o", [*batch(1, FIRST, under=spec()), *batch(2, FIRST, under=spec())])
    export = tmp_path / "bill.csv"
    head = "day,model,input_tokens,output_tokens,batch"
    export.write_text(f"{head}\n2026-09-01,gpt-4.1-mini,5000,800,batch_1\n2026-09-01,gpt-4.1-mini,5000,800,batch_x\n")
    status, found = reconcile(capsys, output, "--usage", export)
    assert (status, found["foreign_batches"]) == (1, ["batch_x"])
    assert found["unbilled_batches"] == [f"{output}: 2"]


def test_answers_of_the_emulator_are_in_no_comparison(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """They are no money, and no provider bills them."""
    trial = spec(base_url="")
    events = [*batch(1, FIRST, under=spec()), *batch(2, FIRST, under=trial)]
    output = write_output(tmp_path / "o", events, spec(), trial)
    export = tmp_path / "usage.json"
    export.write_bytes(orjson.dumps(openai_page({FIRST.date(): (REQUESTS, TOKENS_IN, TOKENS_OUT)})))
    assert reconcile(capsys, output, "--usage", export)[0] == 0


def test_a_batch_that_ran_past_midnight_may_be_billed_on_either_day(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Its days are one period."""
    late = FIRST.replace(hour=23, minute=30)
    output = write_output(tmp_path / "o", batch(1, late, under=spec()))
    export = tmp_path / "usage.json"
    days = {late.date(): (20, 2_000, 300), late.date() + timedelta(days=1): (30, 3_000, 500)}
    export.write_bytes(orjson.dumps(openai_page(days)))
    status, found = reconcile(capsys, output, "--usage", export)
    (line,) = found["lines"]
    assert (status, line["from"], line["to"]) == (0, "2026-09-01", "2026-09-02")


def test_what_is_not_settled_yet_is_no_difference(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Requests of a batch that is still out may be on the bill; more than those may not."""
    events = [*batch(1, FIRST, under=spec()), *batch(2, FIRST, under=spec(), open=True)]
    output = write_output(tmp_path / "o", events)
    export = tmp_path / "usage.json"
    for more, status in ((REQUESTS, 0), (REQUESTS + 1, 1)):
        export.write_bytes(orjson.dumps(openai_page({FIRST.date(): (REQUESTS + more, 2 * TOKENS_IN, TOKENS_OUT)})))
        assert reconcile(capsys, output, "--usage", export)[0] == status


def test_what_the_bill_lacks_is_a_difference(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A day of ours within the export that it does not list, and one outside of it that is only counted."""
    days = [FIRST, FIRST + timedelta(days=1), FIRST + timedelta(days=9)]
    output = write_output(tmp_path / "o", [e for n, at in enumerate(days, 1) for e in batch(n, at, under=spec())])
    export = tmp_path / "usage.json"
    full, none = (REQUESTS, TOKENS_IN, TOKENS_OUT), (0, 0, 0)
    export.write_bytes(orjson.dumps(openai_page({days[0].date(): full, days[1].date(): none})))
    status, found = reconcile(capsys, output, "--usage", export)
    assert (status, found["batches_on_other_days"]) == (1, 1)
    assert [line["over"] for line in found["lines"]] == [False, True]


@pytest.mark.parametrize(("tolerance", "status"), [("0.01", 0), ("0.001", 1)])
def test_tokens_and_costs_may_differ_by_the_tolerance(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tolerance: str, status: int
) -> None:
    """The costs of a day, in dollars and without models, are compared with all of ours."""
    output = write_output(tmp_path / "o", batch(1, FIRST, under=spec()))
    usage, costs = tmp_path / "usage.json", tmp_path / "costs.json"
    usage.write_bytes(orjson.dumps(openai_page({FIRST.date(): (REQUESTS, TOKENS_IN, TOKENS_OUT)})))
    page = openai_page({FIRST.date(): (0, 0, 0)})
    amount = {"value": float(Decimal(COST).scaleb(-12) * Decimal("1.005")), "currency": "usd"}
    page["data"][0]["results"] = [{"object": "organization.costs.result", "amount": amount}]
    costs.write_bytes(orjson.dumps(page))
    found = reconcile(capsys, output, "--usage", usage, "--usage", costs, "--tolerance", tolerance)
    assert found[0] == status
    assert [line["model"] for line in found[1]["lines"]] == ["gpt-4.1-mini", "*"]


def test_anthropics_reports_are_read(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Input is the sum of what is read plainly, from and into the cache; single requests are left out; cents."""
    output = write_output(tmp_path / "o", batch(1, FIRST, under=spec()))
    bucket = {"starting_at": "2026-09-01T00:00:00Z", "ending_at": "2026-09-02T00:00:00Z"}
    cached = {"ephemeral_5m_input_tokens": 500, "ephemeral_1h_input_tokens": 500}
    tokens = {"uncached_input_tokens": 3_000, "cache_read_input_tokens": 1_000, "cache_creation": cached}
    batched = {"model": MODEL, "service_tier": "batch", "output_tokens": TOKENS_OUT, **tokens}
    usage = {"data": [{**bucket, "results": [batched, {**batched, "service_tier": "standard"}]}], "has_more": False}
    cents = str(Decimal(COST).scaleb(-10))
    cost = {"amount": cents, "currency": "USD", "model": MODEL, "service_tier": "batch"}
    files = [tmp_path / "usage.json", tmp_path / "cost.json"]
    files[0].write_bytes(orjson.dumps(usage))
    files[1].write_bytes(orjson.dumps({"data": [{**bucket, "results": [cost]}], "has_more": False}))
    status, found = reconcile(capsys, output, "--usage", files[0], "--usage", files[1], "--tolerance", "0")
    assert (status, found["entries_left_out"]) == (0, 1)
    (line,) = found["lines"]
    assert line["difference"] == {"requests": None, "input_tokens": 0, "output_tokens": 0, "cost_usd": 0.0}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("day,model,tokens\n2026-09-01,m,1\n", "no column 'tokens'"),
        ("day,model,input_tokens\n2026-09-01,m,-1\n", "entry 1: '-1' is no count"),
        ("day,model,input_tokens\nyesterday,m,1\n", "entry 1"),
        ("day,model,input_tokens\n", "no lines"),
        ('[{"day": "2026-09-01"}]', "it has no model"),
        ("{", "can't be read"),
        (json.dumps(openai_page({FIRST.date(): (1, 1, 1)}, has_more=True)), "fetch the pages that follow"),
        ("[" * 100_000, "can't be read"),
    ],
    ids=["column", "count", "day", "empty", "model", "JSON", "pages", "deep"],
)
def test_an_export_that_can_t_be_read_is_a_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str, problem: str
) -> None:
    """The file named, exit status 2: half a bill would look like half of the money."""
    output = write_output(tmp_path / "o", batch(1, FIRST, under=spec()))
    export = tmp_path / "export"
    export.write_text(content)
    assert call(["reconcile", str(output), "--usage", str(export)]) == 2
    said = capsys.readouterr().err
    assert problem in said
    assert str(export) in said

"""The whole pipeline on the embedded emulator, over a real socket and a real disk, without Prefect."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import Future
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blocks.emulator import EmulatorOptions, running_emulator
from blocks.errors import BatchRefused, StateError, UsageError
from flows.batches.orchestrator import Threads
from flows.pipeline import run_pipeline
from flows.preflight import check
from flows.report.verdict import Exit
from flows.settings import read_settings
from flows.storage.journal import read_events
from flows.storage.state import StateDirectory
from tests.flows.undecorated import JOB, emulator_ledger, enrich, reviews, write_job, write_texts

PAID_AGAIN = """SELECT count(*) FROM billed AS later JOIN billed AS earlier
    USING (prompt_hash, model) WHERE earlier.valid AND earlier.number < later.number"""


def read(path: Path) -> pa.Table:
    return pq.read_table(path)


def test_every_row_comes_out_once_in_order_with_typed_answers(tmp_path: Path) -> None:
    """Input columns first and unchanged, then the answer's columns with their types, then ours."""
    source, output = write_texts(tmp_path, reviews(50)), tmp_path / "out.parquet"
    figures = enrich(input=source, output=output, job=write_job(tmp_path), batch_size=20)
    table = read(output)
    assert figures.exit is Exit.DONE
    assert table.column("id").to_pylist() == list(range(50))
    assert table.select(["id", "text"]).equals(read(source))
    assert set(table.column("sentiment").to_pylist()) <= {"positive", "negative", "neutral"}
    assert table.schema.field("topics").type == pa.list_(pa.string())
    assert table.column("_status").to_pylist() == ["ok"] * 50
    assert set(table.column("_model").to_pylist()) == {"emulated:gpt-4.1"}
    assert figures.batches == 3


def test_a_second_run_sends_nothing_costs_nothing_and_rewrites_nothing(tmp_path: Path) -> None:
    """The same command again finds everything answered."""
    parameters = {
        "input": write_texts(tmp_path, reviews(10)),
        "output": tmp_path / "out.parquet",
        "job": write_job(tmp_path),
    }
    enrich(**parameters)
    before = parameters["output"].stat()
    figures = enrich(**parameters)
    assert (figures.attempts, figures.money.this_call, figures.reused) == (0, 0, 10)
    assert parameters["output"].stat().st_mtime_ns == before.st_mtime_ns
    assert emulator_ledger(parameters["output"], "SELECT count(*) FROM batches") == [(1,)]


def test_rows_with_the_same_values_share_one_request(tmp_path: Path) -> None:
    """Duplicates get the same answer; the first carries the cost, the others 0, and the sum is what was paid."""
    source, output = write_texts(tmp_path, ["Great battery"] * 5 + ["Bad delivery"]), tmp_path / "out.parquet"
    figures = enrich(input=source, output=output, job=write_job(tmp_path))
    table = read(output)
    costs = table.column("_cost_usd").to_pylist()
    assert (figures.requests, figures.deduplicated, figures.attempts) == (2, 4, 2)
    assert costs[1:5] == [Decimal("0E-12")] * 4
    assert costs[0] > 0
    assert len(set(table.column("sentiment").to_pylist()[:5])) == 1
    assert sum(costs) * 10**12 == figures.money.total
    assert figures.money.elsewhere == 0


def test_failures_and_invalid_answers_go_again_and_good_answers_are_never_asked_again(tmp_path: Path) -> None:
    """With 10 % failures and 5 % invalid answers on first attempts all rows end ok and no good answer is paid again."""
    source, output = write_texts(tmp_path, reviews(400)), tmp_path / "out.parquet"
    faults = {"failure_rate": "0.1", "invalid_rate": "0.05", "seed": "7"}
    figures = enrich(input=source, output=output, job=write_job(tmp_path), batch_size=100, options=faults)
    assert figures.exit is Exit.DONE
    assert figures.rows == {"ok": 400}
    assert figures.outcomes["failed"] > 0
    assert figures.outcomes["rejected"] > 0
    assert figures.money.rejected
    assert emulator_ledger(output, PAID_AGAIN) == [(0,)]
    ((billed, good),) = emulator_ledger(output, "SELECT count(*), sum(valid) FROM billed")
    assert good == 400
    assert billed == 400 + figures.outcomes["rejected"]


def test_an_invalid_answer_goes_again_with_the_reason(tmp_path: Path) -> None:
    """The model is told why its last answer was rejected."""
    source, output = write_texts(tmp_path, reviews(3)), tmp_path / "out.parquet"
    enrich(input=source, output=output, job=write_job(tmp_path), options={"invalid_rate": "1"})
    prompts = [p for (p,) in emulator_ledger(output, "SELECT prompt FROM requests WHERE attempt = 2")]
    assert len(prompts) == 3
    assert all("Your previous answer was rejected:" in prompt for prompt in prompts)


def test_an_answer_that_never_fits_ends_failed_and_keeps_its_text(tmp_path: Path) -> None:
    """After the last attempt the row says why, and the raw text is in the results part."""
    source, output = write_texts(tmp_path, reviews(4)), tmp_path / "out.parquet"
    faults = {"invalid_rate": "1", "fault_attempts": "9"}
    figures = enrich(input=source, output=output, job=write_job(tmp_path), max_attempts=2, options=faults)
    table = read(output)
    assert figures.exit is Exit.ROWS_FAILED
    assert table.column("_status").to_pylist() == ["failed"] * 4
    assert all(table.column("_error").to_pylist())
    assert table.column("_attempts").to_pylist() == [2] * 4
    assert table.column("sentiment").null_count == 4
    parts = sorted(StateDirectory(output).path.glob("results/*/*.pq"))
    assert all(all(pq.read_table(part).column("raw").to_pylist()) for part in parts)


def test_final_failures_are_sent_again_only_when_asked_to(tmp_path: Path) -> None:
    """A later run leaves them alone; --retry-failed gives them a new allowance."""
    source, output, job = write_texts(tmp_path, reviews(6)), tmp_path / "out.parquet", write_job(tmp_path)
    faults = {"failure_rate": "1", "fault_attempts": "2"}
    first = enrich(input=source, output=output, job=job, max_attempts=2, options=faults)
    again = enrich(input=source, output=output, job=job, max_attempts=2, options=faults)
    retried = enrich(input=source, output=output, job=job, max_attempts=2, retry_failed=True, options=faults)
    assert (first.rows, again.rows, retried.rows) == ({"failed": 6}, {"failed": 6}, {"ok": 6})
    assert (again.attempts, retried.attempts) == (0, 6)
    assert read(output).column("_attempts").to_pylist() == [3] * 6


def test_failed_rows_may_be_tolerated(tmp_path: Path) -> None:
    """--max-failed is the share of rows that may fail."""
    source, output = write_texts(tmp_path, reviews(5)), tmp_path / "out.parquet"
    options = {"refusal_rate": "1"}
    figures = enrich(input=source, output=output, job=write_job(tmp_path), max_failed=1.0, options=options)
    assert figures.exit is Exit.DONE
    assert figures.rows == {"failed": 5}
    assert figures.attempts == 5, "a refused content is final: it is not sent again"


def test_missing_answers_are_counted_and_go_again(tmp_path: Path) -> None:
    """A request without an answer in the results is never taken for done."""
    source, output = write_texts(tmp_path, reviews(8)), tmp_path / "out.parquet"
    figures = enrich(input=source, output=output, job=write_job(tmp_path), options={"missing_rate": "1"})
    assert figures.rows == {"ok": 8}
    assert figures.outcomes == {"missing": 8, "ok": 8}


def test_a_batch_that_fails_or_expires_uses_up_no_attempt(tmp_path: Path) -> None:
    """Nothing was said about the rows: they go again even when one attempt is all they have."""
    source, output = write_texts(tmp_path, reviews(40)), tmp_path / "out.parquet"
    faults = {"fail_batch_every": "3", "expire_every": "2"}
    figures = enrich(
        input=source, output=output, job=write_job(tmp_path), batch_size=10, max_attempts=1, options=faults
    )
    assert figures.rows == {"ok": 40}
    assert figures.outcomes["expired"] > 0
    assert emulator_ledger(output, PAID_AGAIN) == [(0,)]


@pytest.mark.parametrize("faults", [{"drop_every": "2"}, {"error_rate": "0.2"}, {"drop_rate": "1"}])
def test_lost_answers_to_submissions_are_reconciled_and_not_sent_twice(tmp_path: Path, faults: dict[str, str]) -> None:
    """A create whose connection broke after acceptance is found again by its idempotency key."""
    source, output = write_texts(tmp_path, reviews(60)), tmp_path / "out.parquet"
    figures = enrich(input=source, output=output, job=write_job(tmp_path), batch_size=10, options=faults)
    assert figures.rows == {"ok": 60}
    assert emulator_ledger(output, "SELECT count(*), count(DISTINCT prompt_hash) FROM billed") == [(60, 60)]


def test_a_rate_limit_is_obeyed(tmp_path: Path) -> None:
    """A 429 means that nothing was accepted: the same call goes again after retry-after."""
    source, output = write_texts(tmp_path, reviews(30)), tmp_path / "out.parquet"
    faults = {"rate_limit_every": "2", "retry_after": "0.1"}
    figures = enrich(input=source, output=output, job=write_job(tmp_path), batch_size=10, options=faults)
    assert figures.rows == {"ok": 30}
    assert emulator_ledger(output, "SELECT count(*) FROM batches") == [(3,)]


def test_a_limited_run_is_extended_by_a_later_one(tmp_path: Path) -> None:
    """--limit 1 is the documented first step with a new key: its answer is not paid for again."""
    parameters = {
        "input": write_texts(tmp_path, reviews(9)),
        "output": tmp_path / "out.parquet",
        "job": write_job(tmp_path),
    }
    first = enrich(limit=1, **parameters)
    assert read(parameters["output"]).num_rows == 1
    second = enrich(**parameters)
    assert (first.attempts, second.attempts, second.rows) == (1, 8, {"ok": 9})


def test_rows_that_are_not_selected_come_out_with_the_reason(tmp_path: Path) -> None:
    """--where leaves rows unsent, never out."""
    source, output = write_texts(tmp_path, reviews(10)), tmp_path / "out.parquet"
    figures = enrich(input=source, output=output, job=write_job(tmp_path), where="id % 2 = 0 -- even ones")
    table = read(output)
    assert figures.rows == {"ok": 5, "skipped": 5}
    assert table.column("_status").to_pylist() == ["ok", "skipped"] * 5
    assert table.column("_error").to_pylist()[1] == "not selected by --where"


def test_null_and_blank_texts_are_skipped_with_the_reason(tmp_path: Path) -> None:
    """skip_empty sends nothing for them; they cost nothing and come out."""
    texts = ["good", None, "", "  \n\t", "bad"]
    job = write_job(tmp_path, JOB + "skip_empty: [text]\n")
    figures = enrich(input=write_texts(tmp_path, texts), output=tmp_path / "out.parquet", job=job)
    table = read(tmp_path / "out.parquet")
    assert figures.rows == {"ok": 2, "skipped": 3}
    assert table.column("_error").to_pylist() == [None, "text is empty", "text is empty", "text is empty", None]
    assert figures.attempts == 2


def test_values_that_are_not_text_are_rendered_as_they_print(tmp_path: Path) -> None:
    """Numbers, dates, lists and structs may stand in a prompt; a null reads as nothing."""
    source, output = tmp_path / "in.parquet", tmp_path / "out.parquet"
    when = pd.Series(pd.to_datetime(["2024-01-01", "NaT"]))
    frame = pd.DataFrame({"n": [1, 2], "x": [1.5, float("nan")], "when": when, "tags": [["a"], []]})
    frame.to_parquet(source)
    job = write_job(tmp_path, JOB.replace("{{ text }}", "{{ n }}|{{ x }}|{{ when }}|{{ tags }}"))
    figures = enrich(input=source, output=output, job=job)
    assert figures.rows == {"ok": 2}
    prompts = [p.split("\n")[0] for (p,) in emulator_ledger(output, "SELECT prompt FROM requests ORDER BY custom_id")]
    assert prompts == ["Review: 1|1.5|2024-01-01 00:00:00|['a']", "Review: 2|||[]"]


def test_a_row_too_large_for_the_provider_is_not_sent_and_says_so(tmp_path: Path) -> None:
    """The other rows are enriched; the large one comes out failed with its size and the limit."""
    source, output = write_texts(tmp_path, ["small", "x" * 5_000_000]), tmp_path / "out.parquet"
    figures = enrich(input=source, output=output, job=write_job(tmp_path))
    table = read(output)
    assert figures.exit is Exit.ROWS_FAILED
    assert table.column("_status").to_pylist() == ["ok", "failed"]
    assert "the provider accepts at most 4,194,304" in table.column("_error").to_pylist()[1]
    assert emulator_ledger(output, "SELECT count(*) FROM requests") == [(1,)]


def test_a_row_whose_prompt_cannot_be_rendered_comes_out_with_the_reason(tmp_path: Path) -> None:
    """The others go on."""
    job = write_job(tmp_path, JOB.replace("{{ text }}", "{{ text.upper() }}"))
    figures = enrich(input=write_texts(tmp_path, ["a", None, "b"]), output=tmp_path / "out.parquet", job=job)
    table = read(tmp_path / "out.parquet")
    assert figures.rows == {"ok": 2, "failed": 1}
    assert "could not be rendered" in table.column("_error").to_pylist()[1]


def test_the_worst_texts_arrive_as_they_are(tmp_path: Path) -> None:
    """Emoji, right-to-left, controls, quotes, braces and a NUL reach the provider character for character."""
    texts = [
        "👩‍👩‍👧 ünïcödé",
        "مرحبا بالعالم",
        "quotes \" \\ ' ",
        "{{ 7*7 }} {% raw %}",
        "a\x00b\x1e\x00c",
        "\u200b\ufeff zero",
        "line\r\nbreak",
        "\x00\x1e\x00",
    ]
    output = tmp_path / "out.parquet"
    figures = enrich(input=write_texts(tmp_path, list(texts)), output=output, job=write_job(tmp_path))
    prompts = [prompt for (prompt,) in emulator_ledger(output, "SELECT prompt FROM requests ORDER BY custom_id")]
    assert figures.rows == {"ok": len(texts)}
    received = [prompt.split("\n\nAnswer with one JSON object")[0] for prompt in prompts]
    assert received == [f"Review: {text}" for text in texts]
    assert read(output).column("text").to_pylist() == texts


def test_no_rows_is_a_valid_empty_result(tmp_path: Path) -> None:
    """The output has all columns and no row, and nothing is sent."""
    output = tmp_path / "out.parquet"
    figures = enrich(input=write_texts(tmp_path, []), output=output, job=write_job(tmp_path))
    assert figures.exit is Exit.DONE
    assert read(output).num_rows == 0
    assert read(output).column_names[:4] == ["id", "text", "sentiment", "topics"]


def test_changed_rows_alone_are_sent(tmp_path: Path) -> None:
    """A nightly run pays for what is new; what left the input is a line of its own in the sums."""
    output, job = tmp_path / "out.parquet", write_job(tmp_path)
    texts = reviews(20)
    enrich(input=write_texts(tmp_path, texts), output=output, job=job)
    figures = enrich(input=write_texts(tmp_path, [*texts[5:], "something new"]), output=output, job=job)
    assert (figures.attempts, figures.reused, figures.rows) == (1, 15, {"ok": 16})
    assert figures.money.elsewhere
    paid = sum(read(output).column("_cost_usd").to_pylist()) * 10**12
    assert paid + figures.money.elsewhere == figures.money.total


def test_a_changed_job_asks_anew_and_an_unchanged_one_is_reused(tmp_path: Path) -> None:
    """The model is part of the question; going back to the first one costs nothing."""
    parameters = {
        "input": write_texts(tmp_path, reviews(4)),
        "output": tmp_path / "out.parquet",
        "job": write_job(tmp_path),
    }
    first = enrich(**parameters)
    other = enrich(model="claude-sonnet-4.5", **parameters)
    back = enrich(**parameters)
    assert [f.attempts for f in (first, other, back)] == [4, 4, 0]
    assert set(read(parameters["output"]).column("_model").to_pylist()) == {"emulated:gpt-4.1"}


def test_a_model_without_a_price_runs_and_is_unpriced_not_free(tmp_path: Path) -> None:
    """An unknown price is null in the rows and null in the sums."""
    output = tmp_path / "out.parquet"
    figures = enrich(
        input=write_texts(tmp_path, reviews(3)), output=output, job=write_job(tmp_path), model="no-such-model"
    )
    assert figures.rows == {"ok": 3}
    assert figures.summary()["total_cost_usd"] is None
    assert read(output).column("_cost_usd").null_count == 3
    assert "unpriced" in StateDirectory(output).report("md").read_text()


def test_a_wrong_key_stops_at_once_with_nothing_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """401 before anything was accepted is a wrong call; no output is written."""

    monkeypatch.setenv("HOLYSHEEP_API_KEY", "wrong-key-value")
    output = tmp_path / "out.parquet"
    with running_emulator(EmulatorOptions(key="right")) as emulator, pytest.raises(UsageError, match="401") as error:
        enrich(
            input=write_texts(tmp_path, reviews(3)), output=output, job=write_job(tmp_path),
            provider="holysheep", base_url=emulator.base_url,
        )  # fmt: skip
    assert "wrong-key-value" not in str(error.value)
    assert not output.exists()


def test_a_key_that_stops_working_keeps_what_was_collected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """401 later: the run stops, what was published stays, and a good key goes on from there."""

    store, output, source, job = (
        tmp_path / "e.sqlite",
        tmp_path / "out.parquet",
        write_texts(tmp_path, reviews(6)),
        write_job(tmp_path),
    )
    parameters = {"input": source, "output": output, "job": job, "provider": "holysheep", "poll_interval": 0.1}
    monkeypatch.setenv("HOLYSHEEP_API_KEY", "first")
    with running_emulator(EmulatorOptions(state=store, key="first", latency=0)) as emulator:
        enrich(limit=2, base_url=emulator.base_url, **parameters)
        port = int(emulator.base_url.rsplit(":", 1)[1].split("/")[0])
    with running_emulator(EmulatorOptions(state=store, key="second", latency=0, port=port)) as emulator:
        with pytest.raises(UsageError, match="401"):
            enrich(base_url=emulator.base_url, **parameters)
        assert read(output).column("_status").to_pylist() == ["ok"] * 2
        monkeypatch.setenv("HOLYSHEEP_API_KEY", "second")
        figures = enrich(base_url=emulator.base_url, **parameters)
    assert figures.rows == {"ok": 6}
    assert figures.attempts == 4


def test_a_batch_that_the_provider_calls_too_large_is_halved(tmp_path: Path) -> None:
    """413 says nothing about the rows: the batch goes again in halves."""
    source, output = write_texts(tmp_path, reviews(40)), tmp_path / "out.parquet"
    figures = enrich(input=source, output=output, job=write_job(tmp_path), options={"max_bytes": "8000"})
    assert figures.rows == {"ok": 40}
    assert figures.batches > 1


def test_a_refused_batch_stops_the_run_and_keeps_its_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A 400 is the provider's word on the whole call: it is said, and the requests are free for the next run."""

    monkeypatch.setenv("HOLYSHEEP_API_KEY", "k")
    output = tmp_path / "out.parquet"
    with running_emulator(EmulatorOptions(max_requests=2)) as emulator, pytest.raises(BatchRefused):
        enrich(
            input=write_texts(tmp_path, reviews(5)), output=output, job=write_job(tmp_path),
            provider="holysheep", base_url=emulator.base_url,
        )  # fmt: skip
    kinds = [event.event for event in read_events(StateDirectory(output).journal)]
    assert kinds == ["frozen", "submitting", "refused"]


def test_the_journal_says_what_is_meant_before_it_is_done(tmp_path: Path) -> None:
    """Frozen, then for the batch submitting, submitted, ended, collected, then published."""
    output = tmp_path / "out.parquet"
    enrich(input=write_texts(tmp_path, reviews(3)), output=output, job=write_job(tmp_path))
    kinds = [event.event for event in read_events(StateDirectory(output).journal)]
    assert kinds == ["frozen", "submitting", "submitted", "ended", "collected", "published"]


def test_an_input_that_changes_under_the_run_is_not_published(tmp_path: Path) -> None:
    """Rows and answers must fit: the next run plans the changed file again."""

    source, output, job = write_texts(tmp_path, reviews(3)), tmp_path / "out.parquet", write_job(tmp_path)
    settings = read_settings(
        {"provider": "local", "options": {"latency": "0"}, "input": source, "output": output, "job": job}
    )

    class ChangingInput(Threads):
        def start(self, name: str, work: Callable[[int], Any], number: int) -> Future[Any]:
            if name == "collect batch":
                write_texts(tmp_path, ["another text", *reviews(3)])
            return super().start(name, work, number)

    with ChangingInput() as threads, pytest.raises(StateError, match="changed while the run"):
        run_pipeline(check(settings), threads)
    assert not output.exists()
    figures = enrich(input=source, output=output, job=job)
    assert (figures.rows, figures.attempts) == ({"ok": 4}, 1)


def test_the_report_holds_the_same_sums_as_the_rows(tmp_path: Path) -> None:
    """report.json, rows and batches add up, to the last digit."""
    output = tmp_path / "out.parquet"
    figures = enrich(
        input=write_texts(tmp_path, reviews(30)), output=output, job=write_job(tmp_path), batch_size=7,
        options={"invalid_rate": "0.3"},
    )  # fmt: skip
    report = json.loads(StateDirectory(output).report("json").read_text(), parse_float=Decimal)
    rows = sum(read(output).column("_cost_usd").to_pylist())
    batches = sum(line["cost_usd"] for line in report["batch_table"])
    assert report["total_cost_usd"] == rows == batches
    assert report["single_cost_usd"] == 2 * rows
    assert figures.money.total == rows * 10**12


def test_columns_named_like_ours_can_be_renamed(tmp_path: Path) -> None:
    """The job file's `rename` gives an output column another name."""
    source, output = tmp_path / "in.parquet", tmp_path / "out.parquet"
    pq.write_table(
        pa.table({"text": ["good"], "sentiment": ["?"], "_status": ["new"], "request": [1], "hi": [2]}), source
    )
    job = write_job(tmp_path, JOB + "rename: {sentiment: label, _status: batchwerk_status}\n")
    enrich(input=source, output=output, job=job)
    table = read(output)
    assert table.column("_status").to_pylist() == ["new"]
    assert table.column("batchwerk_status").to_pylist() == ["ok"]
    assert table.column("label").null_count == 0

"""Batches that are accepted and then refused as a whole: told once, not sent until their attempts are used up."""

from __future__ import annotations

from pathlib import Path

import pytest

from blocks.errors import BatchRefused
from flows.report.verdict import Exit
from tests.flows.undecorated import emulator_ledger, enrich, reviews, write_job, write_texts

DIALECTS = ["openai", "mistral", "gemini"]  # the others refuse before they accept


def creates(output: Path) -> int:
    ((count,),) = emulator_ledger(output, "SELECT count(*) FROM batches")
    return int(count)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_no_batch_can_run_with_is_told_once(tmp_path: Path, dialect: str) -> None:
    """A wrong model, say: the second batch in a row that is refused ends the run, and mended it goes on."""
    output = tmp_path / "out.parquet"
    places = {"input": write_texts(tmp_path, reviews(7)), "output": output, "job": write_job(tmp_path)}
    with pytest.raises(BatchRefused, match="refuses all batches as a whole") as caught:
        enrich(**places, poll_interval=0.05, options={"dialect": dialect, "fail_batch_every": "1"})
    assert "correct the model" in caught.value.next_step
    assert creates(output) == 2
    figures = enrich(**places, poll_interval=0.05, options={"dialect": dialect})
    assert (figures.exit, figures.rows) == (Exit.DONE, {"ok": 7})
    assert creates(output) == 3


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_batch_that_is_refused_beside_others_that_run_goes_again(tmp_path: Path, dialect: str) -> None:
    """An accident of the provider stops nothing, whichever batch it happens to."""
    places = {"input": write_texts(tmp_path, reviews(20)), "output": tmp_path / "out.parquet"}
    figures = enrich(
        **places,
        job=write_job(tmp_path),
        batch_size=4,
        max_in_flight=1,
        poll_interval=0.05,
        options={"dialect": dialect, "fail_batch_every": "3"},
    )
    assert (figures.exit, figures.rows) == (Exit.DONE, {"ok": 20})
    assert figures.attempts == 20, "a batch that was refused asked nothing"


def test_batches_that_expire_are_no_refusal(tmp_path: Path) -> None:
    """At Gemini such a batch has nothing to read; the next one may have the time, however many expired before."""
    figures = enrich(
        input=write_texts(tmp_path, reviews(6)),
        output=tmp_path / "out.parquet",
        job=write_job(tmp_path),
        poll_interval=0.05,
        options={"dialect": "gemini", "expire_every": "1"},
    )
    assert figures.exit is Exit.ROWS_FAILED
    assert figures.batches > 2

"""Helpers: batches are gathered in processes of their own, and come out as if they were not."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blocks.errors import NotFound
from flows.batches import answers as gather
from flows.batches.answers import CollectorPool as Helpers
from flows.batches.answers import _Helper
from flows.domain.events import BatchResult
from tests.flows.undecorated import enrich, reviews, write_job, write_texts

OPTIONS = {"failure_rate": "0.2", "invalid_rate": "0.1", "missing_rate": "0.1"}


@pytest.fixture(autouse=True)
def helpers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two, for however few requests."""
    monkeypatch.setattr("flows.batches.loop.collectors_for", lambda _: 2)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[_Helper]]:
    """The helpers that a run starts."""
    found: list[_Helper] = []
    begin = _Helper.__init__

    def noting(self: _Helper) -> None:
        begin(self)
        found.append(self)

    monkeypatch.setattr(_Helper, "__init__", noting)
    yield found
    assert all(helper._process.returncode is not None for helper in found), "a helper was left behind"


def call(folder: Path, **more: Any) -> dict[str, Any]:
    folder.mkdir()
    source, job = write_texts(folder, reviews(60)), write_job(folder)
    options = {**OPTIONS, **more.pop("options", {})}
    usual = {"input": source, "output": folder / "out.parquet", "job": job, "batch_size": 10, "options": options}
    return {**usual, **more}


def test_the_output_is_the_same(
    tmp_path: Path, started: list[_Helper], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With failures, invalid answers and missing ones, which go again with the reason."""
    with_helpers = enrich(**call(tmp_path / "with"))
    assert started
    assert "a helper process ended" not in caplog.text  # which would have been done without
    monkeypatch.setattr("flows.batches.loop.collectors_for", lambda _: 0)
    alone = enrich(**call(tmp_path / "alone"))
    outputs: list[pa.Table] = [pq.read_table(tmp_path / name / "out.parquet") for name in ("with", "alone")]
    assert outputs[0].equals(outputs[1])
    assert (with_helpers.outcomes, with_helpers.money) == (alone.outcomes, alone.money)


def test_a_helper_that_is_killed_is_done_without(
    tmp_path: Path, started: list[_Helper], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What it was doing is done again here; nothing is sent again."""
    ask = _Helper.collect

    def killed_first(self: _Helper, order: gather.Order) -> BatchResult:
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()
        return ask(self, order)

    monkeypatch.setattr(_Helper, "collect", killed_first)
    figures = enrich(**call(tmp_path / "x"))
    assert started
    assert figures.rows == {"ok": 60}
    assert "a helper process ended" in caplog.text


def test_what_a_provider_refuses_is_told_as_it_is(
    tmp_path: Path, started: list[_Helper], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error crosses over with its kind, its fields and its next step."""
    met: list[NotFound] = []
    ask = _Helper.collect

    def noting(self: _Helper, order: gather.Order) -> BatchResult:
        order.batch.id = "no-such-batch"
        try:
            return ask(self, order)
        except NotFound as error:
            met.append(error)
            raise

    monkeypatch.setattr(_Helper, "collect", noting)
    monkeypatch.setattr("flows.batches.collect.INVISIBLE", 0.0)
    figures = enrich(**call(tmp_path / "x"))
    assert started
    assert figures.outcomes["gone"] >= 10
    assert (met[0].provider, met[0].status) == ("holysheep", 404)
    assert met[0].next_step


def test_the_key_is_on_no_command_line_and_in_no_environment(tmp_path: Path, started: list[_Helper]) -> None:
    """It goes through the pipe."""
    seen: list[bytes] = []
    ask = _Helper.collect

    def looking(self: _Helper, order: gather.Order) -> BatchResult:
        place = Path(f"/proc/{self._process.pid}")
        seen.append((place / "cmdline").read_bytes() + (place / "environ").read_bytes())
        return ask(self, order)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_Helper, "collect", looking)
        patched.setattr("blocks.clients.EMULATOR_KEY", "a-key-that-is-planted")
        enrich(**call(tmp_path / "x"))
    assert started
    assert seen
    assert not any(b"a-key-that-is-planted" in content for content in seen)


def test_what_is_logged_there_is_logged_here(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A warning of the client is not lost with the process."""
    options = {"dialect": "openai", "missing_rate": "1", "failure_rate": "0", "invalid_rate": "0"}
    enrich(**call(tmp_path / "x", options=options, max_attempts=1))
    assert "neither an output nor an error file" in caplog.text


def test_an_order_is_read_as_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every field of it."""
    orders: list[gather.Order] = []
    ask = Helpers.collect

    def noting(self: Helpers, order: gather.Order, provider: Any) -> BatchResult:
        orders.append(order)
        return ask(self, order, provider)

    monkeypatch.setattr(Helpers, "collect", noting)
    enrich(**call(tmp_path / "x"))
    for order in orders:
        read = gather._read(gather._written(order))
        assert read.spec == order.spec
        assert read.access == order.access
        assert (read.output, read.max_attempts) == (order.output, order.max_attempts)
        for name in ("number", "slices", "tag", "id", "copies", "failed", "final"):
            assert getattr(read.batch, name) == getattr(order.batch, name), name
        assert orjson.loads(gather._written(order))["key"]

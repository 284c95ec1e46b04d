"""The collector pool: batches are collected in processes of their own, as if they were collected here."""

from __future__ import annotations

import logging
import os
import pickle
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import Mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import SecretStr

from blocks import errors
from blocks.batch import Connection
from blocks.clients import Access
from blocks.errors import AuthenticationFailed, BatchwerkError, NotFound, ProviderError, StateError, UsageError
from flows.batches.answers import Order
from flows.batches.collector_pool import CollectorPool, _Collector
from flows.domain.batches import Batch, State
from flows.domain.events import BatchResult, Slice
from flows.domain.job import parse_job
from flows.spec import Spec
from tests.blocks.scripted import Say, serving
from tests.flows.undecorated import JOB, enrich, given_up_at_once, reviews, write_job, write_texts

OPTIONS = {"failure_rate": "0.2", "invalid_rate": "0.1", "missing_rate": "0.1"}
ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def two_collectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two, for however few requests."""
    monkeypatch.setattr("flows.batches.loop.collectors_for", lambda _: 2)


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[_Collector]]:
    """The collectors that a test starts; all have ended after it."""
    found: list[_Collector] = []
    begin = _Collector.__init__

    def noting(self: _Collector) -> None:
        begin(self)
        found.append(self)

    monkeypatch.setattr(_Collector, "__init__", noting)
    yield found
    assert all(collector.process.returncode is not None for collector in found), "a collector was left behind"


@pytest.fixture
def pool() -> Iterator[CollectorPool]:
    """One collector."""
    with closing(CollectorPool(1)) as pool:
        yield pool


def call(folder: Path, **more: Any) -> dict[str, Any]:
    folder.mkdir()
    source, job = write_texts(folder, reviews(60)), write_job(folder)
    options = {**OPTIONS, **more.pop("options", {})}
    usual = {"input": source, "output": folder / "out.parquet", "job": job, "batch_size": 10, "options": options}
    return {**usual, **more}


def order_of(folder: Path, url: str = "http://127.0.0.1:9", key: str = "a-key", **batch: Any) -> Order:
    """A batch of ten requests, which needs no provider if it is `failed`."""
    connection = Connection("openai", url, f"openai {url}")
    spec = Spec(parse_job(JOB, "job.yaml"), "gpt-4.1", connection)
    ended = Batch(1, [Slice(0, 10)], State.ENDED, tag="run-1", id="batch_1", **batch)
    return Order(Access(connection, SecretStr(key), url), spec, ended, folder / "out.parquet", max_attempts=3)


def collect(pool: CollectorPool, order: Order) -> BatchResult:
    """Collect, with a client in case that it is done here."""
    with closing(order._replace(access=order.access._replace(key=SecretStr("here"))).access.client()) as client:
        return pool.collect(order, client)


def test_the_output_is_the_same(
    tmp_path: Path, started: list[_Collector], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With failed, invalid and missing answers, which are retried with the reason, nothing differs."""
    with_pool = enrich(**call(tmp_path / "with"))
    assert started
    assert "a collector process" not in caplog.text
    monkeypatch.setattr("flows.batches.loop.collectors_for", lambda _: 0)
    alone = enrich(**call(tmp_path / "alone"))
    outputs: list[pa.Table] = [pq.read_table(tmp_path / name / "out.parquet") for name in ("with", "alone")]
    assert outputs[0].equals(outputs[1])
    assert (with_pool.outcomes, with_pool.money) == (alone.outcomes, alone.money)


def test_a_run_survives_collectors_that_are_killed(
    tmp_path: Path, started: list[_Collector], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Their batches are collected in the parent; nothing is sent again."""
    ask = _Collector.collect

    def killed_first(self: _Collector, order: Order) -> BatchResult | BatchwerkError:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        return ask(self, order)

    monkeypatch.setattr(_Collector, "collect", killed_first)
    figures = enrich(**call(tmp_path / "x"))
    assert len(started) > 2
    assert figures.rows == {"ok": 60}
    assert "a collector process died" in caplog.text


def test_a_dead_collector_is_replaced(
    tmp_path: Path, started: list[_Collector], pool: CollectorPool, caplog: pytest.LogCaptureFixture
) -> None:
    """The batch that it was given is collected here, the next one by a new collector."""
    started[0].process.kill()
    started[0].process.wait()
    for expected in (1, 2):
        assert collect(pool, order_of(tmp_path, failed="refused")).retry[0].requests == 10
        assert len(started) == expected
    assert caplog.text.count("a collector process died") == 1


def test_an_interrupted_collector_is_not_used_again(
    tmp_path: Path, started: list[_Collector], pool: CollectorPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its late reply would be taken for that of the next batch."""
    with monkeypatch.context() as patched:
        patched.setattr(_Collector, "collect", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            collect(pool, order_of(tmp_path, failed="refused"))
    assert started[0].process.returncode is not None
    assert collect(pool, order_of(tmp_path, failed="refused")).retry
    assert len(started) == 2


def test_why_answers_are_gone_reaches_the_collector(tmp_path: Path, pool: CollectorPool) -> None:
    """An order whose answers are gone asks no provider and says why."""
    order = order_of(tmp_path, gone="deleted after 30 days")
    assert collect(pool, order).outcomes == {"gone": 10}
    (part,) = tmp_path.rglob("000001.pq")
    assert set(pq.read_table(part).column("error").to_pylist()) == {"gone: deleted after 30 days"}


def test_errors_of_a_collector_are_raised_here(
    tmp_path: Path, started: list[_Collector], pool: CollectorPool, caplog: pytest.LogCaptureFixture
) -> None:
    """Of any type, with its fields; the collector stays usable."""
    refusal = Say(401, {"error": {"code": "invalid_api_key", "message": "Incorrect API key"}})
    with serving(refusal) as server, pytest.raises(AuthenticationFailed) as refused:
        collect(pool, order_of(tmp_path, server.url))
    error = refused.value
    assert (error.provider, error.status, error.code, bool(error.next_step)) == ("openai", 401, "invalid_api_key", True)

    with pytest.raises(UsageError, match="has a character that no key has"):
        pool.collect(order_of(tmp_path, key="a\nkey"), order_of(tmp_path).access.client())

    blocked = tmp_path / "_out.parquet.batchwerk"
    blocked.touch()
    with pytest.raises(StateError, match="File exists") as full:
        collect(pool, order_of(tmp_path, failed="refused"))
    assert full.value.next_step

    blocked.unlink()
    collect(pool, order_of(tmp_path, failed="refused"))
    assert len(started) == 1
    assert "a collector process" not in caplog.text


def test_every_error_can_be_pickled() -> None:
    """With all its fields."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, BatchwerkError)]
    for kind in kinds:
        error = kind("what happened", next_step="what to do")
        if isinstance(error, ProviderError):
            error.provider, error.status, error.retry_after, error.tries = "openai", 429, 2.5, 6
        copy = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own
        assert (type(copy), vars(copy), str(copy)) == (kind, vars(error), str(error))


def test_without_processes_batches_are_collected_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A system that starts no more processes costs one warning and no batch."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with closing(CollectorPool(2)) as pool:
        for _ in range(3):
            assert collect(pool, order_of(tmp_path, failed="refused")).retry
    assert caplog.text.count("can't be started") == 1
    assert pool.most == 0


def test_a_killed_parent_leaves_no_collector(tmp_path: Path) -> None:
    """SIGKILL of the parent ends a collector even while it waits for answers."""
    program = (
        "import sys, threading; from pathlib import Path\n"
        "from tests.flows.batches.test_collector_pool import *\n"
        "pool = CollectorPool(1)\n"
        "order = order_of(Path(sys.argv[1]), sys.argv[2])\n"
        "threading.Thread(target=collect, args=(pool, order), daemon=True).start()\n"
        "print(pool._all[0].process.pid, flush=True)\n"
        "threading.Event().wait()\n"
    )
    with serving(Say(200, {}, pause=60)) as server:
        command = [sys.executable, "-c", program, str(tmp_path), server.url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as parent:
            assert parent.stdout is not None
            collector = os.pidfd_open(int(parent.stdout.readline()))
            while not server.asked:
                time.sleep(0.01)
            parent.kill()
        try:
            assert select.select([collector], [], [], 30)[0], "it is still alive"
        finally:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(collector, signal.SIGKILL)
            os.close(collector)


def test_no_key_is_in_the_environment_or_on_the_command_line(
    tmp_path: Path, started: list[_Collector], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither that of the provider, which goes through the pipe, nor any other; proxies and certificates are kept."""
    for name in ("ANTHROPIC_API_KEY", "PREFECT_API_KEY", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "planted-elsewhere")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("SSL_CERT_DIR", "/certificates")
    with closing(CollectorPool(1)) as pool:
        collect(pool, order_of(tmp_path, key="planted-here", failed="refused"))
        process = Path(f"/proc/{started[0].process.pid}")
        environment = (process / "environ").read_bytes()
        assert b"planted" not in environment + (process / "cmdline").read_bytes()
    assert b"https_proxy=http://127.0.0.1:9\0" in environment
    assert b"SSL_CERT_DIR=/certificates\0" in environment


def test_modules_of_the_current_folder_are_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even under our names, or through a relative PYTHONPATH."""
    for name in ("flows", "orjson"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("open('imported', 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", ".")
    with closing(CollectorPool(1)) as pool:
        assert collect(pool, order_of(tmp_path, failed="refused")).retry
    assert not (tmp_path / "imported").exists()
    assert "a collector process" not in caplog.text


def test_a_print_corrupts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Standard output of a collector is neither the protocol nor the parent's."""
    folder = tmp_path / "extra"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text("print('a chatty library', flush=True)")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    with closing(CollectorPool(1)) as pool:
        assert collect(pool, order_of(tmp_path, failed="refused")).retry
    assert "a collector process" not in caplog.text
    out, err = capfd.readouterr()
    assert (out, "a chatty library" in err) == ("", True)


def test_what_is_logged_there_is_logged_here(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A warning of the client is not lost with the process."""
    options = {"dialect": "openai", "missing_rate": "1", "failure_rate": "0", "invalid_rate": "0"}
    enrich(**call(tmp_path / "x", options=options, max_attempts=1))
    (record, *_) = [each for each in caplog.records if "neither an output nor an error file" in each.getMessage()]
    assert record.process != os.getpid()
    assert record.levelno == logging.WARNING


def test_a_collector_imports_no_prefect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would cost seconds and memory; one that is found first would leave a trace."""
    trace, package = tmp_path / "imported", tmp_path / "extra" / "prefect"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f"open({str(trace)!r}, 'w')")
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    with closing(CollectorPool(1)) as pool:
        assert collect(pool, order_of(tmp_path, failed="refused")).retry
    assert not trace.exists()


def test_ctrl_c_does_not_reach_collectors(started: list[_Collector], pool: CollectorPool) -> None:
    """They are in a session of their own: the parent decides when they end."""
    assert os.getsid(started[0].process.pid) != os.getsid(0)


def test_a_batch_that_the_provider_does_not_know_is_gone(
    tmp_path: Path, started: list[_Collector], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run takes the error of a collector as it takes that of its own client."""
    met: list[NotFound] = []
    ask = _Collector.collect

    def noting(self: _Collector, order: Order) -> BatchResult | BatchwerkError:
        order.batch.id = "no-such-batch"
        reply = ask(self, order)
        if not order.batch.gone:
            assert isinstance(reply, NotFound)
            met.append(reply)
        return reply

    monkeypatch.setattr(_Collector, "collect", noting)
    given_up_at_once(monkeypatch)
    figures = enrich(**call(tmp_path / "x"))
    assert started
    assert figures.outcomes["gone"] >= 10
    assert (met[0].provider, met[0].status) == ("holysheep", 404)
    assert met[0].next_step

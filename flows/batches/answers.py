"""Reading a batch's answers into its results part, in this process or in a collector process."""

from __future__ import annotations

import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from pydantic import SecretStr

from blocks import errors
from blocks.batch import BatchPhase, BatchProvider, Connection
from blocks.catalog import Reach
from blocks.errors import ProviderError, system_error
from flows.domain.events import BatchResult, Slice
from flows.domain.judging import BatchAnswers
from flows.domain.ledger import Batch, State
from flows.engine.memory import rare_garbage_collection
from flows.spec import Spec
from flows.storage.results import ResultsStore, part_table
from flows.storage.state import StateDirectory

log = logging.getLogger("batchwerk")

MIN_REQUESTS = 50_000  # of a run with collector processes: with fewer, starting one takes longer than it saves
MAX_COLLECTORS = 2  # processes; each takes about 150 MB


class Order(NamedTuple):
    """Everything needed to collect a batch."""

    reach: Reach
    spec: Spec
    batch: Batch
    output: Path
    max_attempts: int
    gone: str | None = None  # why its answers are no longer available


def collect_answers(order: Order, provider: BatchProvider) -> BatchResult:
    """Read the answers, judge them and write the results part; the result goes into the journal."""
    batch, spec = order.batch, order.spec
    answers = BatchAnswers(batch, spec.judge(order.max_attempts))
    if batch.failed is None and batch.id is not None and order.gone is None:
        answers.take(provider.results(batch.id, spec.form))
        for copy in batch.copies:
            if provider.poll(copy).phase is BatchPhase.ENDED:  # a failed copy has no answers and no cost
                answers.take_copy(provider.results(copy, spec.form))
    judged = answers.finish(failed=batch.failed, final=batch.final, gone=order.gone)
    ResultsStore(StateDirectory(order.output), spec.schema_id).save(batch.number, part_table(judged, spec.schema))
    return judged.result


def collectors_for(requests: int) -> int:
    """The number of collector processes for a run with this many open requests; one core is left for this one."""
    spare = (os.cpu_count() or 1) - 1
    return min(spare, MAX_COLLECTORS) if requests >= MIN_REQUESTS else 0


class CollectorPool:
    """Processes that collect batches, ended with this one. The first starts at once, as that takes most of a second."""

    def __init__(self, max_processes: int) -> None:
        self._idle: queue.SimpleQueue[_Helper] = queue.SimpleQueue()
        self._all = [_Helper()] if max_processes else []
        for helper in self._all:
            self._idle.put(helper)
        self.max_processes = max_processes
        self._lock = threading.Lock()

    def collect(self, order: Order, provider: BatchProvider) -> BatchResult:
        """Like `collect_answers`; in this process if no collector is free."""
        helper = self._take()
        if helper is None:
            return collect_answers(order, provider)
        try:
            result = helper.collect(order)
        except (OSError, ValueError) as error:  # it was killed or ended; its work can be repeated
            log.warning("a collector process ended (%s); batch %d is collected here", error, order.batch.number)
            helper.end()
            return collect_answers(order, provider)
        except ProviderError:
            self._idle.put(helper)
            raise
        self._idle.put(helper)
        return result

    def _take(self) -> _Helper | None:
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            pass
        with self._lock:
            if len(self._all) >= self.max_processes:
                return None
            self._all.append(_Helper())
            return self._all[-1]

    def close(self) -> None:
        """End all processes."""
        for helper in self._all:
            helper.end()


class _Helper:
    """One process: one line per order on its input, one line per result on its output."""

    def __init__(self) -> None:
        # A new process rather than a fork, because threads of this one hold locks. In a group of its own, so that
        # Ctrl-C reaches this process only, which then decides.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "flows.batches.answers"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def collect(self, order: Order) -> BatchResult:
        """Raises ProviderError as the provider's client would, OSError or ValueError if the process has ended."""
        assert self._process.stdin is not None  # noqa: S101  # it was opened with pipes
        assert self._process.stdout is not None  # noqa: S101
        self._process.stdin.write(_written(order) + b"\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = orjson.loads(self._process.stdout.readline())
        for level, name, message in answer["logs"]:
            logging.getLogger(name).log(level, "%s", message)
        if (failure := answer.get("failure")) is not None:
            raise _failure(failure)
        return _result(answer["result"])

    def end(self) -> None:
        """End the process; its current work is no longer needed."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):  # closing flushes what the process has not read
                    pipe.close()


# --- what goes over the pipes


def _written(order: Order) -> bytes:
    batch = order.batch
    return orjson.dumps(
        {
            "connection": asdict(order.reach.connection),
            "key": order.reach.key.get_secret_value(),
            "base_url": order.reach.base_url,
            "spec": order.spec.content,
            "batch": {
                "number": batch.number,
                "slices": batch.slices,
                "tag": batch.tag,
                "id": batch.id,
                "copies": batch.copies,
                "failed": batch.failed,
                "final": batch.final,
                "early": batch.early,
            },
            "output": str(order.output),
            "max_attempts": order.max_attempts,
        },
        default=list,  # of slices
    )


def _read(line: bytes) -> Order:
    fields = orjson.loads(line)
    batch = fields["batch"]
    slices, copies = [Slice(*piece) for piece in batch.pop("slices")], tuple(batch.pop("copies"))
    return Order(
        Reach(Connection(**fields["connection"]), SecretStr(fields["key"]), fields["base_url"]),
        Spec.from_content(fields["spec"]),
        Batch(slices=slices, copies=copies, state=State.ENDED, **batch),
        Path(fields["output"]),
        fields["max_attempts"],
    )


def _result(fields: Mapping[str, Any]) -> BatchResult:
    return BatchResult.model_validate(fields)


def _describe(error: Exception) -> dict[str, Any]:
    if isinstance(error, OSError):
        error = system_error(error)
    fields = {name: value for name, value in vars(error).items() if isinstance(value, str | int | float | None)}
    return {"kind": type(error).__name__, "fields": fields}


def _failure(described: Mapping[str, Any]) -> Exception:
    kind, fields = getattr(errors, described["kind"], errors.StateError), described["fields"]
    error: Exception = kind(fields.get("message", described["kind"]), next_step=fields.get("next_step", ""))
    vars(error).update(fields)
    return error


# --- the collector process


class _Kept(logging.Handler):
    """Keeps log records for the parent process."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.records: list[tuple[int, str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append((record.levelno, record.name, record.getMessage()))


def main() -> None:
    """Collect batches as ordered until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    kept = _Kept()
    logging.getLogger("batchwerk").addHandler(kept)
    clients: dict[bytes, BatchProvider] = {}
    with rare_garbage_collection():
        for line in sys.stdin.buffer:
            kept.records.clear()
            answer = _answer(line, clients)
            answer["logs"] = kept.records
            sys.stdout.buffer.write(orjson.dumps(answer, default=list) + b"\n")
            sys.stdout.buffer.flush()


def _answer(line: bytes, clients: dict[bytes, BatchProvider]) -> dict[str, Any]:
    order = _read(line)
    name = orjson.dumps([asdict(order.reach.connection), order.reach.base_url])
    try:
        provider = clients.get(name) or clients.setdefault(name, order.reach.client())
        return {"result": collect_answers(order, provider).model_dump()}
    except (errors.BatchwerkError, OSError) as error:
        return {"failure": _describe(error)}


if __name__ == "__main__":
    main()

"""Reading a batch's answers into its results part: in this process, or in a helper that has a core of its own."""

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
from blocks.clients import Access
from blocks.errors import ProviderError, system_error
from flows.domain.events import BatchResult, Slice
from flows.domain.judging import BatchAnswers
from flows.domain.ledger import Batch, State
from flows.engine.memory import rare_garbage_collection
from flows.spec import Spec
from flows.storage.results import ResultsStore, part_table
from flows.storage.state import StateDirectory

log = logging.getLogger("batchwerk")

WORTH_A_HELPER = 50_000  # requests of a run: for fewer, starting a process takes longer than it saves
MOST_HELPERS = 2  # each takes some 150 MB


class Order(NamedTuple):
    """All that gathering a batch needs."""

    access: Access
    spec: Spec
    batch: Batch
    output: Path
    max_attempts: int
    gone: str | None = None  # why its answers can't be had any more


def collect_answers(order: Order, provider: BatchProvider) -> BatchResult:
    """Read the answers, judge them, write the part; what is returned is for the journal."""
    batch, spec = order.batch, order.spec
    answers = BatchAnswers(batch, spec.judge(order.max_attempts))
    if batch.failed is None and batch.id is not None and order.gone is None:
        answers.take(provider.results(batch.id, spec.form))
        for copy in batch.copies:
            if provider.poll(copy).phase is BatchPhase.ENDED:  # one that failed answered nothing and cost nothing
                answers.take_copy(provider.results(copy, spec.form))
    judged = answers.finish(failed=batch.failed, final=batch.final, gone=order.gone)
    ResultsStore(StateDirectory(order.output), spec.schema_id).save(batch.number, part_table(judged, spec.schema))
    return judged.result


def collectors_for(requests: int) -> int:
    """How many helpers a run with so many open requests may have: one core is this process's own."""
    spare = (os.cpu_count() or 1) - 1
    return min(spare, MOST_HELPERS) if requests >= WORTH_A_HELPER else 0


class CollectorPool:
    """Processes that gather batches, ended with this one. The first begins at once: it takes most of a second."""

    def __init__(self, most: int) -> None:
        self._idle: queue.SimpleQueue[_Helper] = queue.SimpleQueue()
        self._all = [_Helper()] if most else []
        for helper in self._all:
            self._idle.put(helper)
        self.most = most
        self._lock = threading.Lock()

    def collect(self, order: Order, provider: BatchProvider) -> BatchResult:
        """As `gather`; in this process where no helper is free."""
        helper = self._take()
        if helper is None:
            return collect_answers(order, provider)
        try:
            gathered = helper.collect(order)
        except (OSError, ValueError) as error:  # it was killed, or ended: what it was doing can be done again
            log.warning("a helper process ended (%s); batch %d is collected here", error, order.batch.number)
            helper.end()
            return collect_answers(order, provider)
        except ProviderError:
            self._idle.put(helper)
            raise
        self._idle.put(helper)
        return gathered

    def _take(self) -> _Helper | None:
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            pass
        with self._lock:
            if len(self._all) >= self.most:
                return None
            self._all.append(_Helper())
            return self._all[-1]

    def close(self) -> None:
        """End them all."""
        for helper in self._all:
            helper.end()


class _Helper:
    """One process: an order a line on its input, an answer a line on its output."""

    def __init__(self) -> None:
        # A process of its own rather than a fork: the threads of this one hold locks. Its group is its own too, so
        # that Ctrl-C reaches this process alone, which then decides.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "flows.batches.answers"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def collect(self, order: Order) -> BatchResult:
        """Raises ProviderError as the provider's client would, OSError or ValueError where the process is no more."""
        assert self._process.stdin is not None  # noqa: S101  # it was opened with pipes
        assert self._process.stdout is not None  # noqa: S101
        self._process.stdin.write(_written(order) + b"\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = orjson.loads(self._process.stdout.readline())
        for level, name, message in answer["said"]:
            logging.getLogger(name).log(level, "%s", message)
        if (failure := answer.get("failure")) is not None:
            raise _failure(failure)
        return _gathered(answer["gathered"])

    def end(self) -> None:
        """It ends when its input does; whatever it is doing is of no use any more."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):  # what was written and never read is flushed by closing, to nobody
                    pipe.close()


# --- what goes over the pipes


def _written(order: Order) -> bytes:
    batch = order.batch
    return orjson.dumps(
        {
            "connection": asdict(order.access.connection),
            "key": order.access.key.get_secret_value(),
            "base_url": order.access.base_url,
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
    said = orjson.loads(line)
    batch = said["batch"]
    slices, copies = [Slice(*part) for part in batch.pop("slices")], tuple(batch.pop("copies"))
    return Order(
        Access(Connection(**said["connection"]), SecretStr(said["key"]), said["base_url"]),
        Spec.from_content(said["spec"]),
        Batch(slices=slices, copies=copies, state=State.ENDED, **batch),
        Path(said["output"]),
        said["max_attempts"],
    )


def _gathered(said: Mapping[str, Any]) -> BatchResult:
    return BatchResult.model_validate(said)


def _told(error: Exception) -> dict[str, Any]:
    if isinstance(error, OSError):
        error = system_error(error)
    told = {name: value for name, value in vars(error).items() if isinstance(value, str | int | float | None)}
    return {"kind": type(error).__name__, "fields": told}


def _failure(told: Mapping[str, Any]) -> Exception:
    kind, fields = getattr(errors, told["kind"], errors.StateError), told["fields"]
    error: Exception = kind(fields.get("message", told["kind"]), next_step=fields.get("next_step", ""))
    vars(error).update(fields)
    return error


# --- the helper itself


class _Kept(logging.Handler):
    """Keeps what is logged, for the process that has the log."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.records: list[tuple[int, str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append((record.levelno, record.name, record.getMessage()))


def main() -> None:
    """Gather what is ordered until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    kept = _Kept()
    logging.getLogger("batchwerk").addHandler(kept)
    clients: dict[bytes, BatchProvider] = {}
    with rare_garbage_collection():
        for line in sys.stdin.buffer:
            kept.records.clear()
            answer = _answer(line, clients)
            answer["said"] = kept.records
            sys.stdout.buffer.write(orjson.dumps(answer, default=list) + b"\n")
            sys.stdout.buffer.flush()


def _answer(line: bytes, clients: dict[bytes, BatchProvider]) -> dict[str, Any]:
    order = _read(line)
    name = orjson.dumps([asdict(order.access.connection), order.access.base_url])
    try:
        provider = clients.get(name) or clients.setdefault(name, order.access.client())
        return {"gathered": collect_answers(order, provider).model_dump()}
    except (errors.BatchwerkError, OSError) as error:
        return {"failure": _told(error)}


if __name__ == "__main__":
    main()

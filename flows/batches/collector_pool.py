"""Processes that collect batches: parsing answers then has cores of its own.

Why not the standard library's process pool, or loky: their children get the whole environment, with the keys of all
providers, and outlive a parent that is killed; one that dies breaks the whole pool; and a spawned child first imports
the parent's main module, which under a Prefect worker is Prefect. They are no faster and no smaller.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from queue import SimpleQueue

from blocks.batch import BatchProvider
from blocks.errors import BatchwerkError, system_error
from flows.batches.answers import Order, collect_answers
from flows.domain.events import BatchResult
from flows.engine.memory import rare_garbage_collection

log = logging.getLogger("batchwerk")

MIN_REQUESTS = 50_000  # of a run: with fewer, starting a process takes longer than it saves
MAX_COLLECTORS = 2  # each takes about 130 MB

ENVIRONMENT = {
    *("PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"),
    *("PYTHONHOME", "PYTHONUSERBASE", "PYTHONNOUSERSITE", "PYTHONUTF8"),
    *("PYTHONWARNINGS", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX"),
    *("OMP_NUM_THREADS", "OMP_THREAD_LIMIT"),  # the threads of Arrow
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
}
ENVIRONMENT_PREFIXES = ("LC_", "ARROW_", "SSL_CERT_")
STDERR = 2

_Reply = tuple[BatchResult | BatchwerkError, list[logging.LogRecord]]


def collectors_for(requests: int) -> int:
    """How many collectors a run with n open requests may have; one core is left to this process."""
    spare = (os.cpu_count() or 1) - 1
    return min(spare, MAX_COLLECTORS) if requests >= MIN_REQUESTS else 0


class CollectorPool:
    """At most `most` collectors. The first is started at once, as its imports take a second; others on demand."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._lock = threading.Lock()
        self._all: list[_Collector] = []
        self._idle: list[_Collector] = []
        if (first := self._take()) is not None:
            self._idle.append(first)

    def collect(self, order: Order, client: BatchProvider) -> BatchResult:
        """As `collect_answers`, with the same errors; done in this process if no collector is free or it dies."""
        collector = self._take()
        if collector is None:
            return collect_answers(order, client)
        try:
            reply = collector.collect(order)
        except (OSError, EOFError) as error:
            self._discard(collector)
            log.warning("a collector process died (%r); batch %d is collected here", error, order.batch.number)
            return collect_answers(order, client)
        except BaseException:  # interrupted: its reply would be taken for that of the next batch
            self._discard(collector)
            raise
        with self._lock:
            self._idle.append(collector)
        if isinstance(reply, BatchwerkError):
            raise reply
        return reply

    def _take(self) -> _Collector | None:
        with self._lock:
            if self._idle:
                return self._idle.pop()
            if len(self._all) >= self.most:
                return None
            try:
                collector = _Collector()
            except OSError as error:
                self.most = len(self._all)  # no further attempts, so one warning
                log.warning("a collector process can't be started (%s); batches are collected without it", error)
                return None
            self._all.append(collector)
            return collector

    def _discard(self, collector: _Collector) -> None:
        collector.kill()
        with self._lock:
            self._all.remove(collector)

    def close(self) -> None:
        """Kill all collectors."""
        for collector in self._all:
            collector.kill()


class _Collector:
    """One process, started anew and not forked: the threads of this one hold locks.

    Orders and replies are pickled over a pipe that only these two processes hold. The child's standard input is a
    lifeline that ends with this process, however that ends. A session of its own keeps Ctrl-C away from the child.
    """

    def __init__(self) -> None:
        self._pipe, theirs = Pipe()
        with theirs:
            self.process = subprocess.Popen(  # noqa: S603  # our own module
                [sys.executable, "-P", "-m", "flows.batches.collector_pool", str(theirs.fileno())],
                env=dict(_environment()),
                stdin=subprocess.PIPE,
                stdout=STDERR,  # standard output of this process may be read by a program
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    def collect(self, order: Order) -> BatchResult | BatchwerkError:
        """Raises OSError or EOFError if the process has died."""
        fresh = order._replace(spec=replace(order.spec))  # its cached values can't be pickled
        self._pipe.send((fresh, log.getEffectiveLevel()))
        reply: _Reply = self._pipe.recv()
        result, records = reply
        for record in records:
            logger = logging.getLogger(record.name)
            if logger.isEnabledFor(record.levelno):
                logger.handle(record)
        return result

    def kill(self) -> None:
        """End it at once; an unfinished batch is left as if it had not been begun."""
        with self.process, self._pipe:
            self.process.kill()


def _environment() -> Iterator[tuple[str, str]]:
    """What Python, Arrow and httpx read, and no key; modules come from this package's own folder first."""
    for name, value in os.environ.items():
        if name.upper() in ENVIRONMENT or name.startswith(ENVIRONMENT_PREFIXES):
            yield name, value
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    places = [str(Path(__file__).parents[2]), *(place for place in inherited if Path(place).is_absolute())]
    yield "PYTHONPATH", os.pathsep.join(places)


# --- in the child


def main(pipe: Connection) -> None:
    """Collect what is ordered until the pipe is closed."""
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    records: SimpleQueue[logging.LogRecord] = SimpleQueue()
    log.addHandler(QueueHandler(records))
    clients: dict[str, BatchProvider] = {}
    with rare_garbage_collection(), suppress(EOFError):
        while True:
            order, level = pipe.recv()
            log.setLevel(level)
            result = _result(order, clients)
            pipe.send((result, [records.get() for _ in range(records.qsize())]))


def _exit_with_parent() -> None:
    """Not by PR_SET_PDEATHSIG: that fires when the thread ends that started this process."""
    os.read(sys.stdin.fileno(), 1)  # nothing is ever written: it returns when the other end is closed
    os._exit(1)


def _result(order: Order, clients: dict[str, BatchProvider]) -> BatchResult | BatchwerkError:
    name = repr(order.access)  # shows no key
    try:
        if name not in clients:
            clients[name] = order.access.client()
        return collect_answers(order, clients[name])
    except BatchwerkError as error:
        return error
    except OSError as error:
        return system_error(error)


if __name__ == "__main__":
    main(Connection(int(sys.argv[1])))

"""The state directory beside an output: its files, its lock, and the input that it belongs to."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from blocks.errors import Busy, StateError, UsageError
from flows.storage.files import make_folder, open_plain, write_json
from flows.storage.lease import Lease, acquire, describe, read_holder
from flows.storage.locks import locks_work, try_lock

FORMAT = 2
RESTORE = "restore the state directory from a backup as a whole"
_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"  # no look-alikes: people read the run's id in logs


@dataclass(frozen=True, slots=True)
class StateDirectory:
    """`_<output name>.batchwerk/` beside the output."""

    output: Path

    @property
    def path(self) -> Path:
        """The directory itself; its underscore hides it from readers of folders."""
        return self.output.parent / f"_{self.output.name}.batchwerk"

    @property
    def run_file(self) -> Path:
        """Id, format version and input."""
        return self.path / "run.json"

    @property
    def journal(self) -> Path:
        """Append-only events."""
        return self.path / "journal.jsonl"

    @property
    def lease(self) -> Path:
        """Names the process that works on it."""
        return self.path / "lease"

    @property
    def requests(self) -> Path:
        """Frozen plans, as generations."""
        return self.path / "requests"

    @property
    def rows(self) -> Path:
        """Which request each row of the newest plan asks for."""
        return self.path / "rows.pq"

    @property
    def bodies(self) -> Path:
        """Encoded batches while they are being sent."""
        return self.path / "bodies"

    @property
    def published(self) -> Path:
        """The content of the output; written last."""
        return self.path / "published.json"

    @property
    def publishing(self) -> Path:
        """The identities of the files that are being put in place, for a crash before `published` says so."""
        return self.path / "publishing.json"

    def written(self) -> dict[str, set[str]]:
        """The identities of the files that are ours, by their names in the output."""
        published, publishing = read_or_none(self.published) or {}, read_or_none(self.publishing) or {}
        found = {name: {held["output"]} for name, held in published.get("files", {}).items()}
        for name, identity in publishing.get("outputs", {}).items():
            found.setdefault(name, set()).add(identity)
        return found

    def last_published(self) -> dict[str, Any]:
        """What the output was published with: as `published` says, or `publishing` after a crash before that."""
        return read_or_none(self.published) or read_or_none(self.publishing) or {}

    def spec(self, fingerprint: str) -> Path:
        """A job, provider and endpoint that batches were sent under."""
        return self.path / "specs" / f"{fingerprint}.json"

    def results(self, schema_id: str) -> Path:
        """Results parts of one output schema."""
        return self.path / "results" / schema_id

    def part(self, schema_id: str, batch: int) -> Path:
        """The results of one batch."""
        return self.results(schema_id) / f"{batch:06d}.pq"

    def report(self, suffix: str) -> Path:
        """The report, as json, md or html."""
        return self.path / f"report.{suffix}"

    @property
    def runs(self) -> Path:
        """One row for each run."""
        return self.path / "runs.pq"

    def read_run(self) -> dict[str, Any] | None:
        """run.json, or None if there is no run yet. Raises StateError for another format."""
        if not self.run_file.exists():
            return None
        run = read_json(self.run_file)
        if run.get("format") != FORMAT:
            raise StateError(
                f"{self.path} has the format {run.get('format')}, and this version of Batchwerk reads format {FORMAT}",
                next_step="use the version of Batchwerk that wrote it, or choose another output",
            )
        return run

    def open_run(self, source: Path, *, input_moved: bool) -> str:
        """The run's id; begins a new run if there is none. Call it while holding the lock."""
        run = self.read_run()
        where = str(source.resolve())
        if run is None:
            run_id = random_name(8)
            created = datetime.now(UTC).isoformat()
            write_json(self.run_file, {"id": run_id, "format": FORMAT, "input": where, "created_at": created})
            return run_id
        check_belongs(run, source, self.output, input_moved=input_moved)
        if run["input"] != where:
            write_json(self.run_file, {**run, "input": where})
        return str(run["id"])

    def remember(self, settings: Mapping[str, Any], spec: str) -> None:
        """Keep what the newest run was asked for: its parameters, without secrets, and the spec of its requests."""
        write_json(
            self.path / "settings.json",
            {"settings": settings, "spec": spec, "cancelled": False, "began": self.began(), "ended": False},
        )

    def began(self) -> float:
        """When the run began that has not ended in order yet, in whatever process; now if it begins now."""
        kept = read_or_none(self.path / "settings.json") or {}
        return time.time() if kept.get("ended", True) else float(kept["began"])

    def remember_ended(self) -> None:
        """Keep that the newest run came to its end: the next one has a budget of its own."""
        write_json(self.path / "settings.json", {**read_json(self.path / "settings.json"), "ended": True})

    def remember_cancelling(self) -> None:
        """Keep that the newest run's batches were to be cancelled."""
        if kept := read_or_none(self.path / "settings.json"):
            write_json(self.path / "settings.json", {**kept, "cancelled": True})

    def last_settings(self) -> dict[str, Any]:
        """The parameters of the newest run."""
        return dict(read_json(self.path / "settings.json")["settings"])

    def last_spec(self) -> dict[str, Any]:
        """The content of the spec of the newest run, as it was then, whatever became of the job file."""
        return read_json(self.spec(read_json(self.path / "settings.json")["spec"]))

    def is_cancelled(self) -> bool:
        """Whether cancelling is the last that was asked for: then nothing is repeated without another word."""
        return bool(read_json(self.path / "settings.json")["cancelled"])

    def prepare(self) -> None:
        """Make the folders."""
        make_folder(self.path.parent, private=False)
        for folder in (self.path / "specs", self.requests, self.bodies):
            make_folder(folder)

    @contextmanager
    def locked(self) -> Iterator[Lease]:
        """Hold the directory: one writer at a time, by a lock that ends with the process, and by a lease."""
        self.prepare()
        handle = open_plain(self.path / "lock", os.O_RDWR | os.O_CREAT)
        try:
            if not try_lock(handle):
                raise Busy(
                    f"{self.output} is being worked on by {_wait_for_holder(self.lease)}",
                    next_step="wait until it ends, or stop it; then run the same command again to continue",
                )
            lease = acquire(self.lease, self.output, locks_work=locks_work(self.path / "lock"))
            try:
                yield lease
            finally:
                lease.release()
        finally:
            os.close(handle)


def random_name(length: int) -> str:
    """Letters and digits that nobody drew before."""
    return "".join(secrets.choice(_LETTERS) for _ in range(length))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises StateError for anything else."""
    try:
        with os.fdopen(open_plain(path, os.O_RDONLY), "rb") as file:
            value = orjson.loads(file.read())
    except (OSError, orjson.JSONDecodeError) as error:
        raise StateError(f"{path} can't be read: {error}", next_step="restore it from a backup") from error
    if not isinstance(value, dict):
        raise StateError(f"{path} does not contain a JSON object", next_step="restore it from a backup")
    return value


def read_or_none(path: Path) -> dict[str, Any] | None:
    """A JSON object that can be made again, or None if it is missing or damaged."""
    try:
        return read_json(path)
    except StateError:
        return None


def check_belongs(run: Mapping[str, Any], source: Path, output: Path, *, input_moved: bool) -> None:
    """An output belongs to the input that it was begun with."""
    if run["input"] != str(source.resolve()) and not input_moved:
        raise UsageError(
            f"{output} belongs to another input: {run['input']}",
            next_step="choose another output, or add --input-moved if it is the same data in a new place",
        )


def _wait_for_holder(lease: Path) -> str:
    """Who holds the lock. The lease is made a moment later, so more than one look may be needed."""
    for _ in range(20):
        if holder := read_holder(lease):
            return describe(holder)
        time.sleep(0.05)
    return describe({})

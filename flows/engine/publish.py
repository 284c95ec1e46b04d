"""Writing the output file by file; files that are already up to date are skipped."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from blocks.errors import StateError
from blocks.printable import counted
from flows.domain.events import Published
from flows.engine.recorder import now
from flows.engine.run import Run
from flows.storage.files import write_json
from flows.storage.memory import give_back_memory
from flows.storage.output import PENDING, OutputFile, OutputSummary, output_files
from flows.storage.output_writer import OutputWriter
from flows.storage.source import identity_of
from flows.storage.state import StateDirectory, read_or_none

log = logging.getLogger("batchwerk")

COSTS = ("rows_cost", "shared_cost", "good_cost", "repeated_cost")  # of a summary, as files are noted with it
INPUT_GONE, BEYOND_LIMIT = "its input is gone", "it is beyond the limit"  # why a file is set aside


def publish(run: Run, *, removes: bool = True) -> OutputSummary:
    """Write the files that changed and, last, `published.json` with the content of each file.

    `removes`: whether files whose input is gone may be removed.
    """
    give_back_memory()  # that collecting took: what is written now would come on top
    return _Publishing(run, removes=removes).publish()


def published_before(state: StateDirectory) -> OutputSummary:
    """What the output holds, without writing it."""
    return _sum_of((read_or_none(state.published) or {}).get("files", {}), [])


def _sum_of(files: Mapping[str, Any], notes: list[str]) -> OutputSummary:
    """What the files hold that are not set aside."""
    total = OutputSummary(notes=notes)
    for held in files.values():
        if "aside" not in held:
            total.add(OutputSummary(Counter(held["statuses"]), *(held[f"{name}_pico_usd"] for name in COSTS)))
    return total


class _Publishing:
    """One writing of an output."""

    def __init__(self, run: Run, *, removes: bool) -> None:
        self._run = run
        self._removes = removes and run.config.settings.limit is None
        self._state = run.config.state
        self._held = read_or_none(self._state.published) or {}
        self._before: dict[str, Any] = self._held.get("files", {})
        self._files: dict[str, Any] = {}
        self._outputs: dict[str, str] = {}  # identities of the files written this time
        self._input_checked = False

    def publish(self) -> OutputSummary:
        started, config = time.monotonic(), self._run.config
        with (
            self._run.recorder.reading() as ledger,
            OutputWriter(self._state.rows, self._run.results, ledger, config.layout) as writer,
        ):
            for output in output_files(config.source, config.settings.limit):
                self._files[output.source.name] = self._kept(writer, output) or self._written(writer, output)
        self._set_aside()
        published = _sum_of(self._files, self._notes())
        asked = orjson.loads(orjson.dumps(config.asked))
        if self._outputs or self._files != self._before or asked != self._held.get("asked"):
            self._note(published)
            log.info(
                "published %s to %s in %.1f s (%s of %s written)",
                counted(published.rows, "row"), config.settings.output, time.monotonic() - started,
                f"{len(self._outputs):,}", counted(len(self._files), "file"),
            )  # fmt: skip
        return published

    def _kept(self, writer: OutputWriter, output: OutputFile) -> dict[str, Any] | None:
        """The summary of a file that is up to date; None if it has to be written."""
        before, place = self._before.get(output.source.name), self._place(output.source.name)
        if before is None or not place.exists() or before["output"] != identity_of(place):
            return None
        found = {name: value for name, value in before.items() if name != "aside"}
        return found if before["content"] == writer.fingerprint(output) else None

    def _written(self, writer: OutputWriter, output: OutputFile) -> dict[str, Any]:
        self._check_input()
        place = self._place(output.source.name)
        place.parent.mkdir(parents=True, exist_ok=True)
        held = writer.write(output, place, before_replacing=lambda file: self._announce(output.source.name, file))
        return {
            "input": output.source.identity,
            "output": self._outputs[output.source.name],
            "content": writer.fingerprint(output),
            "statuses": dict(held.statuses),
            **{f"{name}_pico_usd": getattr(held, name) for name in COSTS},
        }

    def _check_input(self) -> None:
        if not self._input_checked and not self._run.config.source.check_unchanged():
            raise StateError(
                f"{self._run.config.source.path} changed while the run was working on it",
                next_step="run the same command again: answers that still fit are kept, only changed rows are sent",
            )
        self._input_checked = True

    def _announce(self, name: str, file: Path) -> None:
        """Record the file as ours, for a crash before `published.json` is written."""
        self._outputs[name] = identity_of(file)
        write_json(self._state.publishing, {"outputs": self._outputs, "asked": asdict(self._run.config.asked)})

    def _set_aside(self) -> None:
        """Keep, or remove, the files that are not part of this run.

        An input that is absent may be back tomorrow: its file is removed by the second run in a row that misses it, or
        if the user says so. What somebody else changed is left alone.
        """
        for name, held in self._before.items():
            if name in self._files:
                continue
            place = self._place(name)
            if not place.exists() or identity_of(place) != held["output"]:
                continue
            aside = self._why_aside(name, held)
            if aside is None:
                place.unlink()
                log.info("%s was removed because its input is gone", place)
            else:
                self._files[name] = {**held, "aside": aside}

    def _why_aside(self, name: str, held: Mapping[str, Any]) -> str | None:
        """Why a file is kept though this run does not write it; None if it is to be removed."""
        if any(file.name == name for file in self._run.config.source.files):
            return BEYOND_LIMIT
        before: str | None = held.get("aside")
        if not self._removes:
            return before or BEYOND_LIMIT
        return None if before == INPUT_GONE or self._run.config.settings.replace else INPUT_GONE

    def _place(self, name: str) -> Path:
        config = self._run.config
        return config.settings.output / name if config.source.is_folder else config.settings.output

    def _notes(self) -> list[str]:
        """What is said of the files that were kept."""
        kept = Counter(held["aside"] for held in self._files.values() if "aside" in held)
        notes = []
        if count := kept[INPUT_GONE]:
            lost = counted(
                count, "of its files has lost its input and was", "of its files have lost their input and were"
            )
            notes.append(
                f"{lost} kept, not counted here; the next run removes what still has no input "
                "(--replace removes it at once)"
            )
        if count := kept[BEYOND_LIMIT]:
            apart = counted(count, "of its files was", "of its files were")
            notes.append(f"{apart} not part of this run and kept as before, not counted here")
        for note in notes:
            log.warning("%s: %s", self._run.config.settings.output, note)
        return notes

    def _note(self, published: OutputSummary) -> None:
        complete, statuses = not published.statuses[PENDING], dict(published.statuses)
        asked = self._run.config.asked
        content = {
            "complete": complete,
            "statuses": statuses,
            "asked": asdict(asked),
            "cost_pico_usd": self._run.recorder.query(lambda ledger: ledger.spent(emulated=asked.emulated)),
            "files": self._files,
        }
        write_json(self._state.published, content)
        self._run.recorder.record(Published(at=now(), rows=published.rows, statuses=statuses, complete=complete))

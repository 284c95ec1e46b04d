"""Writing the output file by file; files that are already up to date are skipped."""

from __future__ import annotations

import logging
import time
from collections import Counter
from pathlib import Path
from typing import Any

from blocks.errors import StateError
from flows.domain.events import Published
from flows.engine.recorder import now
from flows.engine.run import Run
from flows.storage.files import write_json
from flows.storage.output import PENDING, OutputFile, OutputSummary, output_files
from flows.storage.output_writer import OutputWriter
from flows.storage.source import identity_of
from flows.storage.state import read_or_none

log = logging.getLogger("batchwerk")


def publish(run: Run) -> OutputSummary:
    """Write the files that changed and, last, `published.json` with the content of each file."""
    return _Publishing(run).publish()


class _Publishing:
    """One writing of an output."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._state = run.config.state
        self._before: dict[str, Any] = (read_or_none(self._state.published) or {}).get("files", {})
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
        gone = self._remove_gone()
        published = self._sum()
        if self._outputs or gone:
            self._note(published)
            log.info(
                "published %s rows to %s in %.1f s (%s of %s files written)",
                f"{published.rows:,}", config.settings.output, time.monotonic() - started,
                f"{len(self._outputs):,}", f"{len(self._files):,}",
            )  # fmt: skip
        return published

    def _kept(self, writer: OutputWriter, output: OutputFile) -> dict[str, Any] | None:
        """The summary of a file that is up to date; None if it has to be written."""
        before, place = self._before.get(output.source.name), self._place(output.source.name)
        if before is None or not place.exists() or before["output"] != identity_of(place):
            return None
        return dict(before) if before["content"] == writer.fingerprint(output) else None

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
            "rows_cost_pico_usd": held.rows_cost,
            "shared_cost_pico_usd": held.shared_cost,
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
        write_json(self._state.publishing, {"outputs": self._outputs})

    def _remove_gone(self) -> bool:
        """Delete files whose input is gone, unless somebody changed them."""
        gone = [name for name in self._before if name not in self._files]
        for name in gone:
            place = self._place(name)
            if place.exists() and identity_of(place) == self._before[name]["output"]:
                place.unlink()
                log.info("%s was removed because its input is gone", place)
        return bool(gone)

    def _place(self, name: str) -> Path:
        config = self._run.config
        return config.settings.output / name if config.source.is_folder else config.settings.output

    def _sum(self) -> OutputSummary:
        total = OutputSummary()
        for held in self._files.values():
            costs = held["rows_cost_pico_usd"], held["shared_cost_pico_usd"]
            total.add(OutputSummary(Counter(held["statuses"]), *costs))
        return total

    def _note(self, published: OutputSummary) -> None:
        complete, statuses = not published.statuses[PENDING], dict(published.statuses)
        content = {"complete": complete, "statuses": statuses, "files": self._files}
        write_json(self._state.published, content)
        self._run.recorder.record(Published(at=now(), rows=published.rows, statuses=statuses, complete=complete))

"""Inputs, plans and collected batches on disk, with as little said as each test needs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from blocks.batch import Answer, RequestForm
from blocks.providers.holysheep.codec import HolySheepCodec
from flows.domain.events import BatchResult, Slice
from flows.domain.judging import BatchAnswers, Judge
from flows.domain.keys import form_digest
from flows.domain.ledger import Ledger, replay
from flows.domain.prices import DayPrice
from flows.domain.prompts import Prompt
from flows.domain.schema import OutputSchema
from flows.storage.compaction import check_part, merge_parts
from flows.storage.output import OutputFile, OutputLayout, OutputSummary, output_files
from flows.storage.output_writer import OutputWriter
from flows.storage.plan import Plan, Question
from flows.storage.planner import make_plan
from flows.storage.requests import FrozenRequests
from flows.storage.results import ResultsStore, part_table
from flows.storage.source import Source
from flows.storage.state import StateDirectory
from tests.flows.domain import histories
from tests.flows.domain.answers import LABEL, PRICE


def parquet(path: Path, columns: dict[str, Any] | pa.Table, **options: Any) -> Path:
    """A Parquet file of these columns."""
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
    return path


def generations(folder: Path) -> list[Path]:
    """The files of frozen requests, oldest first."""
    return sorted(folder.glob("*.pq"))


def question(path: Path, prompt: str = "{{ text }}", **changes: Any) -> Question:
    """A question about a file, as preflight would make it."""
    source = Source.open(path)
    form = RequestForm("m")
    usual: dict[str, Any] = {
        "skip_empty": (),
        "vocabulary": None,
        "max_request_bytes": None,
        "limit": None,
        "where": None,
    }
    return Question(
        source=source,
        prompt=Prompt(prompt, source.schema.names),
        digest=form_digest({"prompt": prompt}),
        codec=HolySheepCodec(form),
        **{**usual, **changes},
    )


def known(plan: Plan) -> int:
    """Requests of the rows that an earlier plan froze."""
    return plan.requests - (plan.stop - plan.start)


@dataclass
class Work:
    """An output that is being worked on, without a provider and without Prefect."""

    folder: Path
    input: Path
    state: StateDirectory = field(init=False)

    def __post_init__(self) -> None:
        self.state = StateDirectory(self.folder / "out.parquet")
        self.state.prepare()

    def ask(self, prompt: str = "{{ text }}", **changes: Any) -> Plan:
        """Plan and freeze."""
        self.question = question(self.input, prompt, **changes)
        frozen = generations(self.state.requests)
        return make_plan(self.question, frozen, self.state.requests, self.state.rows, "100MB")

    def rows(self) -> list[dict[str, Any]]:
        """What each row asks for."""
        found: list[dict[str, Any]] = pq.read_table(self.state.rows).to_pylist()
        return found

    def requests(self) -> list[int | None]:
        return [row["request"] for row in self.rows()]

    def frozen(self) -> FrozenRequests:
        return FrozenRequests(generations(self.state.requests))


class Collecting:
    """A ledger that batches are collected into, with their parts on disk."""

    def __init__(self, state: StateDirectory, output: dict[str, Any] | None = None, price: DayPrice = PRICE) -> None:
        self.schema = OutputSchema(LABEL if output is None else output)
        self.store = ResultsStore(state, self.schema.id)
        self.judge = Judge(self.schema, price, max_attempts=3)
        self.events: list[Any] = [histories.frozen(0)]
        self.state = state

    @property
    def ledger(self) -> Ledger:
        return replay(self.events)

    def send(self, *slices: Slice) -> int:
        number = sum(1 for event in self.events if event.event == "submitting") + 1
        self.events += [histories.submitting(number, *slices), histories.submitted(number)]
        return number

    def collect(self, number: int, answers: Iterable[Answer], failed: str | None = None) -> BatchResult:
        self.events.append(histories.ended(number, failed))
        taken = BatchAnswers(self.ledger.batches[number], self.judge)
        taken.take(answers)
        judged = taken.finish(failed=failed)
        self.store.save(self.ledger.batches[number], part_table(judged, self.schema))
        self.events.append(histories.collected_with(number, judged.result))
        return judged.result

    def part(self, number: int) -> Path:
        """The batch's own part."""
        return self.state.part(self.schema.id, number)

    def batch(self, slices: Sequence[Slice], answers: Iterable[Answer], failed: str | None = None) -> BatchResult:
        return self.collect(self.send(*slices), answers, failed)

    def compact(self, *places: int) -> Path:
        """Merge parts: all of them, or those at these places."""
        ledger = self.ledger
        parts = self.store.parts(ledger)
        chosen = [parts[place] for place in places or range(len(parts))]
        batches = {batch.number: batch.requests for part in chosen for batch in part.batches}
        path = self.store.compacted(ledger.next_part())
        merge_parts(chosen, path, self.schema)
        check_part(path, batches)
        self.events.append(histories.compacted(path.stem, *batches, schema_id=self.schema.id))
        self.store.remove_leftovers(self.ledger)
        return path

    def fingerprint(self, work: Work) -> str:
        """What decides how the output comes out."""
        with self._writing(work, {}) as writer:
            return writer.fingerprint(self._file(work))

    def publish(self, work: Work, rename: dict[str, str] | None = None, limit: int | None = None) -> OutputSummary:
        with self._writing(work, rename or {}) as writer:
            return writer.write(self._file(work, limit), work.state.output)

    def _writing(self, work: Work, rename: dict[str, str]) -> OutputWriter:
        layout = OutputLayout(self.schema, rename, "emulated:m", "zstd", 122_880)
        return OutputWriter(work.state.rows, self.store, self.ledger, layout)

    def _file(self, work: Work, limit: int | None = None) -> OutputFile:
        (file,) = output_files(work.question.source, limit)
        return file

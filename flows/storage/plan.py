"""The plan on disk: the request of each row of the input, and the frozen requests in generations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson
import pyarrow as pa

from blocks.batch import BatchCodec
from flows.domain.events import Frozen, Seal
from flows.domain.prompts import Prompt
from flows.domain.ranges import Ranges
from flows.domain.tokens import Spread, Vocabulary
from flows.storage.sealing import check_seal, fresh_token, is_sealed
from flows.storage.source import Source
from flows.storage.sql import connect
from flows.storage.tables import NumberedTable, read_verified

VALUE = "value:"  # prefix of the columns of frozen requests that the prompt uses
ROWS_SCHEMA = pa.schema(
    [
        ("request", pa.int64()),  # null for a row that asks for nothing
        ("first", pa.bool_()),  # whether it is the first row that asks for this request
        ("skipped", pa.string()),  # why the job sends nothing for it
        ("unsendable", pa.string()),  # why nothing can be sent for it
    ]
)


@dataclass(frozen=True, slots=True)
class Question:
    """Everything that determines how rows become requests."""

    source: Source
    prompt: Prompt
    digest: bytes  # of the form; part of every key
    codec: BatchCodec
    vocabulary: Vocabulary | None
    skip_empty: tuple[str, ...]
    max_request_bytes: int | None
    limit: int | None
    where: str | None

    @property
    def identity(self) -> str:
        """Names the plan: the same question about the same input needs no second plan."""
        values = [
            self.source.identity,
            self.digest.hex(),
            self.skip_empty,
            self.max_request_bytes,
            self.limit,
            self.where,
        ]
        return orjson.dumps(values).decode()


@dataclass(frozen=True, slots=True)
class Plan:
    """The figures of a plan."""

    rows: int  # of the output
    total_rows: int  # of the input
    skipped: int
    unsendable: int
    requests: int  # distinct ones that the rows ask for
    start: int  # number of the first new request
    stop: int
    tokens_per_byte: float  # of an encoded request
    counted_with: str | None  # the model's vocabulary, if new requests were counted with it; else they are estimated
    spread: Spread  # of their tokens
    first_prompt: str | None
    first_problem: str | None  # of the first row that can't be sent

    @property
    def duplicates(self) -> int:
        """Rows that share another row's request."""
        return self.rows - self.skipped - self.unsendable - self.requests


def plan_metadata(question: Question, plan: Plan) -> dict[str, str]:
    """What the rows file says about itself."""
    figures = {name: getattr(plan, name) for name in Plan.__dataclass_fields__}
    return {"identity": question.identity, "plan": orjson.dumps(figures).decode(), **fresh_token()}


def read_plan(rows_file: Path, question: Question, seal: Seal | None) -> Plan | None:
    """The plan on disk, if it answers this question and is the one that was sealed."""
    metadata = _metadata(rows_file, seal)
    if metadata.get(b"identity", b"").decode() != question.identity:
        return None
    return _figures(metadata)


def last_plan(rows_file: Path, seal: Seal | None) -> Plan | None:
    """The plan on disk that was sealed, whatever question it answers."""
    metadata = _metadata(rows_file, seal)
    return _figures(metadata) if b"plan" in metadata else None


def _figures(metadata: Mapping[bytes, bytes]) -> Plan:
    plan = orjson.loads(metadata[b"plan"])
    return Plan(**{**plan, "spread": tuple(plan["spread"])})


def _metadata(rows_file: Path, seal: Seal | None) -> Mapping[bytes, bytes]:
    """Empty if the file is missing, damaged or of other numbers: a new plan finds the same requests by their keys."""
    if seal is None or not is_sealed(rows_file, seal):
        return {}
    with NumberedTable(rows_file) as rows:
        return dict(rows.metadata)


def wanted_requests(rows_file: Path, memory: str, scratch_in: Path | None = None) -> Ranges:
    """The numbers of the requests that the rows of the plan ask for. `memory`: as for `make_plan`.

    What does not fit into memory goes to a temporary folder in `scratch_in`, by default beside the file.
    """
    place = scratch_in or rows_file.parent
    with TemporaryDirectory(prefix="plan-", dir=place) as scratch, connect(scratch, memory) as db:
        db.register("asked", read_verified([rows_file], ["request", "first"]))
        ranges = db.execute(
            # Consecutive numbers have the same difference to their place in the order.
            "SELECT min(request), max(request) + 1 FROM ("
            "  SELECT request, request - row_number() OVER (ORDER BY request) AS island"
            "  FROM asked WHERE first"
            ") GROUP BY island ORDER BY 1"
        ).fetchall()
    return Ranges(ranges)


def generation_path(folder: Path, start: int) -> Path:
    """The file of the requests that were frozen together, named after the first of them."""
    return folder / f"{start:012d}.pq"


def checked_generations(folder: Path, frozen: Sequence[Frozen]) -> list[Path]:
    """The files of all frozen requests, oldest first. Raises StateError unless each is the one of the journal.

    Every reader of requests gets its files from here: the folder is never asked what is in it.
    """
    paths = []
    for event in frozen:
        if event.generation is not None:
            paths.append(generation_path(folder, event.start))
            check_seal(paths[-1], event.generation)
    return paths


def remove_unknown(folder: Path, known: Sequence[Path]) -> None:
    """Delete what a killed process froze and did not record: nothing of it was sent."""
    for path in folder.iterdir():
        if path not in known:
            path.unlink()

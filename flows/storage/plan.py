"""The plan on disk: the request of each row of the input, and the frozen requests in generations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson
import pyarrow as pa

from blocks.batch import BatchCodec
from flows.domain.prompts import Prompt
from flows.domain.ranges import Ranges
from flows.storage.source import Source
from flows.storage.sql import connect, escape_path
from flows.storage.tables import NumberedTable

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
    tokens_per_byte: float  # estimated tokens per byte of an encoded request
    first_prompt: str | None
    first_problem: str | None  # of the first row that can't be sent

    @property
    def duplicates(self) -> int:
        """Rows that share another row's request."""
        return self.rows - self.skipped - self.unsendable - self.requests


def plan_metadata(question: Question, plan: Plan) -> dict[str, str]:
    """What the rows file says about itself."""
    figures = {name: getattr(plan, name) for name in Plan.__dataclass_fields__}
    return {"identity": question.identity, "plan": orjson.dumps(figures).decode()}


def read_plan(rows_file: Path, question: Question) -> Plan | None:
    """The plan on disk, if it answers this question."""
    metadata = _metadata(rows_file)
    if metadata.get(b"identity", b"").decode() != question.identity:
        return None
    return Plan(**orjson.loads(metadata[b"plan"]))


def last_plan(rows_file: Path) -> Plan | None:
    """The plan on disk, whatever question it answers."""
    metadata = _metadata(rows_file)
    return Plan(**orjson.loads(metadata[b"plan"])) if b"plan" in metadata else None


def _metadata(rows_file: Path) -> Mapping[bytes, bytes]:
    """Empty for a file that is missing or damaged: a new plan finds the same requests by their keys."""
    if not rows_file.exists():
        return {}
    try:
        with NumberedTable(rows_file) as rows:
            return dict(rows.metadata)
    except pa.ArrowInvalid:
        return {}


def wanted_requests(rows_file: Path, memory: str, scratch_in: Path | None = None) -> Ranges:
    """The numbers of the requests that the rows of the plan ask for. `memory`: as for `make_plan`.

    What does not fit into memory goes to a temporary folder in `scratch_in`, by default beside the file.
    """
    place = scratch_in or rows_file.parent
    with TemporaryDirectory(prefix="plan-", dir=place) as scratch, connect(scratch, memory) as db:
        ranges = db.execute(
            # Consecutive numbers have the same difference to their place in the order.
            "SELECT min(request), max(request) + 1 FROM ("
            "  SELECT request, request - row_number() OVER (ORDER BY request) AS island"
            "  FROM read_parquet(?, hive_partitioning = false) WHERE first"
            ") GROUP BY island ORDER BY 1",
            [escape_path(rows_file)],
        ).fetchall()
    return Ranges(ranges)


def generations(folder: Path) -> list[Path]:
    """The files of frozen requests, oldest first. Each is named after its first request."""
    return sorted(folder.glob("*.pq"))

"""What a batch is sent under: job, model and connection, without secrets.

It is kept with each batch, which is polled, parsed, cancelled and resubmitted under it even if the job file changes.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

import orjson

from blocks.batch import BatchCodec, Connection, Limits, RequestForm
from blocks.connections import codec_for, limits_for, vocabulary_for
from blocks.vocabularies import Vocabulary
from flows.domain.job import Job
from flows.domain.judging import Judge
from flows.domain.money import ModelPrice, price_of, read_prices
from flows.domain.schema import OutputSchema


@dataclass(frozen=True)
class Spec:
    """Everything that determines how requests are encoded and answers are judged."""

    job: Job
    model: str
    connection: Connection

    @cached_property
    def schema(self) -> OutputSchema:
        """The shape of answers. Raises UsageError for an invalid schema."""
        return OutputSchema(self.job.output)

    @cached_property
    def schema_id(self) -> str:
        """Names the folder of results of this shape."""
        return self.schema.id

    @cached_property
    def form(self) -> RequestForm:
        """What all requests share."""
        return self.job.form(self.schema, self.model)

    @cached_property
    def codec(self) -> BatchCodec:
        """How requests become bytes."""
        return codec_for(self.connection, self.form)

    @cached_property
    def vocabulary(self) -> Vocabulary | None:
        """Counts the tokens of requests; None without the extra `tokens`."""
        return vocabulary_for(self.connection, self.form)

    @cached_property
    def limits(self) -> Limits:
        """What the provider accepts."""
        return limits_for(self.connection)

    @cached_property
    def price(self) -> ModelPrice | None:
        """The price per token; None if the model is not in the price table."""
        return price_of(price_table(), self.connection.provider, self.model)

    @cached_property
    def content(self) -> dict[str, Any]:
        """For the state directory."""
        return {"job": self.job.model_dump(mode="json"), "model": self.model, "connection": asdict(self.connection)}

    @cached_property
    def fingerprint(self) -> str:
        """Names this spec in the journal."""
        return blake2b(orjson.dumps(self.content, option=orjson.OPT_SORT_KEYS), digest_size=8).hexdigest()

    @classmethod
    def from_content(cls, content: Mapping[str, Any]) -> Spec:
        """Inverse of `content`."""
        return cls(Job.model_validate(content["job"]), content["model"], Connection(**content["connection"]))

    def judge(self, max_attempts: int) -> Judge:
        """Decides whether an answer is good, and what it costs."""
        return Judge(self.schema, self.price, max_attempts)


def price_table() -> dict[tuple[str, str], ModelPrice]:
    """The price table: in `data/` of a checkout, inside the package when installed from a wheel."""
    return read_prices(_price_rows())


def price_dates() -> list[date]:
    """When the prices of the table were looked up."""
    return [date.fromisoformat(row["date"]) for row in _price_rows()]


def _price_rows() -> list[dict[str, str]]:
    here = Path(__file__).parent
    places = [here.parent / "data" / "prices.csv", here / "prices.csv"]
    place = next(place for place in places if place.exists())
    with place.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))

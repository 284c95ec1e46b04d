"""What a batch is sent under: job, model and connection, without secrets.

It is kept with each batch, which is polled, parsed, cancelled and resubmitted under it even if the job file changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date
from functools import cached_property
from hashlib import blake2b
from typing import Any

import orjson

from blocks.batch import BatchCodec, Connection, Limits, RequestForm
from blocks.connections import codec_for, limits_for, vocabulary_for
from blocks.vocabularies import Vocabulary
from flows.domain.job import Job
from flows.domain.judging import Judge
from flows.domain.price_rows import PriceRow
from flows.domain.prices import UNPRICED, DayPrice, ModelPrice, price_of, prices_of
from flows.domain.schema import OutputSchema
from flows.storage.price_files import kept_rows, table_prices


@dataclass(frozen=True)
class Spec:
    """Everything that determines how requests are encoded and answers are judged."""

    job: Job
    model: str
    connection: Connection
    negotiated: tuple[PriceRow, ...] = ()  # prices agreed with the provider, which win over those of the table

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
        """What the model costs; None if neither the table nor the negotiated prices have it."""
        agreed = price_of(prices_of(self.negotiated), self.connection.provider, self.model)
        return self.listed if agreed is None else agreed.over(self.listed or ModelPrice({}))

    @cached_property
    def listed(self) -> ModelPrice | None:
        """What the model costs by the table, whatever was agreed; None if it is not there."""
        return price_of(table_prices(), self.connection.provider, self.model)

    def price_on(self, day: date) -> DayPrice:
        """What the model costs on a day: a request is priced as on the day on which its batch was sent."""
        return UNPRICED if self.price is None else self.price.on(day)

    @cached_property
    def content(self) -> dict[str, Any]:
        """For the state directory."""
        return {
            "job": self.job.model_dump(mode="json"),
            "model": self.model,
            "connection": asdict(self.connection),
            "prices": [row.fields() for row in self.negotiated],
        }

    @cached_property
    def fingerprint(self) -> str:
        """Names this spec in the journal."""
        return blake2b(orjson.dumps(self.content, option=orjson.OPT_SORT_KEYS), digest_size=8).hexdigest()

    @classmethod
    def from_content(cls, content: Mapping[str, Any]) -> Spec:
        """Inverse of `content`. Raises KeyError, TypeError or ValueError for anything else."""
        job, connection = Job.model_validate(content["job"]), Connection(**content["connection"])
        return cls(job, content["model"], connection, tuple(kept_rows(content["prices"])))

    def judge(self, max_attempts: int, day: date) -> Judge:
        """Decides whether an answer is good, and what it costs if its batch was sent on this day."""
        listed = None if not self.negotiated else UNPRICED if self.listed is None else self.listed.on(day)
        return Judge(self.schema, self.price_on(day), max_attempts, listed)

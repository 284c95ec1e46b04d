"""A provider without a dialect: accepts batches, ends them when their time is over, lists results."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import orjson

from blocks.emulator.answers.answers import Answers
from blocks.emulator.options import EmulatorOptions
from blocks.emulator.service import faults, processing
from blocks.emulator.service.alternating import Alternating
from blocks.emulator.service.batch import Batch, Ending, Item, NewBatch, Refusal, Status
from blocks.emulator.service.processing import Finishing, Habits
from blocks.emulator.service.rows import Publish
from blocks.emulator.service.store import Store


@dataclass(frozen=True, slots=True)
class Accepted:
    """A create that is stored, and the faults of its answer: held back for that many seconds, or never sent."""

    batch: Batch
    held: float
    dropped: bool


class Service:
    """Nothing runs in the background: a batch is ended at the first access after its time is over.

    A dialect sets what is different about its provider: `habits`, and `publish`, which writes the files that an ended
    batch leaves behind.
    """

    habits = Habits()
    publish: Publish | None = None

    def __init__(self, options: EmulatorOptions, store: Store, clock: Callable[[], float] = time.time) -> None:
        self.options = options
        self.store = store
        self.closing = False
        self._answers = Answers()
        self._true_clock = clock
        self._shown: set[int] = set()
        self._slipped: set[int] = set()

    def now(self) -> float:
        """Seconds since the epoch, by the emulator's clock."""
        return self._clock()

    def _clock(self) -> float:
        return self._true_clock() + self.options.clock_ahead

    # --- creates and calls

    def call_fails(self) -> bool:
        """Count a call. Returns whether to answer it with an overload."""
        return faults.call_fails(self.options, self.store.count("calls"))

    def create_refusal(self) -> Refusal | None:
        """Count a create. Returns why to answer it with 429, if so."""
        refusal = faults.create_refusal(self.options, self.store.count("creates"))
        if refusal:
            self.store.count("creates_rate_limited")
            self.store.keep_counters()
        return refusal

    def accept(self, new: NewBatch) -> Accepted:
        """Store a batch. Raises KeyReusedError if its idempotency key came before with another body."""
        if self.options.alternating:
            new = replace(new, requests=Alternating(new.requests))
        count = len(new.requests)
        batch, is_new = self.store.add_batch(
            new,
            schedule=lambda number: processing.plan_schedule(self.options, number, new, self._clock()),
            drops=partial(faults.create_is_dropped, self.options),
            order=lambda number: faults.shuffled(self.options.seed, number, count),
        )
        if not is_new:
            return Accepted(batch, held=0, dropped=False)
        held = faults.held_seconds(self.options, batch.number)
        return Accepted(batch, held=held, dropped=faults.create_is_dropped(self.options, batch.number))

    def is_held(self) -> bool:
        """Whether a file delays the responses to creates."""
        return self.options.hold_file is not None and self.options.hold_file.exists() and not self.closing

    def queued_tokens(self, model: str) -> int:
        """Tokens in a model's open batches, as their dialect noted them when they came."""
        self.settle_all()
        batches = self.store.open_batches(math.inf)
        queued = [batch for batch in batches if batch.model == model and batch.schedule.ending is not Status.FAILED]
        return sum(orjson.loads(batch.details)["tokens"] for batch in queued)

    # --- batches

    def batch(self, batch_id: str) -> Batch | None:
        """A batch as it is now, ended if its time is over. None if there is none, or if it is not visible yet."""
        batch = self.store.batch(batch_id)
        if batch is None or batch.schedule.created_at > self._visible_until() or self._is_forgotten(batch):
            return None
        return self._settled(batch)

    def batches(self, before: int | None, limit: int) -> list[Batch]:
        """Newest first; only those with a lower number than `before`, if one is given."""
        newest = self.store.newest_batches(before, self._visible_until(), limit)
        return [self._settled(batch) for batch in newest if not self._is_forgotten(batch)]

    def settle_all(self) -> None:
        """End every batch whose time is over, so that the ledger shows what is owed by now."""
        for batch in self.store.open_batches(self._clock()):
            self._settled(batch)

    def cancel(self, batch: Batch) -> Batch:
        """End a batch now: what was processed keeps its results and is billed. An ended batch stays as it is."""
        if batch.status is not None:
            return batch
        ending = processing.cancelled_ending(batch, self._clock())
        if faults.batch_hangs(self.options, batch.number):
            ending = replace(ending, ended_at=ending.ended_at + faults.FOR_EVER)
        return self._end(batch, ending)

    def status(self, batch: Batch) -> Status:
        """The emulator's own state of a batch."""
        return batch.status or processing.current_status(batch, self._clock())

    def progress(self, batch: Batch) -> int:
        """In percent."""
        return batch.progress if batch.status else processing.current_progress(batch, self._clock())

    def duration(self, batch: Batch) -> float:
        """Seconds from its create to its end, or until now."""
        return (batch.ended_at if batch.status else self._clock()) - batch.schedule.created_at

    def shows_unknown_status(self, batch: Batch) -> bool:
        """Whether to show a batch with an unknown status; at most once per batch."""
        if not faults.status_is_unknown(self.options, batch.number) or batch.number in self._shown:
            return False
        self._shown.add(batch.number)
        return True

    # --- results

    def items(self, batch: Batch, offset: int, limit: int) -> list[Item]:
        """A page of the results of an ended batch, in their shuffled order."""
        return [] if batch.status is Status.FAILED else self.store.items(batch, offset, limit)

    def slipped(self, batch: Batch, offset: int, limit: int) -> int:
        """Where a page of results begins that is to begin at the offset; for some batches once elsewhere."""
        by = faults.page_slips_by(self.options, batch.number, limit)
        if not by or not offset or batch.number in self._slipped:
            return offset
        self._slipped.add(batch.number)
        return max(0, offset + by)

    def gone_at(self, batch: Batch) -> float | None:
        """When the results of an ended batch are gone, if ever."""
        return batch.ended_at + self.options.gone_after if self.options.gone_after and batch.status else None

    def results_are_gone(self, batch: Batch) -> bool:
        """Whether the results of a batch are no longer kept."""
        gone_at = self.gone_at(batch)
        return gone_at is not None and self._clock() >= gone_at

    def usage_is_missing(self, item: Item) -> bool:
        """Whether a billed answer lacks its usage."""
        return faults.usage_is_missing(self.options, item.prompt_hash, item.attempt)

    def line_comes_twice(self, item: Item) -> bool:
        """Whether a result's line is in its file twice."""
        return faults.line_comes_twice(self.options, item.prompt_hash, item.attempt)

    def _is_forgotten(self, batch: Batch) -> bool:
        return faults.batch_is_forgotten(self.options, batch.number)

    def _visible_until(self) -> float:
        """Batches created later are not found yet."""
        return self._clock() - self.options.visible_after if self.options.visible_after else math.inf

    def _settled(self, batch: Batch) -> Batch:
        if batch.status is None and self._clock() >= batch.schedule.ends_at:
            return self._end(batch, processing.natural_ending(batch, self.habits))
        return batch

    def _end(self, batch: Batch, ending: Ending) -> Batch:
        finishing = Finishing(self.options, self._answers, ending, self.habits)
        return self.store.settle(batch, ending, finishing.result, self.publish)

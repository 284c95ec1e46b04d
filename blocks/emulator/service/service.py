"""What a provider does behind its routes, in no dialect: accepts batches, lets time pass, ends them, lists results."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import orjson

from blocks.emulator.answers.answers import Answers
from blocks.emulator.options import EmulatorOptions
from blocks.emulator.service import faults, processing
from blocks.emulator.service.batch import BILLED, Batch, Ending, Item, NewBatch, Refusal, Status
from blocks.emulator.service.processing import Finishing, Habits
from blocks.emulator.service.store import Publish, Store


@dataclass(frozen=True, slots=True)
class Accepted:
    """A create that is stored, and what befalls its answer: held back for so many seconds, or never sent."""

    batch: Batch
    held: float
    dropped: bool


class Service:
    """Nothing runs in the background: a batch is ended when it is first looked at after its time is over.

    What differs between providers, their dialect sets: their `habits`, and `publish`, which writes the files that an
    ended batch leaves behind.
    """

    habits = Habits()
    publish: Publish | None = None

    def __init__(self, options: EmulatorOptions, store: Store, clock: Callable[[], float] = time.time) -> None:
        self.options = options
        self.store = store
        self.closing = False
        self._answers = Answers()
        self._clock = clock
        self._shown: set[int] = set()

    def call_fails(self) -> bool:
        """Counts a call; whether it is to be answered 503."""
        return faults.call_fails(self.options, self.store.count("calls"))

    def create_refusal(self) -> Refusal | None:
        """Counts a create; why it is to be answered 429, if it is."""
        refusal = faults.create_refusal(self.options, self.store.count("creates"))
        if refusal:
            self.store.count("creates_rate_limited")
            self.store.keep_counters()
        return refusal

    def download_is_cut(self) -> bool:
        """Counts a download; whether it is to break off."""
        return faults.download_is_cut(self.options, self.store.count("downloads"))

    def accept(self, new: NewBatch) -> Accepted:
        """Stores a batch. KeyReusedError if its idempotency key came before with another body."""
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
        """Whether answers to creates are held back by a file."""
        return self.options.hold_file is not None and self.options.hold_file.exists() and not self.closing

    def batch(self, batch_id: str) -> Batch | None:
        """A batch as it is now, ended if its time is over. None if there is none, or if it is not visible yet."""
        batch = self.store.batch(batch_id)
        return self._brought_up(batch) if batch and self._is_visible(batch) else None

    def batches(self, before: int | None, limit: int) -> list[Batch]:
        """Newest first."""
        return [self._brought_up(batch) for batch in self.store.newest_batches(before, self._visible_until(), limit)]

    def batches_after(self, after: int, limit: int) -> list[Batch]:
        """Those that came next after that number; newest first."""
        found = self.store.next_batches(after, self._visible_until(), limit)
        return [self._brought_up(batch) for batch in reversed(found)]

    def shows_unknown_status(self, batch: Batch) -> bool:
        """Whether this is the first time that such a batch is shown: its status is a word then that nobody knows."""
        if not faults.status_is_unknown(self.options, batch.number) or batch.number in self._shown:
            return False
        self._shown.add(batch.number)
        return True

    def gone_at(self, batch: Batch) -> float | None:
        """When the results of an ended batch are gone, if ever."""
        return batch.ended_at + self.options.gone_after if self.options.gone_after and batch.status else None

    def results_are_gone(self, batch: Batch) -> bool:
        gone_at = self.gone_at(batch)
        return gone_at is not None and self._clock() >= gone_at

    def usage_is_missing(self, item: Item) -> bool:
        """Whether an answer is not to say its usage, though it is billed."""
        return faults.usage_is_missing(self.options, item.prompt_hash, item.attempt)

    def line_comes_twice(self, item: Item) -> bool:
        return faults.line_comes_twice(self.options, item.prompt_hash, item.attempt)

    def queued_tokens(self, model: str) -> int:
        """How many a model's open batches hold, by what their dialect noted when they came."""
        self.settle_all()
        batches = self.store.open_batches(math.inf)
        queued = [batch for batch in batches if batch.model == model and batch.schedule.ending is not Status.FAILED]
        return sum(orjson.loads(batch.details)["tokens"] for batch in queued)

    def cancel(self, batch: Batch) -> Batch:
        """Ends a batch now: what was finished keeps its results and is billed. An ended batch stays as it is."""
        if batch.status is not None:
            return batch
        return self._end(batch, processing.cancelled_ending(batch, self._clock()))

    def delete(self, batch: Batch) -> None:
        """Drops a batch from the list; one that is under way is cancelled first."""
        self.store.delete_batch(self.cancel(batch))

    def items(self, batch: Batch, offset: int, limit: int) -> list[Item]:
        """A page of the results of an ended batch, in their shuffled order."""
        return [] if batch.status is Status.FAILED else self.store.items(batch, offset, limit)

    def item(self, custom_id: str) -> Item | None:
        """The newest result of that id; an answer goes before an error."""
        found = [item for item in map(self._item_at, self.store.places_of(custom_id)) if item]
        answered = (item for item in found if item.outcome in BILLED)
        return next(answered, found[0] if found else None)

    def settle_all(self) -> None:
        """Ends every batch whose time is over, so that the ledger shows what is owed by now."""
        for batch in self.store.open_batches(self._clock()):
            self._brought_up(batch)

    def now(self) -> float:
        return self._clock()

    def status(self, batch: Batch) -> Status:
        return batch.status or processing.current_status(batch, self._clock())

    def progress(self, batch: Batch) -> int:
        return batch.progress if batch.status else processing.current_progress(batch, self._clock())

    def duration(self, batch: Batch) -> float:
        """Seconds from its create to its end, or until now."""
        return (batch.ended_at if batch.status else self._clock()) - batch.schedule.created_at

    def _item_at(self, place: int) -> Item | None:
        batch = self.store.batch_at(place)
        if batch is None or not self._is_visible(batch):
            return None
        return self.store.item_at(place) if self._brought_up(batch).status else None

    def _is_visible(self, batch: Batch) -> bool:
        return batch.schedule.created_at <= self._visible_until()

    def _visible_until(self) -> float:
        """Batches created later are not found yet."""
        return self._clock() - self.options.visible_after if self.options.visible_after else math.inf

    def _brought_up(self, batch: Batch) -> Batch:
        if batch.status is None and self._clock() >= batch.schedule.ends_at:
            keeps, by_row = self.habits.keeps_expired, self.habits.fails_row_by_row
            return self._end(batch, processing.natural_ending(batch, keeps_expired=keeps, fails_row_by_row=by_row))
        return batch

    def _end(self, batch: Batch, ending: Ending) -> Batch:
        finishing = Finishing(self.options, self._answers, ending, self.habits)
        return self.store.settle(batch, ending, finishing.result, self.publish)

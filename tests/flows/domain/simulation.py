"""A provider and a process that both fail at random, driven by the decisions under test."""

from collections.abc import Callable, Iterable
from itertools import count
from random import Random
from typing import Any

from blocks.batch import FailureKind, Limits
from flows.domain.actions import Action, Collect, Finish, Poll, Reconcile, Rules, Submit, Wait, next_actions
from flows.domain.agenda import Agenda
from flows.domain.batches import Batch, State
from flows.domain.events import Collected, Event, Refused, Reopened, Slice, Submitting
from flows.domain.ledger import Ledger, replay
from flows.domain.outcomes import after_failure, merge_slices
from flows.domain.ranges import Ranges
from flows.domain.sizing import batch_limit
from tests.flows.domain import histories

RulesFor = Callable[[Ledger], Rules]


class Even:
    """Requests that all have the same size."""

    def __init__(self, size: int = 10) -> None:
        self._size = size

    def fit(self, start: int, stop: int, size: int) -> int:
        return min(stop, start + max(0, size // self._size))

    def total(self, start: int, stop: int) -> int:
        return (stop - start) * self._size


def requests_in(slices: Iterable[Slice]) -> set[int]:
    return {number for part in slices for number in range(part.start, part.stop)}


def taken(events: Iterable[Event]) -> set[int]:
    """From the journal alone: what is with the provider or may be, what is answered, and what is final."""
    sent: dict[int, set[int]] = {}
    blocked: set[int] = set()
    for event in events:
        match event:
            case Submitting():
                sent[event.batch] = requests_in(event.slices)
                blocked |= sent[event.batch]
            case Refused():
                blocked -= sent[event.batch]
            case Collected():
                blocked -= requests_in(event.result.retry)
            case Reopened():
                blocked -= requests_in(event.slices)
            case _:
                pass
    return blocked


class Simulation:
    """Works until there is nothing left to do; `trouble` is the share of calls that go wrong."""

    def __init__(self, requests: int, rules: RulesFor, seed: int, trouble: float, max_attempts: int = 3) -> None:
        self.chance = Random(seed)  # noqa: S311  # a test's dice
        self.wanted = Ranges([(0, requests)])
        self.rules = rules
        self.trouble = trouble
        self.max_attempts = max_attempts
        self.now = histories.AT.timestamp()  # events carry the hour they begin in
        self.events: list[Event] = [histories.frozen(requests)]
        self.ledger = replay(self.events)
        self.agenda = Agenda()
        self.accepted: dict[int, list[Slice]] = {}  # what the provider really has, by batch
        self.answered: set[int] = set()
        self.final: set[int] = set()
        self.ids: set[tuple[int, int, int]] = set()  # (batch, request, attempt) of all that was accepted
        self.largest_in_flight = 0

    def wrong(self, share: float = 1.0) -> bool:
        return self.chance.random() < self.trouble * share

    def record(self, event: Event) -> None:
        self.events.append(event)
        self.ledger.apply(event)

    def run(self, most_steps: int = 20_000) -> "Simulation":
        for _ in range(most_steps):
            if self.wrong(0.1):
                self.crash()
            for action in self.decide():
                match action:
                    case Finish(reason):
                        assert reason == ""
                        return self
                    case Wait(seconds):
                        self.now += max(seconds, 0.01)
                    case _:
                        if not self.act(action):
                            break
            with_provider = [batch for batch in self.ledger.in_flight() if batch.state is not State.ENDED]
            self.largest_in_flight = max(self.largest_in_flight, len(with_provider))
        raise AssertionError("it never ends")

    def decide(self) -> list[Action]:
        return next_actions(self.ledger, self.wanted, Even(), self.rules(self.ledger), self.agenda, self.now)

    def act(self, action: Action) -> bool:
        """Do it; False when the process died on the way."""
        match action:
            case Submit(slices):
                return self.submit(slices)
            case Reconcile(number):
                self.reconcile(number)
            case Poll(number):
                self.poll(number)
            case Collect(number):
                self.collect(number)
        return True

    def crash(self) -> bool:
        self.ledger, self.agenda = replay(self.events), Agenda()
        return False

    def submit(self, slices: list[Slice]) -> bool:
        assert requests_in(slices).isdisjoint(taken(self.events))
        number = self.ledger.reserve(slices).number
        if self.wrong(0.2):
            return self.crash()
        self.record(self.intent(number, slices))
        if self.wrong(0.2):
            return self.crash()
        if self.wrong(0.3):
            too_large = sum(part.requests for part in slices) > 1 and self.wrong()
            self.record(histories.refused(number, too_large=too_large))
            return True
        arrives = not self.wrong(0.3)
        if arrives:
            self.accept(number, slices)
        if self.wrong(0.3):
            return self.crash()
        if not arrives or self.wrong(0.3):
            self.record(histories.unknown(number))
            return True
        self.record(histories.submitted(number))
        return True

    def intent(self, number: int, slices: list[Slice]) -> Submitting:
        return histories.submitting(number, *slices)

    def accept(self, number: int, slices: list[Slice]) -> None:
        if number in self.accepted:
            return  # the same idempotency key: the batch it already has
        ids = {(number, request, part.attempt) for part in slices for request in range(part.start, part.stop)}
        assert self.ids.isdisjoint(ids), "a custom_id was used twice"
        assert requests_in(slices).isdisjoint(self.answered | self.final)
        self.ids |= ids
        self.accepted[number] = slices

    def reconcile(self, number: int) -> None:
        if self.wrong():
            self.agenda.due[number] = self.now + 5
            self.record(histories.unknown(number))
            return
        self.accept(number, self.ledger.batches[number].slices)
        self.record(histories.submitted(number))

    def poll(self, number: int) -> None:
        if self.chance.random() < 0.5:
            self.agenda.due[number] = self.now + 5
            return
        if self.wrong(0.2):  # accepted at first, refused later: nothing ran
            del self.accepted[number]
            self.record(histories.refused(number, queue_full=True))
            return
        self.record(histories.ended(number, "it broke" if self.wrong(0.3) else None))

    def collect(self, number: int) -> None:
        batch = self.ledger.batches[number]
        again: list[tuple[int, Slice]] = []
        final: list[tuple[int, Slice]] = []
        good = 0
        for part in sorted(batch.slices):
            for request in range(part.start, part.stop):
                if batch.failed is None and not self.wrong():
                    assert request not in self.answered, "a request was answered, and paid for, twice"
                    self.answered.add(request)
                    good += 1
                    continue
                kind = FailureKind.NOT_RUN if batch.failed else self.chance.choice(list(FailureKind))
                goes_again, after = after_failure(part, kind, self.max_attempts)
                (again if goes_again else final).append((request, after))
                if not goes_again:
                    self.final.add(request)
        self.record(
            histories.collected(number, ok=good, retry=merge_slices(again, number), final=merge_slices(final, number))
        )


def rules(
    batch_size: int = 5,
    max_in_flight: int = 3,
    max_bytes: int | None = None,
    collectors: int = 2,
    retry_linger: float = 10.0,
    max_queued_requests: int | None = None,
    max_queued_bytes: int | None = None,
    **others: Any,
) -> RulesFor:
    """What a run keeps to, as it depends on the ledger; a byte stands for a token."""
    limits = Limits(10_000, max_bytes, max_queued_requests=max_queued_requests, max_queued_tokens=max_queued_bytes)

    def rules_for(ledger: Ledger) -> Rules:
        return Rules(batch_limit(batch_size, limits, ledger, 1.0), max_in_flight, collectors, retry_linger, **others)

    return rules_for


def empty_ledger(requests: int) -> Ledger:
    return replay([histories.frozen(requests)])


def ledger_of(*batches: tuple[int, float, int], tokens: tuple[int, int] = (0, 0)) -> Ledger:
    """Collected batches as (requests, seconds at the provider, answers that were good)."""
    ledger, start = Ledger(), count(0, 10_000)
    for number, (requests, seconds, ok) in enumerate(batches, 1):
        first = next(start)
        batch = Batch(
            number, [Slice(first, first + requests)], State.COLLECTED, bytes=requests * 100, tokens=requests * 25
        )
        batch.submitted_at, batch.ended_at = 1000.0, 1000.0 + seconds
        batch.result = histories.collected(
            number, ok=ok, metered=ok, input_tokens=ok * tokens[0], output_tokens=ok * tokens[1]
        ).result
        ledger.batches[number] = batch
    return ledger

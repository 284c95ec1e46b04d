"""The results of a batch: answers are matched to requests by custom_id, judged, counted and priced."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from blocks.batch import Answer, Failure, FailureKind, Usage
from flows.domain.batches import Batch
from flows.domain.custom_ids import custom_id
from flows.domain.events import BatchResult, Slice
from flows.domain.outcomes import OUTCOMES, Outcome, after_failure, merge_slices
from flows.domain.prices import DayPrice, Service
from flows.domain.schema import OutputSchema

_UNHELD = {Outcome.GONE, Outcome.UNREADABLE}  # billed, and nobody has the answer
_BILLED = {Outcome.OK, Outcome.REJECTED, Outcome.CUT_OFF, *_UNHELD}
_MISSING = Failure(FailureKind.TRANSIENT, "missing", "the provider returned no answer for this request")
_VANISHED = Failure(
    FailureKind.TRANSIENT, "vanished", "the provider counts more answers than it returned, and returned none for this"
)
_NOT_RUN = Failure(FailureKind.NOT_RUN, "not_run", "the batch ended before this request ran")


class Verdict(NamedTuple):
    """How a request ended in its batch."""

    outcome: Outcome
    usage: Usage | None
    values: dict[str, Any] | None = None  # of a good answer
    kind: FailureKind | None = None  # None: a good answer
    error: str | None = None
    raw: str | None = None  # the text of a rejected answer
    answered: tuple[Usage, ...] = ()  # by each of several answers; each is billed by its own size
    copied: tuple[Usage, ...] = ()  # those of accidental copies of the batch
    billed: bool = False  # a failure that an answer of the model stands behind

    @property
    def usages(self) -> tuple[Usage, ...]:
        """The usage of each answer, as far as it is known."""
        return self.answered or (() if self.usage is None else (self.usage,))

    @property
    def is_billed(self) -> bool:
        """Whether it is paid for, even if the provider reports no usage."""
        return self.billed or self.outcome in _BILLED


MANY_TOKENS = 10**8  # fewer cost no fortune at any price
MOST_COST = 10**17  # pico-dollars; an answer that would cost more has numbers that are no usage


@dataclass(frozen=True, slots=True)
class Judge:
    """The rules that answers are judged by."""

    schema: OutputSchema
    price: DayPrice
    max_attempts: int
    listed: DayPrice | None = None  # the price list, where others were agreed

    def verdict(self, answer: Answer) -> Verdict:
        """Whether the answer is good; only its typed values are kept then."""
        failure, usage = answer.failure, self._plausible(answer.usage)
        if failure is not None:
            return _failed(failure, OUTCOMES[failure.kind], usage)
        values, reason = self.schema.read(answer.text or "")
        if values is not None:
            return Verdict(Outcome.OK, usage, values)
        return Verdict(Outcome.REJECTED, usage, None, FailureKind.TRANSIENT, reason, answer.text)

    def _plausible(self, usage: Usage | None) -> Usage | None:
        if usage is None or usage[0] + usage[1] < MANY_TOKENS:
            return usage
        return None if (self.price.cost(usage) or 0) > MOST_COST else usage

    def cost(self, verdict: Verdict) -> int | None:
        """Pico-dollars of the answers to a request in a batch; None: unknown."""
        if verdict.usage is None:
            return None
        if not verdict.answered:  # the usual case: one answer
            return self.price.cost(verdict.usage)
        return self.price.total(verdict.answered)

    def cost_of_copies(self, verdict: Verdict) -> int:
        """Pico-dollars of the answers of accidental copies, as far as that is known."""
        return self.price.total(verdict.copied) or 0 if verdict.copied else 0

    def cache_saved(self, usages: Iterable[Usage]) -> int | None:
        """Pico-dollars less than the same answers would have cost without a cache of the prompt; None: unpriced."""
        cached = [usage for usage in usages if any(usage[2:5])]
        paid = self.price.total(cached)
        full = self.price.total(Usage(usage[0], usage[1]) for usage in cached)
        return None if paid is None or full is None else full - paid


@dataclass(frozen=True, slots=True)
class JudgedBatch:
    """Every request of a batch, ascending by number: parallel lists, and their sums."""

    requests: list[int]
    attempts: list[int]
    verdicts: list[Verdict]
    costs: list[int | None]  # pico-dollars
    copied: list[int]  # part of them that accidental copies of the batch took
    result: BatchResult


class BatchAnswers:
    """Takes the answers of one batch, in any order; `finish` then returns the outcome of every request."""

    def __init__(self, batch: Batch, judge: Judge) -> None:
        self._batch = batch
        self._judge = judge
        self._expected = {number: piece for piece in batch.slices for number in range(piece.start, piece.stop)}
        self._numbers = {custom_id(batch.tag, number, each.attempt): number for number, each in self._expected.items()}
        self._verdicts: dict[int, Verdict] = {}
        self._strays = self._nameless = self._discarded = 0
        self._told: dict[int, set[Outcome]] = {}  # of requests with more than one answer, how those ended

    def take(self, answers: Iterable[Answer]) -> None:
        """Judge answers. Of several to one request the best counts, and what was billed for them adds up."""
        verdict, verdicts, numbers = self._judge.verdict, self._verdicts, self._numbers
        for answer in answers:
            number = numbers.get(answer.custom_id)
            if number is None:  # it is of another batch, request or attempt
                self._strays += bool(answer.custom_id)
                self._nameless += not answer.custom_id
            elif number in verdicts:
                verdicts[number] = self._better(number, verdicts[number], verdict(answer))
            else:
                verdicts[number] = verdict(answer)

    def _better(self, number: int, before: Verdict, later: Verdict) -> Verdict:
        """A good answer before a bad one, either before none; of two alike, as where a line comes twice, the first."""
        told = self._told.setdefault(number, {before.outcome})
        if later.outcome in told:
            self._strays += 1
            return before
        told.add(later.outcome)
        better, other = (later, before) if _worth(later) > _worth(before) else (before, later)
        self._discarded += other.usage is None and other.is_billed
        answered = before.usages + later.usages
        return better._replace(usage=_sum_usages(answered), answered=answered)

    def take_copy(self, answers: Iterable[Answer]) -> None:
        """Add the answers of a duplicate of the batch: they are billed too, and replace failures."""
        for answer in answers:
            number = self._numbers.get(answer.custom_id)
            if number is None:
                continue
            verdict, before = self._judge.verdict(answer), self._verdicts.get(number)
            if before is not None:
                answered = before.usages + verdict.usages
                useful = before.outcome is not Outcome.OK and verdict.outcome is Outcome.OK
                copied = before.usages if useful else before.copied + verdict.usages
                chosen = verdict if useful else before
                verdict = chosen._replace(usage=_sum_usages(answered), answered=answered, copied=copied)
            self._verdicts[number] = verdict

    def finish(
        self, *, failed: str | None = None, final: bool = False, gone: str | None = None, fewer: int = 0
    ) -> JudgedBatch:
        """The outcome of every request of the batch, including those without an answer.

        `failed`: why the whole batch has no answers; `final`: the requests would fail again. `gone`: why billed
        answers can no longer be read. `fewer`: how many answers at most the provider counts and did not return.
        """
        unanswered = len(self._expected) - len(self._verdicts)
        lacking = min(fewer + self._nameless, unanswered)
        early = self._batch.early
        self._fill_in(_unanswered(failed=failed, final=final, gone=gone, early=early, lacking=bool(lacking)))
        requests = sorted(self._verdicts)
        verdicts = [self._verdicts[number] for number in requests]
        attempts = [self._expected[number].attempt for number in requests]
        costs = [self._judge.cost(verdict) for verdict in verdicts]
        copied = [self._judge.cost_of_copies(verdict) for verdict in verdicts]
        result = self._result(requests, verdicts, costs, copied, lacking + self._discarded)
        return JudgedBatch(requests, attempts, verdicts, costs, copied, result)

    def _fill_in(self, unanswered: Verdict) -> None:
        for number in self._expected.keys() - self._verdicts.keys():
            self._verdicts[number] = unanswered

    def _result(
        self,
        requests: list[int],
        verdicts: list[Verdict],
        costs: list[int | None],
        copied: list[int],
        unseen: int,
    ) -> BatchResult:
        """`unseen`: answers that were billed at an unknown price and are no request's verdict."""
        retry, final = self._failures(requests, verdicts)
        usages = [usage for verdict in verdicts for usage in verdict.usages]
        stated = [usage for usage in usages if usage.stated_cost]
        cost = self._judge.price.total(usages)
        return BatchResult(
            schema_id=self._judge.schema.id,
            ok=len(requests) - len(retry) - len(final),
            retry=merge_slices(retry, self._batch.number),
            final=merge_slices(final, self._batch.number),
            outcomes=dict(Counter(str(verdict.outcome) for verdict in verdicts)),
            input_tokens=sum(usage[0] for usage in usages),
            output_tokens=sum(usage[1] for usage in usages),
            cached_tokens=sum(usage[2] for usage in usages),
            cost=cost,
            stated_cost=sum(usage.stated_cost for usage in stated),
            cost_of_stated=self._judge.price.total(stated) if stated else 0,
            list_cost=cost if self._judge.listed is None else self._judge.listed.total(usages),
            single_cost=self._judge.price.total(usages, Service.STANDARD),
            costs=None if cost is None else _costs_by_outcome(verdicts, costs, copied),
            copies_cost=None if cost is None else sum(copied),
            cache_saved=None if cost is None else self._judge.cache_saved(usages),
            longest_output=max((usage[1] for usage in usages), default=0),
            output_squares=sum(usage[1] * usage[1] for usage in usages),
            metered=len(usages),
            unmetered=unseen + sum(verdict.usage is None and verdict.is_billed for verdict in verdicts),
            strays=self._strays,
            lost=unseen + sum(verdict.outcome in _UNHELD for verdict in verdicts),
            nameless=self._nameless,
        )

    def _failures(
        self, requests: list[int], verdicts: list[Verdict]
    ) -> tuple[list[tuple[int, Slice]], list[tuple[int, Slice]]]:
        """The requests to retry and those that failed for good, each with its slice after the failure."""
        retry: list[tuple[int, Slice]] = []
        final: list[tuple[int, Slice]] = []
        for number, verdict in zip(requests, verdicts, strict=True):
            if verdict.kind is not None:
                goes_again, after = after_failure(self._expected[number], verdict.kind, self._judge.max_attempts)
                (retry if goes_again else final).append((number, after))
        return retry, final


def _worth(verdict: Verdict) -> int:
    return 2 if verdict.outcome is Outcome.OK else 1 if verdict.is_billed else 0


def _unanswered(*, failed: str | None, final: bool, gone: str | None, early: bool, lacking: bool) -> Verdict:
    """The verdict on the requests of a batch that have no answer."""
    if gone is not None:
        return _failed(Failure(FailureKind.TERMINAL, "gone", gone), Outcome.GONE)
    if failed is not None:
        kind = FailureKind.TERMINAL if final else FailureKind.NOT_RUN
        return _failed(Failure(kind, "batch_failed", failed), OUTCOMES[kind])
    if early:
        return _failed(_NOT_RUN, OUTCOMES[_NOT_RUN.kind])
    return _failed(_VANISHED, Outcome.VANISHED) if lacking else _failed(_MISSING, Outcome.MISSING)


def _failed(failure: Failure, outcome: Outcome, usage: Usage | None = None) -> Verdict:
    error = f"{failure.code}: {failure.message}" if failure.message else failure.code
    return Verdict(outcome, usage, kind=failure.kind, error=error, billed=failure.billed)


def _costs_by_outcome(
    verdicts: Sequence[Verdict], costs: Sequence[int | None], copied: Sequence[int]
) -> dict[str, int]:
    """What the answers cost that ended alike, as far as it is known, without their copies."""
    sums: Counter[str] = Counter()
    for verdict, cost, copy in zip(verdicts, costs, copied, strict=True):
        if cost is not None:
            sums[str(verdict.outcome)] += cost - copy
    return dict(sums)


def _sum_usages(usages: Sequence[Usage]) -> Usage | None:
    """All of them together; None if there are none."""
    return Usage(*map(sum, zip(*usages, strict=True))) if usages else None

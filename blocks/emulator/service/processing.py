"""The life cycle of a batch: pure functions of the stored data and the time."""

from dataclasses import dataclass

from blocks.emulator.answers.answers import Answer, Answers, count_tokens, cut_off
from blocks.emulator.options import EmulatorOptions
from blocks.emulator.service.batch import (
    BILLED,
    Batch,
    Ending,
    NewBatch,
    Outcome,
    Result,
    Schedule,
    Status,
    StoredRequest,
)
from blocks.emulator.service.faults import (
    batch_duration,
    batch_ending,
    injects_item_faults,
    item_outcome,
    usage_is_huge,
)

QUEUED_SHARE, MAX_QUEUED = 0.1, 1.0  # a batch is queued for a tenth of its time, for a second at most
EXPIRED_SHARE = 0.5  # of an expired batch that was processed
MAX_THOUGHTS = 64  # tokens
HUGE = 10_000_000  # times the true usage: more than 32 bits hold
REFUSAL = "I'm sorry, but I can't help with that."


@dataclass(frozen=True, slots=True)
class Habits:
    """How a provider differs from others in what it answers, keeps and bills."""

    bills_refusals: bool = False
    refusal: str = REFUSAL
    thinks: bool = False  # before it answers, and bills that as output
    keeps_expired: bool = True  # what was processed of a batch before it expired
    fails_row_by_row: bool = False  # a batch that fails as a whole ends like others, with nothing but failed rows
    overload_status: int = 503


def plan_schedule(options: EmulatorOptions, number: int, new: NewBatch, now: float) -> Schedule:
    """When and how a new batch will end."""
    duration = batch_duration(options, number, len(new.requests))
    if new.rejected:
        return Schedule(now, queued_seconds(duration), Status.FAILED)
    return Schedule(now, duration, batch_ending(options, number))


def queued_seconds(duration: float) -> float:
    """How much of a batch's time it is queued; dialects use it for other short states too."""
    return min(duration * QUEUED_SHARE, MAX_QUEUED)


def share_done(schedule: Schedule, now: float) -> float:
    """From 0 to 1."""
    if now >= schedule.ends_at:
        return 1.0
    return max(0.0, now - schedule.created_at) / schedule.duration


def current_status(batch: Batch, now: float) -> Status:
    """Of a batch that is still open."""
    queued_until = batch.schedule.created_at + queued_seconds(batch.schedule.duration)
    return Status.QUEUED if now < queued_until else Status.PROCESSING


def current_progress(batch: Batch, now: float) -> int:
    """In percent; 100 is reserved for batches that have ended."""
    return min(99, int(100 * share_done(batch.schedule, now)))


def natural_ending(batch: Batch, habits: Habits) -> Ending:
    """The end that a batch was given when it was accepted."""
    schedule = batch.schedule
    if schedule.ending is Status.FAILED and habits.fails_row_by_row:
        return Ending(Status.COMPLETED, schedule.ends_at, 0, Outcome.FAILED, 100)
    if schedule.ending is Status.FAILED:
        return Ending(Status.FAILED, schedule.ends_at, 0, Outcome.FAILED, 0)
    if schedule.ending is Status.EXPIRED:
        half = int(batch.total * EXPIRED_SHARE) if habits.keeps_expired else 0
        return Ending(Status.EXPIRED, schedule.ends_at, half, Outcome.EXPIRED, int(100 * EXPIRED_SHARE))
    return Ending(Status.COMPLETED, schedule.ends_at, batch.total, Outcome.ANSWERED, 100)


def cancelled_ending(batch: Batch, now: float) -> Ending:
    """The end of a batch that is cancelled now."""
    done = share_done(batch.schedule, now)
    return Ending(Status.CANCELLED, now, int(batch.total * done), Outcome.CANCELLED, int(100 * done))


def thinking_tokens(number: int) -> int:
    """How many tokens are spent on thinking about the answer of that number; none for some."""
    return number % MAX_THOUGHTS if number % 4 else 0


def count_output(text: str) -> int:
    """The tokens of an answer; none if it is empty."""
    return count_tokens(text) if text else 0


def truncate(text: str, max_tokens: int) -> str:
    """As much of a text as that many tokens hold."""
    return text.encode()[: 4 * max_tokens - 1].decode(errors="ignore") if max_tokens > 0 else ""


class Finishing:
    """Decides the outcome of each request of a batch that ends. A result with tokens is billed."""

    def __init__(self, options: EmulatorOptions, answers: Answers, ending: Ending, habits: Habits) -> None:
        self._options = options
        self._answers = answers
        self._ending = ending
        self._faulty = injects_item_faults(options)
        self._habits = habits
        self._billed = BILLED | {Outcome.REFUSED} if habits.bills_refusals else BILLED

    def result(self, position: int, request: StoredRequest) -> Result:
        """The result of the request at that position of the batch."""
        outcome = self._outcome(position, request)
        if outcome not in self._billed:
            return Result(request.place, outcome, "", 0, 0)
        answer = self._answers.answer(request.model, request.prompt, request.schema)
        text, output = answer.text, answer.output_tokens
        if outcome is not Outcome.ANSWERED:
            text = self._replacement(outcome, answer)
            output = count_output(text)
        thoughts = thinking_tokens(answer.number) if self._habits.thinks and outcome is not Outcome.REFUSED else 0
        if request.max_tokens is not None and thoughts + output > request.max_tokens:
            thoughts = min(thoughts, request.max_tokens)
            text = truncate(text, request.max_tokens - thoughts)
            output = count_output(text)
            outcome = Outcome.REFUSED if outcome is Outcome.REFUSED else Outcome.TRUNCATED
        factor = HUGE if usage_is_huge(self._options, request.prompt_hash, request.attempt) else 1
        return Result(request.place, outcome, text, factor * answer.input_tokens, factor * (thoughts + output))

    def _replacement(self, outcome: Outcome, answer: Answer) -> str:
        """What is written instead of the answer."""
        if outcome is Outcome.REFUSED:
            return self._habits.refusal
        return cut_off(answer.text) if outcome is Outcome.TRUNCATED else self._answers.broken(answer)

    def _outcome(self, position: int, request: StoredRequest) -> Outcome:
        if position >= self._ending.done:
            return self._ending.rest
        if request.rejection is not None:
            return Outcome.REJECTED
        if self._faulty:
            return item_outcome(self._options, request.prompt_hash, request.attempt)
        return Outcome.ANSWERED

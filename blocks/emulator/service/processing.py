"""The life of a batch, as pure functions of what is stored and of the time."""

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

QUEUED_SHARE, QUEUED_AT_MOST = 0.1, 1.0  # a batch is queued for a tenth of its time, for a second at most
EXPIRED_SHARE = 0.5  # how far an expired batch came
THOUGHTS = 64  # tokens, at most
HUGE = 10_000_000  # times the true usage: more than 32 bits hold
REFUSAL = "I'm sorry, but I can't help with that."


@dataclass(frozen=True, slots=True)
class Habits:
    """What differs between providers in what they answer, keep and bill."""

    bills_refusals: bool = False
    refusal: str = REFUSAL
    thinks: bool = False  # before it answers, and bills that as output
    keeps_expired: bool = True  # what was done of a batch before it expired
    fails_row_by_row: bool = False  # a batch that fails as a whole ends like others, with nothing but failed rows
    overload_status: int = 503


def plan_schedule(options: EmulatorOptions, number: int, new: NewBatch, now: float) -> Schedule:
    duration = batch_duration(options, number, len(new.requests))
    if new.rejected:
        return Schedule(now, queued_seconds(duration), Status.FAILED)
    return Schedule(now, duration, batch_ending(options, number))


def queued_seconds(duration: float) -> float:
    return min(duration * QUEUED_SHARE, QUEUED_AT_MOST)


def share_done(schedule: Schedule, now: float) -> float:
    if now >= schedule.ends_at:
        return 1.0
    return max(0.0, now - schedule.created_at) / schedule.duration


def current_status(batch: Batch, now: float) -> Status:
    """For batches that are still open."""
    queued_until = batch.schedule.created_at + queued_seconds(batch.schedule.duration)
    return Status.QUEUED if now < queued_until else Status.PROCESSING


def current_progress(batch: Batch, now: float) -> int:
    """In percent; 100 is kept for batches that have ended."""
    return min(99, int(100 * share_done(batch.schedule, now)))


def natural_ending(batch: Batch, *, keeps_expired: bool, fails_row_by_row: bool) -> Ending:
    """The end that was laid down for a batch when it was accepted."""
    schedule = batch.schedule
    if schedule.ending is Status.FAILED and fails_row_by_row:
        return Ending(Status.COMPLETED, schedule.ends_at, 0, Outcome.FAILED, 100)
    if schedule.ending is Status.FAILED:
        return Ending(Status.FAILED, schedule.ends_at, 0, Outcome.FAILED, 0)
    if schedule.ending is Status.EXPIRED:
        half = int(batch.total * EXPIRED_SHARE) if keeps_expired else 0
        return Ending(Status.EXPIRED, schedule.ends_at, half, Outcome.EXPIRED, int(100 * EXPIRED_SHARE))
    return Ending(Status.COMPLETED, schedule.ends_at, batch.total, Outcome.ANSWERED, 100)


def cancelled_ending(batch: Batch, now: float) -> Ending:
    done = share_done(batch.schedule, now)
    return Ending(Status.CANCELLED, now, int(batch.total * done), Outcome.CANCELLED, int(100 * done))


def thinking_tokens(number: int) -> int:
    """How long is thought about the answer of that number; about some not at all."""
    return number % THOUGHTS if number % 4 else 0


def count_written(text: str) -> int:
    return count_tokens(text) if text else 0


def within(text: str, most: int) -> str:
    """As much of a text as so many tokens hold."""
    return text.encode()[: 4 * most - 1].decode(errors="ignore") if most > 0 else ""


class Finishing:
    """Says what became of each request of a batch that ends. What has tokens is billed."""

    def __init__(self, options: EmulatorOptions, answers: Answers, ending: Ending, habits: Habits) -> None:
        self._options = options
        self._answers = answers
        self._ending = ending
        self._faulty = injects_item_faults(options)
        self._habits = habits
        self._billed = BILLED | {Outcome.REFUSED} if habits.bills_refusals else BILLED

    def result(self, position: int, request: StoredRequest) -> Result:
        outcome = self._outcome(position, request)
        if outcome not in self._billed:
            return Result(request.place, outcome, "", 0, 0)
        answer = self._answers.answer(request.model, request.prompt, request.schema)
        text, written = answer.text, answer.output_tokens
        if outcome is not Outcome.ANSWERED:
            text = self._other_text(outcome, answer)
            written = count_written(text)
        thoughts = thinking_tokens(answer.number) if self._habits.thinks and outcome is not Outcome.REFUSED else 0
        if request.max_tokens is not None and thoughts + written > request.max_tokens:
            thoughts = min(thoughts, request.max_tokens)
            text = within(text, request.max_tokens - thoughts)
            written = count_written(text)
            outcome = Outcome.REFUSED if outcome is Outcome.REFUSED else Outcome.TRUNCATED
        factor = HUGE if usage_is_huge(self._options, request.prompt_hash, request.attempt) else 1
        return Result(request.place, outcome, text, factor * answer.input_tokens, factor * (thoughts + written))

    def _other_text(self, outcome: Outcome, answer: Answer) -> str:
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

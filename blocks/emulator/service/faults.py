"""Which request, call or batch a fault affects: pure functions of the seed and the target, so runs are repeatable."""

from collections.abc import Iterator, Sequence
from hashlib import blake2b, shake_128

from blocks.emulator.options import EmulatorOptions
from blocks.emulator.service.batch import Item, Outcome, Refusal, Status

SPAN = 2.0**64
FOR_EVER = 50 * 365 * 86_400.0  # seconds
UNKNOWN_STATUS = "reticulating"  # no provider has such a word


def draw(*what: object) -> float:
    """A number from 0 to below 1 that depends only on the arguments."""
    return int.from_bytes(blake2b(repr(what).encode(), digest_size=8).digest(), "big") / SPAN


def hits(fault: str, rate: float, *what: object) -> bool:
    """Whether a fault with this rate occurs."""
    return rate > 0 and draw(fault, *what) < rate


def is_nth(number: int, every: int) -> bool:
    """Whether a switch of the kind "every Nth" hits this number; 0 is never."""
    return every > 0 and number % every == 0


def injects_item_faults(options: EmulatorOptions) -> bool:
    """Whether `item_outcome` can be anything but ANSWERED."""
    return options.refusal_rate > 0 or any(rate for _, rate in shared_rates(options))


def shared_rates(options: EmulatorOptions) -> tuple[tuple[Outcome, float], ...]:
    """Faults that hit different requests. New ones are added at the end, so a seed's older faults stay the same."""
    return (
        (Outcome.FAILED, options.failure_rate),
        (Outcome.INVALID, options.invalid_rate),
        (Outcome.MISSING, options.missing_rate),
        (Outcome.TRUNCATED, options.length_rate),
        (Outcome.UNEXPLAINED, options.unexplained_rate),
        (Outcome.TIMED_OUT, options.timeout_rate),
    )


def item_outcome(options: EmulatorOptions, prompt_hash: int, attempt: int) -> Outcome:
    """The outcome of this attempt. Refusals depend on the prompt; the others share one draw, so their rates add up."""
    if options.refusal_rate and draw("refuse", options.seed, prompt_hash) < options.refusal_rate:
        return Outcome.REFUSED
    if attempt > options.fault_attempts:
        return Outcome.ANSWERED
    left = draw("item", options.seed, prompt_hash, attempt)
    for outcome, rate in shared_rates(options):
        if left < rate:
            return outcome
        left -= rate
    return Outcome.ANSWERED


def line_comes_twice(options: EmulatorOptions, prompt_hash: int, attempt: int) -> bool:
    """Whether a result's line is in its file twice."""
    return hits("duplicate", options.duplicate_rate, options.seed, prompt_hash, attempt)


def usage_is_missing(options: EmulatorOptions, prompt_hash: int, attempt: int) -> bool:
    """Whether a billed answer lacks its usage."""
    return hits("unmetered", options.unmetered_rate, options.seed, prompt_hash, attempt)


def usage_is_huge(options: EmulatorOptions, prompt_hash: int, attempt: int) -> bool:
    """Whether an answer is billed many times its tokens."""
    return hits("huge", options.huge_usage_rate, options.seed, prompt_hash, attempt)


def swap_answers(options: EmulatorOptions, items: Iterator[Item]) -> Iterator[Item]:
    """Results, some of which come in pairs under each other's id."""
    waiting: Item | None = None
    for item in items:
        if not answer_is_swapped(options, item):
            yield item
        elif waiting is None:
            waiting = item
        else:
            yield item._replace(custom_id=waiting.custom_id, note=waiting.note)
            yield waiting._replace(custom_id=item.custom_id, note=item.note)
            waiting = None
    if waiting is not None:
        yield waiting


def answer_is_swapped(options: EmulatorOptions, item: Item) -> bool:
    """Whether an answer is to come under another id; failures stay where they are."""
    if item.outcome is not Outcome.ANSWERED or item.attempt > options.fault_attempts:
        return False
    return hits("swap", options.swapped_rate, options.seed, item.prompt_hash, item.attempt)


def call_fails(options: EmulatorOptions, number: int) -> bool:
    """Whether the Nth call is answered by an overload."""
    return hits("call", options.error_rate, options.seed, number)


def create_refusal(options: EmulatorOptions, number: int) -> Refusal | None:
    """Why the Nth create is refused, if it is."""
    if is_nth(number, options.quota_every):
        return Refusal.QUOTA
    return Refusal.RATE if is_nth(number, options.rate_limit_every) else None


def status_is_unknown(options: EmulatorOptions, batch: int) -> bool:
    """Whether a batch has, once, an unknown status."""
    return is_nth(batch, options.unknown_status_every)


def page_slips_by(options: EmulatorOptions, batch: int, limit: int) -> int:
    """By how many results a page of this batch is misplaced, once, if it is: back, or ahead."""
    if is_nth(batch, options.page_slips_every):
        return -limit
    return limit if is_nth(batch, options.page_skips_every) else 0


def create_is_dropped(options: EmulatorOptions, batch: int) -> bool:
    """Whether a batch is accepted without a response to its create."""
    return hits("drop", options.drop_rate, options.seed, batch) or is_nth(batch, options.drop_every)


def batch_is_forgotten(options: EmulatorOptions, batch: int) -> bool:
    """Whether a batch is not found after it was accepted."""
    return is_nth(batch, options.vanish_every)


def batch_hangs(options: EmulatorOptions, batch: int) -> bool:
    """Whether a batch never ends."""
    return is_nth(batch, options.hang_every)


def held_seconds(options: EmulatorOptions, batch: int) -> float:
    """The delay of the response to an accepted create, in seconds."""
    return options.hold if is_nth(batch, options.hold_every) else 0.0


def batch_ending(options: EmulatorOptions, batch: int) -> Status:
    """How a batch will end if nobody cancels it."""
    if is_nth(batch, options.fail_batch_every):
        return Status.FAILED
    return Status.EXPIRED if is_nth(batch, options.expire_every) else Status.COMPLETED


def batch_duration(options: EmulatorOptions, batch: int, requests: int) -> float:
    """Seconds that a batch takes."""
    if batch_hangs(options, batch):
        return FOR_EVER
    varied = 1 + options.jitter * (2 * draw("jitter", options.seed, batch) - 1)
    return (options.latency + options.latency_per_request * requests) * varied


def shuffled(seed: int, batch: int, count: int) -> Sequence[int]:
    """The numbers below `count` in the order in which this batch processes them and lists its results."""
    noise = shake_128(f"{seed}/{batch}".encode()).digest(8 * count)
    keys = memoryview(noise).cast("Q").tolist()
    return sorted(range(count), key=keys.__getitem__)

"""Bad habits of providers: which switches of the emulator they are, and how its books show that they happened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from blocks.emulator.service import faults
from blocks.emulator.service.batch import Outcome
from blocks.emulator.wire.tampering import FALSE_START, LOST, ODD, POISONED, TORN
from tests.attacks.books import Books

DIALECTS = ("holysheep", "openai", "anthropic", "mistral", "gemini")
WITH_FILES = ("openai", "anthropic", "mistral")  # others answer with pages, or within the batch itself
WITH_NAMED_FILES = ("openai", "mistral")
WITH_LISTS = ("openai", "anthropic", "mistral", "gemini")
WITH_MARKS = ("openai", "mistral", "gemini")  # in their lists
Switches = dict[str, Any]


@dataclass(frozen=True)
class Habit:
    """What a provider does wrong; `happened` reads it from its books."""

    choose: Callable[[Random], Switches]
    happened: Callable[[Books], bool]
    dialects: tuple[str, ...] = DIALECTS
    parameters: dict[str, Any] = field(default_factory=dict)  # of the run: a word of the user that it needs


def share(name: str, outcome: Outcome | None = None, low: float = 0.1, high: float = 0.3, **more: Any) -> Habit:
    """A share of requests; it happened if the books have the outcome."""

    def choose(dice: Random) -> Switches:
        return {name: round(dice.uniform(low, high), 2)}

    return Habit(choose, lambda books: outcome is None or books.outcomes.get(outcome, 0) > 0, **more)


def each(name: str, happened: Callable[[Books], bool], low: int = 2, high: int = 4, **more: Any) -> Habit:
    """Every Nth event."""
    return Habit(lambda dice: {name: dice.randint(low, high)}, happened, **more)


def drawn(fault: Callable[..., bool]) -> Callable[[Books], bool]:
    """Whether a fault hit one of the billed answers."""
    return lambda books: any(fault(books.options, line.prompt_hash, line.attempt) for line in books.billed)


def _calls_failed(books: Books) -> bool:
    return any(faults.call_fails(books.options, number) for number in range(1, books.counters["calls"] + 1))


def _counted(name: str, switch: str) -> Callable[[Books], bool]:
    return lambda books: books.counters.get(name, 0) >= getattr(books.options, switch)


def _ended(status: str) -> Callable[[Books], bool]:
    return lambda books: books.number(f"SELECT count(*) FROM batches WHERE ending = '{status}'") > 0  # noqa: S608


def _every_batch(switch: str) -> Callable[[Books], bool]:
    return lambda books: books.number("SELECT max(number) FROM batches") >= getattr(books.options, switch)


def _dropped(books: Books) -> bool:
    return books.number("SELECT sum(dropped) FROM batches") > 0


def _swapped(books: Books) -> bool:
    return any(books.is_swapped(line) for line in books.billed)


def _told(fault: str) -> Callable[[Books], bool]:
    return lambda books: any(books.is_hit(line, fault) for line in books.billed)


def _paged(books: Books) -> bool:
    """Whether a batch had more than one page, and so a second one that could be the wrong one."""
    options = books.options
    every, size = options.page_slips_every or options.page_skips_every, options.results_page
    return books.number(f"SELECT count(*) FROM batches WHERE number % {every} = 0 AND total > {size}") > 0  # noqa: S608


def line_share(name: str, fault: str, **more: Any) -> Habit:
    """A share of results, on their way."""
    return Habit(lambda dice: {name: round(dice.uniform(0.1, 0.3), 2)}, _told(fault), **more)


def unlisted(switch: str, *values: int, dialects: tuple[str, ...] = WITH_LISTS) -> Habit:
    """Lists that prove nothing; creates are lost, so that they are asked."""
    return Habit(lambda dice: {switch: dice.choice(values), "drop_every": 2}, _dropped, dialects)


LOSING = {"batches_vanish", "batches_hang", "results_are_gone"}  # whose rows fail, and what they cost is unknown
ONE_OF: tuple[set[str], ...] = (  # habits that hide each other, or that no run could get past together
    {"batches_fail", "batches_expire"},
    {"creates_are_lost", "creates_are_lost_and_late", "clocks_are_wrong", "lists_are_refused", "lists_break_off",
     "lists_show_nothing", "lists_show_no_marks"},
    {"downloads_end_early", "downloads_are_a_page", "downloads_explode", "downloads_never_end"},
    {"answers_have_no_file", "downloads_never_end", "lines_are_torn", "files_are_named_late", "files_are_objects"},
    {"pages_slip", "pages_skip", "lines_are_lost"},
)  # fmt: skip
HABITS: dict[str, Habit] = {
    "requests_fail": share("failure_rate", Outcome.FAILED),
    "answers_are_invalid": share("invalid_rate", Outcome.INVALID),
    "answers_are_missing": share("missing_rate", Outcome.MISSING),
    "requests_are_refused": share("refusal_rate", Outcome.REFUSED),
    "answers_are_cut_off": share("length_rate", Outcome.TRUNCATED),
    "requests_fail_without_reason": share("unexplained_rate", Outcome.UNEXPLAINED),
    "requests_time_out": share("timeout_rate", Outcome.TIMED_OUT),
    "lines_come_twice": Habit(lambda _: {"duplicate_rate": 0.4}, drawn(faults.line_comes_twice)),
    "answers_are_swapped": Habit(lambda _: {"swapped_rate": 0.5}, _swapped, dialects=("gemini",)),
    "usage_is_missing": Habit(lambda _: {"unmetered_rate": 0.3}, drawn(faults.usage_is_missing)),
    "usage_is_huge": Habit(lambda _: {"huge_usage_rate": 0.3}, drawn(faults.usage_is_huge)),
    "creates_are_rate_limited": Habit(
        lambda dice: {"rate_limit_every": dice.randint(2, 4), "retry_after": 0.05},
        _counted("creates", "rate_limit_every"),
    ),
    "creates_exhaust_a_quota": each("quota_every", _counted("creates", "quota_every"), low=3, high=3),
    "calls_are_overloaded": Habit(lambda _: {"error_rate": 0.3}, _calls_failed),
    "creates_are_lost": each("drop_every", _dropped, low=1, high=3),
    "creates_are_lost_and_late": Habit(lambda _: {"drop_every": 2, "visible_after": 0.4}, _dropped),
    "clocks_are_wrong": Habit(
        lambda dice: {"clock_ahead": dice.choice([-7200.0, 7200.0]), "drop_every": 2},
        lambda books: books.options.clock_ahead != 0 and _dropped(books),
    ),
    "batches_show_late": Habit(lambda _: {"visible_after": 0.4}, lambda _: True),
    "batches_fail": each("fail_batch_every", _ended("failed"), high=3),
    "batches_expire": each("expire_every", _ended("expired"), high=3),
    "downloads_break_off": each("cut_every", _counted("downloads", "cut_every"), low=2, high=3),
    "downloads_end_early": each("open_end_every", _counted("downloads", "open_end_every"), low=3, high=5),
    "downloads_are_a_page": each("page_every", _counted("downloads", "page_every"), low=3, high=5),
    "downloads_explode": each("bomb_every", _counted("downloads", "bomb_every"), low=3, high=5),
    "downloads_never_end": each(
        "endless_every", _counted("downloads", "endless_every"), low=3, high=5, dialects=WITH_FILES
    ),
    "answers_are_shuffled": Habit(lambda _: {"shuffled": 1}, lambda books: len(books.billed) > 1),
    "lines_are_odd": line_share("odd_line_rate", ODD),
    "lines_are_torn": line_share("torn_line_rate", TORN, dialects=WITH_FILES),
    "lines_are_lost": line_share("lost_line_rate", LOST),
    "failures_come_before_answers": line_share("false_start_rate", FALSE_START),
    "usage_is_poisoned": line_share("poison_rate", POISONED),
    "files_are_named_late": Habit(lambda _: {"late_file": 0.2}, _ended("completed"), dialects=WITH_NAMED_FILES),
    "files_are_objects": Habit(lambda _: {"file_objects": 1}, _ended("completed"), dialects=WITH_NAMED_FILES),
    "answers_have_no_file": Habit(lambda _: {"without_files": 1}, _ended("completed"), dialects=("mistral",)),
    "pages_slip": Habit(
        lambda dice: {"results_page": dice.randint(1, 4), "page_slips_every": 2}, _paged, dialects=("holysheep",)
    ),
    "pages_skip": Habit(
        lambda dice: {"results_page": dice.randint(1, 4), "page_skips_every": 2}, _paged, dialects=("holysheep",)
    ),
    "lists_are_refused": unlisted("list_refused", 400, 403, 404, 405),
    "lists_break_off": unlisted("list_breaks", 1, 2),
    "lists_show_nothing": unlisted("list_hides", 1),
    "lists_show_no_marks": unlisted("list_unmarked", 1, dialects=WITH_MARKS),
    "results_are_gone": Habit(lambda dice: {"gone_after": dice.choice([0.001, 0.3])}, _ended("completed")),
    "states_are_unknown": each("unknown_status_every", _every_batch("unknown_status_every"), low=1, high=2),
    "batches_vanish": each("vanish_every", _every_batch("vanish_every")),
    "batches_hang": each("hang_every", _every_batch("hang_every"), parameters={"abandon_after": 2}),
    "batches_take_time": Habit(lambda _: {"latency": 0.3, "jitter": 0.9}, lambda _: True),
    "creates_are_slow": Habit(lambda _: {"hold": 0.3, "hold_every": 2}, _every_batch("hold_every")),
}

"""What would have made these answers cheaper, in dollars: from what was counted and the price table, nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from blocks.batch import Usage
from blocks.printable import counted
from flows.domain.money import show_cost
from flows.domain.prices import Rates
from flows.domain.spending import OTHER

MODELS = 3  # that are named
STEP = 10  # tokens by which prompts and answers could be shorter
PERCENT = 100


@dataclass(frozen=True, slots=True)
class Used:
    """What the answers of one model cost, and what they were asked with. Money in pico-dollars."""

    answers: int  # with usage
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    cost: int
    rates: Rates  # of an average request in a batch
    spending: Mapping[str, int]
    others: Mapping[str, Rates]  # the same of the provider's other models
    system_tokens: int = 0  # of the system text, which all prompts begin with
    shortest_prefix: int | None = None  # tokens from which on the provider's cache takes it; None: unknown
    longest_output: int = 0
    max_output_tokens: int | None = None
    emulated: bool = False  # whether these costs are no money


@dataclass(frozen=True, slots=True)
class Advice:
    """One thing to change."""

    what: str
    how: str  # to do it, and what the figure rests on
    saves: int | None  # pico-dollars, of what these answers cost; None: it lowers a limit, not the cost


def advice(used: Used) -> list[Advice]:
    """What would have saved something, the largest sum first."""
    if not used.answers:
        return []
    found = [*_smaller_models(used), *_failures(used), *_cache(used), *_shorter(used)]
    found = sorted((each for each in found if each.saves), key=lambda each: -(each.saves or 0))
    return [*found, *_headroom(used)]


def _smaller_models(used: Used) -> Iterator[Advice]:
    usage = Usage(used.input_tokens, used.output_tokens)
    costs = {name: rates.cost(usage) for name, rates in used.others.items()}
    cheaper = sorted((cost, name) for name, cost in costs.items() if cost < used.cost)
    for cost, name in cheaper[:MODELS]:
        price = show_cost(cost, emulated=used.emulated)
        how = f"--model {name}: {price} for as many tokens, without a cache. Try it first with --limit"
        risk = "and another OUTPUT: its answers may be worse"
        yield Advice(f"a cheaper model: {name}", f"{how} {risk}", used.cost - cost)


_REMEDIES = {
    "rejected_answers": ("no answers that break the schema", "loosen the schema, or say in the prompt what it wants"),
    "cut_off_answers": ("no answers that are cut off", "raise max_output_tokens, or ask for shorter answers"),
    OTHER: ("no refused or failed answers", "the failures below say why the provider billed and gave no answer"),
}


def _failures(used: Used) -> Iterator[Advice]:
    for reason, (what, how) in _REMEDIES.items():
        yield Advice(what, how, used.spending.get(reason, 0))


def _cache(used: Used) -> Iterator[Advice]:
    """All prompts begin with the system text; read from a cache it costs less, if it is long enough."""
    rates, shortest = used.rates, used.shortest_prefix
    if not shortest or used.cached_tokens or rates.cache_read >= rates.input or used.answers < 2:
        return
    now, then = used.system_tokens * rates.input, max(used.system_tokens, shortest) * rates.cache_read
    saves = (used.answers - 1) * (now - then)
    if used.system_tokens >= shortest:
        how = f"its {used.system_tokens:,} tokens are enough for the prompt cache, but none was read from it"
        yield Advice("a system text from the cache", f"{how}; the figure is for a hit each time", max(0, saves))
    elif saves > 0:
        how = f"it has {used.system_tokens:,} tokens, the prompt cache takes {shortest:,} or more"
        yield Advice("a longer system text", f"{how}: examples could fill it; the figure is for a hit each time", saves)


def _shorter(used: Used) -> Iterator[Advice]:
    for what, total, rate in (
        ("prompts", used.input_tokens - used.cached_tokens, used.rates.input),
        ("answers", used.output_tokens, used.rates.output),
    ):
        average = total / used.answers
        if average > 2 * STEP:
            how = f"they have {average:,.0f} tokens on average; each {STEP} tokens less in each save this"
            yield Advice(f"shorter {what}", how, STEP * used.answers * rate)


def _headroom(used: Used) -> Iterator[Advice]:
    """A limit that no answer came near reserves room, in budgets and in the provider's queue, that nobody needs."""
    most, longest = used.max_output_tokens, used.longest_output
    if most and longest and longest * 2 <= most:
        share = PERCENT * longest // most
        how = f"the longest of {counted(used.answers, 'answer')} took {longest:,} of {most:,} tokens ({share} %)"
        what = f"max_output_tokens: {longest * 3 // 2:,} is enough"
        yield Advice(what, f"{how}; a lower limit lowers the highest possible cost, not the cost", None)

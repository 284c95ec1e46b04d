"""Advice names sums that can be computed by hand from tokens and prices, and nothing else."""

from __future__ import annotations

from typing import Any

from flows.domain.advice import Advice, Used, advice
from flows.domain.prices import Rates


def price(tokens_in: int, tokens_out: int, read: int | None = None) -> Rates:
    return Rates(tokens_in, tokens_out, tokens_in if read is None else read, tokens_in, tokens_in)


def used(**changes: Any) -> Used:
    """100 answers of 300 tokens in and 15 out, at 10 and 40 a token."""
    usual: dict[str, Any] = {
        "answers": 100,
        "input_tokens": 30_000,
        "output_tokens": 1_500,
        "cached_tokens": 0,
        "cost": 30_000 * 10 + 1_500 * 40,
        "rates": price(10, 40),
        "spending": {},
        "others": {},
    }
    return Used(**{**usual, **changes})


def saves(found: list[Advice]) -> dict[str, int | None]:
    return {each.what: each.saves for each in found}


def test_a_cheaper_model_is_priced_with_the_same_tokens() -> None:
    """Dearer ones are no advice."""
    found = saves(advice(used(others={"small": price(1, 2), "large": price(20, 80), "same": price(10, 40)})))
    assert found["a cheaper model: small"] == 360_000 - (30_000 + 2 * 1_500)
    assert [what for what in found if "model" in what] == ["a cheaper model: small"]


def test_the_cheapest_models_are_named() -> None:
    """Three: a table of prices has dozens."""
    found = advice(used(others={f"model-{n}": price(n, n) for n in range(1, 8)}))
    assert [each.what for each in found if "model" in each.what] == [f"a cheaper model: model-{n}" for n in (1, 2, 3)]


def test_useless_answers_would_be_saved() -> None:
    """By how they ended; what did not occur is not mentioned."""
    found = saves(advice(used(spending={"rejected_answers": 500, "cut_off_answers": 0, "other_failures": 7})))
    assert found["no answers that break the schema"] == 500
    assert found["no refused or failed answers"] == 7
    assert not any("cut off" in what for what in found)


def test_a_system_text_that_is_almost_long_enough_for_the_cache_could_be_longer() -> None:
    """If reading the longer one from the cache is cheaper than sending this one each time."""
    found = saves(advice(used(rates=price(10, 40, read=1), system_tokens=200, shortest_prefix=512)))
    assert found["a longer system text"] == 99 * (200 * 10 - 512 * 1)
    short = saves(advice(used(rates=price(10, 40, read=1), system_tokens=20, shortest_prefix=512)))
    assert "a longer system text" not in short


def test_a_cache_that_was_not_read_is_named() -> None:
    """One that was read, and one that saves nothing, are not."""
    missed = used(rates=price(10, 40, read=1), system_tokens=600, shortest_prefix=512)
    assert saves(advice(missed))["a system text from the cache"] == 99 * (6000 - 600)
    hit = used(rates=price(10, 40, read=1), system_tokens=600, shortest_prefix=512, cached_tokens=5_000)
    none = used(system_tokens=600, shortest_prefix=512)
    assert not any("system" in what for what in [*saves(advice(hit)), *saves(advice(none))])


def test_shorter_prompts_are_priced_by_ten_tokens() -> None:
    """Answers of fifteen tokens can't lose ten."""
    found = saves(advice(used()))
    assert found == {"shorter prompts": 10 * 100 * 10}


def test_a_limit_that_no_answer_came_near_comes_last_and_saves_nothing() -> None:
    """It has a share instead of a sum."""
    (*_, last) = advice(used(longest_output=43, max_output_tokens=300))
    assert (last.what, last.saves) == ("max_output_tokens: 64 is enough", None)
    assert "43 of 300 tokens (14 %)" in last.how
    assert len(advice(used(longest_output=200, max_output_tokens=300))) == 1


def test_the_largest_sum_comes_first() -> None:
    """And without answers there is nothing to say."""
    found = advice(used(others={"small": price(1, 2)}, spending={"rejected_answers": 5}))
    assert [each.saves for each in found] == sorted((each.saves or 0 for each in found), reverse=True)
    assert advice(used(answers=0)) == []

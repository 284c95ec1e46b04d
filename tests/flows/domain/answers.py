"""Answers for tests, of batches that `histories` submits, and what judges them."""

from blocks.batch import Answer, Failure, FailureKind, Usage
from flows.domain.prices import Rates
from tests.flows.domain.histories import TAG
from tests.flows.domain.pricing import day_price

RUN = "abcd2345"
LABEL = {"label": {"type": "string"}}
PRICE = day_price((0, Rates(10, 40, 5, 12, 20), Rates(20, 80, 10, 24, 40)))
GOOD = '{"label": "x"}'


def answer(number: int, text: str, attempt: int = 1, usage: Usage | None = Usage(100, 10)) -> Answer:  # noqa: B008  # a tuple
    return Answer(f"{TAG}-{number}-{attempt}", text, usage, None)


def failure(
    number: int, kind: FailureKind, usage: Usage | None = None, attempt: int = 1, *, billed: bool = False
) -> Answer:
    return Answer(f"{TAG}-{number}-{attempt}", None, usage, Failure(kind, "code", "why", billed=billed))

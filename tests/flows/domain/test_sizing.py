"""How large batches are: cut by requests and bytes, announced as they are sent."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from blocks.batch import Limits
from flows.domain.actions import Finish, Rules, Submit, next_actions
from flows.domain.agenda import Agenda
from flows.domain.events import Event, Slice
from flows.domain.ledger import Ledger, replay
from flows.domain.ranges import Ranges
from flows.domain.sizing import (
    AUTO_MIN,
    AUTO_START,
    AUTO_TARGET,
    BatchLimit,
    auto_batch_size,
    batch_limit,
    cut_batches,
)
from tests.flows.domain import histories
from tests.flows.domain.simulation import Even, ledger_of


class Uneven:
    """Requests of sizes that are given one by one."""

    def __init__(self, *sizes: int) -> None:
        self._sizes = sizes

    def fit(self, start: int, stop: int, size: int) -> int:
        while start < stop and size >= self._sizes[start]:
            size -= self._sizes[start]
            start += 1
        return start

    def total(self, start: int, stop: int) -> int:
        return sum(self._sizes[start:stop])


def cut(backlog: list[Slice], sizes: Even | Uneven, rows: int, most: int | None) -> list[tuple[list[Slice], bool]]:
    ledger, everything = Ledger(retries=backlog, sent=Ranges([(0, 99)])), Ranges([(0, 99)])
    return list(cut_batches(ledger, everything, sizes, BatchLimit(rows, most)))


def test_batches_are_cut_by_rows() -> None:
    """Full ones, and what is left over."""
    assert cut([Slice(0, 7)], Even(), 3, None) == [
        ([Slice(0, 3)], True),
        ([Slice(3, 6)], True),
        ([Slice(6, 7)], False),
    ]
    assert cut([Slice(0, 6)], Even(), 3, None) == [([Slice(0, 3)], True), ([Slice(3, 6)], True)]
    assert cut([], Even(), 3, None) == []


def test_batches_are_cut_by_bytes() -> None:
    """No batch is larger than the provider takes."""
    assert cut([Slice(0, 5)], Uneven(4, 4, 4, 9, 1), 99, 10) == [
        ([Slice(0, 2)], True),
        ([Slice(2, 3)], True),
        ([Slice(3, 5)], False),
    ]


def test_a_request_that_fits_nowhere_goes_alone() -> None:
    """The provider is the judge of it, and it takes no other with it."""
    assert cut([Slice(0, 4)], Uneven(1, 50, 1, 1), 99, 10) == [
        ([Slice(0, 1)], True),
        ([Slice(1, 2)], True),
        ([Slice(2, 4)], False),
    ]
    assert cut([Slice(0, 2), Slice(5, 6, 2)], Uneven(50, 50, 0, 0, 0, 1), 99, 10) == [
        ([Slice(0, 1)], True),
        ([Slice(1, 2)], True),
        ([Slice(5, 6, 2)], False),
    ]


def test_retries_and_new_ones_share_a_batch() -> None:
    """A batch is filled from several slices, each with its own attempt."""
    backlog = [Slice(3, 4, 2, 1, 1), Slice(7, 9, 3, 2, 2), Slice(20, 30)]
    assert cut(backlog, Even(), 5, None)[0] == ([*backlog[:2], Slice(20, 22)], True)


@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=30),
    st.integers(1, 7),
    st.none() | st.integers(1, 25),
    st.lists(st.integers(1, 29), max_size=4),
)
def test_cutting_keeps_every_request_in_order(sizes: list[int], rows: int, most: int | None, cuts: list[int]) -> None:
    """Whatever the limits, each request is in one batch, in order; batches keep to both limits."""
    edges = sorted({0, len(sizes), *(at for at in cuts if at < len(sizes))})
    backlog = [Slice(start, stop) for start, stop in pairwise(edges)]
    batches = cut(backlog, Uneven(*sizes), rows, most)
    numbers = [[n for piece in slices for n in range(piece.start, piece.stop)] for slices, _ in batches]
    assert [n for batch in numbers for n in batch] == list(range(len(sizes)))
    for batch in numbers:
        assert 1 <= len(batch) <= rows
        assert most is None or len(batch) == 1 or sum(sizes[n] for n in batch) <= most
    assert all(full for _, full in batches[:-1])


def test_quick_batches_grow_and_slow_ones_shrink() -> None:
    """Half as large again below 70 % of the target, 70 % above 150 %, the same between."""
    assert auto_batch_size(Ledger(), 10_000) == AUTO_START
    assert auto_batch_size(ledger_of((1000, AUTO_TARGET * 0.5, 1000)), 10_000) == 1500
    assert auto_batch_size(ledger_of((1000, AUTO_TARGET, 1000)), 10_000) == 1000
    assert auto_batch_size(ledger_of((1000, AUTO_TARGET * 2, 1000)), 10_000) == 700


def test_an_automatic_size_stays_within_its_bounds() -> None:
    """Never above the provider's limit, never a batch of next to nothing."""
    quick, slow = [(10, 1.0, 10)] * 40, [(10, 9999.0, 10)] * 40
    assert auto_batch_size(ledger_of(*quick), 5_000) == 5_000
    assert auto_batch_size(ledger_of(*slow), 5_000) == AUTO_MIN
    assert auto_batch_size(Ledger(), 500) == 500


def test_a_batch_that_failed_says_nothing_about_size() -> None:
    """A provider in trouble is not sent larger batches because it fails quickly."""
    ledger = ledger_of(*[(1000, 1.0, 0)] * 3)
    for batch in ledger.batches.values():
        batch.failed = "internal error"
    assert auto_batch_size(ledger, 10_000) == AUTO_START


LIMITS = st.builds(
    Limits,
    max_requests=st.integers(1, 12),
    max_bytes=st.none() | st.integers(1, 60),
    max_queued_requests=st.none() | st.integers(1, 30),
    max_queued_tokens=st.none() | st.integers(1, 60),
)


@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=30),
    st.lists(st.tuples(st.integers(0, 29), st.integers(1, 6)), max_size=3),
    st.integers(1, 9),
    LIMITS,
    st.integers(1, 4),
)
def test_the_batches_that_are_announced_are_those_that_are_sent(
    sizes: list[int], answered: list[tuple[int, int]], batch_size: int, limits: Limits, max_in_flight: int
) -> None:
    """Whatever the limits, the sizes of requests, and what was answered before."""
    ledger, all_sizes = replay([histories.frozen(len(sizes))]), Uneven(*sizes)
    wanted = Ranges([(0, len(sizes))])
    for start, length in answered:
        ledger.sent.add(start, min(start + length, len(sizes)))
    announced = [slices for slices, _ in cut_batches(ledger, wanted, all_sizes, _limit(batch_size, limits, ledger))]
    sent: list[list[Slice]] = []
    while True:
        rules = Rules(_limit(batch_size, limits, ledger), max_in_flight, collectors=2, retry_linger=10.0)
        actions = next_actions(ledger, wanted, all_sizes, rules, Agenda(), histories.AT.timestamp())
        if actions == [Finish()]:
            break
        for action in actions:
            assert isinstance(action, Submit)
            sent.append(action.slices)
            number = ledger.reserve(action.slices).number
            events: list[Event] = [
                histories.submitting(number, *action.slices),
                histories.submitted(number),
                histories.ended(number),
                histories.collected(number, ok=sum(piece.requests for piece in action.slices)),
            ]
            for event in events:
                ledger.apply(event)
    assert sent == announced


def _limit(batch_size: int, limits: Limits, ledger: Ledger) -> BatchLimit:
    return batch_limit(batch_size, limits, ledger, tokens_per_byte=1.0)


def test_the_smallest_of_all_limits_decides() -> None:
    """The user's, the provider's, what it once called too large, and what may wait with it."""
    limits = Limits(8, max_bytes=100, max_queued_requests=6, max_queued_tokens=50)
    assert batch_limit(20, Limits(8), Ledger(), 0.25) == BatchLimit(8)
    assert batch_limit(3, Limits(8), Ledger(), 0.25) == BatchLimit(3)
    assert batch_limit(20, Limits(8), Ledger(max_requests=4), 0.25) == BatchLimit(4)
    assert batch_limit(20, limits, Ledger(), 0.25) == BatchLimit(6, 100, 6, 200)
    assert batch_limit(20, limits, Ledger(), 1.0) == BatchLimit(6, 50, 6, 50)


def test_batches_to_come_are_counted_by_requests() -> None:
    """The last one need not be full."""
    assert [BatchLimit(5).batches_of(n) for n in (0, 1, 5, 6)] == [0, 1, 1, 2]

"""Whatever a provider says of a batch: one sentence, or right rows; never a traceback, never another's answer."""

from __future__ import annotations

from typing import Any

import pytest
import stamina
from hypothesis import strategies as st

from blocks.batch import Answer
from blocks.emulator import EmulatorOptions
from blocks.errors import Incomplete, NotFound, ProviderError
from flows.domain.events import EVENTS, Collected, Slice
from flows.domain.judging import BatchAnswers, Judge, JudgedBatch
from flows.domain.ledger import replay
from flows.domain.outcomes import Outcome
from flows.domain.schema import OutputSchema
from flows.storage.results import part_table
from tests.blocks.contract import OTHER_WAYS, PROMPTS, SCHEMA, WAYS, Way
from tests.flows.domain import histories
from tests.flows.domain.answers import PRICE
from tests.fuzz.mutations import KEEPS_TEXTS, mutated, mutations
from tests.fuzz.recorded import Recorded, record, tampered_answer
from tests.fuzz.rounds import check_rounds

COLUMNS = OutputSchema(SCHEMA)
OURS = [way for way in (*WAYS, *OTHER_WAYS) if not way.package and not way.patches]


def judged(answers: list[Answer]) -> JudgedBatch:
    """As a run takes them, down to the row of the table and the line of the journal."""
    ledger = replay([histories.submitting(7, Slice(0, len(PROMPTS)))])
    taken = BatchAnswers(ledger.batches[7], Judge(COLUMNS, PRICE, max_attempts=3))
    taken.take(answers)
    result = taken.finish()
    assert result.requests == list(range(len(PROMPTS)))
    part_table(result, COLUMNS)
    EVENTS.validate_json(EVENTS.dump_json(Collected(at=histories.AT, batch=7, result=result.result)))
    counts = result.result
    assert counts.cost is not None
    assert min(counts.input_tokens, counts.output_tokens, counts.cached_tokens, counts.cost) >= 0
    assert sum(counts.outcomes.values()) == len(PROMPTS)
    return result


def good(batch: JudgedBatch) -> dict[int, Any]:
    rows = zip(batch.requests, batch.verdicts, strict=True)
    return {number: verdict.values for number, verdict in rows if verdict.outcome is Outcome.OK}


def check_sentence(error: ProviderError) -> None:
    assert error.message
    assert "\n" not in error.message


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Recorded]:
    return {way.name: record(way, tmp_path_factory.mktemp(way.name)) for way in OURS}


@pytest.mark.parametrize("way", OURS, ids=lambda way: way.name)
def test_a_recording_says_what_was_recorded(recordings: dict[str, Recorded], way: Way) -> None:
    """Unspoilt, the client reads the same answers again: the fuzzing starts from what works."""
    recorded = recordings[way.name]
    _, answers = recorded.read(lambda _, content: content)
    assert answers == recorded.answers
    assert len(good(judged(answers))) > len(PROMPTS) / 2


LINE_FAULTS = ("odd_line_rate", "torn_line_rate", "lost_line_rate", "false_start_rate", "poison_rate")
SPOIL_ANSWERS = {"torn_line_rate", "lost_line_rate"}
rates = st.fixed_dictionaries(
    {"seed": st.integers(0, 2**32), "shuffled": st.integers(0, 1)},
    optional=dict.fromkeys(LINE_FAULTS, st.floats(0.05, 0.6)),
)


@pytest.mark.parametrize("way", OURS, ids=lambda way: way.name)
def test_bad_habits_that_come_together_never_become_wrong_rows(recordings: dict[str, Recorded], way: Way) -> None:
    """Any mixture of what an emulator does to results on their way: all rows, or those that can be had, or a word."""
    recorded = recordings[way.name]
    right = good(judged(recorded.answers))

    def check(switches: dict[str, Any]) -> None:
        options = EmulatorOptions(dialect=way.dialect, **switches)
        reading = iter(range(9))
        spoilt = {call: tampered_answer(options, said.content, next(reading)) for call, said in recorded.said.items()}
        try:
            with stamina.set_testing(True, attempts=1):
                _, answers = recorded.read(lambda call, _: spoilt[call])
        except (Incomplete, NotFound) as error:  # the second: pages beyond the last one were not recorded
            assert "lost_line_rate" in switches
            check_sentence(error)
            return
        found = good(judged(answers))
        assert found.items() <= right.items() if SPOIL_ANSWERS.intersection(switches) else found == right

    check_rounds(check, rates, 40)


@pytest.mark.slow
@pytest.mark.parametrize("way", OURS, ids=lambda way: way.name)
def test_spoilt_answers_never_become_wrong_rows(recordings: dict[str, Recorded], way: Way) -> None:
    """Each call's answer changed as bytes, as lines or as JSON, one to three times."""
    recorded = recordings[way.name]
    right = good(judged(recorded.answers))
    calls = sorted(recorded.said)

    def check(case: tuple[str, list[tuple[str, int]]]) -> None:
        call, changes = case

        def spoil(asked: str, content: bytes) -> bytes:
            for kind, number in changes if asked == call else ():
                content = mutated(content, kind, number)
            return content

        try:
            with stamina.set_testing(True, attempts=1):
                _, answers = recorded.read(spoil)
        except ProviderError as error:
            check_sentence(error)
            return
        found = good(judged(answers))
        if {kind for kind, _ in changes} <= KEEPS_TEXTS:
            assert {number: right.get(number) for number in found} == found

    check_rounds(check, st.tuples(st.sampled_from(calls), st.lists(mutations(), min_size=1, max_size=3)), 300)

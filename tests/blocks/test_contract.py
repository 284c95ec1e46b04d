"""What every provider's client promises, over a real socket: the same cases against each dialect of the emulator.

A test with `way` runs once for each way to each provider. Where a dialect can't have it, it does not exist: `ABSENT`
says why; where dialects differ in what is right, a table beside the case says how.
"""

import ast
import logging
import re
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import fields, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import stamina

from blocks import catalog
from blocks.batch import Answer, BatchPhase, BatchProvider, EncodedBatch, FailureKind, Found, Obstacle, RequestForm
from blocks.clients import open_access
from blocks.connections import connection_for
from blocks.emulator import EmulatorOptions, running_emulator
from blocks.emulator.service.batch import Outcome
from blocks.emulator.service.faults import call_fails
from blocks.errors import (
    AuthenticationFailed,
    BatchRefused,
    BatchTooLarge,
    CantTell,
    Incomplete,
    NotFound,
    ProviderError,
    SpendLimitReached,
    Transient,
    UnknownOutcome,
)
from flows.domain.corrections import corrected
from tests.blocks.contract import (
    CANCEL,
    CREATE,
    FORM,
    KEY,
    LIST,
    MEANING,
    MODEL,
    OTHER_WAYS,
    PAGES,
    PLAIN,
    PROMPTS,
    REGISTERED,
    SCHEMA,
    WAYS,
    Cut,
    Ends,
    Way,
    assert_as_billed,
    breaking,
    client_of,
    encode_prompts,
    ids_for,
    is_valid,
    meaning_of,
    new_tag,
    once_each,
    pass_on,
    stored,
    wait_for,
    wired,
    write_batch,
)

Start = Callable[..., Ends]
TESTS = Path(__file__).resolve().parents[1]

PAGED = "its answers come in JSON that is read as a whole"
SWAPS = "answers under each other's id are known of Gemini only; the emulator does not do it elsewhere"
REPLAYS = "there is no list to look into: a lost batch is asked for by its idempotency key"
UNPAGED = "its answers do not come in pages"
LISTS = "a lost batch is looked for in a list"
MARKED = "its batches show whose they are while they run"
UNMARKED = "its batches carry no mark: whose they are, only their results say"
NO_LIMIT = "a request has no limit of output tokens"
QUEUE = "no limit of queued tokens is documented"
QUEUED = "a batch above the limit of queued tokens is told so otherwise"
PARTIAL = "a batch that expired keeps what was answered"
WHOLE = "a batch that expired keeps nothing"
FAILS = "a batch may fail as a whole"
RUNS = "a batch does not fail as a whole: each of its requests does"
WITHIN = "its answers can be asked for within their batch"
UNNAMED = "it does not say in which files its answers are"
AT_ONCE = "a batch is cancelled at once, whatever it does"


def unless(reason: str, fits: Callable[[Way], bool]) -> dict[str, str]:
    """For the ways that do not fit, why not."""
    return {way.name: reason for way in (*WAYS, *OTHER_WAYS) if not fits(way)}


def is_of(*providers: str) -> Callable[[Way], bool]:
    """Whether a way leads to one of these."""
    return lambda way: way.provider in providers


def is_not_of(*providers: str) -> Callable[[Way], bool]:
    """Whether a way leads elsewhere."""
    return lambda way: way.provider not in providers


def by_list(way: Way) -> bool:
    """Whether a lost batch is looked for in a list."""
    return not way.replays


def by_key(way: Way) -> bool:
    """Whether it is asked for by the key under which it was sent."""
    return way.replays


def is_paged(way: Way) -> bool:
    """Whether answers come in pages that are shorter than a batch."""
    return way.name == "holysheep-pages"


ABSENT: dict[str, dict[str, str]] = {  # test → way → why it can't be
    "test_a_batch_that_never_arrived_is_told_so_once_it_would_show": unless(REPLAYS, by_list),
    "test_a_batch_that_never_arrived_is_sent_by_asking_for_it": unless(LISTS, by_key),
    "test_a_batch_that_no_list_shows_yet_is_found_later": unless(REPLAYS, by_list),
    "test_a_batch_that_does_not_show_yet_is_found_by_its_key": unless(LISTS, by_key),
    "test_a_lost_batch_is_found_while_it_runs": unless(UNMARKED, is_not_of("anthropic")),
    "test_a_lost_batch_without_a_mark_is_told_once_it_has_ended": unless(MARKED, is_of("anthropic")),
    "test_of_two_batches_of_one_tag_one_is_kept": unless(REPLAYS, by_list),
    "test_of_two_running_batches_of_one_tag_one_is_stopped": {
        **unless(REPLAYS, by_list), **unless(UNMARKED, is_not_of("anthropic")),
    },
    "test_two_running_batches_without_marks_are_let_run": unless(MARKED, is_of("anthropic")),
    "test_a_batch_that_is_sent_twice_under_one_key_is_one": unless(LISTS, by_key),
    "test_a_lost_batch_is_found_behind_pages_of_others": unless(REPLAYS, by_list),
    "test_a_list_that_proves_nothing_is_no_proof": unless(REPLAYS, by_list),
    "test_a_list_that_breaks_off_behind_a_batch_of_ours_is_no_proof": unless(REPLAYS, by_list),
    "test_a_list_without_our_mark_is_no_proof": {
        **unless(REPLAYS, by_list), **unless(UNMARKED, is_not_of("anthropic")),
    },
    "test_a_list_that_shows_a_batch_of_ours_proves_what_is_not_there": unless(REPLAYS, by_list),
    "test_by_the_clock_of_the_service_a_batch_never_arrived": unless(REPLAYS, by_list),
    "test_a_line_that_nobody_can_read_is_an_answer_of_unknown_cost": unless(PAGED, is_not_of("holysheep", "gemini")),
    "test_a_line_that_comes_twice_says_the_same_twice": unless(PAGED, is_not_of("holysheep", "gemini")),
    "test_pages_that_repeat_or_leave_out_answers_are_noticed": unless(UNPAGED, is_paged),
    "test_a_page_that_is_too_large_is_asked_for_in_smaller_ones": unless(UNPAGED, is_paged),
    "test_pages_may_be_shorter_than_asked_for": unless(UNPAGED, is_of("holysheep")),
    "test_a_line_without_end_is_not_read_for_ever": unless(PAGED, is_not_of("holysheep", "gemini")),
    "test_files_that_have_no_name_yet_are_not_empty": {
        **unless(UNNAMED, is_of("openai", "mistral", "sixth")), **unless(WITHIN, is_not_of("mistral")),
    },
    "test_a_file_may_be_named_by_an_object": unless(UNNAMED, is_of("openai", "mistral", "sixth")),
    "test_answers_that_have_no_file_are_within_their_batch": unless(
        "its answers are in a file or within their batch, always", is_of("mistral")
    ),
    "test_a_batch_that_hangs_is_cancelled_for_ever": unless(AT_ONCE, is_not_of("holysheep")),
    "test_states_may_begin_with_another_word": unless("its states have one spelling", is_of("gemini")),
    "test_answers_under_each_others_id_go_where_they_belong": unless(SWAPS, is_of("gemini")),
    "test_an_answer_that_was_cut_off_is_complete_when_it_may_be_longer": unless(NO_LIMIT, is_not_of("holysheep")),
    "test_tokens_from_a_cache_are_a_part_of_all": unless(
        "no tokens from a cache are told", is_not_of("holysheep", "mistral")
    ),
    "test_a_batch_that_is_too_much_for_the_queue_fails_with_a_reason": {
        **unless(QUEUE, is_not_of("holysheep", "anthropic", "mistral")), **unless(QUEUED, is_not_of("gemini")),
    },
    "test_a_batch_that_is_too_much_for_the_queue_is_not_accepted": {
        **unless(QUEUE, is_not_of("holysheep", "anthropic", "mistral")), **unless(QUEUED, is_of("gemini")),
    },
    "test_a_batch_that_expires_keeps_what_was_answered": unless(WHOLE, is_not_of("gemini")),
    "test_a_batch_that_expires_with_all_its_answers_bills_nothing": unless(PARTIAL, is_of("gemini")),
    "test_a_batch_that_fails_as_a_whole_says_why": unless(RUNS, is_not_of("anthropic")),
    "test_a_batch_of_which_each_request_fails_is_read": unless(FAILS, is_of("anthropic")),
}  # fmt: skip


EVERY_WAY: set[Callable[..., None]] = set()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs a test that asks for a way with each provider's usual one, or with all of them."""
    if "way" in metafunc.fixturenames:
        test = metafunc.function
        ways = (*WAYS, *OTHER_WAYS) if test in EVERY_WAY else WAYS
        absent = ABSENT.get(test.__name__, {})
        metafunc.parametrize("way", [pytest.param(way, id=way.name) for way in ways if way.name not in absent])


def every_way(test: Callable[..., None]) -> Callable[..., None]:
    """Marks a test for which it may matter how requests and answers travel."""
    EVERY_WAY.add(test)
    return test


@pytest.fixture(autouse=True)
def no_pauses() -> Iterator[None]:
    """Retries without waiting."""
    with stamina.set_testing(True, attempts=3):  # stamina's own
        yield


@pytest.fixture
def patched(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider's constants, as the way wants them."""
    for name, value in way.patches.items():
        monkeypatch.setattr(f"{way.module}.{name}", value)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The made-up provider is in the catalog too."""
    monkeypatch.setitem(catalog.PROVIDERS, "sixth", REGISTERED["sixth"])


@pytest.fixture
def opened(way: Way, tmp_path: Path, patched: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[BatchProvider]:
    """A client by way of the catalog, to the embedded emulator or, if that has another name for the dialect, to one."""
    with ExitStack() as stack:
        if way.emulated_as:
            state = tmp_path / f"emulator-{way.dialect}.sqlite"
            options = EmulatorOptions(dialect=way.dialect, key=KEY, latency=0.0, state=state)
            emulator = stack.enter_context(running_emulator(options))
            monkeypatch.setenv(REGISTERED[way.provider].key_variable, KEY)
            connection = connection_for(way.provider, emulator.base_url, way.options)
        else:
            connection = connection_for("local", None, {"dialect": way.dialect, "latency": "0", **way.options})
        access = stack.enter_context(open_access(connection, tmp_path))
        yield stack.enter_context(closing(access.client()))


@pytest.fixture
def start(way: Way, tmp_path: Path, patched: None) -> Iterator[Start]:
    """Starts emulators of the way's dialect, whose batches end at the first look, and a client to each."""
    with ExitStack() as stack:

        def begin(*, client: dict[str, Any] | None = None, wire: bool = False, **switches: Any) -> Ends:
            options = EmulatorOptions(**{"dialect": way.dialect, "key": KEY, "latency": 0.0, **switches})
            emulator = stack.enter_context(running_emulator(options))
            between = stack.enter_context(wired(emulator)) if wire else None
            provider = client_of(way, between.base_url if between else emulator.base_url, **(client or {}))
            stack.callback(provider.close)
            return Ends(way, provider, emulator, tmp_path, between)

        yield begin


def test_every_provider_has_a_way_and_every_exception_a_case() -> None:
    """A new provider is in the suite, or this fails; so does an exception that nothing is an exception to."""
    assert [way.name for way in WAYS] == [way.provider for way in WAYS] == list(REGISTERED)
    assert {name for name in globals() if name.startswith("test_")} >= set(ABSENT)
    assert {way.name for way in (*WAYS, *OTHER_WAYS)} >= {name for absent in ABSENT.values() for name in absent}
    assert all(set(meaning) == set(REGISTERED) for meaning in MEANING.values())
    assert set(MEANING) == set(Outcome) - {Outcome.REJECTED}  # requests that are unsound: there are none here


# What a server is, or how fast and how often it does something: no habit that a client has to live with.
ELSEWHERE = {  # switch → where it is tested
    "host": "blocks/emulator/test_processes.py",
    "port": "blocks/emulator/test_processes.py",
    "latency_per_request": "blocks/emulator/service/test_faults.py",
    "jitter": "attacks/habits.py",
    "fault_attempts": "flows/test_dialects.py",
    "drop_rate": "flows/test_kill_matrix.py",
    "hold_file": "flows/test_kill.py",
}


def test_every_switch_of_the_emulator_has_a_case() -> None:
    """Here, where a case runs against each dialect that can have it; or in a test that is named."""
    named: set[object] = set()
    for node in ast.walk(ast.parse(Path(__file__).read_text())):
        named |= {node.arg} if isinstance(node, ast.keyword) else set()
        named |= {node.value} if isinstance(node, ast.Constant) else set()
    for switch, place in ELSEWHERE.items():
        named.remove(switch)  # by the table itself
        assert re.search(rf"\b{switch}\b", (TESTS / place).read_text()), switch
    assert {each.name for each in fields(EmulatorOptions)} - named == set(ELSEWHERE)


# --- there and back

AWKWARD = [
    "Great sound 🎧👨‍👩‍👧‍👦🏳️‍🌈 and e\u0301 \U0010ffff",
    "הצליל נהדר, and the סוללה \u202eweak\u202c \u200f",
    "الصوت رائع والبطارية ضعيفة",
    "\x00\x01\x02\x1b[31m\x1f\x7f\x85 control \x0bcharacters\x0c",
    "\0key and \0prompt",
    '"no", she said, \'yes\' \\ \\n \\u0041 \\" `x` ${y} %s {{ z }}',
    "one\ntwo\r\nthree\rfour\ttab\n\n\nsix\u2028seven\u2029eight\n",
    '{"custom_id":"x-1-1","prompt":"y"},{"custom_id":"',
    '"}]}]}\n{"custom_id":',
    "</s><|im_end|><|endoftext|>\n\nHuman: [INST]",
    "\ufeffmark and \ufffd and \ufffe",
    "  leading and trailing blanks \n ",
    "long " * 210_000,
]


@every_way
@pytest.mark.parametrize("form", [FORM, PLAIN], ids=["schema", "plain"])
def test_a_batch_comes_back_whole(form: RequestForm, way: Way, tmp_path: Path, opened: BatchProvider) -> None:
    """Through the catalog: each prompt arrives as it is, each answer comes once, fits, and costs what it says."""
    prompts = [*AWKWARD, *PROMPTS]
    batch = encode_prompts(way.codec(form), tmp_path, prompts)
    batch_id = opened.submit(batch, form)
    status = wait_for(opened, batch_id)
    answers = once_each(opened.results(batch_id, form))
    assert (status.id, status.phase, status.error, status.obstacle) == (batch_id, BatchPhase.ENDED, None, None)
    assert set(answers) == set(ids_for(batch.tag, len(prompts)))
    for answer in answers.values():
        assert answer.failure is None
        assert answer.text
        assert is_valid(answer.text) is (form.schema is not None)
    state = tmp_path / f"emulator-{way.dialect}.sqlite"
    told = dict(stored(state, "SELECT custom_id, prompt FROM requests"))
    for custom_id, prompt in zip(ids_for(batch.tag, len(prompts)), prompts, strict=True):
        assert prompt in told[custom_id]
    assert_as_billed(
        answers.values(),
        [
            {"custom_id": custom_id, "input_tokens": read, "output_tokens": written}
            for custom_id, read, written in stored(state, "SELECT custom_id, input_tokens, output_tokens FROM billed")
        ],
    )


def test_answers_come_in_any_order(way: Way, start: Start) -> None:
    """Not in that of the requests: whose they are, only their ids say."""
    ends = start()
    batch = ends.encode()
    batch_id = ends.provider.submit(batch, FORM)
    ends.wait(batch_id)
    listed = [answer.custom_id for answer in ends.answers(batch_id)]
    assert listed != ids_for(batch.tag, len(PROMPTS))
    assert sorted(listed) == sorted(ids_for(batch.tag, len(PROMPTS)))


def test_requests_that_nobody_counts_have_no_answer(way: Way, start: Start) -> None:
    """A part of the answers is absent, and no counter says that it should be there: the others come all the same."""
    ends = start(missing_rate=0.3)
    batch_id = ends.submit()
    assert ends.wait(batch_id).phase is BatchPhase.ENDED
    answers = once_each(ends.answers(batch_id))
    assert 0 < len(answers) < len(PROMPTS)
    assert len(answers) == ends.ledger()["outcomes"]["answered"]


def test_an_answer_may_be_asked_for_again_with_the_reason(way: Way, start: Start) -> None:
    """The prompt goes again with what was wrong with its answer, and comes back as any other."""
    ends = start(invalid_rate=1.0)
    form = way.codec(FORM)
    tag = new_tag()
    prompts = dict(zip(ids_for(tag, len(PROMPTS), 2), PROMPTS, strict=True))
    requests = [
        form.encode(custom_id, corrected(prompt, "“topics” is no list\n")) for custom_id, prompt in prompts.items()
    ]
    batch_id = ends.provider.submit(write_batch(form, ends.folder, requests, tag), FORM)
    ends.wait(batch_id)
    assert {meaning_of(answer) for answer in once_each(ends.answers(batch_id)).values()} == {"answered"}
    told = ends.prompts()
    assert all("“topics” is no list\n" in told[custom_id] for custom_id in prompts)
    assert all(prompt in told[custom_id] for custom_id, prompt in prompts.items())


@every_way
def test_an_answer_that_was_cut_off_is_complete_when_it_may_be_longer(way: Way, start: Start) -> None:
    """A limit that is too small is said, and billed; four times as much is enough."""
    ends = start()
    short = RequestForm(MODEL, None, SCHEMA, 12)
    form = way.codec(short)
    tag = new_tag()
    prompts = dict(zip(ids_for(tag, len(PROMPTS)), PROMPTS, strict=True))
    requests = [form.encode(custom_id, prompt) for custom_id, prompt in prompts.items()]
    batch_id = ends.provider.submit(write_batch(form, ends.folder, requests, tag), short)
    ends.wait(batch_id)
    first = once_each(ends.answers(batch_id, short))
    cut = {custom_id for custom_id, answer in first.items() if meaning_of(answer) == "cut_off"}
    assert cut
    assert {meaning_of(answer) for custom_id, answer in first.items() if custom_id not in cut} <= {"answered"}
    tag = new_tag()
    again = [form.encode(f"{tag}-{n}-2", prompts[old], longer=True) for n, old in enumerate(sorted(cut))]
    batch_id = ends.provider.submit(write_batch(form, ends.folder, again, tag), short)
    ends.wait(batch_id)
    second = once_each(ends.answers(batch_id, short))
    assert Counter(map(meaning_of, second.values())) == {"answered": len(cut)}
    assert_as_billed([*first.values(), *second.values()], ends.billed())


# --- what may become of a request

FAULTS = {
    "failure_rate": Outcome.FAILED,
    "invalid_rate": Outcome.INVALID,
    "missing_rate": Outcome.MISSING,
    "refusal_rate": Outcome.REFUSED,
    "length_rate": Outcome.TRUNCATED,
    "unexplained_rate": Outcome.UNEXPLAINED,
    "timeout_rate": Outcome.TIMED_OUT,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_what_the_port_calls_it(fault: str, way: Way, start: Start) -> None:
    """If it befalls every request; and what it costs is said."""
    ends = start(**{fault: 1.0})
    answers = once_each(ends.run())
    assert_meant(answers, ends)
    assert Counter(ends.outcomes().values()) == {FAULTS[fault]: len(PROMPTS)}
    assert_as_billed(answers.values(), ends.billed())


@every_way
@pytest.mark.parametrize("form", [FORM, PLAIN], ids=["schema", "plain"])
def test_a_corrected_prompt_is_taken_by_strict_servers(form: RequestForm, way: Way, start: Start) -> None:
    """Those that want the roles of a conversation to alternate: the reason is a part of the one message."""
    ends = start(alternating=1)
    answers = ends.run([corrected(prompt, "'topics' is missing") for prompt in PROMPTS], form)
    assert len(answers) == len(PROMPTS)
    assert all(answer.failure is None for answer in answers)
    assert all("Your previous answer was rejected: 'topics' is missing" in prompt for prompt in ends.prompts().values())


@every_way
def test_answers_that_are_all_absent_are_no_answers(way: Way, start: Start) -> None:
    """The results are there, and nothing is in them: that is another thing than results that are gone."""
    assert start(missing_rate=1.0).run() == []


@every_way
def test_faults_that_come_together_are_told_apart(way: Way, start: Start) -> None:
    """Each request has the one that befell it."""
    ends = start(**dict.fromkeys(FAULTS, 0.12))
    answers = once_each(ends.run([f"Review {number}: the sound is great." for number in range(300)]))
    assert_meant(answers, ends)
    assert set(ends.outcomes().values()) == {Outcome.ANSWERED, *FAULTS.values()}
    assert_as_billed(answers.values(), ends.billed())


def assert_meant(answers: dict[str, Answer], ends: Ends) -> None:
    """Whether the port calls each request's outcome what it should."""
    outcomes = ends.outcomes()
    assert set(answers) <= set(outcomes)
    for custom_id, outcome in outcomes.items():
        assert meaning_of(answers.get(custom_id)) in MEANING[outcome][ends.way.provider], (custom_id, outcome)


@every_way
def test_a_line_that_comes_twice_says_the_same_twice(way: Way, start: Start) -> None:
    """Answers and failures; whoever takes the first is right."""
    ends = start(duplicate_rate=0.5, failure_rate=0.3)
    answers = ends.run()
    times = Counter(answer.custom_id for answer in answers)
    assert len(times) == len(set(answers)) == len(PROMPTS)
    assert set(times.values()) == {1, 2}
    assert_as_billed(answers, ends.billed())


@every_way
def test_usage_that_is_not_told_is_not_free(way: Way, start: Start) -> None:
    """The answer is there, its price is unknown: not zero."""
    ends = start(unmetered_rate=0.5)
    answers = once_each(ends.run()).values()
    assert {meaning_of(answer) for answer in answers} == {"answered"}
    unmetered = sum(answer.usage is None for answer in answers)
    assert 0 < unmetered < len(PROMPTS)
    assert_as_billed(answers, ends.billed(), unmetered=unmetered)


def test_tokens_from_a_cache_are_a_part_of_all(way: Way, start: Start) -> None:
    """Of what an answer read, as it is billed; a long text that all requests share is read by most of them."""
    ends = start(cached_share=0.5)
    answers = once_each(ends.run(form=replace(FORM, system="You label reviews. " * 1000))).values()
    cached = [answer.usage.cached_input_tokens for answer in answers if answer.usage is not None]
    assert len(cached) == len(PROMPTS)
    assert max(cached) > 2000
    assert_as_billed(answers, ends.billed())


@every_way
def test_usage_may_be_huge(way: Way, start: Start) -> None:
    """Beyond 32 bits it is what it is said to be."""
    ends = start(huge_usage_rate=1.0)
    answers = once_each(ends.run()).values()
    assert all(answer.usage is not None and answer.usage.input_tokens > 2**27 for answer in answers)
    assert_as_billed(answers, ends.billed())


@every_way
def test_answers_under_each_others_id_go_where_they_belong(
    way: Way, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """The service exchanged them; beside failures, which stay where they are."""
    batch, sound = None, []
    for swapped in (0.0, 0.8):
        ends = start(swapped_rate=swapped, failure_rate=0.2)
        batch = batch or ends.encode()  # the same requests: the same answers
        batch_id = ends.provider.submit(batch, FORM)
        ends.wait(batch_id)
        sound.append({answer for answer in once_each(ends.answers(batch_id)).values() if answer.failure is None})
        assert_meant(once_each(ends.answers(batch_id)), ends)
    assert sound[0] == sound[1]
    assert len({answer.text for answer in sound[0]}) == len(sound[0])
    assert "came under the key of another row" in caplog.text


# --- a create whose answer is lost


def unanswered(ends: Ends) -> EncodedBatch:
    """A batch that was accepted, of which the create got no answer."""
    batch = ends.encode()
    with pytest.raises(UnknownOutcome):
        ends.provider.submit(batch, FORM)
    return batch


@every_way
def test_a_batch_whose_answer_is_lost_is_found(way: Way, start: Start) -> None:
    """It runs, once, and is the one that the service has."""
    ends = start(drop_every=1)
    batch = unanswered(ends)
    found = ends.provider.find(batch, FORM)
    assert found is not None
    assert found.copies == ()
    assert ends.wait(found.id).phase is BatchPhase.ENDED
    assert set(once_each(ends.answers(found.id))) == set(ids_for(batch.tag, batch.requests))
    assert (ends.ledger()["batches"], ends.ledger()["billed_items"]) == (1, batch.requests)
    assert ends.provider.replays == way.replays


def never_arrived(ends: Ends) -> EncodedBatch:
    """A batch whose create broke before the service heard of it."""
    ends.wire.before = breaking(CREATE)
    batch = ends.encode()
    with pytest.raises(UnknownOutcome):
        ends.provider.submit(batch, FORM)
    ends.wire.before = pass_on
    assert ends.ledger()["batches"] == 0
    return batch


@every_way
def test_a_batch_that_never_arrived_is_sent_by_asking_for_it(way: Way, start: Start) -> None:
    """Under the key of the first try, so that there is one."""
    ends = start(wire=True)
    assert ends.provider.find(never_arrived(ends), FORM) is not None
    assert ends.ledger()["batches"] == 1


@every_way
def test_a_batch_that_never_arrived_is_told_so_once_it_would_show(way: Way, start: Start) -> None:
    """Until then nobody can tell, and it is said when to ask again."""
    ends = start(wire=True, client={"settle": 30.0})
    batch = never_arrived(ends)
    with pytest.raises(UnknownOutcome) as caught:
        ends.provider.find(batch, FORM)
    assert 25 < (caught.value.retry_after or 0) <= 30
    later = client_of(way, ends.wire.base_url, settle=30.0, clock=lambda: time.time() + 31)
    assert later.find(batch, FORM) is None
    later.close()
    assert ends.ledger()["batches"] == 0


def test_a_batch_that_no_list_shows_yet_is_found_later(way: Way, start: Start) -> None:
    """An empty list proves nothing for a while."""
    ends = start(drop_every=1, visible_after=1.0, client={"settle": 30.0})
    batch = unanswered(ends)
    with pytest.raises(UnknownOutcome) as caught:
        ends.provider.find(batch, FORM)
    assert 25 < (caught.value.retry_after or 0) <= 30
    time.sleep(1.0)
    assert ends.provider.find(batch, FORM) is not None
    assert ends.ledger()["batches"] == 1


def test_a_batch_that_does_not_show_yet_is_found_by_its_key(way: Way, start: Start) -> None:
    """Which is known from the start, though nothing else of the batch is."""
    ends = start(drop_every=1, visible_after=30.0)
    found = ends.provider.find(unanswered(ends), FORM)
    assert found is not None
    with pytest.raises(NotFound):
        ends.provider.poll(found.id)
    assert ends.ledger()["batches"] == 1


def test_a_lost_batch_is_found_while_it_runs(way: Way, start: Start) -> None:
    """And runs on."""
    ends = start(drop_every=1, latency=1.0)
    batch = unanswered(ends)
    found = ends.provider.find(batch, FORM)
    assert found is not None
    assert ends.ledger()["batches_open"] == 1
    assert ends.wait(found.id).phase is BatchPhase.ENDED
    assert len(once_each(ends.answers(found.id))) == batch.requests


def test_a_lost_batch_without_a_mark_is_told_once_it_has_ended(way: Way, start: Start) -> None:
    """By its results; until then it is said when to look again."""
    ends = start(drop_every=1, latency=1.0)
    batch = unanswered(ends)
    with pytest.raises(UnknownOutcome, match="can't tell yet") as caught:
        ends.provider.find(batch, FORM)
    assert caught.value.retry_after
    time.sleep(1.0)
    found = ends.provider.find(batch, FORM)
    assert found is not None
    assert ends.wait(found.id).phase is BatchPhase.ENDED
    assert len(once_each(ends.answers(found.id))) == batch.requests


def sent_twice(ends: Ends) -> tuple[EncodedBatch, set[str]]:
    """A batch, and the ids of the two that the service made of it."""
    batch = ends.encode()
    return batch, {ends.provider.submit(batch, FORM) for _ in range(2)}


def test_of_two_batches_of_one_tag_one_is_kept(way: Way, start: Start) -> None:
    """The other is named, as it is paid."""
    ends = start()
    batch, both = sent_twice(ends)
    found = ends.provider.find(batch, FORM)
    assert found is not None
    assert {found.id, *found.copies} == both
    assert len(found.copies) == 1
    assert ends.ledger()["batches_open"] == 0
    assert_as_billed(ends.answers(found.id), [row for row in ends.billed() if row["batch_id"] == found.id])
    assert len(once_each(ends.answers(found.copies[0]))) == batch.requests


def test_of_two_running_batches_of_one_tag_one_is_stopped(way: Way, start: Start) -> None:
    """And the other one is named: what it did by then is paid."""
    ends = start(latency=60.0)
    batch, both = sent_twice(ends)
    found = ends.provider.find(batch, FORM)
    assert found is not None
    assert {found.id, *found.copies} == both
    assert len(found.copies) == 1
    assert ends.ledger()["batches_open"] == 1


def test_two_running_batches_without_marks_are_let_run(way: Way, start: Start) -> None:
    """Nobody can tell yet whether one of them is ours: none is taken, none is stopped."""
    ends = start(latency=60.0)
    batch, both = sent_twice(ends)
    with pytest.raises(UnknownOutcome, match="can't tell yet"):
        ends.provider.find(batch, FORM)
    assert ends.ledger()["batches_open"] == len(both) == 2


def test_a_batch_that_is_sent_twice_under_one_key_is_one(way: Way, start: Start) -> None:
    """Nothing is paid twice."""
    ends = start()
    batch = ends.encode()
    (only,) = {ends.provider.submit(batch, FORM) for _ in range(2)}
    assert ends.provider.find(batch, FORM) == Found(only)
    assert ends.ledger()["batches"] == 1


# Mistral filters lists by itself, if it knows the filter: here it does not.
unfiltered: Callable[[str], str] = partial(re.sub, r"&batchwerk=[^&]*|(?<=\?)batchwerk=[^&]*&?", "")


def test_a_lost_batch_is_found_behind_pages_of_others(way: Way, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the list is read others come to it; their tags begin as this one does, and it is no copy of itself."""
    for name in PAGES[way.provider]:
        monkeypatch.setattr(f"{way.module}.{name}", 3)
    ends = start(wire=True)
    direct = client_of(way, ends.emulator.base_url)
    batch = ends.encode()
    ends.wire.after = breaking(CREATE)
    with pytest.raises(UnknownOutcome):
        ends.provider.submit(batch, FORM)

    def send_another(number: int) -> None:
        other = encode_prompts(way.codec(FORM), ends.folder, PROMPTS, f"{batch.tag}{number}")
        direct.submit(other, FORM)

    for number in range(8):
        send_another(number)
    lists: list[int] = []

    def while_it_is_read(kind: str) -> None:
        if kind == LIST:
            lists.append(len(lists))
            if len(lists) < 4:
                send_another(10 + len(lists))

    ends.wire.after = while_it_is_read
    ends.wire.rewrite = unfiltered
    found = ends.provider.find(batch, FORM)
    direct.close()
    assert found is not None
    assert found.copies == ()
    assert len(lists) >= 3
    assert set(once_each(ends.answers(found.id))) == set(ids_for(batch.tag, batch.requests))


def lost(ends: Ends, *, arrives: bool) -> EncodedBatch:
    """A batch whose create got no answer, with one that the service accepted before it as a witness."""
    known = ends.encode()
    witness = ends.provider.submit(known, FORM)
    if arrives:
        ends.wire.after = breaking(CREATE)
    else:
        ends.wire.before = breaking(CREATE)
    batch = ends.encode(PROMPTS[:7])
    with pytest.raises(UnknownOutcome):
        ends.provider.submit(batch, FORM)
    ends.wire.before = ends.wire.after = pass_on
    return replace(batch, witnesses={witness: known.tag}, others=frozenset({witness}))


DOUBTFUL: tuple[dict[str, int], ...] = (
    *({"list_refused": status} for status in (400, 403, 404, 405)),
    {"list_breaks": 1},
    {"list_hides": 1},
)


@pytest.mark.parametrize("arrives", [True, False], ids=["accepted", "never-accepted"])
@pytest.mark.parametrize("habit", DOUBTFUL, ids=str)
def test_a_list_that_proves_nothing_is_no_proof(
    habit: dict[str, int], way: Way, start: Start, *, arrives: bool
) -> None:
    """Refused, broken off, or empty though batches were accepted: nobody can tell, and it is said."""
    check_that_nobody_can_tell(start(wire=True, **habit), arrives=arrives)


@pytest.mark.parametrize("arrives", [True, False], ids=["accepted", "never-accepted"])
def test_a_list_that_breaks_off_behind_a_batch_of_ours_is_no_proof(way: Way, start: Start, *, arrives: bool) -> None:
    """It shows what was sent later, and what was sent before that it may not have come to."""
    ends = start(wire=True, list_breaks=2)
    batch = lost(ends, arrives=arrives)
    later = ends.encode(PROMPTS[:9])
    batch = replace(batch, witnesses={ends.provider.submit(later, FORM): later.tag})
    ends.wire.rewrite = unfiltered
    with pytest.raises(CantTell, match="breaks off"):
        ends.provider.find(batch, FORM)
    assert ends.ledger()["batches"] == 2 + arrives


@pytest.mark.parametrize("arrives", [True, False], ids=["accepted", "never-accepted"])
def test_a_list_without_our_mark_is_no_proof(way: Way, start: Start, *, arrives: bool) -> None:
    """As that of gateways which keep no metadata."""
    check_that_nobody_can_tell(start(wire=True, list_unmarked=1), arrives=arrives)


def check_that_nobody_can_tell(ends: Ends, *, arrives: bool) -> None:
    """And that it is said what to do."""
    batch = lost(ends, arrives=arrives)
    with pytest.raises(CantTell) as caught:
        ends.provider.find(batch, FORM)
    assert caught.value.next_step
    assert ends.ledger()["batches"] == 1 + arrives


def test_a_list_that_shows_a_batch_of_ours_proves_what_is_not_there(way: Way, start: Start) -> None:
    """Read to its end, with the mark of a batch that was accepted under the same key."""
    ends = start(wire=True)
    assert ends.provider.find(lost(ends, arrives=False), FORM) is None


@pytest.mark.parametrize("ahead", [-7200, 7200])
def test_by_the_clock_of_the_service_a_lost_batch_is_found(ahead: int, way: Way, start: Start) -> None:
    """It may be hours from ours."""
    ends = start(wire=True, clock_ahead=ahead)
    assert ends.provider.find(lost(ends, arrives=True), FORM) is not None


@pytest.mark.parametrize("ahead", [-7200, 7200])
def test_by_the_clock_of_the_service_a_batch_never_arrived(ahead: int, way: Way, start: Start) -> None:
    """It may be hours from ours: what was sent lately is told by it."""
    ends = start(wire=True, clock_ahead=ahead)
    assert ends.provider.find(lost(ends, arrives=False), FORM) is None
    later = client_of(way, ends.wire.base_url, settle=30.0)
    with pytest.raises(UnknownOutcome):
        later.find(lost(ends, arrives=False), FORM)
    later.close()


# --- refusals, pauses, troubles


def test_a_fresh_batch_may_not_be_known_yet(way: Way, start: Start) -> None:
    """It is not found, which is said as such, and a moment later it is."""
    ends = start(visible_after=1.0)
    batch_id = ends.submit()
    for call in (ends.provider.poll, ends.answers, ends.provider.cancel):
        with pytest.raises(NotFound):
            call(batch_id)
    time.sleep(1.0)
    assert ends.wait(batch_id).phase is BatchPhase.ENDED


def test_a_batch_that_the_service_forgot_is_not_found(way: Way, start: Start) -> None:
    """By any call: that it was accepted is known to us alone, and its neighbour is untouched."""
    ends = start(vanish_every=2)
    other, batch_id = ends.submit(), ends.submit()
    for call in (ends.provider.poll, ends.answers, ends.provider.cancel):
        with pytest.raises(NotFound):
            call(batch_id)
    assert ends.wait(other).phase is BatchPhase.ENDED
    assert len(once_each(ends.answers(other))) == len(PROMPTS)


def test_a_create_that_is_answered_late_is_waited_for(way: Way, start: Start) -> None:
    """And made once."""
    ends = start(hold=0.5, hold_every=2)
    assert len({ends.submit(), ends.submit()}) == ends.ledger()["batches"] == ends.ledger()["creates"] == 2


def test_a_throttled_create_is_made_again(way: Way, start: Start) -> None:
    """Nothing was accepted."""
    ends = start(rate_limit_every=2)
    ends.submit()
    ends.submit()
    assert (ends.ledger()["creates"], ends.ledger()["batches"]) == (3, 2)


@pytest.mark.parametrize("header", ["retry-after", "retry-after-ms", "none"])
def test_the_pause_that_a_throttled_create_asks_for_is_told(header: str, way: Way, start: Start) -> None:
    """In whatever way it is asked for."""
    ends = start(rate_limit_every=1, retry_after=7.0, retry_header=header)
    with pytest.raises(Transient) as caught:
        ends.submit()
    assert (caught.value.status, caught.value.tries) == (429, 3)
    assert caught.value.retry_after == (None if header == "none" else 7.0)
    assert ends.ledger()["batches"] == 0


def test_a_pause_that_is_too_long_is_not_waited_for(way: Way, start: Start) -> None:
    """Whoever asked decides."""
    ends = start(rate_limit_every=1, retry_after=3600.0)
    with pytest.raises(Transient) as caught:
        ends.submit()
    assert (caught.value.retry_after, caught.value.tries, ends.ledger()["creates"]) == (3600.0, 1, 1)


# Gemini says RESOURCE_EXHAUSTED of every limit: nothing that is documented tells one that does not pass.
SPENT = {**dict.fromkeys(REGISTERED, (SpendLimitReached, 1)), "gemini": (Transient, 3)}


def test_a_quota_that_is_used_up_stops_the_run(way: Way, start: Start) -> None:
    """Waiting is of no use, where the service can say so."""
    expected, tries = SPENT[way.provider]
    ends = start(quota_every=1)
    with pytest.raises(expected) as caught:
        ends.submit()
    assert caught.value.tries == tries
    assert (ends.ledger()["creates"], ends.ledger()["batches"]) == (tries, 0)


def seed_where(calls: str) -> int:
    """A seed with which, at an error rate of one half, the first calls fail where there is an `x`."""

    def fits(seed: int) -> bool:
        options = EmulatorOptions(seed=seed, error_rate=0.5)
        return all(call_fails(options, number) is (call == "x") for number, call in enumerate(calls, 1))

    return next(filter(fits, count()))


@every_way
def test_an_overloaded_service_is_asked_again(way: Way, start: Start) -> None:
    """Looking at a batch and reading its answers may be done twice; so may uploads."""
    create = "-" * way.uploads + "-"
    ends = start(error_rate=0.5, seed=seed_where(("x" if way.uploads else "") + create + "x-" * 3))
    answers = once_each(ends.run())
    assert len(answers) == len(PROMPTS)
    assert ends.ledger()["calls"] >= len(create) + 4
    assert (ends.ledger()["creates"], ends.ledger()["batches"]) == (1, 1)


@every_way
def test_an_overloaded_create_is_never_repeated(way: Way, start: Start) -> None:
    """Its answer does not say whether it was accepted."""
    ends = start(error_rate=0.5, seed=seed_where("-" * way.uploads + "x--"))
    with pytest.raises(UnknownOutcome) as caught:
        ends.submit()
    assert caught.value.status == (529 if way.provider == "anthropic" else 503)
    assert ends.ledger()["calls"] == way.uploads + 1
    assert ends.ledger()["batches"] == 0


def test_what_is_of_no_use_to_repeat_is_not_repeated(way: Way, start: Start) -> None:
    """If the service says so."""
    ends = start(rate_limit_every=1, should_retry="false")
    with pytest.raises(Transient) as caught:
        ends.submit()
    assert (caught.value.tries, ends.ledger()["creates"]) == (1, 1)
    ends = start(error_rate=1.0, should_retry="false")
    for call in (ends.provider.poll, ends.answers, ends.provider.cancel):
        with pytest.raises(Transient):
            call("batch-1")
    assert ends.ledger()["calls"] == 3


def test_a_wrong_key_is_said_and_never_shown(way: Way, start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """By no call, in no message, at no level of logging."""
    caplog.set_level(logging.DEBUG)
    ends = start()
    wrong = "sk-wrong-8b1e77d0c2a94f35"
    provider = client_of(way, ends.emulator.base_url, wrong)
    batch = ends.encode()
    shown = []
    for call in (
        lambda: provider.submit(batch, FORM),
        lambda: provider.find(batch, FORM),
        lambda: provider.poll("batch-1"),
        lambda: list(provider.results("batch-1", FORM)),
        lambda: provider.cancel("batch-1"),
    ):
        with pytest.raises(AuthenticationFailed) as caught:
            call()
        shown += [*traceback.format_exception(caught.value), repr(vars(caught.value))]
    provider.close()
    assert caplog.records
    assert wrong not in "".join([*shown, caplog.text, repr(provider), *(repr(vars(each)) for each in caplog.records)])
    assert ends.ledger()["batches"] == 0


# A status that is documented for this says so, or a code; otherwise it is a refusal like others.
TOO_MANY: dict[str, object] = {
    "holysheep": BatchRefused,
    "openai": Obstacle.TOO_LARGE,
    "sixth": Obstacle.TOO_LARGE,
    "anthropic": BatchRefused,
    "mistral": Transient,  # more requests may be pending when others are done
    "gemini": BatchRefused,
}
TOO_LONG: dict[str, object] = {
    **dict.fromkeys(REGISTERED, BatchTooLarge),
    "gemini": BatchRefused,  # a 400 like others
}


@pytest.mark.parametrize(("limit", "table"), [("max_requests", TOO_MANY), ("max_bytes", TOO_LONG)])
def test_a_batch_above_a_limit_is_refused(limit: str, table: dict[str, object], way: Way, start: Start) -> None:
    """At once, or when it is looked at; nothing of it is billed."""
    ends = start(**{limit: 5})
    verdict: object
    try:
        verdict = ends.wait(ends.submit()).obstacle
    except ProviderError as error:
        verdict = type(error)
    assert verdict == table[way.provider]
    assert ends.ledger()["billed_items"] == 0


QUEUE_OF = {"max_queued_tokens": 4000, "latency": 1.0}
LONG = ["word " * 400] * 5  # about 2,500 tokens


def test_a_batch_that_is_too_much_for_the_queue_fails_with_a_reason(way: Way, start: Start) -> None:
    """When the queue is empty again the next one goes."""
    ends = start(**QUEUE_OF)
    first = ends.submit(LONG)
    status = ends.wait(ends.submit(LONG))
    assert (status.phase, status.obstacle) == (BatchPhase.FAILED, Obstacle.QUEUE_FULL)
    check_that_the_queue_is_empty_again(ends, first)


def test_a_batch_that_is_too_much_for_the_queue_is_not_accepted(way: Way, start: Start) -> None:
    """When the queue is empty again it goes."""
    ends = start(**QUEUE_OF)
    first = ends.submit(LONG)
    with pytest.raises(Transient):
        ends.submit(LONG)
    check_that_the_queue_is_empty_again(ends, first)


def check_that_the_queue_is_empty_again(ends: Ends, first: str) -> None:
    """And that only what ran is billed."""
    assert ends.wait(first).phase is BatchPhase.ENDED
    assert len(once_each(ends.run(LONG))) == len(LONG)
    assert ends.ledger()["billed_items"] == 2 * len(LONG)


# --- how a batch ends


def test_a_status_that_nobody_knows_is_waited_through(way: Way, start: Start) -> None:
    """Nothing is concluded from it."""
    ends = start(unknown_status_every=1)
    batch_id = ends.submit()
    status = ends.provider.poll(batch_id)
    assert status.phase is BatchPhase.RUNNING
    assert status.wording
    ended = ends.provider.poll(batch_id)
    assert ended.phase is BatchPhase.ENDED
    assert ended.wording != status.wording
    assert len(once_each(ends.answers(batch_id))) == len(PROMPTS)


def test_a_batch_that_hangs_runs(way: Way, start: Start) -> None:
    """However often it is looked at; the one beside it ends."""
    ends = start(hang_every=2)
    other, batch_id = ends.submit(), ends.submit()
    assert ends.wait(other).phase is BatchPhase.ENDED
    assert {ends.provider.poll(batch_id).phase for _ in range(3)} == {BatchPhase.RUNNING}


def test_a_batch_that_hangs_is_cancelled_for_ever(way: Way, start: Start) -> None:
    """That is told as it is: it may still end, and what it answered is billed."""
    ends = start(hang_every=1)
    batch_id = ends.submit()
    assert ends.provider.cancel(batch_id).phase is BatchPhase.RUNNING
    assert {ends.provider.poll(batch_id).phase for _ in range(3)} == {BatchPhase.RUNNING}


@every_way
@pytest.mark.parametrize("prefix", ["BATCH_STATE", "JOB_STATE"])
def test_states_may_begin_with_another_word(prefix: str, way: Way, start: Start) -> None:
    """Documents and service spell them in two ways."""
    ends = start(state_prefix=prefix, latency=0.5)
    batch_id = ends.submit()
    status = ends.provider.poll(batch_id)
    assert status.phase is BatchPhase.RUNNING
    assert "STATE" not in status.wording
    assert ends.wait(batch_id).phase is BatchPhase.ENDED
    assert len(once_each(ends.answers(batch_id))) == len(PROMPTS)


@every_way
def test_a_batch_that_expires_keeps_what_was_answered(way: Way, start: Start) -> None:
    """The rest goes again: it says so, or is absent."""
    ends = start(expire_every=1)
    batch_id = ends.submit()
    assert ends.wait(batch_id).phase is BatchPhase.ENDED
    answers = once_each(ends.answers(batch_id))
    assert_meant(answers, ends)
    assert Counter(ends.outcomes().values()) == {Outcome.ANSWERED: 10, Outcome.EXPIRED: 10}
    assert_as_billed(answers.values(), ends.billed())


@every_way
def test_a_batch_that_expires_with_all_its_answers_bills_nothing(way: Way, start: Start) -> None:
    """It says that it expired: that is no refusal of what it asked."""
    ends = start(expire_every=1)
    status = ends.wait(ends.submit())
    assert (status.phase, status.obstacle) == (BatchPhase.FAILED, Obstacle.NO_TIME)
    assert status.error
    assert ends.billed() == []


def test_a_batch_that_fails_as_a_whole_says_why(way: Way, start: Start) -> None:
    """Nothing ran and nothing is billed."""
    ends = start(fail_batch_every=1)
    status = ends.wait(ends.submit())
    assert status.phase is BatchPhase.FAILED
    assert status.error
    assert status.obstacle is None
    assert ends.billed() == []


def test_a_batch_of_which_each_request_fails_is_read(way: Way, start: Start) -> None:
    """Nothing ran and nothing is billed."""
    ends = start(fail_batch_every=1)
    answers = once_each(ends.run()).values()
    assert Counter(map(meaning_of, answers)) == {FailureKind.TRANSIENT: len(PROMPTS)}
    assert ends.billed() == []


@every_way
def test_a_batch_that_is_cancelled_keeps_what_was_answered(way: Way, start: Start) -> None:
    """And bills that; the rest goes again."""
    ends = start(latency=8.0)
    batch_id = ends.submit([f"Review {number}" for number in range(400)])
    time.sleep(0.1)
    ends.provider.cancel(batch_id)
    assert ends.wait(batch_id).phase is BatchPhase.ENDED
    answers = once_each(ends.answers(batch_id))
    assert_meant(answers, ends)
    assert set(ends.outcomes().values()) == {Outcome.ANSWERED, Outcome.CANCELLED}
    assert_as_billed(answers.values(), ends.billed())


def test_a_batch_that_has_ended_is_not_cancelled_any_more(way: Way, start: Start) -> None:
    """It is told as it is, and has all of its answers."""
    ends = start()
    batch_id = ends.submit()
    before = ends.wait(batch_id)
    assert ends.provider.cancel(batch_id) == before
    assert len(once_each(ends.answers(batch_id))) == ends.ledger()["billed_items"] == len(PROMPTS)


def test_a_batch_that_ends_while_it_is_being_cancelled_is_told_as_it_is(way: Way, start: Start) -> None:
    """The call was on its way for too long; nothing is lost."""
    ends = start(latency=1.0, wire=True)

    def dawdle(kind: str) -> None:
        if kind == CANCEL:
            time.sleep(1.0)

    ends.wire.before = dawdle
    batch_id = ends.submit()
    assert ends.provider.poll(batch_id).phase is BatchPhase.RUNNING
    assert ends.provider.cancel(batch_id).phase is BatchPhase.ENDED
    assert len(once_each(ends.answers(batch_id))) == ends.ledger()["billed_items"] == len(PROMPTS)


def test_cancelling_and_ending_leave_nothing_that_is_billed_and_not_told(way: Way, start: Start) -> None:
    """Whoever is first, and also where the answer to the cancelling is lost and it is done again."""
    ends = start(latency=0.4, wire=True)
    lost: list[str] = []

    def lose_every_other(kind: str) -> None:
        if kind == CANCEL:
            lost.append(kind)
            if len(lost) % 2:
                raise Cut

    ends.wire.after = lose_every_other
    batches = [ends.submit() for _ in range(5)]
    for batch_id in batches:
        time.sleep(0.1)
        assert ends.provider.cancel(batch_id).id == batch_id
    for batch_id in batches:
        status = ends.wait(batch_id)
        answers = ends.answers(batch_id) if status.phase is BatchPhase.ENDED else []
        once_each(answers)
        assert_as_billed(answers, [row for row in ends.billed() if row["batch_id"] == batch_id])
    assert lost


@every_way
def test_a_download_that_breaks_off_is_read_anew(
    way: Way, start: Start, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of a line: what was read is not told twice, what was not is not left out."""
    monkeypatch.setattr("blocks.transport.DOWNLOAD_CHUNK", 500)
    ends = start(cut_every=3, failure_rate=0.3)
    batch_id = ends.submit()
    ends.wait(batch_id)
    first, second, third = (once_each(ends.answers(batch_id)) for _ in range(3))
    assert "the connection to" in caplog.text
    assert len(first) == len(PROMPTS)
    assert first == second == third
    assert_meant(first, ends)


HABITS: dict[str, dict[str, Any]] = {
    "other order": {"shuffled": 1, "cut_every": 3},
    "ends early": {"open_end_every": 3},
    "ends early in another order": {"shuffled": 1, "open_end_every": 3},
    "page of a proxy": {"page_every": 3},
    "bomb": {"bomb_every": 3},
    "half a pair, NaN": {"odd_line_rate": 0.5},
    "cut": {"cut_every": 3},
    "failure first": {"false_start_rate": 0.5},
    "failure anywhere": {"false_start_rate": 0.5, "shuffled": 1},
}


@every_way
@pytest.mark.parametrize("habit", HABITS)
def test_bad_habits_of_downloads_change_no_answer(habit: str, way: Way, start: Start) -> None:
    """Read three times, as a run reads: each answer is there, and what it says and costs is the same."""
    ends = start(**HABITS[habit])
    batch_id = ends.submit()
    ends.wait(batch_id)
    for _ in range(3):
        found = ends.answers(batch_id)
        assert {answer.custom_id for answer in found} == {row["custom_id"] for row in ends.billed()}
        good = once_each(answer for answer in found if answer.failure is None)
        assert_meant(good, ends)
        assert_as_billed(good.values(), ends.billed())


@every_way
def test_a_line_that_nobody_can_read_is_an_answer_of_unknown_cost(way: Way, start: Start) -> None:
    """It names its request: that is not unanswered."""
    ends = start(torn_line_rate=0.5)
    answers = once_each(ends.run())
    assert len(answers) == len(PROMPTS)
    kinds = Counter(answer.failure and answer.failure.kind for answer in answers.values())
    assert kinds.keys() == {None, FailureKind.UNREADABLE}


@every_way
def test_answers_that_are_counted_and_not_returned_are_noticed(way: Way, start: Start) -> None:
    """Whoever takes the rest for unanswered would pay for it twice."""
    ends = start(lost_line_rate=0.3)
    batch_id = ends.submit()
    ends.wait(batch_id)
    with pytest.raises(Incomplete) as caught:
        ends.answers(batch_id)
    assert 0 < caught.value.fewer < len(PROMPTS)


@every_way
def test_a_usage_that_no_request_can_have_is_none(way: Way, start: Start) -> None:
    """The answer is there; what it cost is not known."""
    ends = start(poison_rate=0.5)
    answers = once_each(ends.run()).values()
    assert {meaning_of(answer) for answer in answers} == {"answered"}
    unmetered = sum(answer.usage is None for answer in answers)
    assert 0 < unmetered < len(PROMPTS)
    assert_as_billed(answers, ends.billed(), unmetered=unmetered)


@every_way
def test_a_line_without_end_is_not_read_for_ever(way: Way, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is given up; the next one brings what is there."""
    monkeypatch.setattr("blocks.downloads.LONGEST_LINE", 1 << 20)
    monkeypatch.setattr("blocks.downloads.ENDLESS_LINE", 1 << 22)
    ends = start(endless_every=2)
    batch_id = ends.submit()
    ends.wait(batch_id)
    for _ in range(2):
        answers = once_each(ends.answers(batch_id))
        assert_meant(answers, ends)
        assert_as_billed(answers.values(), ends.billed())


@every_way
def test_files_that_have_no_name_yet_are_not_empty(way: Way, start: Start) -> None:
    """The batch has ended, and its answers are somewhere: whoever took them for absent would pay twice."""
    ends = start(late_file=1.0)
    batch_id = ends.submit()
    ends.wait(batch_id)
    with pytest.raises(Incomplete):
        ends.answers(batch_id)
    time.sleep(1.0)
    assert_as_billed(once_each(ends.answers(batch_id)).values(), ends.billed())


@every_way
def test_a_file_may_be_named_by_an_object(way: Way, start: Start) -> None:
    """As some servers do."""
    ends = start(file_objects=1)
    answers = once_each(ends.run())
    assert len(answers) == len(PROMPTS)
    assert_as_billed(answers.values(), ends.billed())


@every_way
@pytest.mark.parametrize("switch", [{"without_files": 1}, {"late_file": 60.0}], ids=["never", "late"])
def test_answers_that_have_no_file_are_within_their_batch(switch: dict[str, Any], way: Way, start: Start) -> None:
    """The service names no file of them, or does not name it yet."""
    ends = start(**switch)
    answers = once_each(ends.run())
    assert len(answers) == len(PROMPTS)
    assert_as_billed(answers.values(), ends.billed())


@every_way
def test_pages_may_be_shorter_than_asked_for(way: Way, start: Start) -> None:
    """The service has a limit of its own."""
    ends = start(results_page=3)
    answers = once_each(ends.run())
    assert len(answers) == len(PROMPTS)
    assert_as_billed(answers.values(), ends.billed())


@every_way
@pytest.mark.parametrize("switch", ["page_slips_every", "page_skips_every"])
def test_pages_that_repeat_or_leave_out_answers_are_noticed(switch: str, way: Way, start: Start) -> None:
    """Whoever takes the rest for unanswered would pay for it twice; the next reading brings all."""
    ends = start(**{switch: 1})
    batch_id = ends.submit()
    ends.wait(batch_id)
    with pytest.raises(Incomplete) as caught:
        ends.answers(batch_id)
    assert 0 < caught.value.fewer < len(PROMPTS)
    assert len(once_each(ends.answers(batch_id))) == len(PROMPTS)


@every_way
def test_a_page_that_is_too_large_is_asked_for_in_smaller_ones(
    way: Way, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Down to single answers; one that is alone too large is one that lacks."""
    ends = start()
    batch_id = ends.submit([*PROMPTS, "long " * 2_000])
    ends.wait(batch_id)
    monkeypatch.setattr("blocks.transport.MOST", 3_000)
    with pytest.raises(Incomplete) as caught:
        ends.answers(batch_id)
    assert caught.value.fewer == 1
    monkeypatch.setattr("blocks.transport.MOST", 30_000)
    assert len(once_each(ends.answers(batch_id))) == len(PROMPTS) + 1


@every_way
def test_results_that_are_gone_are_not_an_empty_result(way: Way, start: Start) -> None:
    """They are not found: their requests are not taken for unanswered, which would be paid a second time."""
    ends = start(gone_after=0.3)
    batch_id = ends.submit()
    assert ends.wait(batch_id).phase is BatchPhase.ENDED
    time.sleep(0.3)
    with pytest.raises(NotFound):
        ends.answers(batch_id)

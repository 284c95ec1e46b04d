"""What the contract suite stands on: ways to send to each provider, an emulator, and a wire that breaks when told."""

from __future__ import annotations

import re
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import jsonschema_rs
import orjson

from blocks.batch import Answer, BatchCodec, BatchPhase, BatchProvider, BatchStatus, EncodedBatch, RequestForm
from blocks.catalog import PROVIDERS
from blocks.clients import EMULATOR_POLLING
from blocks.emulator import RunningEmulator
from blocks.emulator.service.batch import Outcome
from blocks.entries import SETTLE
from blocks.retries import with_retries
from tests.blocks import sixth

KEY = "sk-contract-5f3a9c71"
PATIENCE = 20.0  # seconds that a test waits for what should come at once
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "sentiment": {"type": "string", "enum": ["positive", "negative", "neutral"]},
        "topics": {"type": "array", "items": {"type": "string"}},
        "summary": {"type": "string"},
    },
    "required": ["sentiment", "topics", "summary"],
    "additionalProperties": False,
}
MODEL = "model-1"
FORM = RequestForm(MODEL, "You label reviews.", SCHEMA, 500)
PLAIN = RequestForm(MODEL, None, None, 500)
PROMPTS = [f"The sound of number {number} is great, its battery is weak." for number in range(20)]

REGISTERED = {**PROVIDERS, "sixth": sixth.ENTRY}  # all that the suite has to pass with

# --- ways -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Way:
    """A provider's client, and by which of the ways that it has its batches go."""

    name: str
    provider: str
    options: Mapping[str, str] = field(default_factory=dict)
    patches: Mapping[str, int] = field(default_factory=dict)  # of constants of the provider's module
    uploads: int = 0  # calls before the create
    package: str = ""  # where its provider is, if it is none of ours
    emulated_as: str = ""  # the dialect in which the emulator answers, if it is another one

    @property
    def module(self) -> str:
        """The module of its calls."""
        return f"{self.package or f'blocks.providers.{self.provider}'}.batches"

    @property
    def dialect(self) -> str:
        """The emulator's."""
        return self.emulated_as or self.provider

    def codec(self, form: RequestForm) -> BatchCodec:
        """How its requests are encoded."""
        return REGISTERED[self.provider].codec_for(form, self.options)

    @property
    def replays(self) -> bool:
        """Whether a lost batch is found by sending it once more under the same key."""
        return self.provider == "holysheep"


WAYS = (
    Way("holysheep", "holysheep"),
    Way("openai", "openai", uploads=1),
    Way("anthropic", "anthropic"),
    Way("mistral", "mistral"),
    Way("gemini", "gemini"),
    Way("sixth", "sixth", uploads=1, package="tests.blocks.sixth", emulated_as="openai"),
)
OTHER_WAYS = (  # for the cases in which it may matter how requests and answers travel
    Way("holysheep-pages", "holysheep", patches={"RESULTS_PAGE": 7}),
    Way("openai-responses", "openai", {"endpoint": "/v1/responses"}, uploads=1),
    Way("mistral-file", "mistral", {"inline": "never"}, uploads=1),
    Way("gemini-file", "gemini", patches={"INLINE_REQUESTS": 0}, uploads=2),
)
PAGES = {  # the constants that say how long a page of a list is
    "openai": ("PAGE",),
    "anthropic": ("BATCHES_PAGE",),
    "mistral": ("PAGE",),
    "gemini": ("PAGE",),
    "sixth": ("PAGE",),
}

# --- batches --------------------------------------------------------------------------------------------------------

_tags = count(1)


def new_tag() -> str:
    """Eight letters and a number, as the tags of runs are; another one each time."""
    return f"contract-{next(_tags)}"


def encode_prompts(form: BatchCodec, folder: Path, prompts: Sequence[str], tag: str | None = None) -> EncodedBatch:
    """A batch of these prompts."""
    tag = tag or new_tag()
    ids = ids_for(tag, len(prompts))
    requests = [form.encode(custom_id, prompt) for custom_id, prompt in zip(ids, prompts, strict=True)]
    return write_batch(form, folder, requests, tag)


def write_batch(form: BatchCodec, folder: Path, requests: Sequence[bytes], tag: str) -> EncodedBatch:
    """A batch of encoded requests, as a file."""
    content = form.head + form.separator.join(requests) + form.tail
    path = folder / f"body-{next(_tags)}"
    path.write_bytes(content)
    return EncodedBatch(path, len(requests), len(content), "hash", tag, sent_at=time.time())


def ids_for(tag: str, number: int, attempt: int = 1) -> list[str]:
    """The custom_ids of a batch."""
    return [f"{tag}-{n}-{attempt}" for n in range(number)]


# --- the wire -------------------------------------------------------------------------------------------------------

CREATE, LIST, CANCEL = "create", "list", "cancel"
_KINDS = (
    (CREATE, re.compile(r"POST .*(/batches|/batch/jobs|:batchGenerateContent)")),
    (LIST, re.compile(r"GET .*(/batches|/batch/jobs)")),
    (CANCEL, re.compile(r"POST .*[/:]cancel")),
)


def kind_of(method: str, path: str) -> str:
    """What a call is for, in whatever dialect; empty for calls that nothing is done to."""
    called = f"{method} {path.partition('?')[0]}"
    return next((kind for kind, pattern in _KINDS if pattern.fullmatch(called)), "")


class Cut(Exception):
    """The wire breaks here."""


Hook = Callable[[str], None]  # is told the kind of a call; may take its time, or raise Cut


class Exchange(NamedTuple):
    """A call that went over the wire, and what was answered."""

    method: str
    path: str
    body: bytes
    status: int
    answer: bytes


class Wire(ThreadingHTTPServer):
    """Hands calls on to an emulator. `before` is asked before a call, `after` before its answer goes back."""

    daemon_threads = True

    def __init__(self, emulator: RunningEmulator) -> None:
        super().__init__(("127.0.0.1", 0), _WireHandler)
        self.before: Hook = pass_on
        self.after: Hook = pass_on
        self.rewrite: Callable[[str], str] = str  # of paths with their queries
        self.seen: list[Exchange] = []
        self.emulator = emulator
        self.base_url = f"http://127.0.0.1:{self.server_port}{emulator.base_url.removeprefix(emulator.url)}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A side that went away is part of the play."""


def pass_on(kind: str) -> None:
    """Nothing happens."""


def breaking(*broken: str) -> Hook:
    """Cuts calls of these kinds."""

    def cut(kind: str) -> None:
        if kind in broken:
            raise Cut

    return cut


class _WireHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Wire

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        kind = kind_of(self.command, self.path)
        try:
            self.server.before(kind)
            path = self.server.rewrite(self.path)
            status, headers, content = call(self.server.emulator, self.command, path, body, dict(self.headers))
            self.server.seen.append(Exchange(self.command, path, body, status, content))
            self.server.after(kind)
        except Cut:
            self.close_connection = True
            return
        self.send_response_only(status)
        for name, value in headers.items():
            if name not in {"content-length", "transfer-encoding", "connection"}:
                self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = _answer  # noqa: N815  # the names that http.server looks for

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # http.server's name for it
        """Silence."""


def call(
    emulator: RunningEmulator, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of an answer."""
    with closing(HTTPConnection(urlsplit(emulator.url).netloc, timeout=PATIENCE)) as connection:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


@contextmanager
def wired(emulator: RunningEmulator) -> Iterator[Wire]:
    """A wire to an emulator, for the time of a test."""
    with Wire(emulator) as wire:
        thread = threading.Thread(target=wire.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield wire
        finally:
            wire.shutdown()
            thread.join()


# --- both ends ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ends:
    """A client and the emulator that it talks to, perhaps by a wire."""

    way: Way
    provider: BatchProvider
    emulator: RunningEmulator
    folder: Path
    _wire: Wire | None = None

    @property
    def wire(self) -> Wire:
        """The one that was asked for."""
        assert self._wire is not None
        return self._wire

    def encode(
        self, prompts: Sequence[str] = PROMPTS, form: RequestForm = FORM, tag: str | None = None
    ) -> EncodedBatch:
        """A batch, ready to be sent."""
        return encode_prompts(self.way.codec(form), self.folder, prompts, tag)

    def submit(self, prompts: Sequence[str] = PROMPTS, form: RequestForm = FORM) -> str:
        """The id of a new batch."""
        return self.provider.submit(self.encode(prompts, form), form)

    def wait(self, batch_id: str) -> BatchStatus:
        """The status of a batch once it does not run any more."""
        return wait_for(self.provider, batch_id)

    def answers(self, batch_id: str, form: RequestForm = FORM) -> list[Answer]:
        """Those of an ended batch, read as a run reads them: anew where reading breaks off."""
        return with_retries(lambda: list(self.provider.results(batch_id, form)))

    def run(self, prompts: Sequence[str] = PROMPTS, form: RequestForm = FORM) -> list[Answer]:
        """The answers of a new batch."""
        batch_id = self.submit(prompts, form)
        assert self.wait(batch_id).phase is BatchPhase.ENDED
        return self.answers(batch_id, form)

    def ledger(self) -> dict[str, Any]:
        """What the emulator counts."""
        return dict(orjson.loads(self._told("/emulator/ledger")))

    def billed(self) -> list[dict[str, Any]]:
        """What the emulator bills, a row an answer."""
        return [orjson.loads(line) for line in self._told("/emulator/ledger?rows=1").splitlines()]

    def outcomes(self) -> dict[str, Outcome]:
        """What became of each request, as the emulator knows it."""
        rows = stored(self._state(), "SELECT custom_id, outcome FROM results JOIN requests USING (place)")
        return {custom_id: Outcome(outcome) for custom_id, outcome in rows}

    def prompts(self) -> dict[str, str]:
        """What the emulator was asked."""
        return dict(stored(self._state(), "SELECT custom_id, prompt FROM requests"))

    def _state(self) -> Path:
        return Path(orjson.loads(self._told("/emulator/health"))["state"])

    def _told(self, path: str) -> bytes:
        return call(self.emulator, "GET", path, headers={"authorization": f"Bearer {KEY}"})[2]


def client_of(way: Way, base_url: str, key: str = KEY, **options: Any) -> BatchProvider:
    """A client as the catalog makes one for the emulator; a time to settle is only for those that look into lists."""
    entry = REGISTERED[way.provider]
    known: dict[str, Any] = {SETTLE.name: 0.0, **options}
    if way.replays:
        known = {"idempotency": "verified"}
    return entry.client(key, base_url, **{**entry.client_options(way.options), "polling": EMULATOR_POLLING, **known})


def stored(state: Path, query: str) -> list[tuple[Any, ...]]:
    """Rows of the emulator's store."""
    with closing(sqlite3.connect(f"file:{state}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()


def wait_for(provider: BatchProvider, batch_id: str) -> BatchStatus:
    """The status of a batch once it does not run any more."""
    deadline = time.monotonic() + PATIENCE
    while (status := provider.poll(batch_id)).phase is BatchPhase.RUNNING:
        assert time.monotonic() < deadline, f"{batch_id} is still {status.wording}"
        time.sleep(0.02)
    return status


# --- what is said of a request --------------------------------------------------------------------------------------


def every(outcome: str, **others: str) -> dict[str, set[str]]:
    """What the port says with each provider: `outcome`, unless it is named with another one, or with several."""
    return {provider: set(others.get(provider, outcome).split()) for provider in REGISTERED}


MEANING: Mapping[Outcome, Mapping[str, set[str]]] = {
    Outcome.ANSWERED: every("answered"),
    # Gemini's answers prove whose they are: a broken one may not.
    # Of Anthropic's choices the capitals are put right.
    Outcome.INVALID: every("wrong", gemini="wrong transient", anthropic="wrong answered"),
    # HolySheep has no word for an answer that was cut off.
    Outcome.TRUNCATED: every("cut_off", holysheep="wrong"),
    Outcome.FAILED: every("transient"),
    Outcome.UNEXPLAINED: every("transient"),
    Outcome.TIMED_OUT: every("transient"),
    # A service whose filter stops a request says so; Mistral's models decline in plain text.
    Outcome.REFUSED: every("refused", holysheep="filtered", gemini="filtered", mistral="wrong"),
    Outcome.MISSING: every("missing"),
    # Mistral and Gemini say nothing of requests that were not come to.
    Outcome.CANCELLED: every("not_run", mistral="missing", gemini="missing"),
    Outcome.EXPIRED: every("not_run", mistral="missing", gemini="missing"),
}


def meaning_of(answer: Answer | None, schema: Mapping[str, Any] = SCHEMA) -> str:
    """`missing`, `answered`, `wrong` for a text that does not fit the schema, or the failure's kind."""
    if answer is None:
        return "missing"
    if answer.failure is not None:
        assert answer.text is None
        assert answer.failure.code
        assert answer.failure.message
        return answer.failure.kind.value
    assert answer.text is not None
    return "answered" if is_valid(answer.text, schema) else "wrong"


def is_valid(text: str, schema: Mapping[str, Any] = SCHEMA) -> bool:
    """Whether a text is JSON that fits the schema."""
    try:
        return bool(jsonschema_rs.is_valid(dict(schema), orjson.loads(text)))
    except orjson.JSONDecodeError:
        return False


def assert_as_billed(answers: Iterable[Answer], billed: Iterable[Mapping[str, Any]], *, unmetered: int = 0) -> None:
    """Every answer says the tokens that it was billed, and nothing else was; of some that are billed nothing is said.

    An answer that comes twice counts once; a failure that was not billed says no tokens or none at all.
    """
    said = {answer.custom_id: answer.usage for answer in answers}
    owed = {row["custom_id"]: (row["input_tokens"], row["output_tokens"]) for row in billed}
    for custom_id, usage in said.items():
        if usage is not None:
            assert (usage.input_tokens, usage.output_tokens) == owed.get(custom_id, (0, 0))
    assert sum(said.get(custom_id) is None for custom_id in owed) == unmetered


def once_each(answers: Iterable[Answer]) -> dict[str, Answer]:
    """The answers by their ids, of which none came twice."""
    listed = list(answers)
    assert max(Counter(answer.custom_id for answer in listed).values(), default=1) == 1
    return {answer.custom_id: answer for answer in listed}

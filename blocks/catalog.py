"""Which providers there are, how a name becomes a connection, and a connection a client."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from pydantic import SecretStr

from blocks.batch import BatchFormat, BatchProvider, Connection, Limits, PollPlan, RequestForm
from blocks.emulator import EmulatorOptions, RunningEmulator, running_emulator
from blocks.errors import StateError, UsageError
from blocks.masking import Masked, hiding
from blocks.providers import anthropic, gemini, holysheep, mistral, openai

LOCAL = "local"
EMULATOR_KEY = "emulated"
EMULATOR_POLLING = PollPlan(first=0.1, factor=1.5, longest=1.0)
DEFAULT_DIALECT = "holysheep"  # of the embedded emulator
LIMIT_OPTIONS = (
    "max_requests",
    "max_bytes",
    "max_request_bytes",
    "max_in_flight",
    "max_queued_requests",
    "max_queued_tokens",
)
SETTLE = "settle"  # the option that says for how many seconds a new batch may stay invisible
NUMBER = ("a number of seconds",)  # in the place of an option's values

Options = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of a provider before it is called.

    `options` are its own, each with the values it takes, the default first; the client is made with them.
    """

    key_variable: str
    base_url: str
    limits: Limits
    client: Callable[..., BatchProvider]
    format: Callable[..., BatchFormat]
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    format_options: tuple[str, ...] = ()  # those that the bytes of a request depend on

    def chosen(self, options: Options) -> dict[str, str]:
        """The provider's own options, with their defaults. Raises UsageError for a value that none of them takes."""
        chosen = {name: options.get(name, values[0]) for name, values in self.options.items() if values is not NUMBER}
        for name, value in chosen.items():
            if value not in self.options[name]:
                raise UsageError(
                    f"--option {name}={value} is not possible", next_step=f"it takes {', '.join(self.options[name])}"
                )
        return chosen


ENTRIES: Mapping[str, Entry] = {
    "holysheep": Entry(
        "HOLYSHEEP_API_KEY",
        holysheep.BASE_URL,
        holysheep.LIMITS,
        holysheep.HolySheep,
        holysheep.HolySheepFormat,
        {"idempotency": ("unverified", "verified")},
    ),
    "openai": Entry(
        "OPENAI_API_KEY",
        openai.BASE_URL,
        openai.LIMITS,
        openai.OpenAI,
        openai.OpenAIFormat,
        {"endpoint": (openai.CHAT, openai.RESPONSES), SETTLE: NUMBER},
        ("endpoint",),
    ),
    "anthropic": Entry(
        "ANTHROPIC_API_KEY",
        anthropic.BASE_URL,
        anthropic.LIMITS,
        anthropic.Anthropic,
        anthropic.AnthropicFormat,
        {**anthropic.CHOICES, SETTLE: NUMBER},
        ("version", "cache", "effort"),
    ),
    "mistral": Entry(
        "MISTRAL_API_KEY",
        mistral.BASE_URL,
        mistral.LIMITS,
        mistral.Mistral,
        mistral.MistralFormat,
        {"inline": ("auto", "never"), SETTLE: NUMBER},
    ),
    "gemini": Entry(
        "GEMINI_API_KEY",
        gemini.BASE_URL,
        gemini.LIMITS,
        gemini.Gemini,
        gemini.GeminiFormat,
        {"api_version": ("v1beta", "v1"), SETTLE: NUMBER},
    ),
}


def connection_for(provider: str, base_url: str | None, options: Mapping[str, str]) -> Connection:
    """How to reach a provider by its name. Raises UsageError for an unknown name, a missing key, a wrong option.

    A saved Prefect block is named as Prefect names it, `type/name`; it is looked up when it is opened.
    """
    if provider == LOCAL:
        if base_url is not None:
            raise UsageError("--base-url goes with a real provider; the emulator chooses its own address")
        dialect = _emulator_options(options).dialect
        _check_values(ENTRIES[dialect], options)
        return Connection(dialect, "", f"emulator {dialect}", options=dict(options))
    if "/" in provider:
        return _block_connection(provider, base_url, options)
    entry = ENTRIES.get(provider)
    if entry is None:
        raise UsageError(
            f"there is no provider {provider!r}",
            next_step=f"use {LOCAL}, {', '.join(ENTRIES)}, or a saved block such as holysheep-credentials/NAME",
        )
    _check_names(options, entry)
    if not os.environ.get(entry.key_variable, "").strip():
        raise UsageError(
            f"there is no key for {provider}: {entry.key_variable} is not set",
            next_step=f"export {entry.key_variable}=…, or try it without a key: --provider {LOCAL}",
        )
    url = _web_address(base_url or entry.base_url)
    return Connection(provider, url, f"{provider} {url}", options=dict(options))


def _block_connection(slug: str, base_url: str | None, options: Mapping[str, str]) -> Connection:
    from blocks.credentials import load_block  # noqa: PLC0415  # Prefect takes seconds to import; only blocks need it

    block = load_block(slug)
    provider = slug.partition("/")[0].removesuffix("-credentials")
    chosen = {**block.options(), **options}
    _check_names(chosen, ENTRIES[provider])
    url = _web_address(base_url or block.base_url)
    return Connection(provider, url, f"{provider} {url}", block=slug, options=chosen)


def _web_address(url: str) -> str:
    if "@" in url or "?" in url or "#" in url:
        raise UsageError(
            "--base-url may have no user, no password and no parameters: it is written down with each batch",
            next_step="give the address alone; the key has its own place",
        )
    try:
        parts = urlsplit(url)
        right = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0 and url.isprintable()
    except ValueError:  # a port that is no number
        right = False
    if not right or " " in url:
        raise UsageError(f"--base-url {url!r} is not a web address", next_step="it begins with https://")
    return url.rstrip("/")


class Reach(NamedTuple):
    """A connection with all that a client is made of. It holds the key: it is never written down or shown."""

    connection: Connection
    key: SecretStr
    base_url: str

    def client(self) -> BatchProvider:
        """A client; whoever has it closes it."""
        known: dict[str, object] = {}
        if self.connection.emulated:
            known = _as_emulated(_emulator_options(self.connection.options))
        return _client(self.connection, self.key, self.base_url, **known)


@contextmanager
def reached(connection: Connection, state: Path | None = None) -> Iterator[Reach]:
    """What is needed to call the provider. The emulator's server is started first and stopped after.

    `state`: the folder where the emulator keeps what it has done, in a file a dialect; without it that is forgotten.
    """
    if not connection.emulated:
        yield Reach(connection, _key(connection), connection.base_url)
        return
    options = _emulator_options(connection.options)
    place = state and state / f"emulator-{options.dialect}.sqlite"
    with _started(replace(options, state=place, key=EMULATOR_KEY)) as emulator:
        yield Reach(connection, SecretStr(EMULATOR_KEY), emulator.base_url)


@contextmanager
def open_provider(connection: Connection, state: Path | None = None) -> Iterator[BatchProvider]:
    """A client for the connection, closed after; `state` as for `reached`."""
    with reached(connection, state) as reach, closing(reach.client()) as client:
        yield client


def _as_emulated(options: EmulatorOptions) -> dict[str, object]:
    """What is known of the emulator: it is near, and shows a batch at once unless it is told to hide it."""
    known: dict[str, object] = {"polling": EMULATOR_POLLING}
    if options.dialect == "holysheep":
        return {**known, "idempotency": "verified"}
    return {**known, SETTLE: options.visible_after + 1 if options.visible_after else 0.0}


def _client(connection: Connection, key: SecretStr, base_url: str, **known: object) -> BatchProvider:
    entry, options = ENTRIES[connection.provider], connection.options
    chosen: dict[str, object] = {**entry.chosen(options), "limits": limits_for(connection)}
    if SETTLE in entry.options and SETTLE in options:
        chosen[SETTLE] = _seconds(SETTLE, options[SETTLE])
        known.pop(SETTLE, None)
    try:
        client = entry.client(key.get_secret_value().strip(), base_url, **{**chosen, **known})
    except UsageError as error:
        raise error.with_traceback(None)  # noqa: B904  # the same error, without the frames that hold the key
    return Masked(client, hiding(key.get_secret_value().strip()))


def _key(connection: Connection) -> SecretStr:
    if connection.block is None:
        return SecretStr(os.environ.get(ENTRIES[connection.provider].key_variable, ""))
    from blocks.credentials import load_block  # noqa: PLC0415  # see above

    return load_block(connection.block).api_key


@contextmanager
def _started(options: EmulatorOptions) -> Iterator[RunningEmulator]:
    with ExitStack() as stack:
        try:
            emulator = stack.enter_context(running_emulator(options))
        except RuntimeError as error:
            step = "its own words stand above; a --option port that is in use is the usual reason"
            raise StateError(str(error), next_step=step) from error
        yield emulator


def format_for(connection: Connection, form: RequestForm) -> BatchFormat:
    """How requests are encoded for the provider; needs neither key nor network."""
    entry = ENTRIES[connection.provider]
    chosen = entry.chosen(connection.options)
    return entry.format(form, **{name: chosen[name] for name in entry.format_options})


def limits_for(connection: Connection) -> Limits:
    """The provider's limits, as the options change them."""
    return _limits(ENTRIES[connection.provider].limits, connection.options)


def _limits(limits: Limits, options: Mapping[str, str]) -> Limits:
    chosen: dict[str, Any] = {name: _positive(name, options[name]) for name in LIMIT_OPTIONS if name in options}
    return replace(limits, **chosen)


def _positive(name: str, text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise UsageError(f"--option {name}={text} is not a whole number above 0")
    return int(text)


def _seconds(name: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e9:
        raise UsageError(f"--option {name}={text} is not a number of seconds")
    return seconds


def _emulator_options(options: Options) -> EmulatorOptions:
    """The emulator's switches, out of options that are for the client as well."""
    own = {name for entry in ENTRIES.values() for name in entry.options}
    switches = {name: value for name, value in options.items() if name not in {*LIMIT_OPTIONS, *own}}
    try:
        return EmulatorOptions.from_mapping(switches)
    except ValueError as error:
        raise UsageError(
            f"--option: {error}", next_step="`batchwerk emulator --help` lists the emulator's switches"
        ) from error


def _check_names(options: Options, entry: Entry) -> None:
    known = (*LIMIT_OPTIONS, *entry.options)
    for name in options:
        if name not in known:
            raise UsageError(f"--option {name} is not known", next_step=f"known are {', '.join(known)}")
    _check_values(entry, options)


def _check_values(entry: Entry, options: Options) -> None:
    entry.chosen(options)
    _limits(entry.limits, options)
    if SETTLE in options:
        _seconds(SETTLE, options[SETTLE])

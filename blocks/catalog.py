"""Which providers there are, how a name becomes a connection, and a connection a client."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from blocks.batch import BatchFormat, BatchProvider, Connection, Limits, PollPlan, RequestForm
from blocks.emulator import EmulatorOptions, RunningEmulator, running_emulator
from blocks.errors import StateError, UsageError
from blocks.providers import holysheep

LOCAL = "local"
EMULATOR_KEY = "emulated"
EMULATOR_POLLING = PollPlan(first=0.1, factor=1.5, longest=1.0)
LIMIT_OPTIONS = ("max_requests", "max_bytes", "max_request_bytes")
OPTIONS = (*LIMIT_OPTIONS, "idempotency")


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of a provider before it is called."""

    key_variable: str
    base_url: str
    limits: Limits


ENTRIES: Mapping[str, Entry] = {
    "holysheep": Entry("HOLYSHEEP_API_KEY", holysheep.BASE_URL, holysheep.LIMITS),
}
FORMATS: Mapping[str, Callable[[RequestForm], BatchFormat]] = {"holysheep": holysheep.HolySheepFormat}
EMULATED = "holysheep"  # the dialect that the embedded emulator speaks


def connection_for(provider: str, base_url: str | None, options: Mapping[str, str]) -> Connection:
    """How to reach a provider by its name. Raises UsageError for an unknown name, a missing key, a wrong option.

    A saved Prefect block is named as Prefect names it, `type/name`; it is looked up when it is opened.
    """
    if provider == LOCAL:
        if base_url is not None:
            raise UsageError("--base-url goes with a real provider; the emulator chooses its own address")
        _emulator_options(options)
        _limits(ENTRIES[EMULATED].limits, options)
        return Connection(EMULATED, "", f"emulator {EMULATED}", options=dict(options))
    if "/" in provider:
        return _block_connection(provider, base_url, options)
    entry = ENTRIES.get(provider)
    if entry is None:
        raise UsageError(
            f"there is no provider {provider!r}",
            next_step=f"use {LOCAL}, {', '.join(ENTRIES)}, or a saved block such as holysheep-credentials/NAME",
        )
    _check_names(options, OPTIONS)
    _limits(entry.limits, options)
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
    _check_names(options, OPTIONS)
    url = _web_address(base_url or block.base_url)
    chosen = {"idempotency": block.idempotency, **options}
    return Connection(provider, url, f"{provider} {url}", block=slug, options=chosen)


def _web_address(url: str) -> str:
    try:
        parts = urlsplit(url)
        right = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0 and url.isprintable()
    except ValueError:  # a port that is no number
        right = False
    if not right or " " in url:
        raise UsageError(f"--base-url {url!r} is not a web address", next_step="it begins with https://")
    return url.rstrip("/")


@contextmanager
def open_provider(connection: Connection, emulator_state: Path | None = None) -> Iterator[BatchProvider]:
    """A client for the connection, closed after. For the emulator its server is started first and stopped after."""
    if connection.emulated:
        options = _emulator_options(connection.options)
        with _started(replace(options, state=emulator_state, key=EMULATOR_KEY)) as emulator:
            yield from _closing(_holysheep(connection, EMULATOR_KEY, emulator.base_url, emulated=True))
        return
    yield from _closing(_holysheep(connection, _key(connection), connection.base_url))


def _key(connection: Connection) -> str:
    if connection.block is None:
        return os.environ.get(ENTRIES[connection.provider].key_variable, "")
    from blocks.credentials import load_block  # noqa: PLC0415  # see above

    return load_block(connection.block).api_key.get_secret_value()


@contextmanager
def _started(options: EmulatorOptions) -> Iterator[RunningEmulator]:
    with ExitStack() as stack:
        try:
            emulator = stack.enter_context(running_emulator(options))
        except RuntimeError as error:
            step = "its own words stand above; a --option port that is in use is the usual reason"
            raise StateError(str(error), next_step=step) from error
        yield emulator


def _closing(provider: BatchProvider) -> Iterator[BatchProvider]:
    try:
        yield provider
    finally:
        provider.close()


def _holysheep(connection: Connection, key: str, base_url: str, *, emulated: bool = False) -> BatchProvider:
    return holysheep.HolySheep(
        key.strip(),
        base_url,
        limits=_limits(holysheep.LIMITS, connection.options),
        polling=EMULATOR_POLLING if emulated else None,
        idempotency_verified=emulated or connection.options.get("idempotency") == "verified",
    )


def format_for(connection: Connection, form: RequestForm) -> BatchFormat:
    """How requests are encoded for the provider; needs neither key nor network."""
    return FORMATS[connection.provider](form)


def limits_for(connection: Connection) -> Limits:
    """The provider's limits, as the options change them."""
    return _limits(ENTRIES[connection.provider].limits, connection.options)


def _limits(limits: Limits, options: Mapping[str, str]) -> Limits:
    chosen = {name: _positive(name, options[name]) for name in LIMIT_OPTIONS if name in options}
    return replace(limits, **chosen)


def _positive(name: str, text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise UsageError(f"--option {name}={text} is not a whole number above 0")
    return int(text)


def _emulator_options(options: Mapping[str, str]) -> EmulatorOptions:
    switches = {name: value for name, value in options.items() if name not in OPTIONS}
    try:
        return EmulatorOptions.from_mapping(switches)
    except ValueError as error:
        raise UsageError(
            f"--option: {error}", next_step="`batchwerk emulator --help` lists the emulator's switches"
        ) from error


def _check_names(options: Mapping[str, str], known: tuple[str, ...]) -> None:
    for name in options:
        if name not in known:
            raise UsageError(f"--option {name} is not known", next_step=f"known are {', '.join(known)}")

"""From a provider's name to a connection, and what depends on a connection without calling anybody."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from blocks.addresses import normal_address
from blocks.batch import BatchCodec, Connection, Limits, RequestForm
from blocks.catalog import LOCAL, PROVIDERS
from blocks.emulator import EmulatorOptions
from blocks.entries import LIMIT_OPTIONS, Options, ProviderEntry
from blocks.errors import UsageError
from blocks.trusted_hosts import check_address
from blocks.vocabularies import Vocabulary

FOR_THE_COMMAND = ("host", "key", "state")  # switches of the emulator that are for `batchwerk emulator` alone


def connection_for(
    provider: str, base_url: str | None, options: Options, *, typed_url: str | None = None, needs_key: bool = True
) -> Connection:
    """How to reach a provider by its name.

    Raises UsageError for an unknown name, a missing key, a wrong option, an address that may not have the key. A saved
    Prefect block is named as Prefect names it, `type/name`. `typed_url`: as for `check_address`. `needs_key`: false if
    nothing will be sent.
    """
    if provider == LOCAL:
        return _emulated_connection(base_url, options)
    if "/" in provider:
        return _block_connection(provider, base_url, options)
    entry = PROVIDERS.get(provider)
    if entry is None:
        raise UsageError(
            f"there is no provider {provider!r}",
            next_step=f"use {LOCAL}, {', '.join(PROVIDERS)}, or a saved block such as holysheep-credentials/NAME",
        )
    _check_options(entry, options)
    if needs_key and (missing := missing_key(provider)):
        raise UsageError(
            f"there is no key for {provider}: {missing} is not set",
            next_step=f"export {missing}=…, or try it without a key: --provider {LOCAL}",
        )
    url = _web_address(base_url or entry.base_url, entry)
    check_address(url, entry.base_url, typed_url=typed_url)
    return Connection(provider, url, f"{provider} {url}", options=dict(options))


def missing_key(provider: str) -> str | None:
    """The variable that has to hold the provider's key and does not; None if nothing is missing."""
    entry = PROVIDERS.get(provider)
    return None if entry is None or os.environ.get(entry.key_variable, "").strip() else entry.key_variable


def _emulated_connection(base_url: str | None, options: Options) -> Connection:
    if base_url is not None:
        raise UsageError("--base-url goes with a real provider; the emulator chooses its own address")
    dialect = emulator_options(options).dialect
    PROVIDERS[dialect].check_values(options)
    return Connection(dialect, "", f"emulator {dialect}", options=dict(options))


def _block_connection(slug: str, base_url: str | None, options: Options) -> Connection:
    from blocks.credentials import load_block  # noqa: PLC0415  # Prefect takes seconds to import; only blocks need it

    block = load_block(slug)
    provider = slug.partition("/")[0].removesuffix("-credentials")
    entry, chosen = PROVIDERS[provider], {**block.options(), **options}
    _check_options(entry, chosen)
    url = _web_address(base_url or block.base_url, entry)
    check_address(url, block.base_url, loopback=False)
    return Connection(provider, url, f"{provider} {url}", block=slug, options=chosen)


def _web_address(url: str, entry: ProviderEntry) -> str:
    """The address in its one spelling: it becomes part of every request's key."""
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
    return normal_address(parts, entry.added)


def _check_options(entry: ProviderEntry, options: Options) -> None:
    known = [option.name for option in entry.all_options()]
    for name in options:
        if name not in known:
            raise UsageError(f"--option {name} is not known", next_step=f"known are {', '.join(known)}")
    entry.check_values(options)


def codec_for(connection: Connection, form: RequestForm) -> BatchCodec:
    """How requests are encoded for the provider; needs neither key nor network."""
    return PROVIDERS[connection.provider].codec_for(form, connection.options)


def vocabulary_for(connection: Connection, form: RequestForm) -> Vocabulary | None:
    """Counts the tokens of requests; None without the extra `tokens`."""
    return PROVIDERS[connection.provider].vocabulary_for(form)


def shortest_prefix_of(connection: Connection, model: str) -> int | None:
    """How many tokens a system text must have so that the prompt cache takes it; None: that is not known."""
    shortest = PROVIDERS[connection.provider].shortest_prefix
    return None if shortest is None else shortest(model)


def key_options(connection: Connection) -> dict[str, str]:
    """The options that are part of every request's key."""
    return PROVIDERS[connection.provider].key_options(connection.options)


def limits_for(connection: Connection) -> Limits:
    """The provider's limits, as the options change them."""
    return PROVIDERS[connection.provider].limits_with(connection.options)


def emulator_options(options: Options) -> EmulatorOptions:
    """The emulator's switches, out of options that are for the client as well."""
    shared = {option.name for option in LIMIT_OPTIONS}
    own = {option.name for entry in PROVIDERS.values() for option in entry.options}
    switches = {name: value for name, value in options.items() if name not in shared | own}
    for name in FOR_THE_COMMAND:
        if name in switches:
            raise UsageError(
                f"--option {name}: the emulator of a run has its own {name}",
                next_step=f"leave it out, or run one yourself: batchwerk emulator --{name} …",
            )
    try:
        return EmulatorOptions.from_mapping(switches)
    except ValueError as error:
        raise UsageError(
            f"--option: {error}", next_step="`batchwerk emulator --help` lists the emulator's switches"
        ) from error

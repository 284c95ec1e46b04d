"""The table of providers. Command, form, saved blocks and documentation derive from it: a provider is one line here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from blocks.entries import LIMIT_OPTIONS, ProviderEntry
from blocks.providers import anthropic, gemini, holysheep, mistral, openai

LOCAL = "local"  # the name of the embedded emulator, in the place of a provider's

PROVIDERS: Mapping[str, ProviderEntry] = {
    entry.name: entry
    for entry in (
        holysheep.ENTRY,
        openai.ENTRY,
        anthropic.ENTRY,
        mistral.ENTRY,
        gemini.ENTRY,
    )
}


class OptionRow(NamedTuple):
    """An option of a provider in a table for people."""

    provider: str
    key_variable: str
    max_requests: int  # in one batch
    max_bytes: int | None  # of one batch's body
    option: str
    values: str
    default: str
    help: str


def option_table() -> Iterator[OptionRow]:
    """A row for each option of each provider, those that all providers have included."""
    for name, entry in PROVIDERS.items():
        for option in entry.all_options():
            yield OptionRow(
                name,
                entry.key_variable,
                entry.limits.max_requests,
                entry.limits.max_bytes,
                option.name,
                option.values,
                option.usual,
                option.help,
            )


def provider_help() -> str:
    """What `--provider` takes, in one sentence."""
    return f"{LOCAL} (the embedded emulator), {', '.join(PROVIDERS)}, or a saved block as type/name."


def option_help() -> str:
    """What `--option` takes, in two sentences: the options of all providers, then each provider's own."""
    shared = ", ".join(option.name for option in LIMIT_OPTIONS)
    own = (
        f"{name}: {', '.join(option.name for option in entry.options)}"
        for name, entry in PROVIDERS.items()
        if entry.options
    )
    return (
        "Provider option, such as max_requests=1000; can be given several times (an object in the form). "
        f"Options: {'; '.join([shared, *own])}."
    )

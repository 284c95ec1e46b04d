"""What a provider says about itself before it is called: its entry in the catalog, and the options that it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from blocks.batch import BatchCodec, BatchProvider, Limits, RequestForm
from blocks.errors import UsageError
from blocks.vocabularies import Framings, Vocabulary, vocabulary_of

Options = Mapping[str, str]  # as `--option` and saved blocks give them
LONGEST_COUNT = 18  # digits


class Kind(StrEnum):
    """What an option's value may be, in words."""

    CHOICE = "one of its choices"
    COUNT = "a whole number above 0"
    SECONDS = "a number of seconds"


@dataclass(frozen=True, slots=True)
class Option:
    """A provider option: `--option NAME=VALUE`, and a field of the saved block if it is a choice."""

    name: str
    help: str  # one sentence
    choices: tuple[str, ...] = ()  # the default first
    kind: Kind = Kind.CHOICE
    default: str = ""  # of a number, in words
    in_codec: bool = False  # whether the bytes of a request depend on it
    in_client: bool = True  # whether the client takes it
    # Whether answers may depend on it: then it is part of every request's key. Without a default, so that whoever adds
    # an option decides: an answer under another setting must not pass for one under this.
    in_key: bool = field(kw_only=True)

    @property
    def values(self) -> str:
        """The values it takes, in words; the default first."""
        return ", ".join(self.choices) if self.kind is Kind.CHOICE else self.kind.value

    @property
    def usual(self) -> str:
        """The default, in words."""
        return self.choices[0] if self.kind is Kind.CHOICE else self.default

    def read(self, text: str) -> str | int | float:
        """The value of `text`. Raises UsageError if the option does not take it."""
        match self.kind:
            case Kind.CHOICE:
                return self._choice(text)
            case Kind.COUNT:
                return self._count(text)
            case Kind.SECONDS:
                return self._seconds(text)

    def _choice(self, text: str) -> str:
        if text not in self.choices:
            raise UsageError(f"--option {self.name}={text} is not possible", next_step=f"it takes {self.values}")
        return text

    def _count(self, text: str) -> int:
        if not text.isdecimal() or len(text) > LONGEST_COUNT or int(text) == 0:
            raise UsageError(f"--option {self.name}={text} is not {Kind.COUNT}")
        return int(text)

    def _seconds(self, text: str) -> float:
        try:
            seconds = float(text)
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds < 1e9:
            raise UsageError(f"--option {self.name}={text} is not {Kind.SECONDS}")
        return seconds


def _limit(name: str, meaning: str) -> Option:
    return Option(name, meaning, kind=Kind.COUNT, default="the provider's limit", in_key=False)


LIMIT_OPTIONS = (  # of every provider; named like the fields of `Limits` that they replace
    _limit("max_requests", "Maximum number of requests per batch."),
    _limit("max_bytes", "Maximum size of a batch's body, in bytes."),
    _limit("max_request_bytes", "Maximum size of one encoded request, in bytes."),
    _limit("max_in_flight", "Maximum number of batches with the provider at once."),
    _limit("max_queued_requests", "Maximum number of requests in all unfinished batches."),
    _limit("max_queued_tokens", "Maximum number of input tokens in all unfinished batches of a model."),
)
SETTLE = Option(
    "settle",
    "Seconds that a new batch may stay invisible in the provider's lists.",
    kind=Kind.SECONDS,
    default="600",
    in_key=False,
)


@dataclass(frozen=True, slots=True)
class ProviderEntry:
    """All that the command, the saved blocks and the documentation know of a provider."""

    name: str  # as in `--provider NAME`
    title: str  # begins the name of its block class, as in `OpenAICredentials`
    service: str  # what the service is, as in "Mistral's batch jobs"
    key_variable: str
    base_url: str
    limits: Limits
    client: Callable[..., BatchProvider]  # made with (key, base URL) and the provider's own options by name
    codec: Callable[..., BatchCodec]  # made with a form and the options that have `in_codec`
    options: tuple[Option, ...] = ()  # its own, beside LIMIT_OPTIONS
    base_url_help: str = "Where the API is."
    added: tuple[str, ...] = ()  # what the client adds to the address itself, such as /v1; so it may be in it or not
    emulated: Mapping[str, object] = field(default_factory=dict)  # options of the client if the emulator answers
    framings: Framings = field(default_factory=dict)  # by which vocabulary tokens are counted before they are sent
    shortest_prefix: Callable[[str], int] | None = None  # tokens that a model's cache wants of a system text

    def all_options(self) -> tuple[Option, ...]:
        """The options that every provider has, and its own."""
        return (*LIMIT_OPTIONS, *self.options)

    def takes(self, name: str) -> bool:
        """Whether it is one of the provider's own options."""
        return any(option.name == name for option in self.options)

    def check_values(self, options: Options) -> None:
        """Raises UsageError for a value that its option does not take; unknown names are left alone."""
        for option in self.all_options():
            if option.name in options:
                option.read(options[option.name])

    def client_options(self, options: Options) -> dict[str, Any]:
        """The provider's own options as the client takes them: choices with their defaults, numbers if given."""
        taken = {option.name for option in self.options if option.in_client}
        return {name: value for name, value in self._chosen(options).items() if name in taken}

    def codec_for(self, form: RequestForm, options: Options) -> BatchCodec:
        """How requests of this form are encoded."""
        chosen = self._chosen(options)
        return self.codec(form, **{option.name: chosen[option.name] for option in self.options if option.in_codec})

    def vocabulary_for(self, form: RequestForm) -> Vocabulary | None:
        """Counts the tokens of requests of this form; None without the extra `tokens`."""
        return vocabulary_of(self.framings, form)

    def key_options(self, options: Options) -> dict[str, str]:
        """The options that are part of every request's key, without defaults: a new option changes no old key."""
        return {
            option.name: options[option.name]
            for option in self.options
            if option.in_key and options.get(option.name, option.usual) != option.usual
        }

    def _chosen(self, options: Options) -> dict[str, Any]:
        given = {option.name: option.read(options[option.name]) for option in self.options if option.name in options}
        return {option.name: option.choices[0] for option in self.options if option.choices} | given

    def limits_with(self, options: Options) -> Limits:
        """The provider's limits, as the options change them."""
        chosen: dict[str, Any] = {
            option.name: option.read(options[option.name]) for option in LIMIT_OPTIONS if option.name in options
        }
        return replace(self.limits, **chosen)

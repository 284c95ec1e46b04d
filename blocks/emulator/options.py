"""All options of the emulator in one frozen value, shared by the command line, the launcher and tests."""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from difflib import get_close_matches
from math import isfinite
from pathlib import Path
from typing import Any, Self

from blocks.emulator.dialects import DIALECTS

RETRY_HEADERS = ("retry-after", "retry-after-ms", "none")
SHOULD_RETRY = ("", "true", "false")
STATE_PREFIXES = ("BATCH_STATE", "JOB_STATE")


def switch(default: Any, text: str, low: float | None = None, high: float | None = None) -> Any:
    """A field with its help text and its limits."""
    return field(default=default, metadata={"help": text, "low": low, "high": high})


def share(text: str) -> Any:
    """A rate from 0 to 1."""
    return switch(0.0, text, 0, 1)


def every(text: str) -> Any:
    """An option that affects every Nth event."""
    return switch(0, f"{text}; 0 means never", 0)


@dataclass(frozen=True)
class EmulatorOptions:
    """The emulator's behaviour and injected faults. Shares are from 0 to 1, times in seconds.

    Faults of single requests are a function of (seed, prompt, attempt), faults of calls and batches of
    (seed, number of the call or batch): the same seed brings the same faults.
    """

    seed: int = switch(0, "seed of every fault, order and jitter")
    dialect: str = switch("holysheep", "provider whose dialect the emulator speaks")
    state: Path | None = switch(None, "SQLite file for the whole state; default: a temporary file")  # noqa: RUF009  # a field
    host: str = switch("127.0.0.1", "address to listen on")
    port: int = switch(0, "port to listen on; 0 means any free port", 0, 65535)
    key: str | None = switch(None, "the only accepted key; default: any key is accepted")
    max_requests: int | None = switch(None, "maximum requests per batch; default: the provider's limit", 1)
    max_bytes: int | None = switch(None, "maximum bytes per create or upload; default: the provider's limit", 1)
    max_queued_tokens: int | None = switch(
        None, "maximum tokens of a model's open batches, if the dialect has such a limit", 1
    )
    latency: float = switch(2.0, "seconds that a batch takes; 0 ends it at the first status check", 0)
    latency_per_request: float = switch(0.0, "seconds added per request", 0)
    jitter: float = share("share by which the duration of a batch varies, seeded by batch")
    fault_attempts: int = switch(1, "number of attempts of a request that may fail; 1 means only the first", 0)
    failure_rate: float = share("share of requests that fail with a server error")
    invalid_rate: float = share("share of requests whose answer is billed but does not match the schema")
    missing_rate: float = share("share of requests that are missing from the results")
    refusal_rate: float = share("share of requests that are refused for their content, on every attempt")
    length_rate: float = share("share of requests whose answer is billed but cut off at its token limit")
    unexplained_rate: float = share("share of requests that fail without a reason")
    timeout_rate: float = share("share of requests that fail because the model took too long")
    duplicate_rate: float = share("share of result lines that are repeated, if results come in files")
    swapped_rate: float = share("share of answers with swapped ids, if the dialect can swap them")
    unmetered_rate: float = share("share of answers that are billed but lack usage")
    huge_usage_rate: float = share("share of answers billed for ten million times their tokens")
    cached_share: float = share(
        "share of an answer's input tokens that is reported as cached; if requests mark what is to be cached,"
        " the share of them that find it in the cache (0 is the dialect's usual one)"
    )
    rate_limit_every: int = every("every Nth create answers 429")
    retry_after: float = switch(1.0, "seconds to wait, as stated by a 429", 0)
    alternating: int = switch(0, "1 refuses requests in which two messages of one role follow each other", 0, 1)
    retry_header: str = switch("retry-after", f"header that states it: {', '.join(RETRY_HEADERS)}")
    should_retry: str = switch("", "x-should-retry on every error: true or false; default: no such header")
    quota_every: int = every("every Nth create answers 429 because a quota is exhausted")
    error_rate: float = share("share of calls that answer 503, or the dialect's equivalent, before anything is done")
    drop_rate: float = share("share of batches that are accepted, but the create gets no response")
    drop_every: int = every("every Nth batch is accepted, but its create gets no response")
    hold: float = switch(0.0, "seconds by which the response to an accepted create is delayed", 0)
    hold_every: int = switch(1, "delay only the response to every Nth accepted create", 1)
    hold_file: Path | None = switch(None, "delay responses to creates while this file exists")  # noqa: RUF009  # a field
    visible_after: float = switch(0.0, "seconds during which a new batch is not found", 0)
    fail_batch_every: int = every("every Nth batch fails as a whole; nothing is billed")
    expire_every: int = every("every Nth batch expires half finished")
    cut_every: int = every("every Nth answer with results breaks off in the middle")
    open_end_every: int = every("every Nth answer with results has no length and ends half way, as if it were whole")
    page_every: int = every("every Nth answer with results is the page of a proxy instead")
    bomb_every: int = every("every Nth answer with results is a megabyte that unpacks to a gigabyte")
    endless_every: int = every("every Nth download of a file goes on for ever in its last line")
    shuffled: int = switch(0, "1 has each answer with results list them in another order", 0, 1)
    odd_line_rate: float = share("share of results with half a surrogate pair and a bare NaN")
    torn_line_rate: float = share("share of lines in files that are no JSON, but name their request")
    lost_line_rate: float = share("share of results that are counted and billed, but not given")
    false_start_rate: float = share("share of results before which a failure of the same request stands")
    poison_rate: float = share("share of results whose usage no request can have")
    results_page: int | None = switch(None, "maximum results of a page, if they come in pages", 1)
    page_slips_every: int = every(
        "every Nth batch gives, once, a page of its results in the place of the next, if they come in pages"
    )
    page_skips_every: int = every("every Nth batch leaves out, once, a page of its results, if they come in pages")
    late_file: float = switch(0.0, "seconds after a batch's end before its files are named, if it has files", 0)
    file_objects: int = switch(0, "1 names files by an object instead of their id, if batches have files", 0, 1)
    without_files: int = switch(0, "1 names no file of answers that can be asked for within their batch", 0, 1)
    unknown_status_every: int = every("every Nth batch has an unknown status when it is first shown")
    state_prefix: str = switch(
        STATE_PREFIXES[0], f"prefix of states, if the dialect has {' and '.join(STATE_PREFIXES)}"
    )
    vanish_every: int = every("every Nth batch is forgotten: neither it nor its results are found once it was accepted")
    hang_every: int = every("every Nth batch never ends, and once it is to be cancelled is being cancelled for ever")
    list_refused: int = switch(0, "status with which lists are refused, such as 404; 0: they are not", 0, 499)
    list_breaks: int = switch(0, "N breaks lists off: they show N - 1 batches, promise more and never show them", 0)
    list_unmarked: int = switch(0, "1 leaves out of lists what clients attached to batches, files included", 0, 1)
    list_hides: int = switch(0, "1 shows empty lists, as for a key that made none of the batches", 0, 1)
    clock_ahead: float = switch(0.0, "seconds by which the server's clock is ahead", -1e6, 1e6)
    gone_after: float = switch(0.0, "seconds after a batch's end from which its results are gone; 0 is never", 0)

    def __post_init__(self) -> None:
        for each in fields(self):
            check_value(each, getattr(self, each.name))
        if self.dialect not in DIALECTS:
            raise ValueError(f"unknown dialect {self.dialect!r}; known dialects: {', '.join(DIALECTS)}")
        if self.retry_header not in RETRY_HEADERS:
            raise ValueError(f"retry_header must be one of {', '.join(RETRY_HEADERS)}, not {self.retry_header!r}")
        if self.should_retry not in SHOULD_RETRY:
            raise ValueError(f"should_retry must be true, false or empty, not {self.should_retry!r}")
        if self.state_prefix not in STATE_PREFIXES:
            raise ValueError(f"state_prefix must be one of {', '.join(STATE_PREFIXES)}, not {self.state_prefix!r}")
        shared = ("failure_rate", "invalid_rate", "missing_rate", "length_rate", "unexplained_rate", "timeout_rate")
        if sum(getattr(self, name) for name in shared) > 1:
            raise ValueError(f"{', '.join(shared)} affect different requests: their sum must be at most 1")

    @classmethod
    def from_mapping(cls, values: Mapping[str, str]) -> Self:
        """Options from text, as in `--option failure_rate=0.1`. Raises ValueError."""
        known = {each.name: each for each in fields(cls)}
        parsed: dict[str, Any] = {}
        for name, text in values.items():
            key = name.replace("-", "_")
            if key not in known:
                near = get_close_matches(key, known, n=1)
                raise ValueError(f"unknown option {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
            parsed[key] = parse_value(known[key], text)
        return cls(**parsed)

    def to_args(self) -> list[str]:
        """The command line for these options, without defaults."""
        return [arg for each in fields(self) for arg in self._args_of(each)]

    def _args_of(self, each: Field[Any]) -> Iterator[str]:
        value = getattr(self, each.name)
        if value != each.default:
            yield f"{flag(each)}={value}"


def flag(each: Field[Any]) -> str:
    """A field's name on the command line."""
    return "--" + each.name.replace("_", "-")


def kind(each: Field[Any]) -> type:
    """The type that a field's text is parsed to."""
    kinds: dict[Any, type] = {int: int, int | None: int, float: float, Path | None: Path}
    return kinds.get(each.type, str)


def parse_value(each: Field[Any], text: str) -> Any:
    """A field's value from text. Raises ValueError."""
    names = {int: "a whole number", float: "a number"}
    try:
        return kind(each)(text)
    except ValueError:
        raise ValueError(f"{each.name} must be {names[kind(each)]}, not {text!r}") from None


def check_value(each: Field[Any], value: Any) -> None:
    """Raises ValueError if a value has the wrong type or is outside its limits."""
    if value is None and each.default is None:
        return
    wanted = kind(each)
    if isinstance(value, bool) or not isinstance(value, (int, float) if wanted is float else wanted):
        raise ValueError(f"{each.name} must be of type {wanted.__name__}, not {value!r}")  # noqa: TRY004  # one kind of error for all
    low, high = each.metadata["low"], each.metadata["high"]
    if isinstance(value, float) and not isfinite(value):
        raise ValueError(f"{each.name} must be finite, not {value}")
    if (low is not None and value < low) or (high is not None and value > high):
        limits = f"at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{each.name} must be {limits}, not {value}")


def argument_parser(prog: str) -> argparse.ArgumentParser:
    """One option per field, all of them text: the fields' own checks follow."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        prog=prog,
        description="Speaks a provider's batch API on loopback, with switchable faults. It is not a model.",
    )
    for each in fields(EmulatorOptions):
        default = "" if each.default is None else f" (default {each.default})"
        parser.add_argument(flag(each), metavar=kind(each).__name__.upper(), help=each.metadata["help"] + default)
    parser.add_argument(
        "--attached",
        action="store_true",
        help="print the address as one line of JSON, and exit when standard input closes",
    )
    parser.add_argument("--key-on-stdin", action="store_true", help="read the key from standard input: its first line")
    return parser


def parse_args(
    args: Sequence[str] | None = None, prog: str = "python -m blocks.emulator"
) -> tuple[EmulatorOptions, bool]:
    """The options of a command line, and whether it is attached to a parent. Exits with status 2 on an error."""
    parser = argument_parser(prog)
    given = {name: value for name, value in vars(parser.parse_args(args)).items() if value is not None}
    attached = bool(given.pop("attached"))
    if given.pop("key_on_stdin"):
        given["key"] = sys.stdin.readline().removesuffix("\n")
    try:
        return EmulatorOptions.from_mapping(given), attached
    except ValueError as error:
        parser.error(str(error))

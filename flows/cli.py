"""The command line: a thin face over the flow. Mistakes are answered before Prefect is imported."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from blocks.errors import BatchwerkError, UsageError
from flows.settings import DEFAULT_BATCH_SIZE, DEFAULT_IN_FLIGHT, DEFAULT_MEMORY, DEFAULT_ROW_GROUP, PREFECT_DEFAULTS

if TYPE_CHECKING:
    from flows.report.figures import Figures

app = typer.Typer(
    name="batchwerk",
    help="Enrich Parquet files through the LLM providers' batch APIs: every row accounted for, nothing paid twice.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Input = Annotated[str, typer.Argument(metavar="INPUT", help="Parquet file to read, or a folder of them.")]
Output = Annotated[str, typer.Argument(metavar="OUTPUT", help="Parquet file to write, or a folder.")]
Job = Annotated[str, typer.Option(help="Job file: prompt, model, fields of the answer.")]
Provider = Annotated[
    str,
    typer.Option(
        help="local (the emulator), holysheep, openai, anthropic, mistral, gemini, or a saved block as type/name."
    ),
]
Model = Annotated[str | None, typer.Option(help="Instead of the job's model.")]
BaseUrl = Annotated[str | None, typer.Option(help="Instead of the provider's own address.")]
BatchSize = Annotated[str, typer.Option(metavar="N|auto", help="Requests in a batch.")]
InFlight = Annotated[int, typer.Option(metavar="N", help="Batches with the provider at once.")]
Attempts = Annotated[int, typer.Option(metavar="N", help="How often a request is sent before it is final.")]
MaxFailed = Annotated[float, typer.Option(metavar="SHARE", help="Share of rows that may fail without exit status 3.")]
PollInterval = Annotated[float | None, typer.Option(metavar="SECONDS", help="Between two looks at a batch.")]
Seconds = Annotated[
    float | None, typer.Option(metavar="SECONDS", help="Wait so long for batches, then let go; 0: not at all.")
]
GiveUp = Annotated[float | None, typer.Option(metavar="SECONDS", help="End a run whose provider fails for so long.")]
OnUnknown = Annotated[str, typer.Option(metavar="fail|resubmit", help="When nobody can tell if a batch was accepted.")]
Limit = Annotated[int | None, typer.Option(metavar="ROWS", help="Only the first rows; a later run extends them.")]
Where = Annotated[str | None, typer.Option(metavar="SQL", help="Only rows for which this condition holds.")]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Send again what had failed for good.")]
InputMoved = Annotated[bool, typer.Option("--input-moved", help="The output's input has a new path.")]
Compression = Annotated[str, typer.Option(metavar="zstd|snappy|gzip|none", help="Of the output.")]
RowGroup = Annotated[
    int, typer.Option(metavar="ROWS", help="Rows of a row group of the output; fewer where they take more than 32 MB.")
]
Memory = Annotated[str, typer.Option(metavar="SIZE", help="For sorting and joining keys; the rest goes to disk.")]
Options = Annotated[list[str] | None, typer.Option("--option", metavar="KEY=VALUE", help="What a block would set.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]


@app.command()
def run(
    input: Input,
    output: Output,
    job: Job,
    provider: Provider,
    model: Model = None,
    base_url: BaseUrl = None,
    batch_size: BatchSize = str(DEFAULT_BATCH_SIZE),
    max_in_flight: InFlight = DEFAULT_IN_FLIGHT,
    max_attempts: Attempts = 3,
    max_failed: MaxFailed = 0.0,
    wait: Seconds = None,
    give_up_after: GiveUp = None,
    on_unknown: OnUnknown = "fail",
    poll_interval: PollInterval = None,
    limit: Limit = None,
    where: Where = None,
    retry_failed: RetryFailed = False,  # a flag of the command line
    input_moved: InputMoved = False,
    compression: Compression = "zstd",
    row_group_rows: RowGroup = DEFAULT_ROW_GROUP,
    memory_limit: Memory = DEFAULT_MEMORY,
    option: Options = None,
    json: Json = False,
) -> None:
    """Enrich INPUT into OUTPUT. The same command goes on wherever it stopped."""
    parameters = _parameters(locals())
    _answer(lambda: _run(parameters, as_json=json), as_json=json)


@app.command()
def plan(
    input: Input,
    output: Output,
    job: Job,
    provider: Provider,
    model: Model = None,
    base_url: BaseUrl = None,
    batch_size: BatchSize = str(DEFAULT_BATCH_SIZE),
    max_in_flight: InFlight = DEFAULT_IN_FLIGHT,
    max_attempts: Attempts = 3,
    max_failed: MaxFailed = 0.0,
    wait: Seconds = None,
    give_up_after: GiveUp = None,
    on_unknown: OnUnknown = "fail",
    poll_interval: PollInterval = None,
    limit: Limit = None,
    where: Where = None,
    retry_failed: RetryFailed = False,
    input_moved: InputMoved = False,
    compression: Compression = "zstd",
    row_group_rows: RowGroup = DEFAULT_ROW_GROUP,
    memory_limit: Memory = DEFAULT_MEMORY,
    option: Options = None,
    json: Json = False,
) -> None:
    """Say what `run` would send and what it would cost. Sends nothing, writes nothing."""
    parameters = _parameters(locals())
    _answer(lambda: _plan(parameters, as_json=json), as_json=json)


@app.command()
def status(output: Output, json: Json = False) -> None:
    """Show where OUTPUT stands: rows, batches, cost so far."""
    _answer(lambda: _status(Path(output), as_json=json), as_json=json)


@app.command()
def cancel(output: Output, json: Json = False) -> None:
    """Cancel the batches of OUTPUT at the provider, collect what was finished and paid, publish."""
    _answer(lambda: _cancel(Path(output), as_json=json), as_json=json)


@app.command()
def report(output: Output, json: Json = False) -> None:
    """Show the report of the last run of OUTPUT."""
    _answer(lambda: _report(Path(output), as_json=json), as_json=json)


@app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def emulator(context: typer.Context) -> None:
    """Run the embedded emulator in the foreground; `--help` lists its fault switches."""
    from blocks.emulator.options import parse_args  # noqa: PLC0415
    from blocks.emulator.server import serve  # noqa: PLC0415

    options, _ = parse_args(context.args, prog="batchwerk emulator")
    serve(options)


@app.command()
def setup() -> None:
    """Register the Prefect blocks and create the concurrency limits that do not exist yet."""
    _answer(_setup)


def _parameters(given: dict[str, Any]) -> dict[str, Any]:
    """The flow's parameters from the command's."""
    rest = {name: value for name, value in given.items() if name not in {"option", "json", "batch_size"}}
    size: str = given["batch_size"]
    return {
        **rest,
        "batch_size": int(size) if size.isdecimal() else size,
        "options": dict(_option(text) for text in given["option"] or []),
    }


def _option(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign:
        _fail(UsageError(f"--option {text} has no value", next_step="write it as --option KEY=VALUE"))
    return name.strip(), value.strip()


def _answer(work: Callable[[], int], *, as_json: bool = False) -> None:
    """Exit with the status of `work`; anything that a user can cause is a sentence, never a traceback."""
    try:
        status = work()
    except BatchwerkError as error:
        _fail(error, as_json=as_json)
    except KeyboardInterrupt:
        typer.echo("stopped; the same command goes on from here", err=True)
        raise SystemExit(130) from None
    raise SystemExit(status)


_said_in_json: list[bool] = []  # whether the last line of standard output is there already


def _fail(error: BatchwerkError, *, as_json: bool = False) -> None:
    status = 2 if isinstance(error, UsageError) else 1
    typer.echo(f"batchwerk: {error}", err=True)
    if as_json:
        _said_in_json.append(True)
        typer.echo(orjson.dumps({"error": error.message, "exit": status}).decode())
    raise SystemExit(status)


def _run(parameters: dict[str, Any], *, as_json: bool) -> int:
    from flows.preflight import check  # noqa: PLC0415  # the heavy imports come when a command needs them
    from flows.settings import read_settings  # noqa: PLC0415

    check(read_settings(parameters))
    return _show(_run_flow(parameters), as_json=as_json)


def _cancel(output: Path, *, as_json: bool) -> int:
    from flows.cancel import cancel_output  # noqa: PLC0415

    _show(cancel_output(output), as_json=as_json)
    return 0


def _show(figures: Figures, *, as_json: bool) -> int:
    from flows.report.markdown import headline  # noqa: PLC0415

    typer.echo(headline(figures), err=as_json)
    if figures.message:
        typer.echo(figures.message, err=True)
    typer.echo(f"output: {figures.output}\nreport: batchwerk report {figures.output}", err=as_json)
    if as_json:
        typer.echo(orjson.dumps(figures.summary()).decode())
    return int(figures.exit)


def _run_flow(parameters: dict[str, Any]) -> Figures:
    """Run the flow in this process; returns its figures or raises what it failed with."""
    for name, value in PREFECT_DEFAULTS.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
    if sys.stderr.isatty():  # the live line is there instead
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    from flows.engine.stopping import block_interrupts  # noqa: PLC0415
    from flows.enrich import display, enrich, outcomes  # noqa: PLC0415  # Prefect takes seconds to import
    from flows.report.live import live_display  # noqa: PLC0415

    block_interrupts()
    told: list[Figures | BatchwerkError] = []
    outcomes.set(told)
    with live_display() as watcher:
        display.set(watcher)
        state = enrich(**parameters, return_state=True)
    if not told:
        raise BatchwerkError(
            f"the run ended with an error that nobody expected: {state.message}",
            next_step="the same command goes on from here; the log above has the details",
        )
    if isinstance(told[0], BatchwerkError):
        raise told[0]
    return told[0]


def _plan(parameters: dict[str, Any], *, as_json: bool) -> int:
    from flows.preflight import check  # noqa: PLC0415
    from flows.report.preview import preview  # noqa: PLC0415
    from flows.settings import read_settings  # noqa: PLC0415

    found = preview(check(read_settings(parameters)))
    if as_json:
        typer.echo(orjson.dumps(found.summary()).decode())
    else:
        typer.echo(found.text())
    return 0


def _status(output: Path, *, as_json: bool) -> int:
    from flows.report.status import read_status  # noqa: PLC0415

    found = read_status(output)
    typer.echo(orjson.dumps(found.summary()).decode() if as_json else found.text())
    return 0


def _report(output: Path, *, as_json: bool) -> int:
    from flows.storage.state import StateDirectory  # noqa: PLC0415

    place = StateDirectory(output).report("json" if as_json else "md")
    if not place.exists():
        raise UsageError(f"{output} has no report yet", next_step="`batchwerk run` writes one when it ends")
    text = place.read_text(encoding="utf-8")
    # On one line without reading it, which would round the exact sums.
    typer.echo("".join(line.strip() for line in text.splitlines()) if as_json else text.rstrip())
    return 0


def _setup() -> int:
    for name, value in PREFECT_DEFAULTS.items():
        os.environ.setdefault(name, value)
    from blocks.credentials import BLOCKS  # noqa: PLC0415
    from flows.orchestration.limits import ensure_all_limits  # noqa: PLC0415

    for block in BLOCKS.values():
        block.register_type_and_schema()
        typer.echo(f"block type {block._block_type_slug}")
    for name in ensure_all_limits():
        typer.echo(f"limits {name}")
    return 0


def main() -> None:
    """The command `batchwerk`."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # those of libraries are for developers, who ask with -W
    try:
        app()
    except SystemExit as error:
        if error.code == 2 and "--json" in sys.argv and not _said_in_json:
            typer.echo(orjson.dumps({"error": "the command line is not right", "exit": 2}).decode())
        raise

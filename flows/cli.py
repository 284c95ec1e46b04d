"""The command line: a thin layer over the flow. Usage errors are reported before Prefect is imported."""

from __future__ import annotations

import inspect
import os
import sys
import warnings
import webbrowser
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import orjson
import typer

from blocks.errors import BatchwerkError, Busy, UsageError
from blocks.printable import printable, printable_lines
from blocks.trusted_hosts import keep_loopback_direct
from flows.accounts.commands import add_commands
from flows.settings import PREFECT_DEFAULTS, Settings, cli_of, default_of, option_name, read_settings, show_default

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from flows.preflight import RunConfig
    from flows.report.figures import Figures
    from flows.report.progress import Watcher

INTERRUPTED = 130  # exit status after Ctrl-C
LONGEST_PATH = 4_096  # characters, as the system has it

app = typer.Typer(
    name="batchwerk",
    help="Enrich Parquet files through the LLM providers' batch APIs: every row accounted for, nothing paid twice.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Output = Annotated[str, typer.Argument(metavar="OUTPUT", help="The OUTPUT that was given to `run`.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
Compare = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PROVIDER:MODEL", help="Show what another model would take and cost beside it; may be repeated."
    ),
]
OWN_OPTIONS = {"compare", "json"}  # that a command has beside the settings
Command = Callable[..., int]


def takes_settings(command: Command) -> Command:
    """Give a command an argument or option for each field of `Settings`, before its own.

    All values but flags arrive as text: `Settings` is the one place that checks them.
    """
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter(name, keyword, default=_cli_default(field), annotation=_cli_annotation(name, field))
        for name, field in Settings.model_fields.items()
    ]
    own = [each for each in inspect.signature(command, eval_str=True).parameters.values() if each.name in OWN_OPTIONS]
    command.__signature__ = inspect.Signature([*parameters, *own])  # type: ignore[attr-defined]  # typer reads it
    return command


def _cli_default(field: FieldInfo) -> Any:
    if field.is_required() or field.annotation is bool:
        return default_of(field)
    return show_default(field) or None


def _cli_annotation(name: str, field: FieldInfo) -> Any:
    cli, choices = cli_of(field), get_args(field.annotation)
    metavar = cli.metavar or ("|".join(choices) if all(isinstance(choice, str) for choice in choices) else None)
    if cli.positional:
        return Annotated[str, typer.Argument(metavar=metavar, help=field.description)]
    option = typer.Option(option_name(name), metavar=metavar or None, help=field.description)
    if field.annotation is bool:
        return Annotated[bool, option]
    if cli.option:
        return Annotated[list[str] | None, option]
    return Annotated[str, option] if field.is_required() else Annotated[str | None, option]


def _read_options(given: Mapping[str, Any]) -> Settings:
    """Validated settings from the values of a command's options."""
    parameters = {name: value for name, value in given.items() if value is not None}
    lists = {name: values for name, values in parameters.items() if isinstance(values, list)}
    return read_settings({**parameters, **{name: _pairs(option_name(name), lists[name]) for name in lists}})


def _pairs(option: str, given: list[str]) -> dict[str, str]:
    """What is given as `NAME=VALUE`, several times."""
    pairs = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not sign:
            raise UsageError(f"{option} {text} has no value", next_step=f"write it as {option} NAME=VALUE")
        pairs[name.strip()] = value.strip()
    return pairs


@app.command()
@takes_settings
def run(*, json: Json = False, **given: Any) -> int:
    """Enrich INPUT into OUTPUT. Run the same command again to continue after an interruption."""
    from flows.preflight import check  # noqa: PLC0415  # heavy imports only when a command needs them

    settings = _read_options(given)
    return _show(_run_flow(check(settings, typed_url=settings.base_url)), as_json=json)


@app.command()
@takes_settings
def plan(*, compare: Compare = None, json: Json = False, **given: Any) -> int:
    """Show what `run` would send and what it would cost. Sends nothing, writes nothing, except with --sample."""
    from flows.preflight import check  # noqa: PLC0415
    from flows.report import comparison  # noqa: PLC0415
    from flows.report.preview import planning, preview_of  # noqa: PLC0415

    settings = _read_options(given)
    config = check(settings, typed_url=settings.base_url, needs_key=settings.sample is not None)
    if settings.sample is not None:
        if compare:
            raise UsageError("a sample asks one model alone", next_step="give --compare without --sample")
        return _show_sample(config, as_json=json)
    with planning(config) as planned:
        found = preview_of(planned)
        others = comparison.compare(planned, found, compare) if compare else []
    if json:
        compared = {"compared": [each.summary() for each in others]} if others else {}
        _echo(orjson.dumps({**found.summary(), **compared}).decode())
    else:
        _echo("\n\n".join([found.text(), *([comparison.comparison_text(others)] if others else [])]))
    return 0


@app.command()
def status(output: Output, json: Json = False) -> int:
    """Show the state of OUTPUT: rows, batches, cost so far."""
    from flows.report.status import read_status  # noqa: PLC0415

    found = read_status(Path(output))
    _echo(orjson.dumps(found.summary()).decode() if json else found.text())
    return 0


@app.command()
def cancel(
    output: Output,
    wait: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="Seconds to wait for cancelled batches to end.")
    ] = 900.0,
    state_moved: Annotated[bool, typer.Option("--state-moved", help="As for `run`.")] = False,  # typer's way
    json: Json = False,
) -> int:
    """Cancel the batches of OUTPUT at their providers, collect what is finished and paid for, and publish.

    The state directory is enough for it; exit status 1 if a batch may still run.
    """
    from flows.cancel import cancel_output  # noqa: PLC0415
    from flows.report.verdict import Exit  # noqa: PLC0415

    found = cancel_output(Path(output), moved=state_moved, wait=wait, say=partial(_echo, err=True))
    if found.figures is not None:
        return _show(replace(found.figures, exit=Exit(found.exit)), as_json=json)
    for why in [*found.left.values(), f"{output} was not published: {found.unpublished}"]:
        _echo(why, err=True)
    if json:
        _echo(orjson.dumps({"message": found.unpublished, "exit": found.exit}).decode())
    return found.exit


@app.command()
def harvest(
    output: Output,
    wait: Annotated[float, typer.Option(metavar="SECONDS", min=0, help="Seconds to wait for batches.")] = 0.0,
    json: Json = False,
) -> int:
    """Collect what earlier runs of OUTPUT left with its provider, and repeat what failed; plans nothing new."""
    from flows.preflight import harvest_config  # noqa: PLC0415

    place = Path(output)
    harvest_config(place, wait)  # a mistake is reported before Prefect starts
    try:
        figures = _in_flow(partial(_harvest_flow, place, wait))
    except Busy as error:  # whoever holds it collects
        _echo(f"nothing to do here: {error.message}", err=json)
        if json:
            _echo(orjson.dumps({"message": error.message, "exit": 0}).decode())
        return 0
    return _show(figures, as_json=json)


@app.command()
def report(
    output: Output,
    open_page: Annotated[bool, typer.Option("--open", help="Open it as a page in the browser.")] = False,
    json: Json = False,
) -> int:
    """Show the report of the last run of OUTPUT."""
    from flows.report.files import draw_page  # noqa: PLC0415
    from flows.storage.state import StateDirectory  # noqa: PLC0415

    state = StateDirectory(Path(output))
    place = state.report("json" if json else "md")
    if not place.exists():
        raise UsageError(f"{output} has no report yet", next_step="`batchwerk run` writes one when it ends")
    if open_page:
        drawn = draw_page(state)
        opened = webbrowser.open(drawn.resolve().as_uri())
        _echo(f"{'page' if opened else 'no browser was found; the page is'}: {printable(str(drawn), LONGEST_PATH)}")
        return 0
    text = place.read_text(encoding="utf-8")
    # Joined without parsing, which would round the exact sums.
    _echo("".join(line.strip() for line in text.split("\n")) if json else text.rstrip())
    return 0


@app.command()
def history(output: Output, json: Json = False) -> int:
    """List the runs of OUTPUT: rows, requests, cost and time of each."""
    from flows.report.history import history_of, history_text, runs_as_json  # noqa: PLC0415

    found = history_of(Path(output))
    runs = {"runs": runs_as_json(found), "exit": 0}
    _echo(orjson.dumps(runs).decode() if json else history_text(found))
    return 0


@app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def emulator(context: typer.Context) -> None:
    """Run the embedded emulator in the foreground; `--help` lists its fault switches."""
    from blocks.emulator.options import parse_args  # noqa: PLC0415
    from blocks.emulator.server import serve  # noqa: PLC0415

    options, _ = parse_args(context.args, prog="batchwerk emulator")
    serve(options)


@app.command()
def setup() -> int:
    """Register the Prefect blocks and create the concurrency limits that do not exist yet."""
    _set_prefect_defaults()
    from blocks.credentials import block_types  # noqa: PLC0415
    from flows.orchestration.limits import ensure_all_limits  # noqa: PLC0415
    from flows.orchestration.server import explaining_absence  # noqa: PLC0415

    with explaining_absence():
        for block in block_types():
            block.register_type_and_schema()
            _echo(f"block type {block._block_type_slug}")
        for name in ensure_all_limits():
            _echo(f"limits {name}")
    return 0


@app.command()
def doctor(
    output: Annotated[
        str | None, typer.Argument(metavar="[OUTPUT]", help="An output whose folder, state and model are checked too.")
    ] = None,
    free_slots: Annotated[
        bool, typer.Option("--free-slots", help="Give back slots of Prefect's limits that nobody holds.")
    ] = False,
    json: Json = False,
) -> int:
    """Check disk, locks, keys, prices, clock and Prefect's server, and say what to do. Sends no request to a model."""
    _set_prefect_defaults()
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")  # findings say it
    from flows.checks.check import exit_status, summary  # noqa: PLC0415
    from flows.checks.doctor import examine  # noqa: PLC0415

    findings = []
    for finding in examine(Path(output) if output else None, partial(_echo, err=True), free_slots=free_slots):
        findings.append(finding)
        _echo(finding.line(), err=json)
    if json:
        _echo(orjson.dumps(summary(findings)).decode())
    return exit_status(findings)


add_commands(app)


def _echo(text: str, *, err: bool = False) -> None:
    """Print what may quote rows, providers, file names or the files of a state directory."""
    typer.echo(printable_lines(text), err=err)


def _set_prefect_defaults() -> None:
    for name, value in PREFECT_DEFAULTS.items():
        os.environ.setdefault(name, value)
    keep_loopback_direct()  # Prefect's temporary server is on this machine


def _harvest_flow(output: Path, wait: float, display: Watcher) -> Figures:
    from flows.enrich import harvest_as_flow  # noqa: PLC0415

    return harvest_as_flow(output, wait, display)


def _run_flow(config: RunConfig) -> Figures:
    def work(display: Watcher) -> Figures:
        from flows.enrich import run_as_flow  # noqa: PLC0415  # Prefect takes seconds to import

        return run_as_flow(config, display)

    return _in_flow(work)


def _in_flow(work: Callable[[Watcher], Figures]) -> Figures:
    """Run a flow in this process, with a live line on a terminal."""
    _set_prefect_defaults()
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
    if sys.stderr.isatty():  # the live line replaces it
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    from flows.engine.stopping import block_interrupts  # noqa: PLC0415
    from flows.report.live import live_display  # noqa: PLC0415

    block_interrupts()
    with live_display() as display:
        return work(display)


def _show(figures: Figures, *, as_json: bool) -> int:
    from flows.report.markdown import headline  # noqa: PLC0415

    _echo(headline(figures), err=as_json)
    if figures.message:
        _echo(figures.message, err=True)
    output = printable(figures.output, LONGEST_PATH)
    _echo(f"output: {output}\nreport: batchwerk report {output}", err=as_json)
    if as_json:
        _echo(orjson.dumps(figures.summary()).decode())
    return int(figures.exit)


def _show_sample(config: RunConfig, *, as_json: bool) -> int:
    """Send a sample, and say what it says of all rows."""
    from flows.report.sample import sample_text  # noqa: PLC0415

    figures = _run_flow(config)
    if figures.sample is not None:
        _echo(sample_text(figures, figures.sample), err=as_json)
    if figures.exit:
        _echo(figures.message, err=True)
    if as_json:
        _echo(orjson.dumps(figures.summary()).decode())
    return int(figures.exit)


def main() -> None:
    """The command `batchwerk`."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # warnings of libraries are for developers, who can use -W
    raise SystemExit(call(sys.argv[1:]))


def call(arguments: list[str]) -> int:
    """Run a command; returns its exit status. Errors that a user can cause are a sentence, never a traceback."""
    as_json = "--json" in arguments  # an error in the arguments may be raised before typer has read them all
    try:
        status = int(app(arguments, prog_name="batchwerk", standalone_mode=False) or 0)
    except BatchwerkError as error:
        return _fail(error, 2 if isinstance(error, UsageError) else 1, as_json=as_json)
    except typer.TyperException as error:
        if not arguments:  # the message is the help text
            _echo(error.format_message(), err=True)
            return 2
        return _fail(_usage_error(error), 2, as_json=as_json)
    if status == INTERRUPTED:  # how typer reports KeyboardInterrupt
        _echo("stopped; run the same command again to continue", err=True)
    return status


def _usage_error(error: typer.TyperException) -> UsageError:
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "batchwerk"
    return UsageError(error.format_message().rstrip("."), next_step=f"see `{path} --help`")


def _fail(error: BatchwerkError, status: int, *, as_json: bool) -> int:
    _echo(f"batchwerk: {error}", err=True)
    if as_json:
        _echo(orjson.dumps({"error": error.message, "exit": status}).decode())
    return status

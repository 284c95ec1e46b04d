"""Checks before anything is started, so that a mistake is reported within a second.

Nothing here imports Prefect, calls a provider or writes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from blocks.connections import connection_for, key_options
from blocks.errors import UsageError
from blocks.printable import SHORT, counted, printable, some_names
from flows.domain.job import Job, parse_job
from flows.domain.money import show_usd
from flows.domain.price_rows import PriceRow
from flows.domain.prices import names_of
from flows.domain.prompts import SHOWN_COLUMNS, Prompt
from flows.domain.replacing import Asked, what_replaces
from flows.domain.schema import OutputSchema
from flows.settings import Settings, command_line, read_settings
from flows.spec import Spec
from flows.storage.output import OK, STATUS_COLUMNS, OutputLayout
from flows.storage.place import check_place
from flows.storage.plan import Question
from flows.storage.price_files import read_price_file
from flows.storage.results import answer_type
from flows.storage.roots import check_inside
from flows.storage.small_files import read_small_file
from flows.storage.source import Source, identity_of
from flows.storage.state import StateDirectory, check_belongs
from flows.storage.where import check_condition


@dataclass(frozen=True)
class RunConfig:
    """The checked configuration of a run: settings, input, job and connection."""

    settings: Settings
    spec: Spec
    question: Question
    layout: OutputLayout
    state: StateDirectory
    typed_url: str | None = None  # the address that a person typed on a shell

    @property
    def asked(self) -> Asked:
        """What the output is asked for, without its rows."""
        question, connection = self.question, self.spec.connection
        return Asked(
            digest=question.digest.hex(),
            job=self.spec.job.name,
            model=self.spec.model,
            endpoint=connection.endpoint,
            emulated=connection.emulated,
            skip_empty=question.skip_empty,
            where=question.where,
            limit=question.limit,
        )

    def command(self, **changes: Any) -> str:
        """The command that continues this output, with other values of its parameters."""
        return command_line(self.settings, **changes)

    @property
    def gold(self) -> dict[str, str]:
        """Fields of the answer, and the columns that people filled for them."""
        return gold_columns(self.settings, self.spec.job)

    @property
    def source(self) -> Source:
        """The input."""
        return self.question.source


def check(settings: Settings, *, typed_url: str | None = None, needs_key: bool = True) -> RunConfig:
    """Check input, job, columns, provider, key and paths. Raises UsageError for the first problem.

    `needs_key`: false if nothing will be sent.
    `typed_url`: an address that a person typed on a shell, beside the key: it needs no other permission to have that.
    """
    check_inside(path for path in (settings.job, settings.input, settings.output, settings.prices) if path is not None)
    negotiated = () if settings.prices is None else tuple(read_price_file(settings.prices))
    return _checked(settings, _read_job(settings.job), negotiated, typed_url, needs_key=needs_key)


def last_config(output: Path, **changes: Any) -> RunConfig:
    """What the output's newest run was asked for, by its state directory: job and prices may have changed since.

    `changes`: other values of its parameters. Raises UsageError if there was no run.
    """
    check_inside([output])
    state = StateDirectory(output)
    run = state.read_run()
    if run is None:
        raise UsageError(f"{output} was not written by Batchwerk", next_step="pass the OUTPUT that was given to `run`")
    settings = read_settings({**state.last_settings(), "input": run["input"], "output": output, **changes})
    last = Spec.from_content(state.last_spec())
    return _checked(settings, last.job, last.negotiated)


def harvest_config(output: Path, wait: float) -> RunConfig:
    """The output's last settings, without what the user said for one run alone: to retry all, perhaps to pay twice."""
    once = {"retry_failed": False, "on_unknown": "fail", "abandon_after": None, "sample": None}
    return last_config(output, wait=wait, **once)


def _checked(
    settings: Settings,
    job: Job,
    negotiated: tuple[PriceRow, ...],
    typed_url: str | None = None,
    *,
    needs_key: bool = True,
) -> RunConfig:
    schema = OutputSchema(job.output)
    source = Source.open(settings.input)
    check_inside(file.path for file in source.files)
    prompt = Prompt(job.prompt, source.schema.names)
    _check_columns(job, schema, source)
    source.check_columns([*prompt.columns, *job.skip_empty])
    connection = connection_for(
        settings.provider, settings.base_url, settings.options, typed_url=typed_url, needs_key=needs_key
    )
    model = settings.model or job.model
    mine = [row for row in negotiated if row.provider == connection.provider and row.model in names_of(model)]
    spec = Spec(job, model, connection, tuple(mine))
    shown_model = f"emulated:{spec.model}" if connection.emulated else spec.model
    layout = OutputLayout(schema, job.rename, shown_model, settings.compression, settings.row_group_rows)
    _check_new_columns(source, layout)
    state = StateDirectory(settings.output)
    _check_output(settings, source, state)
    if settings.where is not None:
        check_condition(source, settings.where)
    question = Question(
        source=source,
        prompt=prompt,
        digest=job.digest(spec.form, connection.endpoint, key_options(connection)),
        codec=spec.codec,
        vocabulary=spec.vocabulary,
        skip_empty=job.skip_empty,
        max_request_bytes=spec.limits.max_request_bytes,
        limit=settings.limit,
        where=settings.where,
    )
    _check_budget(settings, spec)
    _check_gold(gold_columns(settings, job), schema, source)
    config = RunConfig(settings, spec, question, layout, state, typed_url)
    check_replacing(config)
    return config


def gold_columns(settings: Settings, job: Job) -> dict[str, str]:
    """Those of the job file; what the command says about a field wins."""
    return {**job.gold, **{answer: column for column, answer in settings.gold.items()}}


def _check_gold(gold: Mapping[str, str], schema: OutputSchema, source: Source) -> None:
    fields = {each.name: each.type for each in answer_type(schema)}
    for answer, column in gold.items():
        if answer not in fields:
            raise UsageError(
                f"`gold` names a field {printable(answer, SHORT)!r} that answers do not have",
                next_step=f"they have {some_names(list(fields), SHOWN_COLUMNS)}; write --gold COLUMN=FIELD",
            )
        if pa.types.is_nested(fields[answer]):
            raise UsageError(
                f"the field {answer!r} is a list or an object, which has no gold column",
                next_step="compare fields that are texts, numbers or booleans",
            )
        if not all(column in file.schema.names for file in source.files):
            raise UsageError(
                f"the gold column {printable(column, SHORT)!r} is not in the input, or not in each of its files",
                next_step=f"the input has {some_names(source.schema.names, SHOWN_COLUMNS)}; write --gold COLUMN=FIELD",
            )


def _check_budget(settings: Settings, spec: Spec) -> None:
    """A budget holds only if the most that a request can cost is known."""
    if settings.budget_name is not None and settings.monthly_budget is None:
        raise UsageError(
            "a name for a budget needs the budget", next_step="add --monthly-budget USD, or leave --budget-name out"
        )
    if settings.budget is None and settings.monthly_budget is None:
        return
    if spec.price_on(datetime.now(UTC).date()).rates(0) is None:
        raise UsageError(
            f"the model {printable(spec.model, SHORT)!r} has no price, so a budget can't be kept",
            next_step="choose a model of the price table, or leave --budget out",
        )
    if spec.form.max_output_tokens is None:
        raise UsageError(
            "a budget needs a limit of how long an answer can be",
            next_step="add `max_output_tokens: 500`, or what suits the answers, to the job file",
        )


def check_replacing(config: RunConfig) -> None:
    """Raises UsageError if paid answers in the output would be replaced without `--replace`."""
    published = config.state.last_published()
    if config.settings.replace or "asked" not in published:
        return
    before, statuses = Asked(**published["asked"]), published.get("statuses")
    if before.emulated or (statuses is not None and not statuses.get(OK)):
        return
    rows = config.source.rows if statuses is None else min(sum(statuses.values()), config.source.rows)
    change = what_replaces(before, config.asked, rows)
    if not change:
        return
    answers = "paid answers" if statuses is None else f"{counted(statuses[OK], 'row')} with paid answers"
    cost = f", {show_usd(published['cost_pico_usd'])} in all" if "cost_pico_usd" in published else ""
    raise UsageError(
        f"{config.settings.output} holds {answers} ({before.job} with {before.model}, {before.endpoint}{cost}), "
        f"and this run would replace them: it {change}",
        next_step="choose another output; or add --replace: what was paid stays in the state folder, and the earlier "
        "command brings it back without paying again",
    )


def _read_job(path: Path) -> Job:
    if not path.exists():
        raise UsageError(f"the job file {path} does not exist", next_step="see data/jobs for examples")
    return parse_job(read_small_file(path, "the job file"), path.name)


def _check_columns(job: Job, schema: OutputSchema, source: Source) -> None:
    names = source.schema.names
    for name in job.skip_empty:
        if name not in names:
            raise UsageError(
                f"`skip_empty` names a column {printable(name, SHORT)!r} that the input does not have",
                next_step=f"it has {some_names(names, SHOWN_COLUMNS)}",
            )
    for name in job.rename:
        if name not in schema.fields and not name.startswith("_"):
            raise UsageError(f"`rename` names an output column {printable(name, SHORT)!r} that the job does not have")


def _check_new_columns(source: Source, layout: OutputLayout) -> None:
    ours = {layout.rename.get(name, name): name for name in [*layout.schema.fields, *STATUS_COLUMNS]}
    for columns in dict.fromkeys((*file.schema.names, *file.partition) for file in source.files):
        for name, old in ours.items():
            if name in columns:
                raise UsageError(
                    f"the input already has a column {name!r}",
                    next_step=f"choose another name in the job file, for example `rename: {{{old}: new_{name}}}`",
                )
    new = [layout.rename.get(name, name) for name in [*layout.schema.fields, *STATUS_COLUMNS]]
    for name in new:
        if new.count(name) > 1:
            raise UsageError(f"two output columns are named {name!r}", next_step="`rename` one of them in the job file")


def _check_output(settings: Settings, source: Source, state: StateDirectory) -> None:
    output = settings.output
    _check_apart(source, output)
    run = state.read_run()
    if run is not None:
        check_belongs(run, source.path, output, input_moved=settings.input_moved)
        check_place(state, moved=settings.state_moved)  # before the output is compared with what an old copy knows
        _check_ours(source, output, state)
    elif output.exists() and not (source.is_folder and output.is_dir() and not any(output.iterdir())):
        raise UsageError(
            f"{output} exists and was not written by Batchwerk, or its state folder {state.path.name} is gone",
            next_step="put the folder back, or choose another output",
        )
    _check_writable(output)


def _check_apart(source: Source, output: Path) -> None:
    """The output mirrors the input, file for file or folder for folder, and lies outside of it."""
    into, out_of = output.resolve(), source.path.resolve()
    if into == out_of:
        raise UsageError(f"the output {output} is the input itself", next_step="choose another output path")
    folders = {out_of, *(file.path.parent.resolve() for file in source.files)}  # the others are behind links
    if source.is_folder and any(into.is_relative_to(each) or each.is_relative_to(into) for each in folders):
        raise UsageError(
            f"one of output {output} and input {source.path} lies inside the other",
            next_step="choose an output outside of it",
        )
    if source.is_folder and output.is_file():
        raise UsageError(f"the input is a folder, but the output {output} is a file", next_step="give a folder")
    if not source.is_folder and output.is_dir():
        raise UsageError(f"the output {output} is a folder", next_step="choose a .parquet file inside it")


def _check_ours(source: Source, output: Path, state: StateDirectory) -> None:
    """Refuse to overwrite an output that somebody else changed or replaced."""
    written = state.written()
    for file in source.files:
        place = output / file.name if source.is_folder else output
        if place.exists() and identity_of(place) not in written.get(file.name, ()):
            raise UsageError(
                f"{place} has changed since Batchwerk wrote it, and would be overwritten",
                next_step="move it away, then run the same command again: nothing is paid for twice",
            )


def _check_writable(output: Path) -> None:
    folder = output.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{output} can't be written: {folder} is not a writable folder")

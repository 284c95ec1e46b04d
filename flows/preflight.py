"""Checks before anything is started, so that a mistake is reported within a second.

Nothing here imports Prefect, calls a provider or writes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from blocks.connections import connection_for, key_options
from blocks.errors import UsageError
from flows.domain.job import Job, parse_job
from flows.domain.prompts import Prompt
from flows.domain.schema import OutputSchema
from flows.settings import Settings
from flows.spec import Spec
from flows.storage.output import STATUS_COLUMNS, OutputLayout
from flows.storage.plan import Question
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

    @property
    def source(self) -> Source:
        """The input."""
        return self.question.source


def check(settings: Settings) -> RunConfig:
    """Check input, job, columns, provider, key and paths. Raises UsageError for the first problem."""
    job = _read_job(settings.job)
    schema = OutputSchema(job.output)
    source = Source.open(settings.input)
    prompt = Prompt(job.prompt, source.schema.names)
    _check_columns(job, schema, source)
    source.check_columns([*prompt.columns, *job.skip_empty])
    connection = connection_for(settings.provider, settings.base_url, settings.options)
    spec = Spec(job, settings.model or job.model, connection)
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
        skip_empty=job.skip_empty,
        max_request_bytes=spec.limits.max_request_bytes,
        limit=settings.limit,
        where=settings.where,
    )
    return RunConfig(settings, spec, question, layout, state)


def _read_job(path: Path) -> Job:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"the job file {path} does not exist", next_step="see data/jobs for examples") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the job file {path} can't be read: {error}") from error
    return parse_job(text, path.name)


def _check_columns(job: Job, schema: OutputSchema, source: Source) -> None:
    names = source.schema.names
    for name in job.skip_empty:
        if name not in names:
            raise UsageError(
                f"`skip_empty` names a column {name!r} that the input does not have",
                next_step=f"it has {', '.join(names)}",
            )
    for name in job.rename:
        if name not in schema.fields and not name.startswith("_"):
            raise UsageError(f"`rename` names an output column {name!r} that the job does not have")


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
    if source.is_folder and (into.is_relative_to(out_of) or out_of.is_relative_to(into)):
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

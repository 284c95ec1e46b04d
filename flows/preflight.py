"""Everything that can be known to be wrong before anything is started: a mistake is answered within a second.

Nothing here imports Prefect, calls a provider or writes.
"""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import orjson

from blocks.batch import BatchFormat, Connection, Limits, RequestForm
from blocks.catalog import connection_for, format_for, limits_for
from blocks.errors import UsageError
from flows.domain.job import Job, parse_job
from flows.domain.money import ModelPrice, read_prices
from flows.domain.prompts import Prompt
from flows.domain.schema import OutputSchema
from flows.settings import Settings
from flows.storage.plan import Question, selected_rows
from flows.storage.publish import Publication, output_schema
from flows.storage.source import Source
from flows.storage.state import StateDirectory, check_belongs


@dataclass(frozen=True)
class Checked:
    """A run whose parts were all found right."""

    settings: Settings
    job: Job
    schema: OutputSchema
    schema_id: str
    form: RequestForm
    format: BatchFormat
    connection: Connection
    limits: Limits
    price: ModelPrice | None
    question: Question
    publication: Publication
    state: StateDirectory

    @property
    def source(self) -> Source:
        """The input."""
        return self.question.source

    @property
    def spec(self) -> str:
        """Fingerprint of what batches of this run are sent under."""
        return blake2b(orjson.dumps(self.spec_content()), digest_size=8).hexdigest()

    def spec_content(self) -> dict[str, object]:
        """What a batch was sent under, without secrets."""
        return {
            "job": self.job.model_dump(mode="json"),
            "model": self.form.model,
            "provider": self.connection.provider,
            "base_url": self.connection.base_url,
            "endpoint": self.connection.endpoint,
            "block": self.connection.block,
            "options": dict(self.connection.options),
            "schema_id": self.schema_id,
        }


def check(settings: Settings) -> Checked:
    """Look at input, job, columns, provider, key and paths. Raises UsageError for the first thing that is wrong."""
    job = _read_job(settings.job)
    schema = OutputSchema(job.output)
    source = Source.open(settings.input)
    prompt = Prompt(job.prompt, source.schema.names)
    _check_columns(job, schema, source)
    connection = connection_for(settings.provider, settings.base_url, settings.options)
    limits = limits_for(connection)
    form = job.form(schema, settings.model or job.model)
    publication = Publication(schema, job.rename, f"emulated:{form.model}" if connection.emulated else form.model)
    _check_new_columns(source, publication)
    state = StateDirectory(settings.output)
    _check_output(settings, state)
    question = Question(
        source=source,
        prompt=prompt,
        digest=job.digest(form, connection.endpoint),
        format=format_for(connection, form),
        skip_empty=job.skip_empty,
        max_request_bytes=limits.max_request_bytes,
        limit=settings.limit,
        where=settings.where,
    )
    if settings.where is not None:
        selected_rows(source, settings.where, only_check=True)
    return Checked(
        settings=settings,
        job=job,
        schema=schema,
        schema_id=blake2b(orjson.dumps(schema.schema), digest_size=6).hexdigest(),
        form=form,
        format=question.format,
        connection=connection,
        limits=limits,
        price=price_table().get((connection.provider, form.model)),
        question=question,
        publication=publication,
        state=state,
    )


def price_table() -> dict[tuple[str, str], ModelPrice]:
    """The price table: in `data/` of a checkout, inside the package when installed from a wheel."""
    here = Path(__file__).parent
    places = [here.parent / "data" / "prices.csv", here / "prices.csv"]
    place = next(place for place in places if place.exists())
    with place.open(newline="", encoding="utf-8") as file:
        return read_prices(csv.DictReader(file))


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


def _check_new_columns(source: Source, publication: Publication) -> None:
    new = output_schema(source.schema, publication).names[len(source.schema.names) :]
    for name in new:
        if name in source.schema.names:
            raise UsageError(
                f"the input already has a column {name!r}",
                next_step=f"give ours another name in the job file, for example `rename: {{{name}: new_{name}}}`",
            )
        if new.count(name) > 1:
            raise UsageError(
                f"two output columns are called {name!r}", next_step="`rename` one of them in the job file"
            )


def _check_output(settings: Settings, state: StateDirectory) -> None:
    source, output = settings.input, settings.output
    if output.resolve() == source.resolve():
        raise UsageError(f"the output {output} is the input itself", next_step="write to another file")
    if output.is_dir():
        raise UsageError(f"the output {output} is a folder", next_step="name a .parquet file inside it")
    run = state.read_run()
    if run is not None:
        check_belongs(run, source, output, input_moved=settings.input_moved)
    elif output.exists():
        raise UsageError(
            f"{output} exists and was not written by Batchwerk",
            next_step="choose another output, or move that file away",
        )
    _check_writable(output)


def _check_writable(output: Path) -> None:
    folder = output.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{output} can't be written: {folder} is not a folder that you may write to")

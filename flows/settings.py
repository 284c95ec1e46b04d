"""The parameters of a run, declared once in `Settings`: command line, flow, form and documentation derive from it."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic.fields import FieldInfo

from blocks.catalog import option_help, provider_help
from blocks.errors import UsageError

# Environment variables to set before Prefect is imported; `[tool.prefect]` in pyproject.toml gives the reasons.
PREFECT_DEFAULTS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "batchwerk",
    "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": "http://127.0.0.1:4200,http://localhost:4200",
    "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "true",
}


@dataclass(frozen=True)
class Cli:
    """How a parameter looks on the command line, where its name and type do not say so."""

    metavar: str | None = None
    positional: bool = False
    option: str | None = None  # instead of the name with hyphens
    values: str | None = None  # description of the allowed values, if the type does not say


def _as_text(value: object) -> object:
    """A form and `-p options='{"latency": 5}'` send JSON, the command line and blocks have text."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if isinstance(value, int | float) else value


Place = Annotated[Path, WithJsonSchema({"type": "string"})]
Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
# As a constant, the form could not be switched back to it.
Auto = Annotated[Literal["auto"], WithJsonSchema({"type": "string", "enum": ["auto"]})]
OptionValue = Annotated[
    str,
    BeforeValidator(_as_text),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "number"}, {"type": "boolean"}]}),
]


class Settings(BaseModel):
    """The parameters of one run. Their order is that of the form and of `--help`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: Annotated[Place, Cli("INPUT", positional=True)] = Field(
        description="Parquet file to read, or a folder of Parquet files."
    )
    output: Annotated[Place, Cli("OUTPUT", positional=True)] = Field(
        description="Parquet file to write, or a folder if the input is one. An existing output is continued."
    )
    job: Annotated[Place, Cli("FILE")] = Field(
        description="Job file (YAML) with the prompt, the model and the answer's fields."
    )
    provider: Annotated[str, Cli("NAME")] = Field(description=provider_help())
    model: Annotated[Text | None, Cli("NAME")] = Field(
        default=None, description="Model to use instead of the one in the job file."
    )
    base_url: Annotated[str | None, Cli("URL")] = Field(
        default=None, description="Base URL to use instead of the provider's default."
    )
    prices: Annotated[Place | None, Cli("FILE")] = Field(
        default=None,
        description="CSV file of negotiated prices, with the columns of data/prices.csv; they win over the table's.",
    )
    batch_size: Annotated[Count | Auto, Cli("N|auto")] = Field(
        default=5_000,
        description="Requests per batch; auto adapts the size to how quickly batches finish.",
    )
    max_in_flight: Annotated[Count, Cli("N")] = Field(
        default=50, description="Maximum number of batches with the provider at once."
    )
    max_attempts: Annotated[Count, Cli("N")] = Field(
        default=3, description="Maximum number of attempts per request before its failure is final."
    )
    max_failed: Annotated[float, Cli("SHARE")] = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of rows that may fail before the run ends with exit status 3 (state RowsFailed).",
    )
    budget: Annotated[Annotated[float, Field(gt=0, allow_inf_nan=False)] | None, Cli("USD")] = Field(
        default=None,
        description="Stop sending before this run could cost more than this many dollars: exit status 5, state "
        "BudgetReached. Needs a model with a price and a job with max_output_tokens. Default: no limit.",
    )
    monthly_budget: Annotated[Annotated[float, Field(gt=0, allow_inf_nan=False)] | None, Cli("USD")] = Field(
        default=None,
        description="The same for all runs of this output in a calendar month (UTC), or of all outputs with the same "
        "--budget-name. Default: no limit.",
    )
    budget_name: Annotated[
        Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")] | None,
        Cli("NAME", values="letters, digits, dots, dashes"),
    ] = Field(
        default=None,
        description="Name under which outputs share a monthly budget; their sums are kept in the folder "
        "BATCHWERK_BUDGETS, by default ~/.batchwerk/budgets.",
    )
    wait: Annotated[Seconds | None, Cli("SECONDS")] = Field(
        default=None,
        description="Seconds to wait for batches, which stay with the provider; 0: do not wait. Default: wait for all.",
    )
    give_up_after: Annotated[Seconds | None, Cli("SECONDS")] = Field(
        default=None,
        description="Stop the run after the provider has failed for this many seconds without a break. "
        "Default: keep trying.",
    )
    on_unknown: Literal["fail", "resubmit"] = Field(
        default="fail",
        description="What to do with a batch when it can't be determined whether the provider accepted it: "
        "leave it (fail), or send it again and perhaps pay twice (resubmit).",
    )
    abandon_after: Annotated[Seconds | None, Cli("SECONDS")] = Field(
        default=None,
        description="Give up batches that have not ended so many seconds after they were sent: their rows fail, what "
        "they cost stays unknown, and late answers are still taken. Default: never.",
    )
    poll_interval: Annotated[
        Annotated[float, Field(gt=0, allow_inf_nan=False)] | None,
        Cli("SECONDS"),
    ] = Field(default=None, description="Seconds between two status checks of a batch. Default: set per provider.")
    limit: Annotated[Count | None, Cli("ROWS")] = Field(
        default=None, description="Process only the first ROWS rows; a later run can extend them. Default: all rows."
    )
    where: Annotated[Text | None, Cli("SQL")] = Field(
        default=None, description="Process only rows that satisfy this SQL condition. Default: all rows."
    )
    sample: Annotated[Count | None, Cli("N")] = Field(
        default=None,
        description="Send only N requests, chosen by chance, to see answers and costs; a later run sends the rest. "
        "Default: all requests.",
    )
    gold: Annotated[dict[str, Text], Cli("COLUMN=FIELD", option="--gold", values="COLUMN=FIELD")] = Field(
        default_factory=dict,
        description="Column that people filled, and the field of the answer that the report compares with it; "
        "can be given several times (an object in the form).",
    )
    retry_failed: bool = Field(
        default=False, description="Retry requests whose failure was final, with a new allowance of attempts."
    )
    replace: bool = Field(
        default=False,
        description="Replace paid answers: allow another job, model or provider, a trial with the emulator or fewer "
        "rows in an output that holds them, and remove output files whose input is gone.",
    )
    input_moved: bool = Field(default=False, description="The same input data has moved to a new path.")
    state_moved: bool = Field(
        default=False,
        description="The state directory was moved to another disk, copied or restored from a backup, "
        "and this copy is the newest and the only one that will be used.",
    )
    compression: Literal["zstd", "snappy", "gzip", "none"] = Field(
        default="zstd", description="Compression codec of the output files."
    )
    row_group_rows: Annotated[Count, Cli("ROWS")] = Field(
        default=122_880,  # what readers that process several row groups in parallel work best with
        description="Maximum number of rows per row group of the output; fewer if they exceed 32 MB.",
    )
    memory_limit: Annotated[str, Cli("SIZE", values="a size such as 100MB or 2GB")] = Field(
        default="100MB",
        pattern=r"^\d+ ?[KMGT]i?B$",
        description="Memory for sorting and joining keys, such as 100MB; the rest spills to disk.",
    )
    options: Annotated[dict[str, OptionValue], Cli("KEY=VALUE", option="--option")] = Field(
        default_factory=dict,
        description=option_help(),
    )


def cli_of(field: FieldInfo) -> Cli:
    """How a field looks on the command line."""
    return next((found for found in field.metadata if isinstance(found, Cli)), Cli())


def option_name(name: str) -> str:
    """The parameter's name on the command line: `--batch-size`, `INPUT`."""
    cli = cli_of(Settings.model_fields[name])
    if cli.positional:
        return cli.metavar or name.upper()
    return cli.option or f"--{name.replace('_', '-')}"


def default_of(field: FieldInfo) -> Any:
    """The default; `inspect.Parameter.empty` if the parameter is required."""
    return inspect.Parameter.empty if field.is_required() else field.get_default(call_default_factory=True)


_FOR_ONCE = {"retry_failed", "replace", "input_moved", "state_moved"}  # what a user says for one run alone


def command_line(settings: Settings, **changes: Any) -> str:
    """The command of a run with these parameters, as it is typed, but for the changes and what was said for once."""
    usual = dict.fromkeys(_FOR_ONCE, False)
    return shlex.join(["batchwerk", "run", *_arguments(settings.model_copy(update={**usual, **changes}))])


def _arguments(settings: Settings) -> Iterator[str]:
    for name, field in Settings.model_fields.items():
        value = getattr(settings, name)
        if cli_of(field).positional:
            yield str(value)
        elif isinstance(value, dict):
            for key, each in value.items():
                yield from (option_name(name), f"{key}={each}")
        elif value is True:
            yield option_name(name)
        elif value not in (None, False) and (field.is_required() or value != field.default):
            yield from (option_name(name), f"{value:g}" if isinstance(value, float) else str(value))


def settings_signature() -> inspect.Signature:
    """The signature of a function that takes the fields as keyword arguments, types and bounds included."""
    return inspect.Signature(
        [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=default_of(field),
                annotation=Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation,
            )
            for name, field in Settings.model_fields.items()
        ]
    )


def settings_docstring(summary: str) -> str:
    """A docstring with one line per parameter, from which Prefect takes the descriptions in its form."""
    lines = (f"    {name}: {field.description}" for name, field in Settings.model_fields.items())
    return "\n".join([summary, "", "Args:", *lines])


def read_settings(parameters: Mapping[str, Any]) -> Settings:
    """Validated settings. Raises UsageError that lists all problems."""
    try:
        return Settings.model_validate(parameters)
    except ValidationError as error:
        # One sentence per parameter: a union reports each of its types.
        wrong = {str(problem["loc"][0]): problem["type"] for problem in error.errors()}
        message = "; ".join(_sentence(name, kind) for name, kind in wrong.items())
        raise UsageError(message, next_step="`batchwerk run --help` lists the values of each option") from error


def _sentence(name: str, kind: str) -> str:
    if name not in Settings.model_fields:
        return f"there is no parameter {name!r}"
    return f"{option_name(name)} " + ("is missing" if kind == "missing" else f"must be {_values(name)}")


@dataclass(frozen=True)
class ParameterRow:
    """One parameter in a table for people."""

    option: str
    values: str
    default: str
    help: str


def parameter_table() -> list[ParameterRow]:
    """The table of parameters for the documentation, in the order of `Settings`."""
    return [
        ParameterRow(
            option=option_name(name),
            values="flag" if field.annotation is bool else _values(name),
            default=show_default(field),
            help=field.description or "",
        )
        for name, field in Settings.model_fields.items()
    ]


def show_default(field: FieldInfo) -> str:
    """The default as a user would type it; empty if there is none, or if it is None."""
    default = default_of(field)
    if default is inspect.Parameter.empty or default is None or default is False or default == {}:
        return ""
    return f"{default:g}" if isinstance(default, float) else str(default)


def _values(name: str) -> str:
    cli = cli_of(Settings.model_fields[name])
    return cli.values or _describe_schema(Settings.model_json_schema()["properties"][name])


def _describe_schema(schema: Mapping[str, Any]) -> str:
    """The values that a JSON schema allows, in English."""
    if "anyOf" in schema:
        return ", or ".join(_describe_schema(choice) for choice in schema["anyOf"] if choice != {"type": "null"})
    if "enum" in schema:
        *others, last = schema["enum"]
        return f"{', '.join(others)} or {last}" if others else str(last)
    noun = {
        "integer": "a whole number",
        "number": "a number",
        "boolean": "true or false",
        "object": "KEY=VALUE",
        "string": "text that is not empty" if "minLength" in schema else "text",
    }[schema["type"]]
    bounds = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most"}
    limits = [f"{word} {schema[key]:g}" for key, word in bounds.items() if key in schema]
    return ", ".join([noun, " and ".join(limits)] if limits else [noun])

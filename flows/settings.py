"""What a run can be told: the same parameters on the command line, in the UI's form and in a deployment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from blocks.errors import UsageError

DEFAULT_BATCH_SIZE = 5_000
DEFAULT_IN_FLIGHT = 50
DEFAULT_MEMORY = "100MB"  # for sorting and joining keys; what does not fit goes to disk
DEFAULT_ROW_GROUP = 122_880  # rows; what readers that work on several row groups at once do best with

# What Prefect has to be told before it is imported; `[tool.prefect]` in pyproject.toml says why.
PREFECT_DEFAULTS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_SERVER_TASKS_TAG_CONCURRENCY_SLOT_WAIT_SECONDS": "1",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "batchwerk",
}


class Settings(BaseModel):
    """The parameters of one run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: Path
    output: Path
    job: Path
    provider: str
    model: Annotated[str, Field(min_length=1)] | None = None
    base_url: str | None = None
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = DEFAULT_BATCH_SIZE
    max_in_flight: int = Field(default=DEFAULT_IN_FLIGHT, ge=1)
    max_attempts: int = Field(default=3, ge=1)
    max_failed: float = Field(default=0.0, ge=0.0, le=1.0)
    wait: float | None = Field(default=None, ge=0)
    give_up_after: float | None = Field(default=None, ge=0)
    on_unknown: Literal["fail", "resubmit"] = "fail"
    poll_interval: float | None = Field(default=None, gt=0)
    limit: int | None = Field(default=None, ge=1)
    where: Annotated[str, Field(min_length=1)] | None = None
    retry_failed: bool = False
    input_moved: bool = False
    compression: Literal["zstd", "snappy", "gzip", "none"] = "zstd"
    row_group_rows: int = Field(default=DEFAULT_ROW_GROUP, ge=1)
    memory_limit: Annotated[str, Field(pattern=r"^\d+ ?[KMGT]i?B$")] = DEFAULT_MEMORY
    options: dict[str, str] = Field(default_factory=dict)


def read_settings(parameters: Mapping[str, Any]) -> Settings:
    """Checked settings. Raises UsageError with all that is wrong."""
    try:
        return Settings.model_validate(parameters)
    except ValidationError as error:
        wrong = {str(problem["loc"][0]): problem["msg"] for problem in error.errors()}
        if "memory_limit" in wrong:
            wrong["memory_limit"] = "it is a size such as 100MB or 2GB"
        if "batch_size" in wrong:
            wrong["batch_size"] = "it is a whole number above 0, or auto"
        said = "; ".join(f"{name.replace('_', '-')}: {message}" for name, message in wrong.items())
        raise UsageError(said, next_step="`batchwerk run --help` lists what each option takes") from error

"""A job: the prompt for each row and the shape of the answer, parsed from a YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import orjson
import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from blocks.batch import RequestForm
from blocks.errors import UsageError
from flows.domain.keys import form_digest
from flows.domain.schema import OutputSchema


class Job(BaseModel):
    """The content of a job file."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=False)

    name: str = Field(min_length=1, pattern=r"^[\w .-]+$")
    model: str = Field(min_length=1)
    system: str | None = None
    prompt: str = Field(min_length=1)
    output: dict[str, Any] | None = None
    max_output_tokens: int | None = Field(default=None, gt=0)
    temperature: float | None = Field(default=None, ge=0, le=2)
    skip_empty: Annotated[tuple[str, ...], BeforeValidator(lambda v: (v,) if isinstance(v, str) else v)] = ()
    rename: dict[str, str] = Field(default_factory=dict)  # output column → its name in the output

    def form(self, schema: OutputSchema, model: str) -> RequestForm:
        """What all requests of this job share."""
        return RequestForm(model, self.system, schema.schema, self.max_output_tokens, self.temperature)

    def digest(self, form: RequestForm, endpoint: str, options: Mapping[str, str]) -> bytes:
        """Part of every request's key: two jobs with the same digest ask the same questions of the same service.

        `options`: those of the provider's that answers may depend on.
        """
        shared: Mapping[str, Any] = {
            "endpoint": endpoint,
            "model": form.model,
            "prompt": self.prompt,
            "system": form.system,
            # As text, in its original order: the order of fields affects what a model answers.
            "schema": None if form.schema is None else orjson.dumps(form.schema).decode(),
            "max_output_tokens": form.max_output_tokens,
            "temperature": form.temperature,
            "options": options,
        }
        return form_digest(shared)


def parse_job(text: str, name: str) -> Job:
    """The job in a YAML text; `name` is the file's, for messages."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" (line {mark.line + 1})" if mark else ""
        problem = getattr(error, "problem", None) or "it can't be parsed"
        raise UsageError(f"invalid job file {name}: not valid YAML: {problem}{place}") from error
    if not isinstance(content, dict):
        raise UsageError(
            f"invalid job file {name}: it does not contain a mapping of settings",
            next_step="it needs `name`, `model`, `prompt` and usually `output`; see data/jobs for examples",
        )
    try:
        return Job.model_validate(content)
    except ValidationError as error:
        problems = "; ".join(_explain(problem["loc"], problem["type"], problem["msg"]) for problem in error.errors())
        raise UsageError(
            f"invalid job file {name}: {problems}",
            next_step=f"allowed settings: {', '.join(Job.model_fields)}; see data/jobs for examples",
        ) from error


def _explain(place: tuple[int | str, ...], kind: str, message: str) -> str:
    where = ".".join(map(str, place))
    match kind:
        case "missing":
            return f"`{where}` is missing"
        case "extra_forbidden":
            return f"`{where}` is not a known setting"
        case _:
            return f"`{where}`: {message}"

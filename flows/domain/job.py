"""A job: the prompt for each row and the shape of the answer, parsed from a YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import orjson
import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from blocks.batch import RequestForm
from blocks.errors import UsageError
from blocks.printable import NAMES, SHORT, printable
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
    max_output_tokens: int | None = Field(default=None, gt=0, lt=2**31)
    temperature: float | None = Field(default=None, ge=0, le=2)
    skip_empty: Annotated[tuple[str, ...], BeforeValidator(lambda v: (v,) if isinstance(v, str) else v)] = ()
    gold: dict[str, str] = Field(default_factory=dict)  # field of the answer → the column that people filled
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


class _Loader(yaml.SafeLoader):
    """YAML without aliases, of which a kilobyte stands for gigabytes, and without what is no text.

    JSON writes an emoji as two escapes, which PyYAML leaves apart: they are joined, and a half without its other is
    refused, as nothing could be sent or written down that has it.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Called by PyYAML for each value."""
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # the stubs have no types for it
            raise yaml.composer.ComposerError(None, None, "aliases are not allowed", mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        if isinstance(node, yaml.ScalarNode):
            try:
                node.value = node.value.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
            except UnicodeDecodeError:
                mark, problem = node.start_mark, "half a surrogate pair is no text"
                raise yaml.composer.ComposerError(None, None, problem, mark) from None
        return node


def parse_job(text: str, name: str) -> Job:
    """The job in a YAML text; `name` is the file's, for messages, which quote no more of it than a few names."""
    content = _parse_yaml(text, name)
    if not isinstance(content, dict):
        raise UsageError(
            f"invalid job file {name}: it does not contain a mapping of settings",
            next_step="it needs `name`, `model`, `prompt` and usually `output`; see data/jobs for examples",
        )
    try:
        return Job.model_validate(content)
    except ValidationError as error:
        problems = [_explain(problem["loc"], problem["type"], problem["msg"]) for problem in error.errors()]
        more = f"; and {len(problems) - NAMES} more" if len(problems) > NAMES else ""
        raise UsageError(
            f"invalid job file {name}: {'; '.join(problems[:NAMES])}{more}",
            next_step=f"allowed settings: {', '.join(Job.model_fields)}; see data/jobs for examples",
        ) from error


def _parse_yaml(text: str, name: str) -> Any:
    try:
        return yaml.load(text, _Loader)  # noqa: S506  # a safe loader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" (line {mark.line + 1})" if mark else ""
        problem = getattr(error, "problem", None) or "it can't be parsed"
        if not isinstance(error, yaml.scanner.ScannerError | yaml.parser.ParserError | yaml.composer.ComposerError):
            problem = "it holds something that no job file has"  # the error's own words quote it
        raise UsageError(f"invalid job file {name}: not valid YAML: {printable(problem, 80)}{place}") from error
    except (ValueError, RecursionError, OverflowError) as error:  # a number of 5,000 digits, the 31st of February
        raise UsageError(f"invalid job file {name}: a value in it is out of all bounds") from error


def _explain(place: tuple[int | str, ...], kind: str, message: str) -> str:
    where = printable(".".join(map(str, place)), SHORT)
    match kind:
        case "missing":
            return f"`{where}` is missing"
        case "extra_forbidden":
            return f"`{where}` is not a known setting"
        case _:
            return f"`{where}`: {printable(message)}"

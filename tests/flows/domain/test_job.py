"""Job files: what they may say, and what is said when they are wrong."""

import json
from typing import Any

import pytest
import yaml

from blocks.errors import UsageError
from flows.domain.job import Job, parse_job
from flows.domain.schema import OutputSchema

GOOD: dict[str, Any] = {"name": "reviews", "model": "m", "prompt": "{{ text }}\n", "output": {"a": {"type": "string"}}}


def parsed(**changes: Any) -> Job:
    content = {name: value for name, value in (GOOD | changes).items() if value is not ...}
    return parse_job(yaml.safe_dump(content, sort_keys=False), "job.yaml")


def test_a_job_is_read_as_it_is_written() -> None:
    """Nothing is stripped from the prompt."""
    job = parsed(system="  You label.\n\n", skip_empty=["text"], rename={"a": "label"}, max_output_tokens=300)
    assert job.prompt == "{{ text }}\n"
    assert job.system == "  You label.\n\n"
    assert (job.skip_empty, job.rename, job.max_output_tokens) == (("text",), {"a": "label"}, 300)
    assert parsed(skip_empty="text").skip_empty == ("text",), "one column needs no list"


def test_a_small_job_is_enough() -> None:
    """Name, model and prompt are all that is needed: the answer is text then."""
    job = parsed(output=...)
    assert OutputSchema(job.output).schema is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: [", "job.yaml: not valid YAML: .*line"),
        ("name: a\n  model: b", "not valid YAML.*line 2"),
        ("a: \x01", "not valid YAML"),
        ("", "does not contain a mapping of settings"),
        ("just a text", "does not contain a mapping of settings"),
        ("- a list", "does not contain a mapping of settings"),
        ("!!python/object/apply:os.system ['true']", "not valid YAML"),
        ('name: a\nsystem: "\\ud800"', r"half a surrogate pair is no text \(line 2\)"),
        ('output: {"\\udc00": {type: string}}', "half a surrogate pair is no text"),
    ],
)
def test_a_file_that_is_no_job_is_refused(text: str, said: str) -> None:
    """The message names the file, and the line where there is one."""
    with pytest.raises(UsageError, match=said):
        parse_job(text, "job.yaml")


def test_a_job_may_be_written_as_json() -> None:
    """Which has a sign beyond 16 bits as two escapes: they are one sign."""
    content = {
        "name": "a",
        "model": "b",
        "prompt": "{{ text }} \U0001f3a7",
        "output": {"\U0001f50b": {"type": "string"}},
    }
    text = json.dumps(content)
    assert "\\ud83c\\udfa7" in text
    job = parse_job(text, "job.json")
    assert (job.prompt, job.output) == (content["prompt"], content["output"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": ...}, "`name` is missing"),
        ({"model": ...}, "`model` is missing"),
        ({"prompt": ...}, "`prompt` is missing"),
        ({"prompt": ""}, "`prompt`: "),
        ({"prompt": 5}, "`prompt`: "),
        ({"name": "a/b"}, "`name`: "),
        ({"promt": "x"}, "`promt` is not a known setting"),
        ({"max_output_tokens": 0}, "`max_output_tokens`: "),
        ({"max_output_tokens": "many"}, "`max_output_tokens`: "),
        ({"output": ["a"]}, "`output`: "),
        ({"output": {1: {"type": "string"}}}, "`output.1"),
        ({"skip_empty": 3}, "`skip_empty`: "),
        ({"rename": {"a": 1}}, "`rename.a`: "),
    ],
)
def test_a_wrong_setting_is_named(changes: dict[str, Any], said: str) -> None:
    """Each mistake is said in the user's words, with what a job may have."""
    with pytest.raises(UsageError) as caught:
        parsed(**changes)
    assert said in caught.value.message
    assert "job.yaml" in caught.value.message
    assert "skip_empty" in caught.value.next_step


def test_all_mistakes_are_said_at_once() -> None:
    """Nobody likes to be told one after another."""
    with pytest.raises(UsageError, match="`name` is missing; `model` is missing"):
        parsed(name=..., model=...)


def digest(job: Job, model: str = "m", endpoint: str = "e", **options: str) -> bytes:
    return job.digest(job.form(OutputSchema(job.output), model), endpoint, options)


def test_a_digest_follows_what_is_asked() -> None:
    """Whatever changes the question changes the digest; what doesn't leaves it alone."""
    same = digest(parsed())
    assert same == digest(parsed(name="other", skip_empty=["text"], rename={"a": "b"}))
    changed = [
        digest(parsed(), model="n"),
        digest(parsed(), endpoint="f"),
        digest(parsed(), effort="low"),
        digest(parsed(prompt="{{ text }}")),
        digest(parsed(system="")),
        digest(parsed(system="x")),
        digest(parsed(max_output_tokens=1)),
        digest(parsed(output={"a": {"type": "integer"}})),
        digest(parsed(output={"a": {"type": "string"}, "b": True})),
        digest(parsed(output={"b": True, "a": {"type": "string"}})),
        digest(parsed(output=...)),
    ]
    assert len({same, *changed}) == 12

"""Whatever stands in a job file: one sentence, or a job that runs; never a traceback."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from hypothesis import strategies as st

from blocks.errors import BatchwerkError
from flows.preflight import check
from flows.settings import read_settings
from tests.flows.undecorated import enrich, reviews, write_texts
from tests.fuzz.mutations import ODD, mutated, mutations
from tests.fuzz.rounds import check_rounds

JOB = """\
name: fuzz
model: gpt-4.1
system: You label.
prompt: |
  Review {{ id }}: {{ text | upper }} {% if id > 1 %}more{% else %}{{ row["text"] }}{% endif %}
max_output_tokens: 300
temperature: 0.5
skip_empty: [text]
rename: {label: said}
output:
  label: {type: string, enum: [a, b], description: what}
  score: {type: [integer, "null"], minimum: 0, maximum: 9}
  parts: {type: array, items: {type: object, properties: {x: {type: number}}, required: [x]}}
"""
TEMPLATES = [
    "", "{{", "{{ }}", "{% for i in range(9) %}{{ text }}{% endfor %}", "{{ nothing }}", "{{ text.x.y }}",
    "{{ 1 / 0 }}",
    "{{ text * 10 ** 9 }}", "{{ text['a'] }}", "{% include 'x' %}", "{{ ''.__class__ }}", "{{ id | tojson }}", "plain",
    "{{ text | nope }}", "{% set x = text %}{{ x }}", "{{ row }}", "{{ loop.index }}", "{{ text | truncate(-1) }}",
    "{{ '%s' % text }}", "{{ '{0.__class__}'.format(text) }}", "{% raw %}{{ text }}{% endraw %}", "{{ id ** id }}",
]  # fmt: skip
SCHEMAS: list[Any] = [
    True, False, None, {}, {"type": "x"}, {"type": []}, {"type": ["string", "null"]}, {"enum": []}, {"enum": [None]},
    {"const": 1}, {"$ref": "#"}, {"$ref": "#/nowhere"}, {"$ref": "http://127.0.0.1:9/x"}, {"anyOf": []},
    {"allOf": [{"type": "string"}, {"type": "integer"}]}, {"pattern": "("}, {"type": "string", "pattern": "^(a+)+$"},
    {"type": "array"}, {"type": "array", "items": False},
    {"type": "object", "additionalProperties": {"type": "string"}},
    {"type": "integer", "minimum": 1e300}, {"type": "string", "maxLength": -1}, {"not": {}}, {"$defs": {"a": 1}},
    7, "x",
]  # fmt: skip
ROWS = 3


def job_text(case: tuple[str, int, list[tuple[str, int]]]) -> bytes:
    """A job file: the good one with places of it replaced, then changed as a text."""
    how, number, changes = case
    dice = Random(number)  # noqa: S311  # chooses, keeps no secret
    content = JOB.encode()
    if how != "text":
        job = yaml.safe_load(JOB)
        for _ in range(dice.randint(1, 3)):
            match dice.randrange(5):
                case 0:
                    job[dice.choice(list(job) or ["name"])] = dice.choice([each for each in ODD if each == each])  # noqa: PLR0124  # no NaN
                case 1:
                    job["prompt"] = dice.choice(TEMPLATES)
                case 2:
                    job["output"] = {dice.choice(["a", "text", "_status", "", "é", "a.b"]): dice.choice(SCHEMAS)}
                case 3:
                    job["output"] = dice.choice(SCHEMAS)
                case _:
                    job.pop(dice.choice(list(job) or ["name"]), None)
        content = json.dumps(job).encode()  # which YAML reads too
    for kind, seed in changes:
        content = mutated(content, kind, seed)
    return content


CASES = st.tuples(st.sampled_from(["text", "parts"]), st.integers(0, 2**32), st.lists(mutations(), max_size=2))


def parameters_for(folder: Path) -> dict[str, Any]:
    write_texts(folder, reviews(ROWS))
    return {
        "input": str(folder / "input.parquet"),
        "output": str(folder / "out.parquet"),
        "job": str(folder / "job.yaml"),
    }


def check_sentence(error: BatchwerkError) -> None:
    assert error.message
    assert "\n" not in error.message
    assert len(error.message) < 2_000


@pytest.mark.slow
def test_any_job_file_is_a_job_or_a_sentence(tmp_path: Path) -> None:
    """All checks that come before anything is sent, for every provider."""
    parameters = parameters_for(tmp_path)

    def attempt(case: tuple[str, int, list[tuple[str, int]]]) -> None:
        (tmp_path / "job.yaml").write_bytes(job_text(case))
        try:
            check(read_settings({**parameters, "provider": "local", "options": {"dialect": "openai"}}))
        except BatchwerkError as error:
            check_sentence(error)

    check_rounds(attempt, CASES, 400)


@pytest.mark.slow
def test_what_passes_as_a_job_runs(tmp_path: Path) -> None:
    """To its end, or to a sentence; each row says how it went."""
    runs = 0

    def attempt(case: tuple[str, int, list[tuple[str, int]]]) -> None:
        nonlocal runs
        runs += 1
        folder = tmp_path / str(runs)
        folder.mkdir()
        parameters = parameters_for(folder)
        (folder / "job.yaml").write_bytes(job_text(case))
        try:
            figures = enrich(**parameters)
        except BatchwerkError as error:
            check_sentence(error)
        else:
            assert sum(figures.rows.values()) == ROWS
            assert "pending" not in figures.rows

    check_rounds(attempt, CASES, 60)

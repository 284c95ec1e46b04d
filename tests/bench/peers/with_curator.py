"""The job with curator. Runs in an environment of its own, as a script; imports nothing of ours.

python -P with_curator.py TASK     (a JSON object; without it: imports, then ends)
"""

# mypy: disable-error-code="import-not-found,no-any-unimported,misc"
# (curator is not installed where the types are checked)

from __future__ import annotations

import json
import sys
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from bespokelabs import curator
from datasets import Dataset
from pydantic import BaseModel


class Answer(BaseModel):
    """The shape of answers, as curator takes it."""

    sentiment: Literal["positive", "negative", "neutral"]
    topics: list[str]
    stars: int


class Labeller(curator.LLM):
    """Row to prompt, answer to row, as curator's users write it."""

    def prompt(self, input: dict[str, Any]) -> str:  # noqa: A002  # curator's name for it
        """The prompt of a row."""
        return f"Review: {input['text']}"

    def parse(self, input: dict[str, Any], response: Answer) -> dict[str, Any]:  # noqa: A002  # the same
        """A row of the output."""
        return {**input, **response.model_dump()}


def name_files(labeller: Labeller) -> None:
    """Curator uploads its files without a name; the emulator takes only such as end in .jsonl."""
    files = labeller._request_processor.client.files
    create = files.create

    async def create_named(file: bytes, purpose: str) -> Any:
        return await create(file=("batch.jsonl", file), purpose=purpose)

    files.create = create_named


def main(task: dict[str, Any]) -> None:
    """Read, ask, write; a row whose request failed is absent."""
    labeller = Labeller(
        model_name=task["model"],
        response_format=Answer,
        batch=True,
        backend="openai",
        generation_params={"max_completion_tokens": task["max_output_tokens"]},
        system_prompt=task["system"],
        backend_params={
            "base_url": task["base_url"],
            "api_key": task["key"],
            "batch_size": task["batch_size"],
            "batch_check_interval": int(task["poll"]),
            "require_all_responses": False,
        },
    )
    name_files(labeller)
    rows = Dataset(pq.read_table(task["source"]))
    answered = labeller(rows, working_dir=task["work"]).dataset
    pq.write_table(pa.table(answered.to_dict()), task["output"])


if __name__ == "__main__" and len(sys.argv) > 1:
    main(json.loads(sys.argv[1]))

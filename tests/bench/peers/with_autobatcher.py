"""The job with autobatcher. Runs in an environment of its own, as a script; imports nothing of ours.

python -P with_autobatcher.py TASK     (a JSON object; without it: imports, then ends)
"""

# mypy: disable-error-code="import-not-found,no-any-unimported"
# (autobatcher is not installed where the types are checked)

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from autobatcher import BatchOpenAI


async def ask_all(task: dict[str, Any], texts: list[str]) -> list[Any]:
    """An answer or an exception for each text, as its users gather them."""
    client = BatchOpenAI(
        api_key=task["key"],
        base_url=task["base_url"],
        batch_size=task["batch_size"],
        batch_window_seconds=1.0,
        poll_interval_seconds=task["poll"],
        completion_window="24h",
    )
    form = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": task["answer"]}}

    async def ask(text: str) -> Any:
        completion = await client.chat.completions.create(
            model=task["model"],
            messages=[
                {"role": "system", "content": task["system"]},
                {"role": "user", "content": f"Review: {text}"},
            ],
            max_completion_tokens=task["max_output_tokens"],
            response_format=form,
        )
        return json.loads(completion.choices[0].message.content)

    try:
        return await asyncio.gather(*map(ask, texts), return_exceptions=True)
    finally:
        await client.close()


def main(task: dict[str, Any]) -> None:
    """Read, ask, write; a row whose request failed is null."""
    rows = pq.read_table(task["source"])
    answers = asyncio.run(ask_all(task, rows.column("text").to_pylist()))
    good = [answer if isinstance(answer, dict) else {} for answer in answers]
    for name in task["answer"]["required"]:
        rows = rows.append_column(name, pa.array([answer.get(name) for answer in good]))
    pq.write_table(rows, task["output"])


if __name__ == "__main__" and len(sys.argv) > 1:
    main(json.loads(sys.argv[1]))

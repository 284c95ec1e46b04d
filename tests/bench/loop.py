"""The floor: what somebody writes who wants this job done fast and needs no guarantee of any kind.

Renders, uploads and creates one batch after another, then polls them all, then reads the answers, joins them by their
number and writes them. No state, no retries, no validation beyond JSON, no status and no money: a failed row is null.
What makes it fast is there: one render a batch, constant bytes around each prompt, whole lines cut from large chunks,
nothing kept but the answers of one batch.

python -m tests.bench.loop SOURCE OUTPUT BASE_URL BATCH_SIZE POLL_SECONDS     (without arguments: imports, then ends)
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from jinja2 import Template

from tests.bench.job import ANSWER, MAX_OUTPUT_TOKENS, MODEL, PROMPT, SYSTEM

KEY = "bench"
ENDPOINT = "/v1/chat/completions"
END = "\0"  # of a prompt, where a whole batch is rendered at once
TEMPLATE = Template("{% for text in texts %}" + PROMPT + END + "{% endfor %}")
BODY = orjson.dumps(
    {
        "model": MODEL,
        "messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "PROMPT"}],
        "max_completion_tokens": MAX_OUTPUT_TOKENS,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": True, "schema": ANSWER},
        },
    }
)
BEFORE, AFTER = BODY.split(b'"PROMPT"')
LINE = b'{"custom_id":"%d","method":"POST","url":"' + ENDPOINT.encode() + b'","body":' + BEFORE + b"%b" + AFTER + b"}\n"
COLUMNS = pa.struct([("sentiment", pa.string()), ("topics", pa.list_(pa.string())), ("stars", pa.int64())])
OVER = {"completed", "failed", "expired", "cancelled"}


def main(source: Path, output: Path, base_url: str, batch_size: int, poll: float) -> None:
    """Do the whole job."""
    gc.disable()  # it would look at every young dict again and again
    gc.freeze()
    headers = {"authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=base_url, headers=headers, timeout=600) as client:
        batches = []
        for body in bodies(source, batch_size):
            batches.append(submit(client, body))
            gc.collect()  # httpx leaves the batch's bytes in a cycle
        files = wait(client, batches, poll)
        write(source, output, batch_size, (read_answers(client, files[batch]) for batch in batches))


def bodies(source: Path, batch_size: int) -> Iterator[bytes]:
    """The JSONL of each batch."""
    first = 0
    for rows in pq.ParquetFile(source).iter_batches(batch_size, columns=["text"]):
        prompts = TEMPLATE.render(texts=rows.column(0).to_pylist()).split(END)
        dumps = orjson.dumps
        yield b"".join([LINE % (n, dumps(prompt)) for n, prompt in enumerate(prompts[:-1], first)])
        first += rows.num_rows


def submit(client: httpx.Client, body: bytes) -> str:
    """Upload a file, make a batch of it; its id."""
    file = client.post("/files", data={"purpose": "batch"}, files={"file": ("batch.jsonl", body)})
    order = {"input_file_id": file.raise_for_status().json()["id"], "endpoint": ENDPOINT, "completion_window": "24h"}
    return str(client.post("/batches", json=order).raise_for_status().json()["id"])


def wait(client: httpx.Client, batches: list[str], poll: float) -> dict[str, str | None]:
    """Poll until all batches are over; the id of each one's output file."""
    files: dict[str, str | None] = {}
    while True:
        for batch in batches:
            if batch not in files:
                status = orjson.loads(client.get(f"/batches/{batch}").raise_for_status().content)
                if status["status"] in OVER:
                    files[batch] = status["output_file_id"]
        if len(files) == len(batches):
            return files
        time.sleep(poll)


def read_answers(client: httpx.Client, file: str | None) -> dict[int, Any]:
    """The answers of a batch by the number of their row."""
    answers: dict[int, Any] = {}
    if file is None:
        return answers
    loads = orjson.loads
    with client.stream("GET", f"/files/{file}/content") as response:
        rest = b""
        for chunk in response.raise_for_status().iter_bytes():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                row = loads(line)
                content = row["response"]["body"]["choices"][0]["message"]["content"]
                answers[int(row["custom_id"])] = loads(content)
    return answers


def write(source: Path, output: Path, batch_size: int, answers: Iterator[dict[int, Any]]) -> None:
    """The input's columns and the answers', a batch at a time."""
    file = pq.ParquetFile(source)
    schema = pa.schema([*file.schema_arrow, *COLUMNS])
    output.parent.mkdir(parents=True, exist_ok=True)
    first = 0
    with pq.ParquetWriter(output, schema, compression="zstd") as writer:
        for rows, found in zip(file.iter_batches(batch_size), answers, strict=True):
            joined = pa.array([found.get(n) for n in range(first, first + rows.num_rows)], COLUMNS)
            writer.write_table(pa.Table.from_arrays([*rows.columns, *joined.flatten()], schema=schema))
            first += rows.num_rows


if __name__ == "__main__" and len(sys.argv) > 1:
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), float(sys.argv[5]))

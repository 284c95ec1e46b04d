"""The job that every contestant does: label short product reviews. One source, so that all send the same."""

from __future__ import annotations

import json
from typing import Any

MODEL = "gpt-4.1"
SYSTEM = "You label product reviews."
PROMPT = "Review: {{ text }}"
MAX_OUTPUT_TOKENS = 100
FIELDS: dict[str, dict[str, Any]] = {
    "sentiment": {"type": "string", "enum": ["positive", "negative", "neutral"]},
    "topics": {"type": "array", "items": {"type": "string"}},
    "stars": {"type": "integer"},
}
ANSWER = {"type": "object", "properties": FIELDS, "required": [*FIELDS], "additionalProperties": False}

# A job file; what is JSON is YAML as well.
JOB = json.dumps(
    {
        "name": "bench",
        "model": MODEL,
        "system": SYSTEM,
        "prompt": PROMPT,
        "output": FIELDS,
        "max_output_tokens": MAX_OUTPUT_TOKENS,
    },
    indent=2,
)

"""A sixth provider is one folder and one line: what it says about itself appears everywhere without another edit."""

import subprocess
import sys
from pathlib import Path

import orjson

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).parent / "sixth"

PROGRAM = """
import orjson, sys
from blocks import catalog
from tests.blocks import sixth
catalog.PROVIDERS["sixth"] = sixth.ENTRY  # the line
from blocks import credentials
from blocks.connections import codec_for, connection_for, limits_for
from blocks.batch import RequestForm
from flows.settings import Settings, parameter_table
block = credentials.block_type("sixth")
connection = connection_for("sixth", None, {"tone": "brief", "max_requests": "7"})
shown = {
    "help": {name: field.description for name, field in Settings.model_fields.items()},
    "rows": [row.help for row in parameter_table()],
    "options": [row._asdict() for row in catalog.option_table() if row.provider == "sixth"],
    "slugs": [kind.get_block_type_slug() for kind in credentials.block_types()],
    "block": block(api_key="sk-a-key-of-the-tests").options(),
    "class": block.__name__,
    "address": connection.base_url,
    "limit": limits_for(connection).max_requests,
    "request": codec_for(connection, RequestForm("m")).encode("a-1-1", "Hi").decode(),
}
sys.stdout.buffer.write(orjson.dumps(shown))
"""


def test_a_provider_is_at_most_300_lines() -> None:
    """The entry, the codec and the calls together."""
    assert sum(len(file.read_text().splitlines()) for file in FOLDER.glob("*.py")) <= 300


def test_one_line_puts_a_provider_into_help_table_and_blocks() -> None:
    """Key variable, limits, options and block come from its entry alone."""
    env = {"SIXTH_API_KEY": "sk-a-key-of-the-tests", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, env=env, capture_output=True, check=True)
    shown = orjson.loads(done.stdout)
    assert "sixth" in shown["help"]["provider"]
    assert "sixth: tone, window, settle" in shown["help"]["options"]
    assert any("sixth" in row for row in shown["rows"])
    options = {row["option"]: row for row in shown["options"]}
    assert {"tone", "window", "settle", "max_requests", "max_queued_tokens"} <= set(options)
    assert (options["tone"]["values"], options["tone"]["default"]) == ("verbose, brief", "verbose")
    assert options["tone"]["help"] == "How long the answers are."
    assert {row["key_variable"] for row in shown["options"]} == {"SIXTH_API_KEY"}
    assert {row["max_requests"] for row in shown["options"]} == {1_000}
    assert "sixth-credentials" in shown["slugs"]
    assert (shown["class"], shown["block"]) == ("SixthCredentials", {"tone": "verbose", "window": "24h"})
    assert (shown["address"], shown["limit"]) == ("https://api.sixth.example/v1", 7)
    assert "Be brief." in shown["request"]

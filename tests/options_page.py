"""The page docs/options.md, from the one declaration of the parameters: `python -m tests.options_page` writes it."""

from pathlib import Path

from flows.settings import parameter_table

PAGE = Path(__file__).resolve().parents[1] / "docs" / "options.md"

HEAD = """\
# Options of run

`plan` accepts the same options as `run`, so that the same command line shows what would happen. It prints the number of
requests and batches, the estimated cost and the first rendered prompt, and sends nothing. The form in the Prefect UI
and the parameters of a deployment are these too, with underscores: `batch_size`.

| option | values | default | meaning |
| --- | --- | --- | --- |
"""

TAIL = """
`--json` prints one JSON object as the last line, `--help` prints all of this.

The other commands: `status` shows where an output stands, `report` prints the report of its last run, `cancel`
[stops its batches](when-things-break.md#cancelling), `setup` [prepares Prefect](prefect.md), and `emulator`
[runs the emulator](emulator.md) as a server of its own.
"""


def options_page() -> str:
    """The whole page."""
    rows = (f"| `{row.option}` | {row.values} | {row.default} | {row.help} |\n" for row in parameter_table())
    return HEAD + "".join(rows) + TAIL


if __name__ == "__main__":
    PAGE.write_text(options_page(), encoding="utf-8")

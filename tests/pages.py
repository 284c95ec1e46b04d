"""The tables of the documents that the code declares: `python -m tests.pages` writes them."""

import re
from collections.abc import Iterable
from pathlib import Path

from blocks.catalog import option_table
from blocks.entries import LIMIT_OPTIONS
from flows.settings import parameter_table

DOCS = Path(__file__).resolve().parents[1] / "docs"
OPTIONS, PROVIDERS = DOCS / "options.md", DOCS / "providers.md"

HEAD = """\
# Options of run

`plan` accepts the same options as `run`, so that the same command line shows what would happen. It prints the number of
requests and batches, the estimated cost and the first rendered prompt, and sends nothing. `--compare PROVIDER:MODEL`,
which may be repeated, shows what other models would take and cost for the same rows, cheapest first; it takes no key
and counts as if nothing had been asked before. `--sample N` [sends a sample first](#what-a-run-will-cost). The form in
the Prefect UI and the parameters of a deployment are these too, with underscores: `batch_size`.

| option | values | default | meaning |
| --- | --- | --- | --- |
"""

TAIL = """
`--json` prints one JSON object as the last line, `--help` prints all of this.

## What a run will cost

Before anything is sent, `plan` counts the tokens of each request, or [estimates them](wire-protocols.md), and guesses
answers from their schema. From then on, what comes back corrects that, in progress lines, in Prefect and in `status`:
tokens in by the ratio of what was counted to what was planned of the same requests, answers by their average, failures
by what was billed for them.

`plan --sample N` makes the guess small before the money is spent. It sends N requests that are drawn at random from all
distinct ones, waits for them, and tells what all rows will take by the size of each request, with a range that chance
alone explains: of such ranges about 19 in 20 hold the cost. With `--gold` it also tells how often the answers agree
with people's, and `--budget` holds. The answers are published and paid for once: the same command again sends no
others, a larger N adds to them, and `run` sends the rest.

On three data sets (product reviews, German tweets, speeches; answers of a sentiment and topics, four times as dear as
input) the expected total was off by this much, first where tokens are counted, then by the shape of texts alone, that
is without the extra `tokens`:

| after | 1,000 reviews | 8,541 tweets | 120 speeches |
| --- | --- | --- | --- |
| the first hundredth of the rows | 0.6 %, 0.9 % | 0.3 %, 1.7 % | 0.1 %, 3.5 % |
| a sample of 30, half of the time below | 0.6 %, 0.7 % | 1.2 %, 1.4 % | 0.1 %, 0.6 % |
| a sample of 100, half of the time below | 0.3 %, 0.3 % | 0.6 %, 0.7 % | 0.1 %, 0.1 % |

The other commands: `status` shows where an output stands, `report` prints the report of its last run and
with `--open` [shows it as a page](when-things-break.md#the-report), `history` lists its runs, `harvest`
[collects what runs left behind](prefect.md#deployments), `cancel` [stops its batches](when-things-break.md#cancelling),
`setup` [prepares Prefect](prefect.md), and `emulator`
[runs the emulator](emulator.md) as a server of its own.
"""


def options_page() -> str:
    """The whole page of options."""
    rows = (f"| `{row.option}` | {row.values} | {row.default} | {row.help} |\n" for row in parameter_table())
    return HEAD + "".join(rows) + TAIL


def providers_page(text: str) -> str:
    """The page of providers with the tables of options as the catalog has them."""
    shared = {option.name for option in LIMIT_OPTIONS}
    own = (row for row in option_table() if row.option not in shared)
    options = (f"| `{row.provider}` | `{row.option}` | {_marked(row.values)} | {row.help} |" for row in own)
    limits = (f"| `{option.name}` | {option.help} |" for option in LIMIT_OPTIONS)
    text = _with_rows(text, "| provider | option | values | meaning |", options)
    return _with_rows(text, "| option | limit |", limits)


def _marked(values: str) -> str:
    return values if " " in values.replace(", ", "") else ", ".join(f"`{value}`" for value in values.split(", "))


def _with_rows(text: str, head: str, rows: Iterable[str]) -> str:
    table = re.compile(rf"({re.escape(head)}\n\|[- :|]+\n)(?:\|.*\n)*")
    return table.sub(lambda found: found[1] + "".join(f"{row}\n" for row in rows), text)


if __name__ == "__main__":
    OPTIONS.write_text(options_page(), encoding="utf-8")
    PROVIDERS.write_text(providers_page(PROVIDERS.read_text(encoding="utf-8")), encoding="utf-8")

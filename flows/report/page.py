"""The report as one HTML page, made from report.json alone: no network, no framework, at most 1 MB whatever the run.

Its charts are shapes of a few bytes, made by a template: a plotting library would write 90 kB for each of them, with
colours and sizes of its own where the page follows the reader's screen.
"""

from __future__ import annotations

import json
import sys
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemBytecodeCache, PackageLoader, StrictUndefined
from jinja2.bccache import Bucket
from markupsafe import Markup, escape

from blocks.printable import LONGEST_LINE, counted, printable, printable_lines
from flows.domain.money import show_usd
from flows.report.charts import PHASES, batches_over_time, columns, share
from flows.report.progress import clock

NOTHING = "\u2013"  # where there is no figure
MOST_BATCHES, MOST_RUNS = 200, 60  # lines of their tables; report.json has all
PHASE_COLOURS = (3, 2, 4, 0)  # of the palette, by phase of a batch
SPENDING = {  # what report.json calls it → what a reader does
    "good_rows": "answers that the rows show",
    "rejected_answers": "answers that break the schema",
    "cut_off_answers": "answers that were cut off",
    "other_failures": "answers that were refused or failed, but billed",
    "repeated_answers": "second good answers to the same request",
    "accidental_copies": "copies of a batch that were made by accident",
    "lost_answers": "good answers that were lost",
    "answers_no_row_shows": "good answers of rows that left the input, or are not published yet",
}
SAVINGS = {
    "saved_by_batch_price_usd": "the batch price",
    "saved_by_deduplication_usd": "de-duplication: rows that ask the same share an answer",
    "saved_by_prompt_cache_usd": "the provider's prompt cache",
    "saved_by_reuse_usd": "reuse: answers that were there before this run",
}


def page(report: bytes) -> str:
    """The page of a report.json."""
    found = json.loads(report, parse_float=Decimal)
    environment = Environment(
        loader=PackageLoader("flows.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalized,
        trim_blocks=True,
        lstrip_blocks=True,
        bytecode_cache=None if sys.dont_write_bytecode else _Compiled(_compiled_folder()),
    )
    load = environment.loader.get_source  # type: ignore[union-attr]  # it is the one above
    style, script = (load(environment, name)[0] for name in ("page.css", "page.js"))
    shown = _Shown(found)
    return environment.get_template(
        "page.html"
    ).render(
        r=found,
        style=Markup(style),  # noqa: S704  # ours
        script=Markup(script),  # noqa: S704
        policy=_policy(style, script),
        shown=shown,
        SPENDING=SPENDING,
        SAVINGS=SAVINGS,
        PHASES=[*zip(PHASE_COLOURS, PHASES, strict=True)],
        counted=counted,
        noun=noun,
        lasting=lasting,
        share=share,
        whole=lambda text: escape(printable_lines(str(text))),
        columns=columns,
        highest=lambda name: max(range(len(found["history"])), key=lambda place: found["history"][place][name] or 0),
        lines=_batch_lines(found["batch_table"]),
        timeline=batches_over_time(found),
        runs=list(enumerate(found["history"]))[: -MOST_RUNS - 1 : -1],
    )


class _Compiled(FileSystemBytecodeCache):
    """Compiling the template takes longer than filling it; a folder that can't be written is no reason to fail."""

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Keep what was compiled."""
        with suppress(OSError):
            super().dump_bytecode(bucket)


def _compiled_folder() -> str:
    """Where Python keeps this module compiled, which knows of `PYTHONPYCACHEPREFIX`."""
    return str(Path(cache_from_source(__file__)).parent)


def _finalized(value: Any) -> Any:
    """What others wrote can be printed, wherever it stands; what is ours is left alone."""
    return printable(value, LONGEST_LINE) if type(value) is str else value


def noun(count: int, one: str, many: str | None = None) -> str:
    """The noun of a number that has an element of its own."""
    return one if count == 1 else many or f"{one}s"


def lasting(seconds: float) -> str:
    """Seconds, or minutes and hours."""
    return f"{seconds:.1f} s" if seconds < 60 else clock(seconds)


def _policy(style: str, script: str) -> str:
    """The page may load nothing and run nothing but its own style and script."""
    style_hash, script_hash = (b64encode(sha256(text.encode()).digest()).decode() for text in (style, script))
    return f"default-src 'none'; img-src data:; style-src 'sha256-{style_hash}'; script-src 'sha256-{script_hash}'"


def _batch_lines(table: list[dict[str, Any]]) -> list[int]:
    """The places of the batches to show: those with a problem first, then the dearest."""

    def order(place: int) -> tuple[bool, Any, int]:
        line = table[place]
        return not has_problem(line), -(line["cost_usd"] or 0), -place

    return sorted(range(len(table)), key=order)[:MOST_BATCHES]


def has_problem(line: Mapping[str, Any]) -> bool:
    """Whether something of the batch went wrong, or is open."""
    return line["state"] != "collected" or line["ok"] < line["requests"] or bool(line["note"])


class _Shown:
    """Figures as the page shows them: each element names the place in report.json that it shows."""

    def __init__(self, report: dict[str, Any]) -> None:
        self._report = report

    def money(self, *place: str | int, emulated: bool | None = None, unknown: str = "unpriced") -> Markup:
        """Dollars; what the emulator's answers would have cost says so."""
        value = self._at(place)
        pico = None if value is None else int(Decimal(value).scaleb(12))
        named = self._report["emulated"] if emulated is None else emulated
        text = unknown if pico is None else f"-{show_usd(-pico)}" if pico < 0 else show_usd(pico)
        mark = Markup(" <i>emulated</i>") if named and pico is not None else ""
        return self._element(place, value, text + mark if mark else text)

    def count(self, *place: str | int) -> Markup:
        """A whole number."""
        value = self._at(place)
        return self._element(place, value, NOTHING if value is None else f"{value:,}")

    def number(self, *place: str | int) -> Markup:
        """Any number, with four digits."""
        value = self._at(place)
        return self._element(place, value, NOTHING if value is None else f"{float(value):,.4g}")

    def time(self, *place: str | int) -> Markup:
        """Seconds as minutes."""
        value = self._at(place)
        return self._element(place, value, NOTHING if value is None else lasting(float(value)))

    def moment(self, *place: str | int) -> Markup:
        """A time of day."""
        value = self._at(place)
        text = (
            value[:16].replace("T", " ")
            if isinstance(value, str)
            else f"{datetime.fromtimestamp(float(value), UTC):%Y-%m-%d %H:%M}"
        )
        return self._element(place, value, text)

    def _at(self, place: tuple[str | int, ...]) -> Any:
        found: Any = self._report
        for name in place:
            found = found[name]
        return found

    @staticmethod
    def _element(place: tuple[str | int, ...], value: Any, text: str) -> Markup:
        pointer = "/" + "/".join(str(name).replace("~", "~0").replace("/", "~1") for name in place)
        raw = "null" if value is None else value
        return Markup('<data value="{}" data-of="{}">{}</data>').format(raw, pointer, text)

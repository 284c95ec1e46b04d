"""The report as a page: complete and true in a real browser, whatever the run and whatever its rows say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from flows.report.figures import Money
from flows.report.page import MOST_BATCHES, MOST_RUNS, SPENDING, page
from tests.flows.report.browser import CHROMIUM, Browser, browser
from tests.flows.report.generated import EVIL, contents_of, report_of
from tests.flows.report.reports import line

MOST_BYTES = 1_000_000
SIZES = {"small": (5, 500, 1), "large": (5_000, 2_000_000, 400)}

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: the page is not drawn"),
    pytest.mark.xdist_group("browser"),
]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser for all."""
    with browser() as started:
        yield started


def opened(chromium: Browser, folder: Path, report: bytes) -> dict[str, Any]:
    """Draw a report and open it; returns the report."""
    place = folder / "report.html"
    place.write_text(page(report), encoding="utf-8")
    chromium.requests.clear()
    chromium.problems.clear()
    chromium.open(place)
    return dict(json.loads(report, parse_float=Decimal))


def at(report: Any, pointer: str) -> Any:
    for name in pointer.removeprefix("/").split("/"):
        report = report[int(name)] if isinstance(report, list) else report[name]
    return report


def same(value: str, found: Any) -> bool:
    if found is None or isinstance(found, str):
        return value == (found or "null")
    return bool(Decimal(value) == found)


@pytest.mark.parametrize("size", SIZES)
def test_the_page_is_small_and_quiet_and_shows_what_the_report_says(
    size: str, chromium: Browser, tmp_path: Path
) -> None:
    """At most 1 MB; it asks for nothing, complains of nothing, and each of its figures is one of report.json."""
    report = opened(chromium, tmp_path, report_of(*SIZES[size]))
    assert (tmp_path / "report.html").stat().st_size <= MOST_BYTES
    assert chromium.requests == [(tmp_path / "report.html").as_uri()]
    assert chromium.problems == []
    figures = chromium.value("[...document.querySelectorAll('data')].map(d => [d.value, d.dataset.of, d.innerText])")
    assert len(figures) > 100
    assert [(value, of) for value, of, _ in figures if not same(value, at(report, of))] == []
    assert {of for _, of, _ in figures} >= {"/total_cost_usd", "/wasted_usd", "/single_cost_usd", "/failed"}


def test_no_sum_is_shown_that_does_not_name_its_place(chromium: Browser, tmp_path: Path) -> None:
    """Every dollar is one of the figures that are compared with report.json, or part of a sentence of it."""
    opened(chromium, tmp_path, report_of(*SIZES["small"]))
    rest = chromium.value(
        "(() => { const copy = document.body.cloneNode(true);"
        " copy.querySelectorAll('data, .quoted, script').forEach(e => e.remove()); return copy.textContent })()"
    )
    assert "Where each dollar went" in rest
    assert "$" not in rest


def test_what_is_left_out_is_counted(chromium: Browser, tmp_path: Path) -> None:
    """The lines of a table and those that it leaves out are all of them."""
    batches, _, runs = SIZES["large"]
    opened(chromium, tmp_path, report_of(*SIZES["large"]))
    rest = dict(chromium.value("[...document.querySelectorAll('[data-rest]')].map(e => [e.dataset.rest, e.innerText])"))
    assert f"and {batches - MOST_BATCHES:,} more batches" in rest["batches"]
    assert f"and {runs + 3 - MOST_RUNS:,} earlier runs" in rest["runs"]
    assert "for 4 more reasons" in rest["reasons"]
    lines = chromium.value("[...document.querySelectorAll('table.sortable')].map(t => t.tBodies[0].rows.length)")
    assert {MOST_BATCHES, MOST_RUNS} <= set(lines)
    shown = chromium.value("[...document.querySelectorAll('#time ~ .tall table.sortable')][0].innerText")
    assert "it expired" in shown, "a batch with a problem is never the one that is left out"


def test_tables_sort_and_filter(chromium: Browser, tmp_path: Path) -> None:
    """By a click on the head of a column, the largest first and then the smallest, numbers as numbers."""
    opened(chromium, tmp_path, report_of(*SIZES["large"]))
    table = "document.querySelectorAll('#time ~ .tall table.sortable')[0]"
    column = f"[...{table}.tBodies[0].rows].map(r => Number(r.cells[4].querySelector('data').value))"
    click = f"{table}.tHead.rows[0].cells[4].querySelector('button').click()"
    before = chromium.value(column)
    chromium.value(click)
    assert chromium.value(column) == sorted(before, reverse=True)
    chromium.value(click)
    assert chromium.value(column) == sorted(before) != before
    box = f"{table}.parentNode.previousElementSibling"
    chromium.value(f"{box}.value = 'no such line'; {box}.dispatchEvent(new Event('input'))")
    assert chromium.value(f"[...{table}.tBodies[0].rows].filter(r => !r.hidden).length") == 0


def test_without_script_everything_is_there(chromium: Browser, tmp_path: Path) -> None:
    """Only buttons and boxes are missing, which would do nothing."""
    chromium.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        opened(chromium, tmp_path, report_of(*SIZES["small"]))
        assert chromium.value("document.querySelectorAll('button, input').length") == 0
        assert chromium.value("document.querySelectorAll('data').length") > 100
    finally:
        chromium.call("Emulation.setScriptExecutionDisabled", value=False)


def test_what_rows_and_providers_say_is_text(chromium: Browser, tmp_path: Path) -> None:
    """Markup, scripts, templates and control characters in a name, an error, a note and a value do nothing."""
    contents = contents_of(500, 10)
    contents.failures[0] |= {"reason": EVIL, "command": EVIL}
    contents.examples = [{"file": EVIL, "row": 1, "input": {EVIL: EVIL}, "more_columns": 0, "answer": {EVIL: None}}]
    contents.fields = [
        {"field": EVIL, "given": 1, "nulls": 0, "different": 1, "top": [{"value": EVIL, "count": 1}], "rest": 0}
    ]
    evil = {"job": EVIL, "model": EVIL, "output": EVIL, "message": EVIL, "notes": [EVIL], "contents": contents}
    opened(chromium, tmp_path, report_of(5, 500, 1, **evil, table=[line(1, note=EVIL, state="submitted")]))
    assert chromium.problems == []
    assert len(chromium.requests) == 1
    assert chromium.value("document.querySelectorAll('script').length") == 1
    assert chromium.value("document.querySelectorAll('img').length") == 0
    assert chromium.value("document.title").startswith("</script>")
    text = chromium.value("document.documentElement.textContent")
    assert "{{ 7*7 }}" in text
    assert not any(each in text.replace("\n", "") for each in "\x1b\u202e\x9b")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [400, 1600])
def test_the_page_fits_the_window(width: int, dark: bool, chromium: Browser, tmp_path: Path) -> None:
    """It never scrolls sideways as a whole, and is dark where the reader prefers that."""
    chromium.looks(width, dark=dark)
    opened(chromium, tmp_path, report_of(*SIZES["small"]))
    assert chromium.value("document.documentElement.scrollWidth") <= width
    paper = chromium.value("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]")
    assert (int(paper) < 128) is dark


def test_an_unpriced_run_has_no_zero_for_money(chromium: Browser, tmp_path: Path) -> None:
    """What is unknown says so in words."""
    money = Money(None, None, None, None, None, 0, None, None, spending=None, cached=None)
    report = report_of(5, 500, 1, money=money, advice=[], unmetered=7)
    opened(chromium, tmp_path, report)
    text = chromium.value("document.querySelector('.cards').innerText")
    assert "unpriced" in text
    assert "unknown amount for 7 answers" in text
    assert (
        chromium.value("document.querySelector('#spending + p').innerText")
        == "Unknown: this model is not in the price table."
    )


def test_emulated_sums_are_named_as_such(chromium: Browser, tmp_path: Path) -> None:
    """Each of them, everywhere."""
    table = [line(number, emulated=True) for number in range(1, 4)]
    opened(chromium, tmp_path, report_of(5, 500, 1, emulated=True, table=table))
    named = chromium.value(
        "[...document.querySelectorAll('data')].filter(d => d.innerText.includes('$')).map(d => d.innerText)"
    )
    assert len(named) > 20
    assert [text for text in named if "emulated" not in text] == []


def test_each_reason_of_spending_has_words() -> None:
    """A reason that report.json has and the page does not would leave a part of the total unexplained."""
    report = orjson.loads(report_of(5, 500, 1))
    assert report["spending_usd"].keys() == SPENDING.keys()


def test_the_page_fits_paper(chromium: Browser, tmp_path: Path) -> None:
    """Printed, nothing is cut off at the edge of a sheet or behind a scroll bar, and ink is dark on white."""
    table = [line(number, emulated=True) for number in range(1, 4)]
    opened(chromium, tmp_path, report_of(5, 500, 30, emulated=True, table=table))
    chromium.looks(720, dark=True)
    chromium.call("Emulation.setEmulatedMedia", media="print")
    try:
        assert chromium.value("document.documentElement.scrollWidth") <= 720
        hidden = "[...document.querySelectorAll('.scroll')].filter(e => e.scrollHeight > e.clientHeight + 1).length"
        assert chromium.value(hidden) == 0
        assert chromium.value("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    finally:
        chromium.call("Emulation.setEmulatedMedia", media="")


def test_answers_stand_against_what_people_filled(chromium: Browser, tmp_path: Path) -> None:
    """How many agree, what is mistaken for what, and examples, in the figures of report.json."""
    pairs = [{"label": "a", "answer": "a", "rows": 7}, {"label": "a", "answer": EVIL, "rows": 2}]
    example = {"file": "out.parquet", "row": 3, "label": "a", "answer": "b", "input": {"text": "why"}}
    counts = {"compared": 10, "correct": 7, "accuracy": 0.7, "mean_distance": None, "rows_of_other_pairs": 1}
    left = {"rows_without_label": 4, "rows_without_answer": 5}
    gold = {"field": "mood", "column": "label", **counts, **left, "confusion": pairs, "examples": [example]}
    report = opened(chromium, tmp_path, report_of(5, 500, 1, gold=[gold, {**gold, "compared": 0}]))
    figures = chromium.value(
        "[...document.querySelectorAll('data[data-of^=\"/gold\"]')].map(d => [d.value, d.dataset.of])"
    )
    assert [(value, of) for value, of in figures if not same(value, at(report, of))] == []
    assert len(figures) == 8
    text = chromium.value("document.body.innerText")
    assert "7 of 10 rows agree (70.0 %)" in text
    assert "No row has both an answer and a label." in text
    assert chromium.problems == []

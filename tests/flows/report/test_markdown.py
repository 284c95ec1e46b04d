"""The report for people: its first line says how it went, and no line contradicts another."""

from __future__ import annotations

import pytest

from flows.domain.money import show_usd
from flows.report.figures import Money
from flows.report.markdown import MAX_BATCHES, headline, markdown
from tests.flows.report.reports import Reported, figures_with, line, run_reported

EMULATED = "The embedded emulator answered: it is not a model, its answers mean nothing, and nothing was billed."
UNPRICED = Money(None, None, None, None, None, 0, None, None)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Reported:
    """60 requests with failures, invalid answers and refusals, some of them to the end."""
    return run_reported(tmp_path_factory.mktemp("faulty"))


def cells(text: str, first: str) -> list[str]:
    """The cells of the table line that begins with this one."""
    (found,) = (row for row in text.splitlines() if row.startswith(f"| {first} |"))
    return [cell.strip() for cell in found.strip("|").split("|")]


def batch_lines(text: str) -> list[list[str]]:
    """The cells of the table of batches."""
    rows = text.partition("## Batches")[2].splitlines()
    return [[cell.strip() for cell in row[1:-1].split("|")] for row in rows if row.startswith("| ")][2:]


def test_the_report_of_a_run_has_its_figures(faulty: Reported) -> None:
    """Rows by status, the message, tokens and money of the run, as the emulator's ledger has them."""
    text, figures = faulty.text, faulty.figures
    for status in ("ok", "failed", "skipped"):
        assert cells(text, status) == [status, str(figures.rows[status])]
    assert cells(text, "pending") == ["pending", "0"]
    assert cells(text, "all") == ["all", "68"]
    assert f"**Not complete:** `{figures.rows['failed']} of 68 rows failed" in text
    assert "60 distinct requests (5 rows share another row's, 0 were answered before this run)" in text
    tokens_in, tokens_out = faulty.emulator("SELECT sum(input_tokens), sum(output_tokens) FROM billed")
    assert f"Tokens of this run: {tokens_in:,} in, {tokens_out:,} out." in text
    assert cells(text, "this output in total")[1] == show_usd(figures.money.total)
    assert cells(text, "spent on useless answers")[1] == show_usd(figures.money.rejected)


def test_the_report_has_a_line_for_each_batch(faulty: Reported) -> None:
    """The lines add up to what was sent and to what came out well."""
    found, figures = batch_lines(faulty.text), faulty.figures
    assert [cells[0] for cells in found] == ["1", "2", "3", "4", "5"]
    assert sum(int(cells[2]) for cells in found) == figures.attempts
    assert sum(int(cells[3]) for cells in found) == figures.outcomes["ok"]
    assert [cells[4] for cells in found] == [f"{show_usd(line['cost_usd'])} (emulated)" for line in figures.table]


def test_the_headline_says_rows_requests_and_money() -> None:
    """Statuses that do not occur are left out."""
    assert headline(figures_with()) == "10 of 10 rows ok; this run sent 10 requests, its answers cost $1.00"
    mixed = figures_with(rows={"ok": 1000, "failed": 20, "skipped": 3, "pending": 4})
    assert headline(mixed).startswith("1,000 of 1,027 rows ok, 20 failed, 3 skipped, 4 pending; ")


def test_an_emulated_run_says_so(faulty: Reported) -> None:
    """Nobody takes its answers or its costs for real ones; a real run has no such sentence."""
    assert EMULATED in faulty.text
    assert "for this model at holysheep" in faulty.text
    assert "would have cost" in headline(faulty.figures)
    assert EMULATED not in markdown(figures_with())
    assert "would have cost" not in markdown(figures_with())


def test_an_unpriced_model_has_no_sums() -> None:
    """No line of money shows a number that is not known; zero saved by no duplicates is."""
    text = markdown(figures_with(money=UNPRICED, table=[line(1, cost_usd=None)]))
    money = text.partition("## Cost")[2].partition("Tokens")[0].splitlines()
    shown = {row.split("|")[1].strip(): row.split("|")[2].strip() for row in money if row.count("|") == 4}
    amounts = {name: usd for name, usd in shown.items() if name and not name.startswith("-")}
    assert len(amounts) == 9
    assert amounts.pop("saved by de-duplication") == "$0.00"
    assert set(amounts.values()) == {"unpriced"}
    assert batch_lines(text)[0][4] == "unpriced"
    assert "its answers cost unpriced" in headline(figures_with(money=UNPRICED))


def test_the_table_of_batches_ends_at_two_hundred() -> None:
    """The newest are shown, and a sentence says that report.json has all."""
    many = [line(number) for number in range(1, MAX_BATCHES + 51)]
    text = markdown(figures_with(table=many))
    assert [int(cells[0]) for cells in batch_lines(text)] == list(range(51, MAX_BATCHES + 51))
    assert text.endswith("\nThe last 200 of 250 batches; report.json has all.\n")
    assert len(figures_with(table=many).details()["batch_table"]) == MAX_BATCHES + 50
    assert "report.json has all" not in markdown(figures_with(table=many[:MAX_BATCHES]))


def test_a_batch_that_was_not_collected_has_no_cost_and_no_times() -> None:
    """Its cells are empty, and its note can't break the table."""
    failed = line(7, state="failed", ok=0, cost_usd=None, provider_seconds=None, collecting_seconds=None, note="a | b")
    assert batch_lines(markdown(figures_with(table=[failed]))) == [
        ["7", "failed", "10", "0", "", "0.1", "", "", "`a / b`"]
    ]


FORGED = "x\n# All is well\n\n![beacon](http://198.51.100.1/x.png) [pay here](http://198.51.100.1) <b>`| y | z |\x1b[2J"


def test_what_others_wrote_is_no_markup(faulty: Reported) -> None:
    """A provider's text, a name or a path forges no heading, image, link, row or escape sequence."""
    forged = {"message": FORGED, "job": FORGED, "model": FORGED, "provider": FORGED, "output": FORGED}
    text = markdown(figures_with(**forged, table=[line(1, note=FORGED)]))
    plain = markdown(figures_with(message="m", table=[line(1, note="n")]))
    assert len(text.splitlines()) == len(plain.splitlines())
    assert text.replace("\n", "").isprintable()
    outside = "".join(text.split("`")[::2])  # what is no code
    assert "198.51.100.1" in text
    assert not any(sign in outside for sign in ("198.51.100.1", "![", "](", "<b>", "All is well"))
    assert len(batch_lines(text)[0]) == len(batch_lines(plain)[0])


def test_a_selection_is_told_from_the_whole_input() -> None:
    """The rows of the input are named where the output has fewer."""
    assert cells(markdown(figures_with(selected=(10, 5000))), "all") == ["all", "10 of 5,000 in the input"]
    assert cells(markdown(figures_with()), "all") == ["all", "10"]


def test_savings_are_differences_of_the_sums() -> None:
    """The batch price saves what single requests would have cost more."""
    text = markdown(figures_with(deduplicated=1234))
    assert cells(text, "saved by the batch price")[1] == "$3.00"
    assert cells(text, "saved by reuse")[1] == "$2.00"
    assert cells(text, "saved by de-duplication")[2] == "1,234 rows share another row's request"


def test_cached_tokens_and_missing_usage_have_their_words() -> None:
    """Only where there are any."""
    text = markdown(figures_with(cached_tokens=400, unmetered=3))
    assert "Tokens of this run: 1,000 in (400 of them from a cache), 200 out." in text
    assert "3 answers came without usage: what that cost is unknown, and no part of these sums." in text
    assert "cache" not in markdown(figures_with())
    assert "without usage" not in markdown(figures_with())


def test_one_of_a_thing_is_told_in_the_singular() -> None:
    """In the sentence on the run, in the table of costs and below the rows."""
    one = figures_with(rows={"ok": 1}, attempts=1, requests=1, deduplicated=1, reused=1, unmetered=1)
    text = markdown(one)
    assert headline(one) == "1 of 1 row ok; this run sent 1 request, its answers cost $1.00"
    assert "1 distinct request (1 row shares another row's, 1 was answered before this run)" in text
    assert cells(text, "saved by de-duplication")[2] == "1 row shares another row's request"
    assert "1 answer came without usage" in text


def test_an_output_without_answers_says_none() -> None:
    """Before anything was collected."""
    assert "Answers so far: none." in markdown(figures_with(outcomes={}, table=[]))

"""The files in `data/` are what their README says they are."""

import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.price_table import table_rows

DATA = Path(__file__).resolve().parents[2] / "data"
SCRIPT = DATA / "make_reviews.py"
REVIEWS = DATA / "reviews.parquet"
JOBS = sorted((DATA / "jobs").glob("*.yaml"))
JOB_KEYS = {"name", "model", "system", "prompt", "output", "max_output_tokens", "skip_empty", "rename", "gold"}
EMOJI = re.compile("[\U0001f300-\U0001faff\u2600-\u27bf\u2b50]")


def make_reviews(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SCRIPT, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(REVIEWS).to_pylist()
    return found


@pytest.fixture(scope="module")
def texts(rows: list[dict[str, Any]]) -> list[str]:
    return [row["text"] for row in rows if row["text"] is not None]


def test_the_script_writes_the_file_that_is_kept() -> None:
    """The kept file has the content that the script would write."""
    assert make_reviews("--check").returncode == 0


def test_the_script_writes_the_same_bytes_each_time(tmp_path: Path) -> None:
    """Two processes write the same file, byte for byte."""
    files = [tmp_path / "one.parquet", tmp_path / "two.parquet"]
    for file in files:
        assert make_reviews("--output", file).returncode == 0
    assert files[0].read_bytes() == files[1].read_bytes()


def test_check_notices_a_changed_value(tmp_path: Path) -> None:
    """One changed title is enough for `--check` to exit 1 and leave the file alone."""
    table = pq.read_table(REVIEWS)
    titles = table["title"].to_pylist()
    titles[250] = "changed"
    changed = tmp_path / "changed.parquet"
    place = table.column_names.index("title")
    pq.write_table(table.set_column(place, table.schema.field("title"), pa.array(titles, pa.string())), changed)
    before = changed.read_bytes()
    assert make_reviews("--check", "--output", changed).returncode == 1
    assert changed.read_bytes() == before


def test_check_notices_a_missing_file(tmp_path: Path) -> None:
    """A file that is not there differs, too."""
    assert make_reviews("--check", "--output", tmp_path / "none.parquet").returncode == 1


def test_columns_and_types() -> None:
    """The columns are the documented ones, with stars as int8 and times in Berlin's zone."""
    schema = pq.read_schema(REVIEWS)
    assert {name: str(schema.field(name).type) for name in schema.names} == {
        "review_id": "string",
        "product": "string",
        "category": "string",
        "language": "string",
        "rating": "int8",
        "reviewed_at": "timestamp[us, tz=Europe/Berlin]",
        "title": "string",
        "text": "string",
    }


def test_the_file_is_small() -> None:
    """The file is small enough to be kept in the repository."""
    assert REVIEWS.stat().st_size < 200_000


def test_five_hundred_rows_with_ids_of_their_own(rows: list[dict[str, Any]]) -> None:
    """500 rows, each with an id that looks like R-000123 and stands once."""
    ids = {row["review_id"] for row in rows}
    assert len(rows) == len(ids) == 500
    assert all(re.fullmatch(r"R-\d{6}", review_id) for review_id in ids)


def test_both_languages_in_all_categories(rows: list[dict[str, Any]]) -> None:
    """300 German and 200 English rows, each language with seven categories of its own."""
    by_language = {language: [row for row in rows if row["language"] == language] for language in ("de", "en")}
    assert {language: len(some) for language, some in by_language.items()} == {"de": 300, "en": 200}
    assert all(len({row["category"] for row in some}) == 7 for some in by_language.values())


def test_all_ratings_occur(rows: list[dict[str, Any]]) -> None:
    """Every number of stars from 1 to 5 is given at least 30 times."""
    ratings = [row["rating"] for row in rows]
    assert all(ratings.count(stars) >= 30 for stars in range(1, 6))
    assert set(ratings) == {1, 2, 3, 4, 5}


def test_25_texts_are_repeats(texts: list[str]) -> None:
    """25 rows repeat the text of another row, and at least 420 texts are distinct."""
    assert len(texts) - len(set(texts)) == 25
    assert len(set(texts)) >= 420


def test_most_repeats_give_the_prompt_the_same_values(rows: list[dict[str, Any]]) -> None:
    """20 repeats have product and category in common too, so that a run can de-duplicate; 5 have not."""
    sent = [(row["product"], row["category"], row["text"]) for row in rows if row["text"] is not None]
    assert len(sent) - len(set(sent)) == 20


def test_nulls_and_blanks(rows: list[dict[str, Any]], texts: list[str]) -> None:
    """Three texts and some titles are null, one text is empty and one has only white space."""
    assert len(texts) == 497
    assert sorted(text for text in texts if not text.strip()) == ["", "   \n"]
    assert sum(row["title"] is None for row in rows) >= 20


@pytest.mark.parametrize(
    ("quirk", "least", "most"),
    [
        pytest.param(EMOJI, 25, 40, id="emoji"),
        pytest.param(re.compile(r"\n\S"), 15, 120, id="line breaks"),
        pytest.param(re.compile(r"„.+“|\".+\""), 8, 60, id="quotes"),
        pytest.param(re.compile(r"\d+[.,]\d\d €|€\d+"), 20, 150, id="prices"),
        pytest.param(re.compile(r"&\w+;|<br"), 4, 15, id="HTML"),
        pytest.param(re.compile(r"[äöüß]"), 150, 300, id="umlauts"),
        pytest.param(re.compile(r"\s\Z"), 3, 10, id="white space at the end"),
        pytest.param(re.compile(r"\A.{1,40}\Z"), 20, 120, id="a few words"),
        pytest.param(re.compile(r"\A.{600,}\Z", re.DOTALL), 4, 40, id="long"),
    ],
)
def test_quirks_of_real_reviews(texts: list[str], quirk: re.Pattern[str], least: int, most: int) -> None:
    """What makes real texts awkward is there, neither once nor everywhere."""
    assert least <= sum(bool(quirk.search(text)) for text in texts) <= most


def test_no_text_is_too_long(texts: list[str]) -> None:
    """The longest text has at most 900 characters."""
    assert max(map(len, texts)) <= 900


def test_nothing_is_left_of_the_phrase_language(texts: list[str]) -> None:
    """No place is left unfilled and no alternative unchosen."""
    assert not [text for text in texts if re.search(r"[\[\]{}|]", text)]


def test_the_hour_that_comes_twice(rows: list[dict[str, Any]]) -> None:
    """Two reviews fall into the repeated hour of 26 October 2025, one before the clocks change, one after."""
    moments = [row["reviewed_at"].astimezone(UTC) for row in rows]
    assert datetime(2025, 10, 26, 0, 40, 11, tzinfo=UTC) in moments
    assert datetime(2025, 10, 26, 1, 12, 11, tzinfo=UTC) in moments


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_job_files(path: Path) -> None:
    """Job files have only the allowed keys, name columns that exist and a model that has a price."""
    job = yaml.safe_load(path.read_text(encoding="utf-8"))
    columns = set(pq.read_schema(REVIEWS).names)
    assert job.keys() <= JOB_KEYS
    assert set(re.findall(r"{{\s*(\w+)\s*}}", job["prompt"])) == {"product", "category", "text"}
    assert set(job["skip_empty"]) <= columns
    assert not job["output"].keys() & columns
    assert job["model"] in {row["model"] for row in table_rows() if row["provider"] == "holysheep"}


def test_both_jobs_are_there() -> None:
    """There is a German and an English job."""
    assert [path.name for path in JOBS] == ["reviews_de.yaml", "reviews_en.yaml"]

"""Bodies of batches: always the same bytes, whose sizes were known before."""

import json
from pathlib import Path
from typing import Any

import pytest

from blocks.batch import EncodedBatch, RequestForm
from blocks.providers.holysheep.codec import HolySheepCodec
from flows.domain.events import Slice
from flows.storage.encoding import BatchWriter
from flows.storage.tables import NumberedTable
from tests.flows.domain.answers import RUN, answer
from tests.flows.storage.building import Collecting, Work, generations, known, parquet

FORM = HolySheepCodec(RequestForm("m", "Be brief.", {"type": "object"}))


@pytest.fixture
def job(tmp_path: Path) -> Work:
    """Requests 0 to 5 in two generations."""
    job = Work(tmp_path, parquet(tmp_path / "in.parquet", {"text": ["a", 'b"\n', None]}))
    job.ask()
    parquet(job.input, {"text": ["ü🙂", "e" * 50, "f\x00"]})
    job.ask()
    return job


def write(job: Work, *slices: Slice, collecting: Collecting | None = None, name: str = "body") -> EncodedBatch:
    collecting = collecting or Collecting(job.state)
    store, batches = collecting.store, collecting.ledger.batches
    writer = BatchWriter(job.frozen(), lambda batch: store.corrections(batches[batch]), job.question.prompt, FORM)
    return writer.write(job.folder / name, f"{RUN}-1", list(slices))


def body(batch: EncodedBatch) -> list[dict[str, Any]]:
    content = json.loads(batch.path.read_bytes())
    assert content["model"] == "m"
    found: list[dict[str, Any]] = content["requests"]
    return found


def test_a_body_holds_the_requests_of_its_slices(job: Work) -> None:
    """In their order, over generations, each under its own custom_id, with the values that were frozen."""
    job.input.unlink()
    batch = write(job, Slice(4, 5, 2, 1), Slice(0, 4))
    found = body(batch)
    assert [item["custom_id"] for item in found] == [f"{RUN}-1-4-2", *(f"{RUN}-1-{n}-1" for n in range(4))]
    prompts = [item["prompt"] for item in found]
    for prompt, text in zip(prompts, ["e" * 50, "a", 'b"\n', "", "ü🙂"], strict=True):
        assert prompt.startswith(f"Be brief.\n\n{text}\n\nAnswer with one JSON object")
    assert (batch.requests, batch.bytes, batch.tag) == (5, batch.path.stat().st_size, f"{RUN}-1")


def test_no_sign_in_a_body_ends_a_line_for_anybody(tmp_path: Path) -> None:
    """Some servers split lines as Python's `splitlines` does; the text that is asked stays the same."""
    text = "one\u2028two\u2029three\u0085four"
    job = Work(tmp_path, parquet(tmp_path / "in.parquet", {"text": [text]}))
    job.ask()
    batch = write(job, Slice(0, 1))
    assert text in body(batch)[0]["prompt"]
    assert len(batch.path.read_text(encoding="utf-8").splitlines()) == 1


def test_a_body_holds_requests_of_row_groups_of_different_sizes(tmp_path: Path) -> None:
    """Wide rows are frozen in small row groups; each request is still found by its number."""
    texts = [f"{n} " + "x" * (900_000 if n % 3 else 5) for n in range(70)]
    job = Work(tmp_path, parquet(tmp_path / "in.parquet", {"text": texts}))
    job.ask()
    with NumberedTable(*generations(job.state.requests)) as stored:
        assert stored.groups > 2
    numbers = [69, *range(3, 40), 0]
    batch = write(job, Slice(69, 70), Slice(3, 40), Slice(0, 1))
    for item, number in zip(body(batch), numbers, strict=True):
        assert item["custom_id"] == f"{RUN}-1-{number}-1"
        assert texts[number] in item["prompt"]
    frozen = job.frozen()
    assert [frozen.fit(0, 70, frozen.total(0, stop)) for stop in range(71)] == list(range(71))


def test_what_was_wrong_is_read_once_for_each_batch_that_failed(job: Work) -> None:
    """However many slices of it go again: a tenth of a batch is hundreds of them."""
    read: list[int] = []

    def corrections(batch: int) -> dict[int, str]:
        read.append(batch)
        return {0: "no label", 4: "no stars"} if batch == 1 else {2: "not JSON"}

    writer = BatchWriter(job.frozen(), corrections, job.question.prompt, FORM)
    slices = [Slice(0, 1, 2, after=1), Slice(2, 3, 2, after=2), Slice(4, 5, 2, after=1), Slice(5, 6)]
    found = body(writer.write(job.folder / "body", f"{RUN}-1", slices))
    assert sorted(read) == [1, 2]
    said = [[why for why in ("no label", "not JSON", "no stars") if why in item["prompt"]] for item in found]
    assert said == [["no label"], ["not JSON"], ["no stars"], []]


def test_the_same_slices_are_the_same_bytes(job: Work) -> None:
    """A batch that is sent again after a crash can be recognised."""
    slices = [Slice(0, 2), Slice(3, 6, 3, 2)]
    first, second = write(job, *slices), write(job, *slices, name="again")
    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.sha256 == second.sha256
    assert first.sha256 != write(job, Slice(0, 2), Slice(3, 6, 4, 2)).sha256


def test_only_rejected_answers_are_corrected(job: Work) -> None:
    """A request whose answer broke the schema is told why; one that failed otherwise is sent as it was."""
    collecting = Collecting(job.state)
    rejected, missing = 1, 2
    result = collecting.batch([Slice(0, 3)], [answer(0, '{"label": "x"}'), answer(rejected, "not json")])
    assert result.retry == [Slice(1, 3, 2, 1, 1)]
    found = body(write(job, *result.retry, Slice(3, 4), collecting=collecting))
    notes = {item["custom_id"]: "Your previous answer was rejected" in item["prompt"] for item in found}
    assert notes == {f"{RUN}-1-{rejected}-2": True, f"{RUN}-1-{missing}-2": False, f"{RUN}-1-3-1": False}
    assert "the answer is not JSON" in found[0]["prompt"]


def test_columns_go_where_the_prompt_takes_them(tmp_path: Path) -> None:
    """Also where the input's columns were in another order when the requests were frozen."""
    job = Work(tmp_path, parquet(tmp_path / "in.parquet", {"a": ["1"], "b": ["2"], "a.b": ["3"]}))
    prompt = "{{ a }}-{{ b }}-{{ row['a.b'] }}"
    job.ask(prompt)
    parquet(job.input, {"a.b": ["3"], "b": ["2"], "a": ["1"]})
    assert known(job.ask(prompt)) == 1
    assert body(write(job, Slice(0, 1)))[0]["prompt"].startswith("Be brief.\n\n1-2-3\n")


def test_many_row_groups_are_read_by_number(tmp_path: Path) -> None:
    """Slices over the borders of row groups and generations."""
    job = Work(tmp_path, parquet(tmp_path / "in.parquet", {"text": [f"t{n}" for n in range(20_000)]}))
    job.ask()
    parquet(job.input, {"text": [f"t{n}" for n in range(20_000, 37_000)]})
    job.ask()
    slices = [Slice(16_380, 16_390), Slice(19_995, 20_005), Slice(36_383, 36_390), Slice(0, 1, 2, 1)]
    found = body(write(job, *slices))
    for item in found:
        number = item["custom_id"].split("-")[2]
        assert item["prompt"].startswith(f"Be brief.\n\nt{number}\n")
    assert len(found) == 28

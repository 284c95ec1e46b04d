"""Files that a user names: only small regular ones are read as jobs, and what they hold is not told."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from blocks.errors import UsageError
from flows.domain.job import parse_job
from flows.preflight import check
from flows.settings import read_settings
from tests.flows.command import ROOT
from tests.flows.undecorated import JOB, enrich, reviews, write_job, write_texts

SECRET = "hunter2-of-the-tests"  # noqa: S105  # planted
LAUGHS = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))

Spoil = Callable[[Path], object]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (os.mkfifo, "is not a regular file"),
        (lambda path: path.mkdir(), "can't be read|is not a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "is not a regular file"),
        (lambda path: path.symlink_to("/dev/tty"), "is not a regular file|can't be read"),
        (lambda path: path.write_text("# " + "x" * 1_000_000), "is larger than 1,000,000 bytes"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "is not text in UTF-8"),
    ],
    ids=["pipe", "folder", "device", "terminal", "large", "bytes"],
)
def test_what_is_no_small_file_is_no_job(tmp_path: Path, spoil: Spoil, said: str) -> None:
    """It is refused at once: a pipe is not waited for, and a device not read."""
    job = tmp_path / "odd.yaml"
    spoil(job)
    with pytest.raises(UsageError, match=said):
        check(read_settings({"input": tmp_path, "output": tmp_path / "out", "job": job, "provider": "local"}))


@pytest.mark.parametrize("place", ["input", "in a folder", "output"])
def test_a_pipe_in_the_place_of_data_is_not_waited_for(tmp_path: Path, place: str) -> None:
    """A process that would wait is stopped; it ends with a sentence instead."""
    source, output, job = write_texts(tmp_path, reviews(2)), tmp_path / "out.parquet", write_job(tmp_path)
    if place == "output":
        enrich(input=source, output=output, job=job)
        output.unlink()
        os.mkfifo(output)
    else:
        source = tmp_path / "in" if place == "in a folder" else tmp_path / "pipe.parquet"
        source.mkdir() if place == "in a folder" else None
        os.mkfifo(source / "a.parquet" if place == "in a folder" else source)
        output = tmp_path / "out" if place == "in a folder" else output
    program = "from flows.cli import main; main()"
    command = [sys.executable, "-c", program, "plan", str(source), str(output), "--job", str(job)]
    done = subprocess.run(
        [*command, "--provider", "local"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "text",
    [
        "".join(f"{SECRET}{n}: {SECRET}\n" for n in range(50)),
        f"{JOB}{SECRET}{'x' * 5_000}: 1\n",
        f"name: !{SECRET} x\n",
        f"name: *{SECRET}\n",
        f"? [{SECRET}]\n: 1\n",
        f"name: {{{SECRET}: {SECRET}, [{SECRET}]: 1}}\n",
        JOB + f"temperature: {SECRET}\n",
        JOB + f"rename: [{SECRET}]\n",
        JOB.replace("{type: string, enum", f"{{type: {SECRET}, enum"),
        JOB.replace("{type: string, enum: [positive, negative, neutral]}", SECRET),
        JOB.replace("{{ text }}", f"{{{{ {SECRET.replace('-', '_')}_{'x' * 500} }}}}"),
    ],
)
def test_an_error_tells_at_most_a_few_short_names_of_a_job(tmp_path: Path, text: str) -> None:
    """The path may have been anybody's file."""
    job = write_job(tmp_path, text)
    places = {"input": write_texts(tmp_path, reviews(2)), "output": tmp_path / "out.parquet", "job": job}
    with pytest.raises(UsageError) as caught:
        check(read_settings({**places, "provider": "local"}))
    assert str(caught.value).count("hunter2") <= 3
    assert len(caught.value.message) < 400


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LAUGHS, "aliases are not allowed"),
        ("[" * 50_000, "out of all bounds"),
        (f"name: {'9' * 5_000}", "out of all bounds"),
        ("name: 2001-02-31", "out of all bounds"),
    ],
)
def test_yaml_that_grows_or_breaks_is_refused(text: str, said: str) -> None:
    """A kilobyte stays a kilobyte, and no parser's own error comes out."""
    with pytest.raises(UsageError, match=said):
        parse_job(text, "job.yaml")

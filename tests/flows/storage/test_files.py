"""Files are complete or absent."""

from pathlib import Path

import pytest

from flows.storage.files import replacing, write_json


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    """Until then the old one is there, whole."""
    path = tmp_path / "x.json"
    write_json(path, {"n": 1})
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == '{\n  "n": 1\n}\n'
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_an_exception_leaves_the_old_file_and_no_trace(tmp_path: Path) -> None:
    """Half a file is never seen under the name."""
    path = tmp_path / "x.txt"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half of the n")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]

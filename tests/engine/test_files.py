from pathlib import Path

import pytest

from sparring.data.errors import DataError, RunError
from sparring.engine.files import unless_refused


def refused(out: Path) -> None:
    """Data are read that carry a picture, and are refused at their end."""
    with unless_refused(out, "pictures") as folder:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "carried.png").write_bytes(b"")
        raise DataError("the last record is bad")


def test_what_is_refused_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the last record"):
        refused(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_before_stays(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="the last record"):
        refused(tmp_path / "b")
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["notes.txt"]
    (tmp_path / "b" / "pictures").mkdir()
    (tmp_path / "b" / "pictures" / "of an earlier process.png").write_bytes(b"")
    with pytest.raises(DataError, match="the last record"):
        refused(tmp_path / "b")
    assert (tmp_path / "b" / "pictures" / "of an earlier process.png").exists()


def test_what_is_taken_stays_and_a_file_is_no_folder(tmp_path: Path) -> None:
    with unless_refused(tmp_path / "a", "pictures") as folder:
        assert folder == tmp_path / "a" / "pictures"
    assert (tmp_path / "a").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="is a file"), unless_refused(tmp_path / "file", "pictures"):
        pass

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from sparring.data.errors import DataError, RunError
from sparring.engine.files import open_database, unless_refused


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


def test_a_new_database_may_be_opened_by_many_at_once(tmp_path: Path) -> None:
    """SQLite turns away some of those who set a new file's mode together, without waiting."""
    for number in range(100):
        together, found = threading.Barrier(6), list[int]()

        def begin(path: Path, together: threading.Barrier, found: list[int]) -> None:
            together.wait()
            with closing(open_database(path, "CREATE TABLE IF NOT EXISTS a (b);")) as database:
                with database:
                    database.execute("INSERT INTO a VALUES (1)")
                found.append(1)

        others = [
            threading.Thread(target=begin, args=(tmp_path / f"{number}.sqlite", together, found))
            for _ in range(6)
        ]
        for other in others:
            other.start()
        for other in others:
            other.join()
        assert len(found) == 6


def test_a_file_that_is_no_database_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(RunError, match="cannot be used"):
        open_database(tmp_path / "a.sqlite", "CREATE TABLE IF NOT EXISTS a (b);")


def test_a_database_that_another_keeps_to_itself_is_told_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sparring.engine.files.OPENING", 0.1)
    with closing(sqlite3.connect(tmp_path / "a.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(RunError, match="database is locked"):
            open_database(tmp_path / "a.sqlite", "CREATE TABLE IF NOT EXISTS a (b);", timeout=0)

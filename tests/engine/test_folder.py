"""A folder belongs to what was computed in it, and to nobody before that."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from sparring.config import Recipe, SftSettings
from sparring.data.errors import RunError
from sparring.engine.folder import COMPUTED, KINDS, kind_of, run_folder
from sparring.models.vlms.answer_cache import AnswerCache

RESUME = "the command that began it"


def settings(**fields: object) -> SftSettings:
    return SftSettings.model_validate({"data": "q.jsonl", "defender": {"model": "a/b"}} | fields)


def failed_try(out: Path, **fields: object) -> None:
    """What a process leaves that claims a folder, notes its questions and then finds no model."""
    with run_folder(settings(**fields), out, file="sft.yaml", resume=RESUME) as folder:
        (folder / "data").mkdir(exist_ok=True)
        (folder / "data" / "done.json").write_text("{}")
        for name, tables in COMPUTED.items():
            with sqlite3.connect(folder / name) as database:
                for table in (*(rows.split()[0] for rows in tables), "meta"):
                    database.execute(f"CREATE TABLE IF NOT EXISTS {table} (outcome)")
                database.execute("INSERT INTO meta VALUES (1)")


def test_what_failed_before_anything_was_computed_is_taken_over(tmp_path: Path) -> None:
    failed_try(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    with run_folder(settings(seed=7), tmp_path, file="sft.yaml", resume=RESUME) as folder:
        assert yaml.safe_load((folder / "sft.yaml").read_text())["seed"] == 7
        assert not (folder / "data" / "done.json").exists()  # other questions may be meant now
        assert not (folder / "ledger.sqlite").exists()
    failed_try(tmp_path, seed=7)
    with run_folder(settings(seed=7), tmp_path, file="eval.yaml", resume=RESUME) as folder:
        assert kind_of(folder) == "evaluation"
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("database", "table"), [(name, table) for name, tables in COMPUTED.items() for table in tables]
)
def test_one_row_of_work_makes_the_folder_its_own(tmp_path: Path, database: str, table: str) -> None:
    failed_try(tmp_path)
    with sqlite3.connect(tmp_path / database) as opened:
        opened.execute(f"INSERT INTO {table.split()[0]} VALUES ('kept')")
    with (
        pytest.raises(
            RunError,
            match=r"another fine-tuning \(seed is 0 there and 7 here\)\. Resume it with the command that",
        ),
        run_folder(settings(seed=7), tmp_path, file="sft.yaml", resume=RESUME),
    ):
        pass
    with (
        pytest.raises(RunError, match=r"results of a fine-tuning but no recipe\.yaml"),
        run_folder(settings(), tmp_path),
    ):
        pass
    with run_folder(settings(), tmp_path, file="sft.yaml", resume=RESUME) as folder:
        assert (folder / "data" / "done.json").exists()


@pytest.mark.parametrize("name", ["summary.json", "results.json", "funnel.json", "items.parquet"])
def test_results_are_never_taken_over(tmp_path: Path, name: str) -> None:
    failed_try(tmp_path)
    (tmp_path / name).write_text("{}")
    with (
        pytest.raises(RunError, match="another fine-tuning"),
        run_folder(settings(seed=7), tmp_path, file="sft.yaml", resume=RESUME),
    ):
        pass


def test_a_damaged_database_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    failed_try(tmp_path)
    (tmp_path / "answers.sqlite").write_bytes(b"this was somebody's money" * 99)
    with (
        pytest.raises(RunError, match="another fine-tuning"),
        run_folder(settings(seed=7), tmp_path, file="sft.yaml", resume=RESUME),
    ):
        pass


def test_a_users_own_file_is_not_written_over(tmp_path: Path) -> None:
    for name in KINDS:
        (tmp_path / name).write_text("extends: arena\n")
    with (
        pytest.raises(RunError, match="another fine-tuning"),
        run_folder(settings(), tmp_path, file="sft.yaml", resume=RESUME),
    ):
        pass
    assert all((tmp_path / name).read_text() == "extends: arena\n" for name in KINDS)


@pytest.mark.parametrize("content", ["[", "- a", "", "\x00"])
def test_damaged_settings_are_named(tmp_path: Path, content: str) -> None:
    failed_try(tmp_path)
    (tmp_path / "summary.json").write_text("{}")
    (tmp_path / "sft.yaml").write_text(content)
    with (
        pytest.raises(RunError, match=r"sft\.yaml (is no YAML|holds no settings)"),
        run_folder(settings(), tmp_path, file="sft.yaml", resume=RESUME),
    ):
        pass


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    for out in (tmp_path / "a", tmp_path / "a" / "b" / "c"):
        with (
            pytest.raises(RunError, match="/a is a file"),
            run_folder(settings(), out, file="sft.yaml", resume=RESUME),
        ):
            pass
    if os.geteuid() != 0:
        tmp_path.chmod(0o500)
        with (
            pytest.raises(RunError, match="Permission denied"),
            run_folder(settings(), tmp_path / "b", file="sft.yaml", resume=RESUME),
        ):
            pass


def test_a_run_may_go_on_with_another_engine(tmp_path: Path) -> None:
    def recipe(**engine: object) -> Recipe:
        players = {"attacker": {"model": "a"}, "defender": {"model": "d"}}
        return Recipe.model_validate({"name": "x", "data": {"path": "q"}, "engine": engine} | players)

    with run_folder(recipe(workers=2), tmp_path) as folder:
        (folder / "summary.json").write_text("{}")
    with run_folder(recipe(kind="ray", workers=5, attacker={"strategy": "fsdp2"}), tmp_path):
        pass


def test_what_an_earlier_version_did_not_know_is_as_it_is_by_default(tmp_path: Path) -> None:
    def compute(folder: Path) -> None:
        with closing(sqlite3.connect(folder / "ledger.sqlite")) as database, database:
            database.execute("CREATE TABLE answers (x)")
            database.execute("INSERT INTO answers VALUES (1)")

    with run_folder(settings(), tmp_path, file="sft.yaml", resume=RESUME) as folder:
        compute(folder)
    stored = yaml.safe_load((tmp_path / "sft.yaml").read_text())
    del stored["defender"]["top_k"]
    (tmp_path / "sft.yaml").write_text(yaml.safe_dump(stored))
    with run_folder(settings(), tmp_path, file="sft.yaml", resume=RESUME):
        pass
    other = settings().model_copy(update={"defender": settings().defender.model_copy(update={"top_k": 3})})
    with (
        pytest.raises(RunError, match=r"defender\.top_k is 0 there and 3 here"),
        run_folder(other, tmp_path, file="sft.yaml", resume=RESUME),
    ):
        pass
    stored["defender"] |= {"top_k": 0, "no_longer_known": 1}
    (tmp_path / "sft.yaml").write_text(yaml.safe_dump(stored))
    with (
        pytest.raises(RunError, match=r"defender\.no_longer_known is 1 there and None here"),
        run_folder(settings(), tmp_path, file="sft.yaml", resume=RESUME),
    ):
        pass


def test_what_endpoints_have_cost_is_not_forgotten_where_nothing_was_answered(tmp_path: Path) -> None:
    failed_try(tmp_path)
    with closing(AnswerCache(tmp_path / "answers.sqlite")) as cache:
        assert cache.take("http://h/v1#m", 2)
    failed_try(tmp_path, seed=7)
    with closing(AnswerCache(tmp_path / "answers.sqlite")) as cache:
        assert cache.spent("http://h/v1#m")["requests"] == 1


def test_the_pace_of_endpoints_is_kept_as_it_was_last_said(tmp_path: Path) -> None:
    def budget(number: int, workers: int = 1) -> Recipe:
        return Recipe.model_validate(
            {
                "name": "r",
                "data": {"path": "q.jsonl"},
                "attacker": {"model": "e"},
                "defender": {"model": "http://h/v1#m", "endpoint": {"budget": number}},
                "engine": {"workers": workers},
            }
        )

    for number, workers in ((5, 1), (9, 4)):
        with run_folder(budget(number, workers), tmp_path):
            (tmp_path / "summary.json").write_text("{}")
    stored = Recipe.model_validate(yaml.safe_load((tmp_path / "recipe.yaml").read_text()))
    assert (stored.defender.endpoint.budget, stored.engine.workers) == (9, 1)

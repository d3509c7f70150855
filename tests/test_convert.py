"""`sparring convert` on the command line."""

import json
from pathlib import Path

from typer.testing import CliRunner

from small_benchmarks import hr_rows, vstar_folder, write_tsv
from sparring.cli import app
from sparring.data.questions import read_questions


def convert(*arguments: object) -> tuple[int, str]:
    found = CliRunner().invoke(app, ["convert", *map(str, arguments)])
    return found.exit_code, " ".join(found.output.split())


def test_any_layout_becomes_json_lines(tmp_path: Path) -> None:
    tsv = write_tsv(tmp_path / "hr.tsv", hr_rows())
    for number, arguments in enumerate(
        (["--data", vstar_folder(tmp_path / "v")], ["--data", tsv], ["--suite", "hrbench-4k", "--data", tsv])
    ):
        out = tmp_path / f"out{number}"
        code, said = convert(*arguments, "--out", out)
        assert (code, f"{len(read_questions(out / 'questions.jsonl'))} questions:" in said) == (0, True), said
    assert len(list((tmp_path / "out1/pictures").iterdir())) == 2


def test_a_wrong_file_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.7")
    code, said = convert("--data", tmp_path / "a.pdf", "--out", tmp_path / "out")
    assert code != 0
    assert "this is a PDF" in said
    assert not (tmp_path / "out").exists()


def test_the_same_may_be_written_again_and_a_suite_has_its_own_layouts(tmp_path: Path) -> None:
    given = ["--data", write_tsv(tmp_path / "hr.tsv", hr_rows()), "--out", tmp_path / "out"]
    assert [convert(*given)[0] for _ in range(2)] == [0, 0]
    code, said = convert(*given, "--suite", "hrbench-4k", "--format", "rows")
    assert code == 2
    assert "a suite has its own layouts" in said


def test_skipped_records_are_told(tmp_path: Path) -> None:
    tsv = write_tsv(
        tmp_path / "hr.tsv", [row | {"answer": "Z"} if k == 2 else row for k, row in enumerate(hr_rows())]
    )
    code, said = convert("--data", tsv, "--out", tmp_path / "out")
    assert code != 0
    assert "--skip-bad-records" in said
    code, said = convert("--data", tsv, "--out", tmp_path / "out", "--skip-bad-records")
    assert code == 0
    assert "1 record left out: bad" in said
    lines = (tmp_path / "out/questions.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["0", "1", "3", "4", "5", "6", "7"]


def test_data_are_not_written_over_by_what_is_made_of_them(tmp_path: Path) -> None:
    code, said = convert("--data", write_tsv(tmp_path / "hr.tsv", hr_rows()), "--out", tmp_path / "my")
    assert code == 0, said
    with open(tmp_path / "my/questions.jsonl", "a") as file:
        file.write('{"id": "bad"}\n')
    before = (tmp_path / "my/questions.jsonl").read_text()
    pictures = set((tmp_path / "my/pictures").iterdir())
    code, said = convert("--data", vstar_folder(tmp_path / "v"), "--out", tmp_path / "my")
    assert code == 2
    assert "holds other questions" in said
    assert set((tmp_path / "my/pictures").iterdir()) == pictures
    for source in ("my/questions.jsonl", "my"):
        code, said = convert("--data", tmp_path / source, "--out", tmp_path / "my", "--skip-bad-records")
        assert code == 2
        assert "it would be written over" in said
    assert (tmp_path / "my/questions.jsonl").read_text() == before
    assert convert("--data", tmp_path / "my", "--out", tmp_path / "other", "--skip-bad-records")[0] == 0

"""What goes on, without a browser: of kinds of work whose folders hold no ledger."""

import json
import os
from pathlib import Path

from sparring.report.viewer.now import now
from sparring.report.viewer.works import Works


def test_a_study_tells_how_many_cells_are_done_and_comes_first_while_it_writes(tmp_path: Path) -> None:
    out, game = tmp_path / "evidence", tmp_path / "evidence/games/a-1"
    for folder in ("games/a-1", "edits/a-1", "probes/a-1", "logs"):
        (out / folder).mkdir(parents=True)
    (out / "study.yaml").write_text("seeds: [1, 2]\narms: {a: {recipe: arena}, b: {recipe: arena}}\n")
    (game / "recipe.yaml").write_text("name: a\n")
    (game / "summary.json").write_text("{}")
    (out / "edits/a-1/probe.yaml").write_text("{}")
    (out / "edits/a-1/edits.json").write_text("{}")
    (out / "edits/a-1/ledger.sqlite").touch()
    os.utime(out / "study.yaml", (1, 1))
    (out / "logs/game-a-1.txt").write_text("under way")
    works = Works(tmp_path)
    study = works.all()["evidence"]
    assert [(bar.title, bar.done, bar.total) for bar in now(study, None).bars] == [
        ("Games", 1, None),
        ("Edits", 1, 2),
        ("Probes", 0, 4),
    ]
    assert study.written > 2
    assert works.all()["evidence/edits/a-1"].state == "finished"
    (out / "study.json").write_text(
        json.dumps({"failed": {"probe a-1": "no room"}, "warnings": ["a: 1 of 2 seeds done"]})
    )
    assert now(study, None).warnings == ("probe a-1 has failed: no room", "a: 1 of 2 seeds done")

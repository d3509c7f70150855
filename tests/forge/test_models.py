"""The forge with models in every part: scenes extended and checked by a panel, distractors proposed by a VLM,
objects counted by a judge.
"""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from endpoint_server import Server, question, serving
from small_checkpoints import tiny_flux2_klein
from small_forge import forge_of, forge_quietly, players, write_light_questions
from sparring.attackers.crops import crops_of
from sparring.attackers.rollout import deterministic_edits
from sparring.cli import app
from sparring.data.errors import ModelError, RecipeError
from sparring.data.images import load_image
from sparring.forge.implant import changes_alone
from sparring.forge.ledger import Ledger
from sparring.forge.propose import own_seed
from sparring.forge.records import OUTCOMES
from sparring.models.editors import load_editor

COUNT = 12


def answer(image: Image.Image, body: dict[str, Any]) -> dict[str, Any]:
    """As `players`, but the panel objects to some pictures for realism, and sometimes rambles; now and then a
    second lever is counted.
    """
    if body["model"] == "judge":
        text, dice = question(body), int(np.asarray(image).astype(int).sum())
        if "photograph of a real place" in text and dice % 3 == 0:
            return {"text": "I cannot tell."}
        if text == "levers?" and dice % 4 == 0:
            return {"text": "two"}
    return players(image, body)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(answer) as server:
        yield server


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_light_questions(tmp_path_factory.mktemp("questions"), COUNT)


def with_models(server: Server) -> tuple[str, ...]:
    return (
        f"judge.model='{server.url}#judge'",
        "judge.count_prompt='{name}s?'",
        "stages.extend={painter: {model: edges}, share: [0.02, 0.04]}",
        f"stages.propose={{model: '{server.url}#proposer'}}",
        "stages.panel={prompts: true}",
        "stages.right_when_clean=false",
        "stages.attempts=1",
    )


def test_both_stages_with_models(server: Server, questions: Path, tmp_path: Path) -> None:
    funnel = forge_quietly(forge_of(questions, server.url, *with_models(server)), tmp_path)
    dropped = {stage["stage"]: stage["dropped"] for stage in funnel["stages"]}
    assert dropped["extend"].keys() == {"realism check"}
    assert dropped["duplicates"].keys() <= {"count changed"}
    rejected = datasets.load_dataset(
        str(tmp_path / "dataset"), "rejected", cache_dir=str(tmp_path / "cache")
    )["train"]
    for row in rejected:
        if row["stage"] == "extend":
            assert row["message"] == "0 of 3 passed: unparsed"
            assert json.loads(row["notes"])["composition"] == "looks right"
            assert row["adversarial_image"] is None
    sources = [Image.open(path).convert("RGB") for path in sorted(questions.parent.glob("*.png"))]
    loaded = datasets.load_dataset(str(tmp_path / "dataset"), "useless", cache_dir=str(tmp_path / "cache"))[
        "train"
    ]
    assert len(loaded) > 0
    for row in loaded:
        notes = json.loads(row["notes"])
        x, y = int(notes["offset_x"]), int(notes["offset_y"])
        inner = row["image"].crop((x, y, x + 64, y + 64))
        assert any(inner.tobytes() == source.tobytes() for source in sources)
        assert row["targets"][0]["box"] == [4 + x, 4 + y, 20 + x, 24 + y]
        assert notes["core_share"] < 0.08
        assert row["distractors"][0]["object"] == "a red hat"
        assert row["image"].size == row["adversarial_image"].size != (64, 64)


def test_an_editor_decides_by_itself_and_only_what_it_changed_stays(
    server: Server, questions: Path, tmp_path: Path
) -> None:
    editor = tiny_flux2_klein(tmp_path / "editor")
    changes = (
        f"attacker.model='{editor}'",
        "attacker.evaluation_steps=2",
        "stages.implant=editor",
        "stages.right_when_clean=false",
    )
    funnel = forge_quietly(forge_of(questions, server.url, *changes), tmp_path / "out")
    # Noise all over the picture touches every target.
    assert funnel["records"]["rejected"] == COUNT
    (stage,) = (stage for stage in funnel["stages"] if stage["dropped"])
    assert stage["stage"] == "implant"
    assert set(stage["dropped"]) <= {"box overlaps a target", "box too large", "nothing changed"}


def test_a_change_of_light_is_put_back_and_an_object_stays() -> None:
    rng = np.random.default_rng(0)
    clean = Image.fromarray(np.clip(130 + rng.normal(0, 4, (64, 64, 3)), 0, 255).astype(np.uint8))
    pixels = np.asarray(clean).astype(float) * 0.9
    pixels[40:52, 36:50] = (200, 30, 30)
    edit = Image.fromarray(np.rint(pixels).astype(np.uint8))
    made = changes_alone(clean, edit)
    (proposal,) = made.proposals
    x0, y0, x1, y1 = proposal.box
    assert x0 <= 36 < 50 <= x1
    assert y0 <= 40 < 52 <= y1
    assert (x1 - x0) * (y1 - y0) < 20 * 20
    outside = np.ones((64, 64), dtype=bool)
    outside[y0:y1, x0:x1] = False
    np.testing.assert_array_equal(np.asarray(made.picture)[outside], np.asarray(clean)[outside])
    inside = np.asarray(made.picture)[40:52, 36:50].astype(float)
    assert np.abs(inside - np.array((200, 30, 30)) / 0.9).max() <= 3
    assert changes_alone(clean, clean).proposals == ()


def test_a_whole_edit_is_taken_as_it_is(server: Server, questions: Path, tmp_path: Path) -> None:
    """Noise all over the picture, which `editor` would put back or reject, goes on to the checks of the
    targets.
    """
    folder = tiny_flux2_klein(tmp_path / "editor")
    changes = (
        f"attacker.model='{folder}'",
        "attacker.evaluation_steps=2",
        "stages.implant=whole",
        "stages.right_when_clean=false",
    )
    settings = forge_of(questions, server.url, *changes, "judge.integrity_threshold=-1", "stages.attempts=1")
    forge_quietly(settings, tmp_path / "out")
    with closing(Ledger(tmp_path / "out")) as ledger:
        rows = [row for outcome in OUTCOMES for row in ledger.rows(outcome)]
        assert len(rows) == COUNT
        assert {row.stage for row in rows} <= {"duplicates", "effectiveness"}
        asked, clean = (
            [ledger.question(row) for row in rows],
            [load_image(ledger.path(row.clean)) for row in rows],
        )
        made = [load_image(ledger.path(row.picture)) for row in rows if row.picture is not None]
    editor, attacker = load_editor(str(folder)), settings.attacker
    edits = deterministic_edits(
        editor,
        clean,
        [attacker.instruct(question.question) for question in asked],
        [own_seed(settings.seed, question, "implant", 1) for question in asked],
        steps=2,
        guidance=attacker.guidance_scale,
        batch=COUNT,
        crops=crops_of(asked, clean, attacker.crop, editor.multiple),
    )
    # Batches of other sizes may round otherwise.
    assert (
        max(
            np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).max()
            for one, other in zip(made, edits, strict=True)
        )
        <= 1
    )


def test_a_server_that_fails_stops_the_forge_which_then_goes_on(questions: Path, tmp_path: Path) -> None:
    with serving(players, key="secret") as closed:
        settings = forge_of(questions, closed.url, "batch=4")
        with pytest.raises(ModelError, match="401"):
            forge_quietly(settings, tmp_path / "out")
        closed.key = None
        stopped = forge_quietly(settings, tmp_path / "out")
        whole = forge_quietly(settings, tmp_path / "whole")
    assert stopped["records"]["broken"] == 0
    assert stopped["content_hash"] == whole["content_hash"]


def test_settings_that_do_not_go_together_are_refused(server: Server, questions: Path) -> None:
    for change, message in (
        ("stages.extend.painter={model: edges}", "stages.extend.checks: are asked of the judge model"),
        ("stages.extend={painter: {model: paste}, checks: []}", "paste cannot paint around"),
        ("stages.panel.prompts=true", "stages.panel.prompts: is asked of the judge"),
        ("stages.propose.locate=true", "needs stages.propose.model"),
        ("stages.splits=[0.6, 0.4]", "leave something for training"),
        ("stages.extend.share=[0.3, 0.1]", "the lower one first"),
        ("stages.colour=red", "no such setting"),
    ):
        with pytest.raises(RecipeError, match=message.replace("(", r"\(")):
            forge_of(questions, server.url, "judge.model=null", change)


def test_the_command_counts_before_it_works(
    server: Server, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    changes = [f"defender.model='{server.url}#defender'", "judge.dense_weight=0", "batch=8"]
    arguments = [
        "forge",
        "--data",
        str(questions),
        "--recipe",
        "arena",
        *(word for change in changes for word in ("--set", change)),
    ]
    asked = len(server.lines)
    planned = CliRunner().invoke(app, [*arguments, "--dry-run"])
    assert planned.exit_code == 0, planned.output
    assert f"{COUNT} records, as jsonl" in planned.output
    assert "behind an endpoint" in planned.output
    assert f"{COUNT * 6} questions to the Defender, about candidates" in planned.output
    assert len(server.lines) == asked
    assert list(tmp_path.iterdir()) == []
    assert CliRunner().invoke(app, arguments).exit_code == 2
    made = CliRunner().invoke(app, [*arguments, "--out", "out", "--limit", "6"])
    assert made.exit_code == 0, made.output
    assert "effectiveness" in made.output
    assert (tmp_path / "out" / "dataset" / "README.md").is_file()
    wrong = CliRunner().invoke(app, [*arguments, "--out", "out2", "--format", "csv"])
    assert wrong.exit_code == 2
    assert "format" in wrong.output

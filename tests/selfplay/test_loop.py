"""Whole games in miniature, with checkpoints of the real classes: the summary, the ledger, and going on after
being cut off anywhere.
"""

import io
import json
import os
import shutil
import signal
import sqlite3
import time
from contextlib import AbstractContextManager, closing
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import diffusers
import pytest
from PIL import ImageChops
from rich.console import Console
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from small_eval import engine_of
from small_game import game_recipe, play_quietly
from small_workers import process
from sparring.benchmarks.run import run_evaluation
from sparring.config import EvalSettings, ProbeSettings, Recipe
from sparring.data.convert import write_questions
from sparring.data.errors import RecipeError, RunError
from sparring.data.images import load_image
from sparring.data.questions import read_questions
from sparring.engine.ledger import Ledger
from sparring.engine.screen import Screen
from sparring.probe.run import run_probe
from sparring.selfplay.loop import run_game
from sparring.selfplay.summary import doubts_of

Rows = list[tuple[Any, ...]]
TABLES = ("questions", "edits", "answers", "verdicts", "updates")
FORGED = "round0/forge/forge.sqlite"


def play(recipe: Recipe, out: Path) -> dict[str, Any]:
    return run_game(recipe, out, Screen(Console(file=io.StringIO())))


def figures(summary: dict[str, Any]) -> dict[str, Any]:
    """All that does not depend on how fast the machine was."""
    return {key: value for key, value in summary.items() if key not in ("wall_seconds", "peak_rss_mb")}


def rows(out: Path, query: str, file: str = "ledger.sqlite") -> Rows:
    with closing(sqlite3.connect(f"{(out / file).as_uri()}?mode=ro", uri=True)) as ledger:
        return ledger.execute(query).fetchall()


def everything(out: Path) -> dict[str, Rows]:
    forged = {table: rows(out, f"SELECT * FROM {table}", FORGED) for table in ("records", "candidates")}
    return {table: sorted(rows(out, f"SELECT * FROM {table}"), key=repr) for table in TABLES} | forged


def pictures(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("pictures/**/*.png")}


@pytest.fixture(scope="module")
def undisturbed(
    players: Path, questions: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("undisturbed").resolve()
    return out, play(game_recipe(players, questions), out)


def test_the_harness_and_a_probe_find_the_figures_of_the_summary(
    undisturbed: tuple[Path, dict[str, Any]], players: Path, questions: Path, tmp_path: Path
) -> None:
    """Clean accuracy and attack success of the last players, from their folders and the held-out questions
    alone.
    """
    out, summary = undisturbed
    recipe, payoff = game_recipe(players, questions), summary["payoff"]
    chosen = {name for (name,) in rows(out, "SELECT id FROM questions WHERE split = 'held_out'")}
    assert len(chosen) == 12
    source = shutil.copytree(questions.parent, tmp_path / "source")
    data = write_questions(
        source / "held_out.jsonl", [q for q in read_questions(source / questions.name) if q.id in chosen]
    )
    defender = recipe.defender.model_copy(update={"model": str(out / "round2/defender/model")})
    common: dict[str, Any] = {
        "data": str(data),
        "seed": recipe.seed,
        "device": "cpu",
        "threads": 1,
        "defender": defender,
    }
    screen = Screen(Console(file=io.StringIO()))
    (tmp_path / "eval").mkdir()
    results = run_evaluation(
        EvalSettings(suite="custom", shuffle=False, **common), tmp_path / "eval", screen, engine_of()
    )
    assert results["profiles"]["sparring"]["value"] == payoff["accuracy"][-1][0]["value"]
    probe = ProbeSettings(
        defenders={"last": defender.model},
        attackers={"last": f"{recipe.attacker.model}+{out / 'round2/attacker/editor'}"},
        attacker=recipe.attacker,
        judge=recipe.judge,
        audit=recipe.evaluation.audit,
        text=False,
        letters=False,
        controls=False,
        **common,
    )
    found = run_probe(probe, tmp_path / "probe", screen)["defenders"]["last"]
    assert found["clean_accuracy"] == payoff["accuracy"][-1][0]
    assert found["robustness"]["attackers"]["last"]["valid_asr"] == payoff["valid_asr"][-1][-1]


def is_rate(value: Any) -> bool:
    if set(value) != {"value", "n", "ci95"} or len(value["ci95"]) != 2:
        return False
    low, high = value["ci95"]
    return value["n"] == 0 or (isinstance(value["value"], float) and 0 <= low <= value["value"] <= high <= 1)


def test_the_summary_has_the_promised_shape(undisturbed: tuple[Path, dict[str, Any]]) -> None:
    out, summary = undisturbed
    assert json.loads((out / "summary.json").read_text()) == summary
    assert (summary["schema"], summary["recipe"], summary["seed"]) == (1, "small", 3)
    assert summary["wall_seconds"] > 0
    assert summary["peak_rss_mb"] > 100
    assert [r["round"] for r in summary["rounds"]] == [1, 2]
    for each in summary["rounds"]:
        assert each["attacker"]["algorithm"] == "flow_grpo"
        assert each["attacker"]["edits"] == 3 * 2 * 4 + 8
        assert all(
            is_rate(each["attacker"][name])
            for name in ("integrity_rate", "valid_asr", "valid_asr_base", "label_valid_rate")
        )
        assert each["defender"]["algorithm"] == "dapo"
        assert each["defender"]["rollouts"] > 0
        assert each["defender"]["kept_groups"] > 0
    assert [each["attacker"]["against"] for each in summary["rounds"]] == ["base", "round1"]
    payoff = summary["payoff"]
    assert payoff["defenders"] == ["base", "round1", "round2"]
    assert payoff["opponents"] == ["clean", "reencoded", "bootstrap", "round1", "round2"]
    assert [[is_rate(cell) and cell["n"] == 12 for cell in row] for row in payoff["accuracy"]] == [
        [True] * 5
    ] * 3
    for name in ("robust", "clean", "attacker"):
        gain = summary["gains"][name]
        assert set(gain) == {"value", "n", "ci95"}
        assert -1 <= gain["ci95"][0] <= gain["value"] <= gain["ci95"][1] <= 1


def test_the_summary_s_figures_are_those_of_the_ledger(undisturbed: tuple[Path, dict[str, Any]]) -> None:
    """Recomputed with SQL from the raw rows, by another way than the program's."""
    out, summary = undisturbed
    clean = {
        d: dict(
            rows(
                out,
                f"SELECT question_id, right FROM answers WHERE stage = 'evaluation/clean' AND defender "
                f"= '{d}'",
            )
        )
        for d in ("base", "round1")
    }
    verdicts = {
        q: (i, a, v)
        for q, i, a, v in rows(
            out,
            "SELECT question_id, intact, accepted, label_valid FROM verdicts WHERE stage = "
            "'evaluation/round2'",
        )
    }
    attacked = {
        d: dict(
            rows(
                out,
                f"SELECT question_id, right FROM answers WHERE stage = 'evaluation/round2' AND defender "
                f"= '{d}'",
            )
        )
        for d in ("base", "round1")
    }
    accepted = {q for q, (_, a, _) in verdicts.items() if a}
    assert 0 < len(accepted) < 12, "the game in miniature should reject some edits and accept some"
    assert all(set(asked) == accepted for asked in attacked.values()), "rejected edits are not asked about"
    right_clean = [q for q, right in clean["round1"].items() if right]
    fooled = [q for q in right_clean if q in accepted and verdicts[q][2] == 1 and not attacked["round1"][q]]
    attacker = summary["rounds"][1]["attacker"]
    assert (attacker["valid_asr"]["n"], attacker["valid_asr"]["value"]) == (
        len(right_clean),
        len(fooled) / len(right_clean),
    )
    assert attacker["integrity_rate"]["value"] == sum(i for i, _, _ in verdicts.values()) / 12
    audited = [v for _, a, v in verdicts.values() if a and v is not None]
    assert (attacker["label_valid_rate"]["n"], attacker["label_valid_rate"]["value"]) == (
        len(audited),
        sum(audited) / len(audited),
    )
    base_row = summary["payoff"]["accuracy"][0]
    assert base_row[0]["value"] == sum(clean["base"].values()) / 12
    assert base_row[4]["value"] == sum(attacked["base"].get(q, clean["base"][q]) for q in verdicts) / 12


def test_everything_is_in_the_ledger_and_every_picture_beside_it(
    undisturbed: tuple[Path, dict[str, Any]],
) -> None:
    out, _ = undisturbed
    named = {name for (name,) in rows(out, "SELECT picture FROM edits")}
    forged = {
        name for names in rows(out, "SELECT clean, picture FROM candidates", FORGED) for name in names if name
    }
    assert named | {f"round0/forge/pictures/{name[:2]}/{name}.png" for name in forged} == set(pictures(out))
    stages = {name for (name,) in rows(out, "SELECT DISTINCT stage FROM edits")}
    trained = {f"round{i}/{part}" for i in (1, 2) for part in ("attacker", "curriculum")}
    assert stages == {*trained, *(f"evaluation/{o}" for o in ("reencoded", "bootstrap", "round1", "round2"))}
    assert not rows(
        out,
        "SELECT 1 FROM edits LEFT JOIN verdicts v USING (stage, step, question_id, sample) WHERE "
        "v.stage IS NULL AND attacker != 'reencoded'",
    )
    for stage in ("round1/attacker", "round1/defender", "round2/attacker", "round2/defender"):
        assert rows(out, f"SELECT count(*) FROM updates WHERE stage = '{stage}'") == [(3,)]


def test_the_answers_that_a_defender_learned_from_are_in_the_ledger(
    undisturbed: tuple[Path, dict[str, Any]],
) -> None:
    out, summary = undisturbed
    for number in (1, 2):
        per_group = rows(
            out, f"SELECT count(*) FROM answers WHERE stage = 'round{number}/defender' GROUP BY step, sample"
        )
        assert set(per_group) == {(4,)}
        assert 4 * len(per_group) == summary["rounds"][number - 1]["defender"]["rollouts"]


def test_only_items_right_when_clean_are_attacked_and_taught(
    undisturbed: tuple[Path, dict[str, Any]],
) -> None:
    out, _ = undisturbed
    for number in (1, 2):
        right = {
            q
            for (q,) in rows(
                out, f"SELECT question_id FROM answers WHERE stage = 'round{number - 1}/clean' AND right"
            )
        }
        attacked = {
            q
            for (q,) in rows(
                out,
                f"SELECT question_id FROM edits WHERE stage IN ('round{number}/attacker', "
                f"'round{number}/curriculum')",
            )
        }
        assert attacked <= right
    held_out = {q for (q,) in rows(out, "SELECT id FROM questions WHERE split = 'held_out'")}
    assert not held_out & {
        q for (q,) in rows(out, "SELECT question_id FROM edits WHERE stage NOT LIKE 'evaluation/%'")
    }


def test_the_curriculum_takes_other_questions_than_the_attacker_trained_on(
    undisturbed: tuple[Path, dict[str, Any]], players: Path, questions: Path
) -> None:
    out, _ = undisturbed
    recipe = game_recipe(players, questions)
    trained_on = recipe.attacker.steps * recipe.attacker.questions_per_step
    for number, last in ((1, "base"), (2, "round1")):
        right = json.loads((out / f"round{number - 1}/clean/done.json").read_text())["right"]
        faced = {
            q
            for (q,) in rows(
                out,
                f"SELECT question_id FROM answers WHERE stage = 'round{number}/attacker' AND defender = "
                f"'{last}'",
            )
        }
        edited = {
            q for (q,) in rows(out, f"SELECT question_id FROM edits WHERE stage = 'round{number}/curriculum'")
        }
        assert faced
        assert faced <= set(right[:trained_on])
        assert edited == set(right[-recipe.selfplay.curriculum.questions :])


def test_held_out_edits_of_all_attackers_start_from_the_same_noise(
    undisturbed: tuple[Path, dict[str, Any]],
) -> None:
    out, _ = undisturbed
    seeds = [
        rows(out, f"SELECT question_id, seed FROM edits WHERE stage = 'evaluation/{o}' ORDER BY 1")
        for o in ("bootstrap", "round1", "round2")
    ]
    assert seeds[0] == seeds[1] == seeds[2]


def test_players_are_saved_as_plain_diffusers_and_transformers_load_them(
    undisturbed: tuple[Path, dict[str, Any]], players: Path
) -> None:
    out, _ = undisturbed
    pipeline = diffusers.Flux2KleinPipeline.from_pretrained(players / "editor")
    pipeline.load_lora_weights(out / "round2/attacker/editor")
    assert pipeline.get_active_adapters()
    AutoModelForImageTextToText.from_pretrained(out / "round2/defender/model")


def test_a_finished_run_is_not_played_again_and_another_recipe_is_refused(
    undisturbed: tuple[Path, dict[str, Any]], players: Path, questions: Path
) -> None:
    out, summary = undisturbed
    before = everything(out)
    assert figures(play(game_recipe(players, questions), out)) == figures(summary)
    assert everything(out) == before
    with pytest.raises(RunError, match=r"selfplay\.rounds is 2 there and 3 here"):
        play(game_recipe(players, questions, rounds=3), out)


def test_what_no_reward_pays_for_is_in_the_summary(undisturbed: tuple[Path, dict[str, Any]]) -> None:
    out, summary = undisturbed
    for number, each in enumerate(summary["rounds"], start=1):
        rewards = [
            json.loads(m)["reward_mean"]
            for (m,) in rows(
                out, f"SELECT metrics FROM updates WHERE stage = 'round{number}/attacker' ORDER BY step"
            )
        ]
        watched = each["watch"]
        assert watched["reward"] == {"before": rewards[0], "after": rewards[-1]}
        assert watched["success"]["after"] == each["attacker"]["valid_asr"]["value"]
        assert watched["label_valid"]["after"] == each["attacker"]["label_valid_rate"]["value"]
        assert watched["sharpness"]["before"] > 0
        assert 0 <= watched["reencoded"] <= 1
        assert [f"round{number}/watch: {text}" for text in watched["warnings"]] == [
            w for w in summary["warnings"] if w.startswith(f"round{number}/watch")
        ]


def test_the_parts_of_the_reward_add_up_to_it(undisturbed: tuple[Path, dict[str, Any]]) -> None:
    out, _ = undisturbed
    for (metrics,) in rows(out, "SELECT metrics FROM updates WHERE stage LIKE 'round%/attacker'"):
        found = json.loads(metrics)
        parts = {
            name: value
            for name, value in found.items()
            if name.startswith("reward_") and name not in ("reward_mean", "reward_std")
        }
        assert set(parts) == {"reward_efficacy", "reward_fall"}
        assert sum(parts.values()) == pytest.approx(found["reward_mean"], abs=1e-6)


@pytest.mark.slow
def test_a_game_on_pictures_that_are_too_large_for_the_editor(
    players: Path, questions: Path, tmp_path: Path
) -> None:
    """The miniature's pictures of 64 x 64 pixels with an editor that is given 40 x 40: targets at (8, 8) to
    (40, 40), crop at (4, 4) to (44, 44).
    """
    crop = {"max_area": 40 * 40, "context": 3, "feather": 2}
    recipe = game_recipe(
        players,
        questions,
        rounds=1,
        attacker={"crop": crop},
        judge={"frontier_weight": 0.5, "diversity_weight": 0.1},
    )
    summary = play(recipe, tmp_path)
    found = rows(
        tmp_path, "SELECT e.picture, q.image, e.stage FROM edits e JOIN questions q ON q.id = e.question_id"
    )
    assert {stage for *_, stage in found} >= {
        "round1/attacker",
        "round1/curriculum",
        "evaluation/reencoded",
        "evaluation/round1",
    }
    for picture, clean, _ in found:
        gap = ImageChops.difference(load_image(tmp_path / picture), load_image(tmp_path / clean)).getbbox()
        assert gap is not None
        assert gap[0] >= 4
        assert gap[1] >= 4
        assert gap[2] <= 44
        assert gap[3] <= 44
    assert summary["bootstrap"]["pairs"] > 0
    notes = [
        json.loads(n)
        for (n,) in rows(tmp_path, "SELECT notes FROM verdicts WHERE stage = 'round1/attacker' AND accepted")
    ]
    assert notes
    assert all({"frontier", "diversity", "reward_frontier", "reward_diversity"} <= set(own) for own in notes)


class CutOffError(Exception):
    pass


def cut_off_at(monkeypatch: pytest.MonkeyPatch, method: str, stage: str, call: int) -> None:
    """Raise right after the ledger has taken the given call about a stage, in the midst of that stage."""
    real, calls = getattr(Ledger, method), [0]

    def record(self: Ledger, name: str, *arguments: Any, **options: Any) -> None:
        real(self, name, *arguments, **options)
        if name == stage:
            calls[0] += 1
            if calls[0] == call:
                raise CutOffError

    monkeypatch.setattr(Ledger, method, record)


CUTS = [
    ("record_answers", "round0/clean", 1),
    ("record_update", "round0/bootstrap", 3),
    ("record_edits", "evaluation/bootstrap", 1),
    ("record_verdicts", "round1/attacker", 1),
    ("record_update", "round1/attacker", 3),
    ("record_answers", "round1/curriculum", 1),
    ("record_update", "round1/defender", 3),
    ("record_answers", "evaluation/round1", 2),
    ("record_update", "round2/defender", 1),
    ("record_verdicts", "evaluation/round2", 2),
]


@pytest.mark.slow
def test_cut_off_in_every_kind_of_stage_and_resumed(
    undisturbed: tuple[Path, dict[str, Any]], players: Path, questions: Path, tmp_path: Path
) -> None:
    """One run, cut off eleven times, comes to the same figures, rows and pictures as the undisturbed one."""
    out = tmp_path.resolve() / "run"
    recipe = game_recipe(players, questions)
    for method, stage, call in CUTS:
        with pytest.MonkeyPatch.context() as monkeypatch:
            cut_off_at(monkeypatch, method, stage, call)
            with pytest.raises(CutOffError):
                play(recipe, out)
    whole, summary = undisturbed
    assert figures(play(recipe, out)) == figures(summary)
    assert everything(out) == everything(whole)
    assert pictures(out) == pictures(whole)


def test_another_seed_is_another_game(
    undisturbed: tuple[Path, dict[str, Any]], players: Path, questions: Path, tmp_path: Path
) -> None:
    """The clean arm, with another seed and an early end: no edit teaches the Defender, and the Attackers are
    judged all the same.
    """
    changes = {
        "selfplay": {"rounds": 1, "curriculum": {"clean_share": 1.0}, "plateau_patience": 1},
        "attacker": {"algorithm": "diffusion_nft"},
    }
    recipe = game_recipe(players, questions, **changes).model_copy(update={"seed": 4})
    summary = play(recipe, tmp_path)
    assert rows(tmp_path, "SELECT count(*) FROM edits WHERE stage = 'round1/curriculum'") == [(0,)]
    assert summary["rounds"][0]["curriculum"]["edits"] == 0
    assert summary["rounds"][0]["attacker"]["algorithm"] == "diffusion_nft"
    assert summary["rounds"][0]["attacker"]["valid_asr"]["n"] > 0
    assert summary["warnings"] == doubts_of(summary)
    assert {q for (q,) in rows(tmp_path, "SELECT id FROM questions WHERE split = 'held_out'")} != {
        q for (q,) in rows(undisturbed[0], "SELECT id FROM questions WHERE split = 'held_out'")
    }


def test_the_number_of_questions_that_measure_changes_no_player(
    undisturbed: tuple[Path, dict[str, Any]], players: Path, questions: Path, tmp_path: Path
) -> None:
    changes = {"evaluation": {"questions": 5, "drift": {"items": 5}}}
    whole, summary = undisturbed
    fewer = play(game_recipe(players, questions, **changes), tmp_path)
    assert fewer["questions"] == summary["questions"] | {"held_out": 5}
    assert {cell["n"] for row in fewer["payoff"]["accuracy"] for cell in row} == {5}
    measured = "SELECT id, image FROM questions WHERE split = 'held_out' ORDER BY rowid"
    assert rows(tmp_path, measured) == rows(whole, measured)[:5]
    weights = [path.relative_to(whole) for path in sorted(whole.rglob("*.safetensors"))]
    assert {path.parts[0] for path in weights} == {"round0", "round1", "round2"}
    for path in weights:
        ours, theirs = load_file(tmp_path / path), load_file(whole / path)
        assert ours.keys() == theirs.keys()
        assert all(ours[name].equal(theirs[name]) for name in ours), path


def test_an_attacker_that_finds_nothing_is_reported(players: Path, questions: Path, tmp_path: Path) -> None:
    """No edit can pass: bootstrap without pairs, a curriculum without edits, groups without signal. The run
    ends and says so.
    """
    recipe = game_recipe(
        players,
        questions,
        rounds=1,
        judge={"integrity_threshold": 1.0, "model": None},
        attacker={"steps": 2, "lora": None},
        defender={"steps": 1},
        forge={"implant": "editor"},
    )
    screen = io.StringIO()
    summary = run_game(recipe, tmp_path, Screen(Console(file=screen, width=300)))
    for text in (
        "round0/bootstrap: the forge made no pair",
        "round1/attacker: the Attacker found nothing",
        "round1/attacker: no group of edits had a signal",
        "round1/curriculum: no edit of the frozen Attacker was accepted",
        "round1/defender: no edit was accepted for the curriculum",
    ):
        assert any(warning.startswith(text) for warning in summary["warnings"]), (text, summary["warnings"])
        assert text in screen.getvalue()
    assert summary["rounds"][0]["attacker"]["valid_asr"]["value"] == 0.0
    accuracy = summary["payoff"]["accuracy"]
    assert [row[2] for row in accuracy] == [row[0] for row in accuracy], (
        "a rejected edit leaves the clean answer"
    )


def test_a_wrong_auditor_is_an_error_before_anything_is_played(
    players: Path, questions: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=r"evaluation\.audit"):
        play(
            game_recipe(players, questions, evaluation={"audit": {"call": "small_game:no_such_function"}}),
            tmp_path,
        )
    assert not (tmp_path / "round0").exists()


KILLS = [  # stage, and what the ledger must show before the kill
    ("round0/forge", "SELECT count(*) FROM batches"),
    ("round0/bootstrap", "SELECT count(*) FROM updates WHERE stage = 'round0/bootstrap'"),
    ("evaluation/bootstrap", "SELECT count(*) FROM edits WHERE stage = 'evaluation/bootstrap'"),
    ("round1/attacker", "SELECT max(0, count(*) - 2) FROM updates WHERE stage = 'round1/attacker'"),
    ("round1/curriculum", "SELECT count(*) FROM edits WHERE stage = 'round1/curriculum'"),
    ("round1/defender", "SELECT max(0, count(*) - 2) FROM updates WHERE stage = 'round1/defender'"),
    ("round2/attacker", "SELECT count(*) FROM edits WHERE stage = 'round2/attacker'"),
    ("evaluation/round2", "SELECT count(*) FROM edits WHERE stage = 'evaluation/round2'"),
]


def playing(recipe: Recipe, out: Path) -> AbstractContextManager[ForkServerProcess]:
    """The recipe's run in a process of its own."""
    return process(play_quietly, recipe.model_dump_json(), str(out))


def kill_inside(recipe: Recipe, out: Path, stage: str, query: str) -> None:
    """SIGKILL once the ledger shows that the stage is under way; the process is stopped first, to make sure
    that it still is.
    """
    with playing(recipe, out) as player:
        while player.is_alive():
            time.sleep(0.01)
            try:
                if not rows(out, query, FORGED if stage == "round0/forge" else "ledger.sqlite")[0][0]:
                    continue
            except sqlite3.OperationalError:  # the ledger is not there yet
                continue
            assert player.pid is not None
            os.kill(player.pid, signal.SIGSTOP)
            assert not (out / stage / "done.json").exists(), f"{stage} was over before it could be killed"
            return
    raise AssertionError(f"the run ended before {stage} was seen")


@pytest.mark.slow
def test_killed_in_every_kind_of_stage_and_resumed(players: Path, questions: Path, tmp_path: Path) -> None:
    """SIGKILL, eight times in one run, against a run that nobody disturbed; all in processes of their own."""
    sizes = {
        "attacker": {"steps": 5},
        "defender": {"steps": 5},
        "bootstrap": {"questions": 24, "steps": 12},
        "evaluation": {"batch": 2},
    }
    base = game_recipe(players, questions)
    recipe = Recipe.model_validate(
        base.model_dump() | {name: getattr(base, name).model_dump() | own for name, own in sizes.items()}
    )
    whole, out = tmp_path / "whole", tmp_path / "killed"
    with playing(recipe, whole) as undisturbed:
        undisturbed.join()
    for stage, query in KILLS:
        kill_inside(recipe, out, stage, query)
    with playing(recipe, out) as last:
        last.join()
    assert figures(json.loads((out / "summary.json").read_text())) == figures(
        json.loads((whole / "summary.json").read_text())
    )
    assert everything(out) == everything(whole)
    assert pictures(out) == pictures(whole)

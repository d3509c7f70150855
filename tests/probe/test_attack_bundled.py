"""The bundled players, the Defender once in this process and once behind an endpoint; and a game whose
Defender is an endpoint.
"""

from pathlib import Path

import pytest
from PIL import Image

from endpoint_server import question, serving
from small_attack import attack, attack_settings
from small_game import game_recipe, write_game_questions, write_players
from sparring.data.questions import read_questions
from sparring.engine.ledger import Ledger
from sparring.models.vlms.base import Sampling
from sparring.models.vlms.local import LocalVLM
from sparring.recipes import resolve_model
from sparring.selfplay.loop import run_game
from sparring_arena.dataset import write_questions

pytestmark = pytest.mark.slow


def served(vlm: LocalVLM):  # type: ignore[no-untyped-def]
    """Greedy answers of a local model, one at a time."""
    return lambda image, body: {
        "text": vlm.generate([image], [question(body)], Sampling(body["max_tokens"]))[0][0].text
    }


def test_the_same_attack_on_a_defender_here_and_behind_an_endpoint(tmp_path: Path) -> None:
    path, _ = write_questions(tmp_path / "questions", seed=5, train=60, held_out=4)
    common = [("data", str(path)), ("limit", 24), ("samples", 2), ("threads", 1)]
    here = attack(
        attack_settings(common, ["it=arena/defender"], ["arena/editor"], recipe="arena"), tmp_path / "here"
    )
    with serving(served(LocalVLM.load(resolve_model("arena/defender")))) as server:
        remote = attack_settings(
            [*common, ("defender.endpoint.concurrency", 1)],
            [f"it={server.url}#arena"],
            ["arena/editor"],
            recipe="arena",
        )
        there = attack(remote, tmp_path / "there")
        assert set(server.tries.values()) == {1}
    own, other = here["defenders"]["it"], there["defenders"]["it"]
    assert own["clean_accuracy"]["value"] > 0.7
    edits = own["robustness"]["attackers"]["editor"]["edits"]
    assert edits["accepted"]["value"] > 0.2  # most of what the untuned editor adds is a second thing
    apart = ("model", "identity", "pixels", "spending")
    assert {key: value for key, value in own.items() if key not in apart} == {
        key: value for key, value in other.items() if key not in apart
    }
    assert (here["baselines"], here["questions"]) == (there["baselines"], there["questions"])


def test_an_attacker_trains_against_an_endpoint(tmp_path: Path) -> None:
    players, questions = tmp_path / "players", tmp_path / "questions"
    write_players(players)
    path = write_game_questions(questions, 48)
    vlm = LocalVLM.load(players / "defender")
    with serving(served(vlm)) as server:
        recipe = game_recipe(
            players,
            path,
            rounds=1,
            defender={"model": f"{server.url}#toy", "steps": 0, "endpoint": {"concurrency": 1}},
            judge={"dense_weight": 0.0, "trials": 1, "trial_temperature": 0.0},
        )
        summary = run_game(recipe, tmp_path / "out")
        asked = len(server.lines)
        assert set(server.tries.values()) == {1}
        run_game(recipe, tmp_path / "out")
        assert len(server.lines) == asked
    assert summary["rounds"][0]["attacker"]["updates"] == 3
    assert summary["rounds"][0]["defender"]["updates"] == 0
    rows = summary["payoff"]["accuracy"]
    assert rows[0] == rows[1]  # the Defender stays what it is
    clean = Ledger(tmp_path / "out").answers("evaluation/clean", "base")
    asked_of = {question.id: question for question in read_questions(path)}
    one = clean[0]
    (reply,) = vlm.generate([Image.open(asked_of[one.question_id].image)], ["Light?"], Sampling(12))
    assert one.text == reply[0].text

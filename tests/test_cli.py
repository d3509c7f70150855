import base64
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

import sparring
from sparring.cli import app
from sparring.config import DefenderSettings, Recipe, SftSettings
from sparring.data.errors import RecipeError
from sparring.eval_command import eval_settings
from sparring.probe.settings import probe_settings
from sparring.recipes import bundled_recipes, load_recipe
from sparring.recipes.borrow import forge_settings, sft_settings

runner = CliRunner()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """Three good records of two categories about two pictures, and one whose answer is no option."""
    for name, grey in (("a", 0), ("b", 9)):
        Image.new("L", (20, 10), grey).save(tmp_path / f"{name}.png")
    plain = {
        "image": "a.png",
        "question": "Is there a cup?",
        "options": ["yes", "no"],
        "answer": "A",
        "targets": [],
    }
    changes: list[dict[str, Any]] = [
        {"category": "existence"},
        {"category": "existence"},
        {"image": "b.png"},
        {"answer": "C"},
    ]
    path = tmp_path / "my.jsonl"
    path.write_text(
        "\n".join(json.dumps({"id": str(number), **plain, **change}) for number, change in enumerate(changes))
    )
    return path


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Recipe, Path]]:
    """The games that would have been played. Loop and report are stood in for, so that nothing heavy is
    imported.
    """
    calls: list[tuple[Recipe, Path]] = []
    loop, page = ModuleType("sparring.selfplay.loop"), ModuleType("sparring.report.page")
    loop.run_game = lambda recipe, out, sides: calls.append((recipe, out))  # type: ignore[attr-defined]
    page.write_report = lambda out: out / "report.html"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sparring.selfplay.loop", loop)
    monkeypatch.setitem(sys.modules, "sparring.report.page", page)
    monkeypatch.setattr("sparring.plan.require_models", lambda recipe: None)
    return calls


def test_version() -> None:
    result = runner.invoke(app, ["version"])
    assert result.exit_code == 0
    assert f"sparring {sparring.__version__}" in result.stdout
    assert "torch " in result.stdout


HEAVY = ("torch", "transformers", "diffusers", "peft", "datasets")
LIGHT = {
    "help": ["--help"],
    "help of a verb": ["attack", "--help"],
    "recipes": ["recipes"],
    "a copy of a recipe": ["recipes", "--copy", "arena", "mine.yaml"],
    "fields": ["fields"],
    "version": ["version"],
    "a plan": ["plan", "arena"],
    "a plan with rivals": ["plan", "arena-static-both"],
    "a dry run": ["run", "arena", "--dry-run"],
    "a recipe that is not there": ["run", "nowhere.yaml", "--out", "x"],
    "a model that is not there": ["run", "arena", "--set", "defender.model=./nowhere", "--out", "x"],
    "a folder that is a file, run": ["run", "arena", "--out", "bad.jsonl"],
    "bad data, plan": ["plan", "arena", "--set", "data.path=bad.jsonl"],
    "bad data, run": ["run", "arena", "--set", "data.path=bad.jsonl", "--out", "x"],
    "bad data, attack": ["attack", "--recipe", "arena", "--data", "bad.jsonl", "--out", "x"],
    "bad data, probe": ["probe", "--recipe", "arena", "--data", "bad.jsonl", "--out", "x"],
    "bad data, sft": ["sft", "--recipe", "arena", "--data", "bad.jsonl", "--out", "x"],
    "bad data, eval": ["eval", "--recipe", "arena", "--suite", "custom", "--data", "bad.jsonl", "--out", "x"],
    "bad data, forge": ["forge", "--recipe", "arena", "--data", "none.jsonl", "--out", "x"],
    "bad data, convert": ["convert", "--data", "bad.jsonl", "--out", "x"],
    "an attacker that there is none of": [
        "attack",
        "--recipe",
        "arena",
        "--data",
        "bad.jsonl",
        "--attacker",
        "fog",
        "--out",
        "x",
    ],
    "what a forge would do": ["forge", "--recipe", "arena", "--data", "bad.jsonl", "--dry-run"],
    "a report of nothing": ["report", "."],
    "a comparison of nothing": ["compare", ".", "."],
    "a new score of nothing": ["rescore", "."],
}


@pytest.mark.parametrize("arguments", LIGHT.values(), ids=LIGHT)
def test_what_needs_no_model_does_not_wait_for_models_libraries(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"id": 1')
    code = (
        "import sys\nfrom sparring.cli import app\ntry:\n    app()\nexcept SystemExit as end:\n"
        f"    print(end.code, [name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    assert done.stderr.splitlines()[-1].split(" ", 1)[1] == "[]", done.stderr
    assert "Traceback" not in done.stderr
    assert ("Error: " in done.stderr) == (done.stderr.splitlines()[-1][0] == "2")


@pytest.mark.parametrize(
    "verb",
    [
        "run",
        "attack",
        "eval",
        "rescore",
        "compare",
        "probe",
        "sft",
        "forge",
        "convert",
        "report",
        "plan",
        "recipes",
    ],
)
def test_help_says_what_is_typed(verb: str) -> None:
    """Names hold colons and square brackets, which are neither emoji codes nor markup."""
    text = runner.invoke(app, [verb, "--help"]).stdout
    assert text.isascii(), [letter for letter in text if not letter.isascii()]
    if verb in ("attack", "probe"):
        assert "corruption:fog:3" in text
        assert "[NAME=]MODEL" in text or verb == "attack"


@pytest.mark.parametrize("name", ["\u00fc\u4e2d\u2192", "\udcff", "\x1b[31m"])
def test_no_name_ends_a_command_where_the_terminal_has_no_letter_for_it(name: str, tmp_path: Path) -> None:
    code = "from sparring.cli import app; app()"
    for arguments in (["plan", f"{name}.yaml"], ["recipes", "--copy", "arena", f"{name}.yaml"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONIOENCODING": "ascii"},
        )
        assert b"Traceback" not in done.stderr, done.stderr
        assert done.returncode == (2 if arguments[0] == "plan" else 0)


def test_the_list_of_verbs_is_not_cut() -> None:
    text = runner.invoke(app, ["--help"], env={"COLUMNS": "80"}).stdout
    assert "..." not in text.partition("Commands:")[2]
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("name", ["[exp]", "[/b]", "[red]a", "a:fog:b", ":smile:", "[link=x]", "a [bold] b"])
def test_names_are_shown_as_they_are(name: str, tmp_path: Path, played: list[tuple[Recipe, Path]]) -> None:
    done = runner.invoke(app, ["run", "arena", "--out", f"runs/{name}"])
    assert done.exit_code == 0, done.output
    assert f"runs/{name}/report.html" in done.stdout
    wrong = runner.invoke(app, ["run", f"{name}/mine.yaml", "--out", "x"])
    assert f"Error: {name}/mine.yaml: no such file" in wrong.stderr
    (tmp_path / name).mkdir(parents=True)
    assert f"Report: {name}/report.html" in runner.invoke(app, ["report", name]).stdout
    (tmp_path / "q.jsonl").write_text("{}")
    unread = runner.invoke(
        app, ["plan", "arena", "--set", "data.path=q.jsonl", "--set", f"attacker.model='{name}'"]
    )
    assert unread.exit_code == 2
    assert "Traceback" not in unread.output


def test_plan_prints_settings_that_are_a_recipe(tmp_path: Path) -> None:
    result = runner.invoke(app, ["plan", "arena", "--seed", "3", "--set", "defender.learning_rate=3e-4"])
    assert result.exit_code == 0
    (tmp_path / "copy.yaml").write_text(result.stdout)
    assert load_recipe("copy.yaml") == load_recipe("arena", ["seed=3", "defender.learning_rate=3e-4"])
    assert "sparring_arena.dataset:write_questions(train=" in result.stderr
    assert "Memory" in result.stderr


def test_a_plan_needs_no_module_to_be_whole_and_finds_records_without_a_reasoning(
    questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    for name, text in (("raising", "raise RuntimeError('no GPU here')"), ("odd", "def f(:")):
        (tmp_path / f"own_{name}.py").write_text(text)
        result = runner.invoke(app, ["plan", "arena", "--set", f"judge.reward.call=own_{name}:f"])
        assert result.exit_code == 2
        assert f'judge.reward.call: "own_{name}:f" cannot be imported' in " ".join(result.stderr.split())
    given = ["--set", f"data.path={questions}", "--set", "data.held_out=1", "--skip-bad-records"]
    result = runner.invoke(app, ["plan", "arena-text", *given])
    assert result.exit_code == 2
    assert "its reasoning does not name the right option" in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    "field", ["judge.reward.call", "evaluation.audit.call", "data.generator.call", "attacker.family"]
)
def test_a_plan_finds_what_cannot_be_imported(field: str) -> None:
    result = runner.invoke(app, ["plan", "arena", "--set", f"{field}=sparring.nowhere:call"])
    assert result.exit_code == 2
    assert f'{field}: "sparring.nowhere:call" cannot be imported' in " ".join(result.stderr.split())


@pytest.mark.parametrize("name", ["qwen2.5-vl-7b_qwen-image-edit", "qwen2.5-vl-3b_flux2-klein-4b"])
def test_large_recipes_plan_here(name: str) -> None:
    result = runner.invoke(app, ["plan", name])
    assert result.exit_code == 2  # their data are the user's
    assert yaml.safe_load(result.stdout)["name"] == name
    assert "not on this disk" in result.stderr
    assert "Defender trains" in result.stderr
    assert "no such file. Name yours with --set data.path=FILE" in result.stderr


def test_plan_counts_the_data_and_what_is_dropped(questions: Path) -> None:
    result = runner.invoke(app, ["plan", "arena", "--set", "data.path=my.jsonl"])
    assert result.exit_code == 2
    assert 'my.jsonl line 4 (id "3"): answer must be the letter of an option' in result.stderr
    assert "Traceback" not in result.output
    given = ["plan", "arena", "--set", f"data.path={questions}", "--skip-bad-records"]
    result = runner.invoke(app, [*given, "--set", "data.held_out=1"])
    assert result.exit_code == 0
    for line in (
        "3 questions about 2 image files",
        "(none): 1",
        "existence: 2",
        "1 bad record dropped",
        "answer is no option: 1",
    ):
        assert line in result.stderr
    assert "2 to train on, 1 held out" in result.stderr
    result = runner.invoke(app, [*given, "--set", "data.held_out=1", "--set", "judge.model=null"])
    assert (
        "of 2 training questions have no boxes (targets), and there is no judge that counts" in result.stderr
    )
    result = runner.invoke(app, given)
    assert result.exit_code == 2
    assert "3 questions about 2 pictures are too few to hold 320 out" in result.stderr


def test_dry_run_is_a_plan_and_leaves_no_trace(tmp_path: Path, played: list[tuple[Recipe, Path]]) -> None:
    result = runner.invoke(app, ["run", "arena", "--out", "there", "--dry-run"])
    assert result.exit_code == 0
    assert "Memory" in result.stderr
    assert runner.invoke(app, ["run", "arena", "--dry-run"]).exit_code == 0
    assert not played
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", sorted(name for name in bundled_recipes() if name.startswith("arena-")))
def test_a_dry_run_of_an_arm_says_what_it_would_do(name: str) -> None:
    result = runner.invoke(app, ["run", name, "--dry-run"])
    assert result.exit_code == 0, result.output
    assert yaml.safe_load(result.stdout) == load_recipe(name).model_dump(mode="json")
    assert "on this disk" in result.stderr


def test_run_hands_the_resolved_recipe_to_the_game(played: list[tuple[Recipe, Path]]) -> None:
    result = runner.invoke(
        app,
        [
            "run",
            "arena",
            "--out",
            "there",
            "--seed",
            "7",
            "--set",
            "attacker.steps=2",
            "--set",
            "selfplay.rounds=1",
        ],
    )
    assert result.exit_code == 0, result.output
    ((recipe, out),) = played
    assert (recipe.seed, recipe.attacker.steps, recipe.selfplay.rounds, out) == (7, 2, 1, Path("there"))
    assert "there/report.html" in result.stdout


def test_resume_takes_the_recipe_of_the_folder(tmp_path: Path, played: list[tuple[Recipe, Path]]) -> None:
    stored = load_recipe("arena", ["seed=9"])
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "recipe.yaml").write_text(yaml.safe_dump(stored.model_dump(mode="json")))
    assert runner.invoke(app, ["run", "--resume", "there"]).exit_code == 0
    assert played == [(stored, Path("there"))]
    for extra in (["arena"], ["--seed", "1"], ["--set", "seed=1"], ["--out", "x"], ["--skip-bad-records"]):
        result = runner.invoke(app, ["run", "--resume", "there", *extra])
        assert result.exit_code == 2
        assert "--resume goes on with the recipe that there holds" in result.stderr
    others = ["--set", "engine.workers=3", "--set", "engine.peak_tflops=989"]
    again = runner.invoke(app, ["run", "--resume", "there", *others])
    assert again.exit_code == 0, again.stderr
    assert (played[-1][0].engine.workers, played[-1][0].engine.peak_tflops) == (3, 989)
    for field in ("defender.endpoint.budget", "judge.endpoint.retries"):
        assert runner.invoke(app, ["run", "--resume", "there", "--set", f"{field}=7"]).exit_code == 0
    assert played[-1][0].judge.endpoint.retries == 7
    for field in ("defender.endpoint.extra_body={a: 1}", "defender.model=x", "defender.endpoint_budget=7"):
        assert runner.invoke(app, ["run", "--resume", "there", "--set", field]).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "no recipe given. Bundled are arena"),
        (["plan"], "no recipe given"),
        (["run", "arena"], "--out is missing"),
        (["run", "areena", "--out", "x"], "did you mean arena?"),
        (
            ["run", "arena", "--out", "x", "--set", "attacker.learning_rat=1"],
            "attacker.learning_rat: no such setting; did you mean learning_rate?",
        ),
        (
            ["run", "arena", "--out", "x", "--set", "attacker.model=/no/such/folder"],
            "attacker.model: /no/such/folder is no folder and no hub id",
        ),
        (["run", "arena", "--out", "x", "--seed", "-1"], "seed: must be greater than or equal to 0"),
        (["run", "--resume", "nowhere"], "nowhere holds no run"),
    ],
)
def test_mistakes_are_messages_not_tracebacks(arguments: list[str], message: str, tmp_path: Path) -> None:
    result = runner.invoke(app, arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "x").exists()


def test_stopping_by_hand_says_how_to_go_on(
    played: list[tuple[Recipe, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(recipe: Recipe, out: Path, sides: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["sparring.selfplay.loop"], "run_game", stop)
    result = runner.invoke(app, ["run", "arena", "--out", "there"])
    assert result.exit_code == 130
    assert "sparring run --resume there" in result.stderr
    stored = load_recipe("arena", []).model_dump(mode="json")
    Path("there").mkdir(exist_ok=True)
    Path("there/recipe.yaml").write_text(yaml.safe_dump(stored))
    # What holds for one process alone is said again.
    changes = ["--set", "engine.workers=2", "--set", "track=[tensorboard]"]
    result = runner.invoke(app, ["run", "--resume", "there", *changes])
    said = "sparring run --resume there --set engine.workers=2 --set 'track=[tensorboard]'"
    assert said in " ".join(result.stderr.split())


@pytest.mark.parametrize("recipe", sorted(bundled_recipes()))
@pytest.mark.parametrize(
    "changes", [[], ["defender.lora.rank=16"], ["defender.lora=null"], ["defender.model=a/b"]]
)
def test_every_recipe_can_be_fine_tuned_from(recipe: str, changes: list[str]) -> None:
    said: list[str] = []
    settings = sft_settings([("data", "q.jsonl")], recipe=recipe, changes=changes, note=said.append)
    loaded = load_recipe(recipe).defender
    assert settings.defender.prompt == loaded.prompt
    assert settings.defender.learning_rate == loaded.learning_rate
    for name in (
        "interpolation",
        "final_interpolation",
        "kl_weight",
        "noisy",
        "text",
        "optimizer_steps",
        "consistency",
    ):
        default = DefenderSettings(model="a/b")
        assert getattr(settings.defender, name) == getattr(default, name)
        assert (f"defender.{name}" in "".join(said)) == (getattr(loaded, name) != getattr(default, name))


ENDPOINT = "http://127.0.0.1:8000/v1#m"


@pytest.mark.parametrize("recipe", sorted(bundled_recipes()))
def test_every_recipe_serves_every_verb_about_an_endpoint(recipe: str, tmp_path: Path) -> None:
    """A lower bound of pixels, which only a model on this machine has, comes from the recipe here."""
    base = f"extends: {recipe}\ndefender: {{min_pixels: 4000}}\n"
    (tmp_path / "mine.yaml").write_text(base)
    given = [("data", "q.jsonl"), ("defender.model", ENDPOINT)]
    said: list[str] = []
    for settings in (
        probe_settings(
            [("data", "q.jsonl")],
            [ENDPOINT],
            ["paste:add"],
            verb="attack",
            recipe="mine.yaml",
            note=said.append,
        ).defender,
        probe_settings([("data", "q.jsonl")], [ENDPOINT], [], recipe="mine.yaml", note=said.append).defender,
        eval_settings([*given, ("suite", "custom")], recipe="mine.yaml", note=said.append).defender,
        forge_settings(given, recipe="mine.yaml", note=said.append).defender,
    ):
        assert (settings.model, settings.min_pixels) == (ENDPOINT, None)
    assert [text.partition(" ")[0] for text in said] == ["attack", "probe", "eval", "forge"]
    assert all("of mine.yaml and leaves them out: defender.min_pixels." in text for text in said)
    # the user's own wish is not dropped
    with pytest.raises(RecipeError, match="min_pixels: cannot be set for an endpoint"):
        probe_settings(
            [("data", "q.jsonl")],
            [ENDPOINT],
            ["paste:add"],
            recipe="mine.yaml",
            changes=["defender.min_pixels=4000"],
        )


def test_a_judge_is_never_left_out_of_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("extends: arena\njudge: {model: some/vlm}\n")
    with pytest.raises(RecipeError, match=r"judge: is the Defender vlm's own checkpoint"):
        probe_settings([("data", "q.jsonl")], ["some/vlm"], [], recipe="mine.yaml")


def test_recipes_lists_the_bundled_ones() -> None:
    result = runner.invoke(app, ["recipes"])
    assert result.exit_code == 0
    assert "arena-clean\n  The control arm" in result.stdout


def test_a_recipe_is_copied_once_and_plays(tmp_path: Path) -> None:
    done = runner.invoke(app, ["recipes", "--copy", "arena-noisy", "mine/own recipe.yaml"])
    assert done.exit_code == 0, done.output
    assert "sparring run 'mine/own recipe.yaml' --out runs/" in done.stdout
    assert load_recipe("mine/own recipe.yaml") == load_recipe("arena-noisy")
    assert "# the published 500" in (tmp_path / "mine" / "own recipe.yaml").read_text()
    for arguments, message in (
        (["arena", "mine/own recipe.yaml"], "is there already"),
        (["areena", "b.yaml"], "areena: no such recipe; bundled are arena"),
        (["arena", "mine"], "is there already"),
        (["arena", "b.txt"], "ends in .yaml"),
        (["arena", "mine/own recipe.yaml/b.yaml"], "cannot be written"),
    ):
        wrong = runner.invoke(app, ["recipes", "--copy", *arguments])
        assert (wrong.exit_code, message in wrong.stderr) == (2, True), wrong.output


def test_report_is_written_anew(played: list[tuple[Recipe, Path]]) -> None:
    result = runner.invoke(app, ["report", "runs/a"])
    assert result.exit_code == 0
    assert "runs/a/report.html" in result.stdout.replace("\n", "")
    assert played == []


def test_report_of_no_run_is_an_error(tmp_path: Path) -> None:
    result = runner.invoke(app, ["report", str(tmp_path)])
    assert result.exit_code == 2
    assert str(tmp_path) in result.stderr.replace("\n", "")


def test_sft_hands_its_options_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, questions: Path) -> None:
    finetune = ModuleType("sparring.defenders.sft")
    calls: list[tuple[SftSettings, Path]] = []
    summary = {"loss_first": 2.0, "loss_last": 0.5, "updates": 7, "model": "there/sft/model"}
    finetune.run_sft = lambda settings, out, questions: (calls.append((settings, out)), summary)[1]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sparring.defenders.sft", finetune)
    command = ["sft", "--data", "my.jsonl", "--skip-bad-records", "--out", "there"]
    result = runner.invoke(
        app, [*command, "--defender", "a/b", "--epochs", "3", "--batch", "5", "--set", "defender.lora.rank=8"]
    )
    assert result.exit_code == 0, result.output
    assert "loss    2.0000 -> 0.5000" in result.stdout
    assert "there/sft/model" in result.stdout
    ((settings, out),) = calls
    assert (settings.defender.model, settings.epochs, settings.defender.prompts_per_step, out) == (
        "a/b",
        3,
        5,
        Path("there"),
    )
    assert (settings.data, settings.defender.learning_rate) == (str(questions), 1e-5)
    assert settings.defender.lora is not None
    assert runner.invoke(app, [*command, "--recipe", "arena"]).exit_code == 0
    defender = calls[1][0].defender
    assert (defender.learning_rate, defender.interpolation, defender.algorithm.type, defender.kl_weight) == (
        5e-5,
        1.0,
        "sft",
        0.0,
    )
    for extra, message in (
        ([], "--defender is missing"),
        (
            ["--defender", "http://127.0.0.1:8000/v1#m"],
            "is an endpoint, which can be attacked and evaluated but not trained",
        ),
        (
            ["--defender", "a/b", "--set", "defender.algorithm.reply=well"],
            "defender.algorithm.reply: must hold {answer}",
        ),
        (
            ["--defender", "a/b", "--set", "defender.reply=well"],
            "Write defender.algorithm: {type: sft, reply: well}.",
        ),
        (
            ["--defender", "a/b", "--set", "defender.kl_weight=1.0"],
            "defender.kl_weight: supervised fine-tuning has no KL term",
        ),
        (["--defender", "a/b", "--set", "defender.algorithm=dapo"], "defender.algorithm: is sft here"),
        (["--defender", "a/b", "--set", "defender.lr=1"], "sft: defender.lr: no such setting"),
    ):
        result = runner.invoke(app, [*command, *extra])
        assert result.exit_code == 2
        assert message in result.stderr


CARRIED = {
    "run": ["run", "arena", "--set", "data.held_out=1", "--set", "data.path=coded.jsonl"],
    "attack": ["attack", "--recipe", "arena", "--data", "coded.jsonl"],
    "probe": ["probe", "--recipe", "arena", "--data", "coded.jsonl"],
    "sft": ["sft", "--recipe", "arena", "--data", "coded.jsonl"],
    "convert": ["convert", "--data", "coded.jsonl"],
}


@pytest.mark.parametrize("arguments", CARRIED.values(), ids=CARRIED)
def test_pictures_that_refused_data_carry_are_left_nowhere(
    arguments: list[str], questions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(questions.parent)
    coded = base64.b64encode((questions.parent / "b.png").read_bytes()).decode()
    records = [json.loads(line) | {"image": coded} for line in questions.read_text().splitlines()]
    Path("coded.jsonl").write_text("\n".join(map(json.dumps, records)))
    before = set(Path().iterdir())
    for out in ("new/there", "coded.jsonl"):
        result = runner.invoke(app, [*arguments, "--out", out])
        assert result.exit_code == 2
        assert (
            "coded.jsonl is a file" if out == "coded.jsonl" else 'line 4 (id "3"): answer must be'
        ) in result.stderr
    assert set(Path().iterdir()) == before


def test_an_attack_whose_attacker_is_refused_leaves_no_folder(questions: Path) -> None:
    given = [
        "--recipe",
        "arena",
        "--data",
        str(questions),
        "--skip-bad-records",
        "--out",
        str(questions.parent / "there"),
    ]
    result = runner.invoke(app, ["attack", *given, "--attacker", "light:dark"])
    assert result.exit_code == 2
    assert 'rival "light:dark": gain must be' in result.stderr
    assert not (questions.parent / "there").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["eval", "--suite", "custom", "--judge", "/no/such/judge"],
        ["probe", "--reasoning-judge", "/no/such/judge"],
    ],
)
def test_a_judge_that_is_not_there_is_told_before_anybody_is_asked(
    questions: Path, arguments: list[str]
) -> None:
    there = questions.parent / "there"
    given = ["--recipe", "arena", "--data", str(questions), "--skip-bad-records", "--out", str(there)]
    result = runner.invoke(app, [*arguments, *given])
    assert result.exit_code == 2
    assert "/no/such/judge" in result.stderr
    assert not there.exists()


def test_attack_without_players_or_questions_is_a_message() -> None:
    result = runner.invoke(app, ["attack", "--data", "q.jsonl", "--out", "x"])
    assert result.exit_code == 2
    assert "--attacker is missing" in result.stderr
    result = runner.invoke(
        app,
        [
            "attack",
            "--data",
            "q.jsonl",
            "--out",
            "x",
            "--attacker",
            "arena/editor",
            "--defender",
            "arena/defender",
        ],
    )
    assert result.exit_code == 2
    assert "q.jsonl: no such file" in result.stderr
    assert "Traceback" not in result.output


KEPT = {
    "attack.yaml": "attack",
    "eval.yaml": "evaluation",
    "probe.yaml": "probe",
    "sft.yaml": "fine-tuning",
    "forge.yaml": "forge",
}


@pytest.mark.parametrize("file", KEPT)
def test_a_report_of_any_folder_is_a_page_or_a_message(file: str, tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / file).write_text("seed: 1\n")
    with sqlite3.connect(folder / "ledger.sqlite") as database:  # every one of them but an evaluation has one
        database.execute("CREATE TABLE stages (name)")
    for content in (None, "{", "[]", '{"kind": "something"}'):
        if content is not None:
            for name in ("summary.json", "results.json"):
                (folder / name).write_text(content)
        done = runner.invoke(app, ["report", str(folder)])
        assert done.exit_code == 2, done.output
        assert done.exception is None or isinstance(done.exception, SystemExit)
        assert done.stderr.startswith(f"Error: {folder}")
        assert not (folder / "report.html").exists()
    if KEPT[file] in ("attack", "fine-tuning", "forge"):
        assert f"holds a {KEPT[file]}, of which no page is made. Its figures are in " in done.stderr


@pytest.mark.parametrize("content", ["[", "- a", "\x00", "suite"])
def test_damaged_settings_of_an_evaluation_are_a_message(
    content: str, tmp_path: Path, questions: Path
) -> None:
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / ".lock").touch()
    (tmp_path / "e" / "results.json").write_text("{}")
    (tmp_path / "e" / "eval.yaml").write_text(content)
    given = ["--suite", "custom", "--data", str(questions), "--defender", "http://127.0.0.1:9/v1#m"]
    for command in (["eval", *given, "--out", "e"], ["report", "e"], ["rescore", "e"], ["compare", "e", "e"]):
        done = runner.invoke(app, command)
        assert (done.exit_code, "Error: " in done.stderr) == (2, True), (command, done.output, done.exception)


@pytest.mark.parametrize("verb", ["run", "attack", "probe", "sft", "eval", "forge"])
def test_out_that_is_a_file_is_a_message(verb: str, questions: Path) -> None:
    data = ["--data", "my.jsonl"]
    given = {
        "run": ["arena"],
        "attack": [*data, "--recipe", "arena", "--skip-bad-records"],
        "probe": [*data, "--recipe", "arena", "--skip-bad-records"],
        "sft": [*data, "--recipe", "arena", "--skip-bad-records"],
        "eval": [
            "--suite",
            "pope",
            "--data",
            "sparring_arena.benchmarks:pope:number=4",
            "--recipe",
            "arena",
        ],
        "forge": [*data, "--recipe", "arena"],
    }[verb]
    for out in ("my.jsonl", "my.jsonl/below"):
        done = runner.invoke(app, [verb, *given, "--out", out])
        assert done.exit_code == 2, (done.output, done.exception)
        assert "my.jsonl is a file. Name another one with --out." in done.stderr
    assert questions.read_text().startswith("{")


def test_a_comparison_goes_into_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rate = {"value": 0.0, "n": 1, "ci95": [0.0, 0.0]}
    own = {"difference": rate, "before": 0.5, "after": 0.5, "harmed": 0, "rescued": 0, "mcnemar": 1.0}
    nothing = {"only_before": 0, "only_after": 0, "differences_in_asking": [], "other_pictures": 0}
    found = {"all": own, "categories": {"[a:b]": own}, **nothing}
    monkeypatch.setattr("sparring.benchmarks.compare.compare", lambda before, after, profile: found)
    monkeypatch.setattr(
        "sparring.report.evaluation.write_eval_report", lambda *given, **more: tmp_path / "report.html"
    )
    done = runner.invoke(app, ["compare", "a", "b", "--out", "new/c.json"])
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "new" / "c.json").read_text()) == found
    assert "[a:b]  " in done.stdout
    wrong = runner.invoke(app, ["compare", "a", "b", "--out", "new"])
    assert (wrong.exit_code, "new is a folder" in wrong.stderr) == (2, True)

"""`sparring publish`: what it writes is what plain libraries load, the same every time, and names nothing of
this disk; a hub gets just that.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
import torch
import yaml
from diffusers import Flux2KleinPipeline
from huggingface_hub import DatasetCard, ModelCard
from markdown_it import MarkdownIt
from PIL import Image
from rich.console import Console
from transformers import AutoModelForImageTextToText, AutoProcessor
from typer.testing import CliRunner

import sparring_arena
from endpoint_server import serving
from hub_server import Hub, hub_of
from report.fake_run import write_fake_run
from small_attack import attack, attack_of
from small_checkpoints import picture, tiny_flux2_klein
from small_eval import evaluate, settings_of, write_custom
from small_forge import forge_of, forge_quietly, players, write_light_questions
from small_vlms import tiny_llava, tiny_qwen2_5_vl
from sparring.cli import app
from sparring.config import SftSettings
from sparring.defenders.sft import run_sft
from sparring.engine.screen import Screen
from sparring.models.editors import load_editor
from sparring.models.vlms.base import load_vlm
from sparring.publish.card import portable, without_places
from sparring.recipes import load_recipe

ROOT = Path(__file__).parents[2]
ARENA = Path(sparring_arena.__file__).parent
runner = CliRunner()


@pytest.fixture(scope="module")
def editor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_flux2_klein(tmp_path_factory.mktemp("editor"))


@pytest.fixture(scope="module")
def game(tmp_path_factory: pytest.TempPathFactory, editor: Path) -> Path:
    """A finished game whose last players are there."""
    folder = tmp_path_factory.mktemp("runs") / "game"
    write_fake_run(folder, rounds=2, steps=3, held_out=24)
    recipe = load_recipe("arena", ["selfplay.rounds=2"]).model_dump(mode="json")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    trained = load_editor(editor)
    trained.add_lora(2, 4, seed=0)
    with torch.no_grad():
        for name, weights in trained.transformer.named_parameters():
            if "lora_B" in name:
                weights.fill_(0.2)
    trained.save_lora(folder / "round2/attacker/editor")
    tiny_llava(folder / "round2/defender/model")  # whose processor loads without torchvision
    return folder


def published(folder: Path, to: Path, *more: str) -> Path:
    done = runner.invoke(app, ["publish", str(folder), "--to", str(to), *more])
    assert done.exit_code == 0, done.output
    return to


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def names_nothing_of_this_disk(folder: Path) -> None:
    for name, content in contents(folder).items():
        if not name.endswith((".safetensors", ".png", ".parquet", "tokenizer.json")):
            assert not re.search(rb"(?<![\w./])/(?:tmp|work|home|root|usr|private|var)/", content), name


def test_figures_name_no_place_in_what_they_say_of_items() -> None:
    assert without_places("a.png is not there (looked for /home/ann/d/a.png): 3/4, 1/2") == (
        "a.png is not there (looked for d/a.png): 3/4, 1/2"
    )
    said = "endpoint http://10.0.0.7:8000/v1#qwen: given up, error:/home/ann/e/log; file:///home/ann/e"
    assert without_places(said) == "endpoint qwen: given up, error:e/log; an endpoint"
    prompt = {"prompt": "See https://example.org/rules and /etc/hosts/a before you answer"}
    assert portable(prompt) == prompt


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("/home/ann/runs/a/attacker/editor", "attacker/editor"),
        ("flux/klein+/home/ann/runs/a/attacker/editor", "flux/klein+attacker/editor"),
        (f"{ARENA}/players/editor+/home/ann/a/attacker/editor", "arena/editor+attacker/editor"),
        ("roundtrip@/home/ann/models/editor", "roundtrip@models/editor"),
        ("paste:folder=/home/ann/pictures/cups", "paste:folder=pictures/cups"),
        ("paste:/home/ann/pictures/cups", "paste:pictures/cups"),
        ("/home/ann/my models/qwen", "my models/qwen"),
        ("http://10.0.0.3:8000/v1#judge", "judge"),
        ("1+/2", "1+/2"),
        ("See\n/home is a word", "See\n/home is a word"),
    ],
)
def test_names_of_attackers_lose_every_path_in_them(name: str, told: str) -> None:
    assert portable({"attackers": {"last": [name]}}) == {"attackers": {"last": [told]}}


def test_both_players_of_a_game_load_in_plain_libraries(game: Path, editor: Path, tmp_path: Path) -> None:
    published(game, tmp_path / "it", "--licence", "apache-2.0")
    attacker, defender = tmp_path / "it-attacker", tmp_path / "it-defender"
    pipeline = Flux2KleinPipeline.from_pretrained(editor)
    pipeline.load_lora_weights(str(attacker))
    layers = load_editor(editor).text_layers
    told = {
        "image": picture(),
        "prompt": "add a cup",
        "num_inference_steps": 2,
        "height": 64,
        "width": 64,
        "output_type": "pt",
        "text_encoder_out_layers": layers,
        "max_sequence_length": 48,
    }
    changed = pipeline(**told, generator=torch.Generator().manual_seed(0)).images
    pipeline.unload_lora_weights()
    plain = pipeline(**told, generator=torch.Generator().manual_seed(0)).images
    assert (changed - plain).abs().max() > 1e-3
    model = AutoModelForImageTextToText.from_pretrained(defender)
    processor = AutoProcessor.from_pretrained(defender)
    text = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Light?"}]}],
        add_generation_prompt=True,
    )
    batch = processor(images=[picture()], text=[text], return_tensors="pt")
    assert model.generate(**batch, max_new_tokens=2).shape[1] > batch["input_ids"].shape[1]


def test_the_cards_render_and_say_what_the_summary_says(game: Path, tmp_path: Path) -> None:
    published(game, tmp_path / "it", "--licence", "apache-2.0")
    summary = json.loads((game / "summary.json").read_text())
    for role, library in (("attacker", "diffusers"), ("defender", "transformers")):
        folder = tmp_path / f"it-{role}"
        card = ModelCard.load(folder / "README.md")
        assert card.data.library_name == library
        assert card.data.license == "apache-2.0"
        assert card.data.base_model is None  # the bundled players are at no hub
        assert "{{" not in card.text
        assert "{%" not in card.text
        for part in ("## How it was made", "## Results", "## Limits", "## Licence", "seed 0", "sparring run"):
            assert part in card.text
        names_nothing_of_this_disk(folder)
        recipe = load_recipe(folder / "recipe.yaml")
        assert recipe == load_recipe("arena", ["selfplay.rounds=2"])
        with Image.open(folder / "samples.png") as sheet:
            assert sheet.height == 324
    payoff = summary["payoff"]
    cell = payoff["accuracy"][2][payoff["opponents"].index("round2")]
    words = f"{cell['value']:.3f} ({cell['ci95'][0]:.3f} to {cell['ci95'][1]:.3f}), n {cell['n']}"
    assert (
        f"| round2 | {words} |" not in (tmp_path / "it-attacker/README.md").read_text().partition("## R")[0]
    )
    assert words in (tmp_path / "it-attacker/README.md").read_text()
    assert re.search(
        rf"\| round2 \| .* \| {re.escape(words)} \|", (tmp_path / "it-defender/README.md").read_text()
    )


def test_two_publishes_are_equal_and_a_dry_run_keeps_nothing(game: Path, tmp_path: Path) -> None:
    player = game / "round2/defender/model"
    first, second = (published(player, tmp_path / name) for name in ("a", "b"))
    assert contents(first) == contents(second)
    done = runner.invoke(app, ["publish", str(player), "--to", "me/it", "--dry-run"])
    assert done.exit_code == 0
    for name, content in contents(first).items():
        assert re.search(rf"^ +{len(content):,}  {re.escape(name)}$", done.stdout, re.MULTILINE), name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


@pytest.mark.parametrize(
    ("folder", "to", "message"),
    [
        ("", "out/x/y", "neither USER/NAME nor a path"),
        ("nowhere", "me/it", "is no folder"),
        ("round1", "me/it", "of which nothing is published"),
        ("round1/defender/model", "me/it", "is no folder"),
        ("round2/attacker", "me/it", "of which nothing is published"),
        ("", ".", None),
    ],
)
def test_what_cannot_be_published_is_said(game: Path, folder: str, to: str, message: str | None) -> None:
    done = runner.invoke(app, ["publish", str(game / folder), "--to", to, "--dry-run"])
    assert done.exit_code == (0 if message is None else 2)
    assert message is None or message in " ".join(done.output.split())


def test_a_folder_is_not_written_over_and_no_pickle_goes_out(game: Path, tmp_path: Path) -> None:
    player = game / "round2/attacker/editor"
    (tmp_path / "it").mkdir()
    done = runner.invoke(app, ["publish", str(player), "--to", str(tmp_path / "it")])
    assert done.exit_code == 2
    assert "is there already" in done.output
    (player / "optimizer.pt").write_bytes(b"anything")
    try:
        done = runner.invoke(app, ["publish", str(player), "--to", str(tmp_path / "that")])
    finally:
        (player / "optimizer.pt").unlink()
    assert done.exit_code == 2
    assert "may run code" in done.output
    assert not (tmp_path / "that").exists()


def test_for_programs_and_a_slash_at_the_end(game: Path, tmp_path: Path) -> None:
    done = runner.invoke(app, ["publish", str(game), "--to", f"{tmp_path}/it/", "--json"])
    document = json.loads(done.stdout)
    assert [one["to"] for one in document] == [str(tmp_path / "it-attacker"), str(tmp_path / "it-defender")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["it-attacker", "it-defender"]
    for one in document:
        assert one["files"] == {name: len(own) for name, own in contents(Path(one["to"])).items()}


@pytest.mark.parametrize("obstacle", ["folder", "dangling link", "file above"])
def test_where_one_place_is_taken_nothing_is_kept(game: Path, tmp_path: Path, obstacle: str) -> None:
    place, to = tmp_path / "it-defender", tmp_path / "it"
    if obstacle == "folder":
        place.mkdir()
    elif obstacle == "dangling link":
        place.symlink_to(tmp_path / "nowhere")
    else:
        (tmp_path / "above").write_text("")
        place, to = tmp_path / "above", tmp_path / "above/it"
    done = runner.invoke(app, ["publish", str(game), "--to", str(to)])
    assert done.exit_code == 2, done.exception
    assert "Name another folder with --to" in " ".join(done.stderr.split())
    assert list(tmp_path.iterdir()) == [place]


@pytest.mark.parametrize(("name", "said"), [("notes.txt", "is a link to"), ("weights.PT", "may run code")])
def test_no_link_out_of_the_folder_is_followed(game: Path, tmp_path: Path, name: str, said: str) -> None:
    player = game / "round2/attacker/editor"
    (tmp_path / "private").write_text("mine alone")
    if said == "is a link to":
        (player / name).symlink_to(tmp_path / "private")
    else:
        (player / name).write_bytes(b"anything")
    try:
        done = runner.invoke(app, ["publish", str(player), "--to", str(tmp_path / "it")])
    finally:
        (player / name).unlink()
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.split())
    assert not (tmp_path / "it").exists()


@pytest.mark.parametrize("token", ["hf_secret\nx", "hf_secret\r\nx", "hf_sécret"])
def test_a_token_that_is_none_is_not_repeated(
    game: Path, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with hub_of("hf_right") as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        player = game / "round2/attacker/editor"
        done = runner.invoke(app, ["publish", str(player), "--to", "me/it"])
    assert done.exit_code == 2
    assert "HF_TOKEN holds a character" in " ".join(done.stderr.split())
    assert "hf_s" not in done.output + done.stderr


PROMPT = "Rules: see https://a.b/c#d\n```\n<b>{question}</b>\n\n# {options}\n"


def test_what_a_prompt_holds_stays_text_and_whole(game: Path, tmp_path: Path) -> None:
    stored = (game / "recipe.yaml").read_text()
    recipe = yaml.safe_load(stored)
    recipe["defender"]["prompt"] = recipe["attacker"]["instruction"] = PROMPT
    (game / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    try:
        published(game, tmp_path / "it")
    finally:
        (game / "recipe.yaml").write_text(stored)
    for role in ("attacker", "defender"):
        told = yaml.safe_load((tmp_path / f"it-{role}/recipe.yaml").read_text())
        assert told["defender"]["prompt"] == PROMPT
        html = MarkdownIt().render(ModelCard.load(tmp_path / f"it-{role}/README.md").text)
        assert "&lt;b&gt;{question}" in html
        assert "<b>" not in html
        assert "<h1>{" not in html


HOSTILE = "x](javascript:alert(1))\n# <img src=//e.example/p.png> ![p](//e.example/p.png) `a` **b** | c"


def test_hostile_names_stay_text(game: Path, tmp_path: Path) -> None:
    stored = (game / "recipe.yaml").read_text()
    recipe = yaml.safe_load(stored)
    recipe["name"] = recipe["attacker"]["model"] = recipe["defender"]["model"] = HOSTILE
    (game / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    try:
        published(game, tmp_path / "it", "--licence", "<b>[x](//e.example)</b>")
    finally:
        (game / "recipe.yaml").write_text(stored)
    for role in ("attacker", "defender"):
        card = (tmp_path / f"it-{role}/README.md").read_text().split("\n---\n", 1)[1]
        html = MarkdownIt().enable("table").render(card)
        # the sheet of samples is the card's one picture
        assert not re.search(r"<b>|<strong>|javascript:[^<]*\"|<img src=\"//|href=\"//", html)
        (heading,) = re.findall(r"<h1>(.*?)</h1>", html)
        assert heading.startswith(f"{role.capitalize()} of x](javascript:alert(1)) # &lt;img src=//e.example")
        assert heading.endswith(" `a` **b** | c, round 2")
        assert "<code>x](javascript:alert(1)) # &lt;img" in html


@pytest.fixture(scope="module")
def tuning(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fine-tuning of a LoRA that has ended."""
    folder = tmp_path_factory.mktemp("tuning")
    defender = {"model": str(tiny_qwen2_5_vl(folder / "model")), "prompt": PROMPT, "prompts_per_step": 2}
    defender |= {"algorithm": "sft", "lora": {"rank": 2}, "learning_rate": 1e-3}
    questions = write_light_questions(folder / "q", 4)
    told = {"data": str(questions), "device": "cpu", "threads": 1, "seed": 7, "defender": defender}
    run_sft(SftSettings.model_validate(told), folder / "tuned", Screen(Console(file=io.StringIO())))
    return folder / "tuned"


def test_a_fine_tuned_defender(tuning: Path, tmp_path: Path) -> None:
    out = published(tuning, tmp_path / "a", "--licence", "apache-2.0")
    assert contents(out) == contents(
        published(tuning / "sft/model", tmp_path / "b", "--licence", "apache-2.0")
    )
    names_nothing_of_this_disk(out)
    card = ModelCard.load(out / "README.md")
    assert (card.data.library_name, card.data.license, card.data.base_model) == (
        "transformers",
        "apache-2.0",
        None,
    )
    summary = json.loads((tuning / "summary.json").read_text())
    for part in (
        "## How it was made",
        "2 updates of 2, a LoRA of rank 2, merged in, learning rate 0.001, seed 7",
        "| questions | 4 |",
        f"{summary['loss_first']:.4f}, {summary['loss_last']:.4f} |",
        "was not measured",
        "## Limits",
        "## Licence",
    ):
        assert part in card.text
    assert yaml.safe_load((out / "sft.yaml").read_text())["defender"]["prompt"] == PROMPT
    assert json.loads((out / "results.json").read_text()) == {
        name: value for name, value in summary.items() if name != "model"
    }
    model, base = (
        AutoModelForImageTextToText.from_pretrained(folder) for folder in (out, tuning.parent / "model")
    )
    changed = [not torch.equal(a, b) for a, b in zip(model.parameters(), base.parameters(), strict=True)]
    assert any(changed)


def test_a_fine_tuning_that_has_not_ended_is_not_published(tuning: Path, tmp_path: Path) -> None:
    (tmp_path / "sft.yaml").write_text((tuning / "sft.yaml").read_text())
    done = runner.invoke(app, ["publish", str(tmp_path), "--to", "me/it", "--dry-run"])
    assert done.exit_code == 2
    assert "the fine-tuning has not ended" in " ".join(done.stderr.split())


def test_a_fine_tuning_without_its_weights_is_not_published(tuning: Path, tmp_path: Path) -> None:
    for name in ("sft.yaml", "summary.json"):
        (tmp_path / name).write_text((tuning / name).read_text())
    done = runner.invoke(app, ["publish", str(tmp_path), "--to", "me/it", "--dry-run"])
    assert done.exit_code == 2
    assert "holds no weights" in " ".join(done.stderr.split())


def test_forged_pairs(tmp_path: Path) -> None:
    questions = write_light_questions(tmp_path / "q", 30)
    questions = questions.rename(questions.with_name("@a: b #c.jsonl"))
    with serving(players) as server:
        forge_quietly(forge_of(questions, server.url), tmp_path / "forge")
    out = published(tmp_path / "forge", tmp_path / "out")
    assert DatasetCard.load(out / "README.md").data.pretty_name == "Forged pairs from @a: b #c"
    names_nothing_of_this_disk(out)
    assert not list(out.glob("apart/*.jsonl"))
    rows = datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows[0]["adversarial_image"].size == (64, 64)


def test_an_attack_and_its_figures(tmp_path: Path, editor: Path) -> None:
    questions = write_light_questions(tmp_path / "q", 12)
    with serving(players) as server:
        attack(attack_of(Path("paste:add"), questions, server.url), tmp_path / "attack")
    out = published(tmp_path / "attack", tmp_path / "out", "--licence", "cc-by-4.0")
    card = DatasetCard.load(out / "README.md")
    assert card.data.pretty_name
    assert card.data.license == "cc-by-4.0"
    assert card.text == DatasetCard.load(tmp_path / "attack/dataset/README.md").text
    names_nothing_of_this_disk(out)
    results = json.loads((tmp_path / "attack/results.json").read_text())
    assert json.loads((out / "results.json").read_text())["questions"] == results["questions"]
    assert len(datasets.load_dataset(str(out), split="test", cache_dir=str(tmp_path / "cache"))) > 0


def test_an_evaluations_figures(tmp_path: Path) -> None:
    model = tiny_llava(tmp_path / "model")
    settings = settings_of(write_custom(tmp_path / "q", 6), str(model))
    results = evaluate(settings, tmp_path / "eval", load_vlm(str(model)))
    (tmp_path / "eval/eval.yaml").write_text(yaml.safe_dump(settings.model_dump(mode="json")))
    out = published(tmp_path / "eval", tmp_path / "out", "--licence", "cc-by-4.0")
    card = DatasetCard.load(out / "README.md")
    assert card.data.license == "cc-by-4.0"
    names_nothing_of_this_disk(out)
    rows = datasets.load_dataset(str(out), "figures", split="train", cache_dir=str(tmp_path / "cache"))
    assert [row["profile"] for row in rows] == sorted(
        results["profiles"], key=list(results["profiles"]).index
    )


def test_the_projects_own_benchmarks(tmp_path: Path) -> None:
    folder = ROOT / "benchmarks/results"
    out = published(folder, tmp_path / "out")
    names = datasets.get_dataset_config_names(str(out))
    assert names == sorted(file.stem for file in folder.glob("*.json"))
    for name in names:
        rows = datasets.load_dataset(str(out), name, split="train", cache_dir=str(tmp_path / "cache"))
        assert len(rows) > 0
        assert rows.column_names


def push(hub: Hub, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    own = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
    own |= {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": "/nonexistent", **environment}
    return subprocess.run(
        [sys.executable, "-c", "from sparring.cli import app; app()", "publish", *words],
        env=own,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_a_hub_gets_what_a_folder_gets(game: Path, tmp_path: Path) -> None:
    player = game / "round2/attacker/editor"
    with hub_of("hf_right") as hub:
        for token, said in (
            ({}, "HF_TOKEN is not set"),
            ({"HF_TOKEN": "hf_wrong"}, "could not be published"),
        ):
            done = push(hub, str(player), "--to", "me/it", **token)
            assert done.returncode == 2
            assert said in " ".join(done.stderr.split())
            assert "Traceback" not in done.stderr
            assert "hf_wrong" not in done.stderr
        assert not hub.repositories
        done = push(hub, str(player), "--to", "me/it", "--private", HF_TOKEN="hf_right")
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"Attacker of round 2: {hub.url}/me/it\n"
        assert hub.made[0]["name"] == "it"
        assert hub.made[0].get("private") or hub.made[0].get("visibility") == "private"
        assert hub.commits == ["Attacker of round 2"]
        assert "hf_right" not in done.stdout + done.stderr
        gone = hub.url
    assert hub.repositories["models/me/it"] == contents(published(player, tmp_path / "it"))
    hub.url = gone  # nobody listens there any more
    done = push(hub, str(player), "--to", "me/it", HF_TOKEN="hf_right")
    assert done.returncode == 2
    assert "could not be published" in done.stderr

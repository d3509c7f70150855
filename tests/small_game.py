"""A whole game in miniature: players of the real classes that have been taught a trick in seconds, questions
on disk, and a recipe.

The Defender says whether a picture is dark or light, not always rightly; the judge model counts one of
everything; the editor is random, so what it makes is noise, which changes some answers.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from rich.console import Console

from small_checkpoints import tiny_flux2_klein
from small_vlms import tiny_llava, tiny_qwen2_5_vl
from sparring.config import Recipe, StudySettings
from sparring.data.convert import write_questions
from sparring.data.records import Target, VisualQuestion
from sparring.engine.screen import Screen
from sparring.models.vlms.local import LocalVLM
from sparring.selfplay.loop import run_game
from sparring.study.plan import Study
from sparring.study.run import run_study

PROMPT = "{question}"


def picture(rng: np.random.Generator) -> tuple[Image.Image, bool]:
    """A 64 x 64 picture of blocks around one grey, and whether it is light."""
    level = rng.integers(20, 236)
    blocks = np.clip(level + rng.integers(-20, 21, (8, 8, 3)), 0, 255).astype(np.uint8)
    return Image.fromarray(blocks).resize((64, 64), Image.Resampling.NEAREST), bool(level > 128)


def write_game_questions(folder: Path, count: int, seed: int = 0) -> Path:
    """A JSONL file of `count` questions with their pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, questions = np.random.default_rng(seed), []
    for number in range(count):
        image, light = picture(rng)
        path = (folder / f"{number}.png").resolve()
        image.save(path)
        questions.append(
            VisualQuestion(
                f"q{number}",
                path,
                "Light?",
                ("no", "yes"),
                "AB"[light],
                (Target("cup", (8, 8, 40, 40)),),
                "light",
            )
        )
    return write_questions(folder / "questions.jsonl", questions)


def teach(
    folder: Path,
    replies: list[str],
    images: list[Image.Image],
    prompt: str | list[str],
    *,
    steps: int,
    seed: int = 0,
) -> None:
    """Fine-tune a checkpoint in place on (picture, prompt) -> reply; one prompt for all, or one for each."""
    prompts = [prompt] * len(images) if isinstance(prompt, str) else prompt
    vlm = LocalVLM.load(folder)
    vlm.prepare_training(train_vision=True)
    optimizer = torch.optim.AdamW(vlm.model.parameters(), lr=3e-3)
    end = vlm.end_tokens[0]
    tokens = [
        [*vlm.processor.tokenizer(reply, add_special_tokens=False)["input_ids"], end] for reply in replies
    ]
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        rows = rng.choice(len(images), 16, replace=False)
        batch = vlm.encode([images[row] for row in rows], [prompts[row] for row in rows])
        logprobs_NT, mask_NT = vlm.completion_logprobs(batch, [[tokens[row]] for row in rows])
        optimizer.zero_grad()
        (-logprobs_NT.sum() / mask_NT.sum()).backward()
        optimizer.step()
    vlm.save(folder)


def write_players(folder: Path) -> None:
    """`folder`/editor, /defender and /judge."""
    tiny_flux2_klein(folder / "editor")
    rng = np.random.default_rng(5)
    images, light = zip(*(picture(rng) for _ in range(64)), strict=True)
    # One label in eight is wrong, so that the Defender stays unsure and sampling it gives groups with a
    # signal.
    labels = [is_light != (number % 8 == 0) for number, is_light in enumerate(light)]
    tiny_qwen2_5_vl(folder / "defender", scale=1.0)
    teach(
        folder / "defender",
        [f"\\boxed{{{'AB'[label]}}}" for label in labels],
        list(images),
        "Light?",
        steps=110,
    )
    tiny_llava(folder / "judge", scale=1.0)
    teach(folder / "judge", ["one"] * len(images), list(images), "cups?", steps=25)


def game_recipe(players: Path, questions: Path, *, rounds: int = 2, **changes: dict[str, object]) -> Recipe:
    """Two rounds of a few updates each; `changes` go into the sections of that name."""
    sections: dict[str, dict[str, object]] = {
        "data": {"path": str(questions), "held_out": 12},
        "attacker": {
            "model": str(players / "editor"),
            "steps": 3,
            "questions_per_step": 2,
            "group_size": 4,
            "rollout_steps": 3,
            "evaluation_steps": 3,
            "learning_rate": 3e-2,
            "lora": {"rank": 2, "alpha": 4},
            "keep_best": 2,
        },
        "defender": {
            "model": str(players / "defender"),
            "prompt": PROMPT,
            "steps": 3,
            "prompts_per_step": 4,
            "group_size": 4,
            "max_new_tokens": 12,
            "learning_rate": 1e-4,
            "max_refills": 2,
            "final_interpolation": 0.5,
        },
        "judge": {
            "model": str(players / "judge"),
            "count_prompt": "{name}s?",
            "integrity_threshold": 0.04,
            "trials": 2,
            "trial_temperature": 1.0,
        },
        "bootstrap": {"questions": 12, "steps": 3, "batch": 4},
        "forge": {
            "implant": "painter",
            "propose": {"number": 3, "size": [0.3, 0.45]},
            "attempts": 4,
            "effective": 0.5,
        },
        "selfplay": {
            "rounds": rounds,
            "checkpoint_every": 2,
            "curriculum": {"questions": 8, "training_edits": True, "revisit": 0.5},
        },
        "engine": {},
        "evaluation": {"audit": {"call": "small_game:audit"}, "resamples": 200, "batch": 8},
    }
    for name, own in changes.items():  # e.g. judge={"trials": 1}
        sections[name] = sections[name] | own
    return Recipe.model_validate({"name": "small", "seed": 3, "device": "cpu", "threads": 1, **sections})


def audit(question: VisualQuestion, image: Image.Image) -> bool | None:
    """An auditor that knows nothing of some pictures and objects to some others."""
    return None if question.id.endswith("3") else not question.id.endswith("7")


def blot(question: VisualQuestion, image: Image.Image, *, seed: int) -> tuple[Image.Image, str]:
    """A rival that paints a square of a random colour beside the target."""
    edited = image.copy()
    edited.paste(tuple(np.random.default_rng(seed).integers(0, 256, 3).tolist()), (44, 40, 62, 58))
    return edited, "a blot"


def widened(question: VisualQuestion, image: Image.Image, *, seed: int) -> tuple[Image.Image, str]:
    """A rival that puts a margin around the picture."""
    return ImageOps.expand(image, 4), "a margin"


def play_quietly(recipe: str, out: str) -> None:
    """Play a recipe, given as JSON, in a process of its own."""
    run_game(Recipe.model_validate_json(recipe), Path(out), Screen(Console(file=io.StringIO())))


def plan_of(settings: str, recipes: str) -> Study:
    """A study, given as JSON."""
    return Study(
        StudySettings.model_validate_json(settings),
        {name: Recipe.model_validate_json(json.dumps(own)) for name, own in json.loads(recipes).items()},
    )


def study_quietly(settings: str, recipes: str, out: str, *, trim: bool = False) -> None:
    """Do a study, given as JSON, with two workers."""
    run_study(plan_of(settings, recipes), Path(out), 2, Screen(Console(file=io.StringIO())), trim=trim)

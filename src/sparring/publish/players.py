"""The cards of players: of one that a game has trained, with its figures, its recipe and samples of its play;
of a Defender that was fine-tuned.
"""

from __future__ import annotations

import json
import re
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import yaml
from huggingface_hub import ModelCardData

from sparring.data.errors import RunError
from sparring.engine.files import write_json, write_whole
from sparring.engine.folder import kind_of, read_settings
from sparring.forge.publish import SHOWN, write_samples
from sparring.models.names import AT_HUB
from sparring.publish.card import portable, save_card
from sparring.report.run import Run, open_ledger, read_exhibits, read_run

Role = Literal["attacker", "defender"]
TUNED = Path("sft/model")
"""Where a fine-tuning keeps its model."""
PLACE = re.compile(r"round([1-9]\d*)/(attacker/editor|defender/model)")


def player_in(folder: Path) -> tuple[Path, Role, int] | None:
    """(game's folder, role, round) of a folder that is one player's; None for any other."""
    if len(folder.parts) < 4 or (match := PLACE.fullmatch("/".join(folder.parts[-3:]))) is None:
        return None
    return folder.parents[2], "attacker" if match[2] == "attacker/editor" else "defender", int(match[1])


def write_player(out: Path, run_folder: Path, role: Role, number: int, licence: str | None) -> None:
    """Write README.md, results.json, recipe.yaml and samples.png beside a player's weights. Raises RunError
    where the game has not ended: there are no figures yet.
    """
    run = read_run(run_folder, exhibits=False)
    if run.summary is None:
        raise RunError(
            f"{run_folder} has no summary.json: the game has not ended, and there are no figures for a card. "
            f"Go on with `sparring run --resume {run_folder}`."
        )
    recipe = portable(dict(run.recipe))
    write_whole(out / "recipe.yaml", yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))
    results = _figures(run.summary, role, number)
    write_json(out / "results.json", results)
    base = str(recipe[role]["model"])
    lora = role == "attacker" and recipe["attacker"].get("lora") is not None
    tags = [*(["lora"] if lora else []), "adversarial", "robustness", "sparring", role]
    save_card(
        out,
        _card_data(role, str(run.recipe[role]["model"]), tags, licence),
        f"{role}.md.j2",
        run=run.summary,
        recipe=recipe,
        number=number,
        base=base,
        lora=lora,
        results=results,
        samples=_samples(out / "samples.png", run, role, number),
        licence=licence,
    )


def tuned_in(folder: Path) -> Path | None:
    """The folder of the fine-tuning that a folder is, or whose model it is; None for any other."""
    if folder.parts[-2:] == TUNED.parts:
        folder = folder.parents[1]
    return folder if kind_of(folder) == "fine-tuning" else None


def write_tuned(out: Path, folder: Path, licence: str | None) -> None:
    """Write README.md, results.json and sft.yaml beside the weights of a Defender that was fine-tuned."""
    stored = read_settings(folder / "sft.yaml")
    settings, summary = portable(stored), json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    del summary["model"]  # where it lies on this disk
    write_whole(out / "sft.yaml", yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
    write_json(out / "results.json", summary)
    defender = settings["defender"]
    save_card(
        out,
        _card_data("defender", str(stored["defender"]["model"]), ["sparring", "sft"], licence),
        "tuned.md.j2",
        settings=settings,
        base=str(defender["model"]),
        reply=defender["algorithm"]["reply"],
        results=summary,
        licence=licence,
    )


def _card_data(role: Role, model: str, tags: list[str], licence: str | None) -> ModelCardData:
    """The hub's metadata of a player that began as that model."""
    base = portable(model)
    # arena/editor looks like a repository, and is a folder of an installed package.
    at_hub = AT_HUB.fullmatch(base) and not Path(model).is_absolute()
    return ModelCardData(
        license=licence,
        base_model=base if at_hub else None,
        library_name="diffusers" if role == "attacker" else "transformers",
        pipeline_tag="image-to-image" if role == "attacker" else "image-text-to-text",
        tags=tags,
    )


def _figures(summary: Any, role: Role, number: int) -> dict[str, Any]:
    """What held-out play says of a player, each figure {"value", "n", "ci95"}: of an Attacker's edits, and of
    each pair that it is one of.
    """
    payoff, name = summary["payoff"], f"round{number}"
    own = summary["rounds"][number - 1]["attacker"]
    row, column = payoff["defenders"].index(name), payoff["opponents"].index(name)
    if role == "defender":
        pairs = {
            opponent: {"base": payoff["accuracy"][0][place], "this": payoff["accuracy"][row][place]}
            for place, opponent in enumerate(payoff["opponents"])
        }
        return {"accuracy": pairs}
    names = ("integrity_rate", "accepted_rate", "label_valid_rate")
    return {
        "edits": {key: own[key] for key in names},
        "against": {
            defender: {
                "valid_asr": payoff["valid_asr"][place][column],
                "accuracy": payoff["accuracy"][place][column],
            }
            for place, defender in enumerate(payoff["defenders"])
        },
    }


def _samples(path: Path, run: Run, role: Role, number: int) -> str | None:
    """Held-out edits that fooled: an Attacker's the base Defender, which was right before; for a Defender
    those that it stands firm against.
    """
    stages = f"evaluation/round{number}" if role == "attacker" else "evaluation/round%"
    pairs = []
    with closing(open_ledger(run.out / "ledger.sqlite")) as db:
        for one in read_exhibits(db, run.out, f"round{number}", stages=stages):
            fooled = one.outcome == "fooled" and one.clean_right
            if fooled and (role == "attacker" or one.won_back):
                pairs.append((one.image, one.picture))
            if len(pairs) == SHOWN:
                break
    return write_samples(path, pairs)

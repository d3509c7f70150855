"""`sparring plan`: what a recipe would do, what it needs of GPUs, how long it takes and what it costs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from sparring.config.engine import PHASES, Phase
from sparring.console import (
    RecipeArgument,
    RunSeedOption,
    SetOption,
    SkipOption,
    clean_errors,
    load,
    note,
    out_console,
    result,
    warn,
)
from sparring.data.errors import DataError, RecipeError
from sparring.data.words import plural

if TYPE_CHECKING:
    from sparring.config import Recipe
    from sparring.plan import ModelPlan, Plan
    from sparring.plan.cost import Rates
    from sparring.plan.memory import Strategy
    from sparring.plan.phases import Setup

TRAININGS: tuple[Phase, ...] = ("attacker", "defender")
H100 = 989.0
"""TFLOP/s at its peak, dense, in 16 bits."""


def plan(
    recipe: RecipeArgument = None,
    seed: RunSeedOption = None,
    changes: SetOption = None,
    skip_bad_records: SkipOption = False,
    gpus: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Say whether so many GPUs do, and how long they take. Left out: each phase's own "
            "number, as the recipe's engine.workers says.",
            show_default=False,
        ),
    ] = None,
    gpu_memory: Annotated[
        float, typer.Option(min=0, metavar="GB", help="Memory of each, in 1e9 bytes.")
    ] = 80,
    fsdp2: Annotated[
        list[str] | None,
        typer.Option(
            "--fsdp2",
            metavar="PHASE",
            help="attacker or defender: divide the weights of this player's training among the GPUs, as "
            "engine.attacker.strategy and engine.defender.strategy say. May be given often.",
            show_default=False,
        ),
    ] = None,
    picture: Annotated[
        str | None,
        typer.Option(
            metavar="WxH",
            help="Size of the pictures; a megapixel if left out, or what the players are given at most. No "
            "player is given more than the recipe lets it.",
            show_default=False,
        ),
    ] = None,
    price: Annotated[
        float | None, typer.Option(min=0, help="Of a GPU hour, in any currency.", show_default=False)
    ] = None,
    tflops: Annotated[
        float | None,
        typer.Option(
            min=1,
            help="A GPU's peak, dense, in 16 bits. Left out: the recipe's engine.peak_tflops, else 989, an "
            "H100's.",
            show_default=False,
        ),
    ] = None,
    mfu: Annotated[
        float, typer.Option(min=0.001, max=1, help="Share of it that passes over many tokens reach.")
    ] = 0.3,
    sampling_mfu: Annotated[
        float, typer.Option(min=0.0001, max=1, help="Share of it that sampling token by token reaches.")
    ] = 0.03,
    reply: Annotated[int, typer.Option(min=1, help="Tokens of a Defender's reply in the mean.")] = 256,
) -> None:
    """Show what a recipe would do, without training.

    Standard output gets the resolved settings as YAML: saved to a file, they are a recipe. Standard error
    gets the data found, the models found and the memory of a GPU by phase; with --gpus also whether these
    do, the smallest number that does, and the time and price of the run. Nothing is downloaded and no weight
    is loaded. The data file, where there is one, is checked as a run would check it; where a run would stop,
    the exit code is 2.

    \b
    sparring plan arena --set data.path=my.jsonl > mine.yaml
    sparring plan qwen2.5-vl-7b_qwen-image-edit --gpus 8 --gpu-memory 80 --price 2.50 \\
        --fsdp2 attacker --fsdp2 defender
    """
    with clean_errors():
        settings = load(recipe, seed, changes, skip_bad_records)
        from sparring.plan.cost import Rates
        from sparring.plan.phases import Setup

        divided = fsdp2 or []
        for name in divided:
            if name not in TRAININGS:
                raise RecipeError(f'--fsdp2: "{name}" is none of {", ".join(TRAININGS)}.')
        engine = settings.engine
        cuda = settings.device == "cuda"
        each: dict[str, int] = {phase: gpus or (engine.workers_of(phase) if cuda else 1) for phase in PHASES}
        most = max(each.values())
        strategies: list[Strategy] = [
            "fsdp2" if phase in divided or engine.sharded(phase) else "data_parallel" for phase in TRAININGS
        ]
        attacker, defender = strategies
        setup = Setup(_pixels(picture), most, attacker, defender, own=each)
        peak = tflops or engine.peak_tflops or H100
        rates = Rates(peak, mfu, sampling_mfu, reply, price)
        show_plan(settings, setup, rates if gpus or most > 1 else None, gpu_memory * 1e9)


def _pixels(picture: str | None) -> int:
    if picture is None:
        return 0
    width, _, height = picture.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise RecipeError(f'--picture: "{picture}" is not of the form 1024x768.')
    return int(width) * int(height)


def show_plan(
    settings: Recipe, setup: Setup | None = None, rates: Rates | None = None, memory: float = 80e9
) -> None:
    """Write the settings to standard output and all else to standard error; rates: for time and cost."""
    from sparring.engine.trackers import require_trackers
    from sparring.plan import make_plan, require_models
    from sparring.recipes.check import require_playable

    found = make_plan(settings, setup)
    recipe = settings.model_dump(mode="json")
    if not out_console.stderr:
        sys.stdout.write(yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=140))
        sys.stdout.flush()
    note("Data", style="bold")
    _show_data(found)
    note("\nModels", style="bold")
    for model in found.models:
        lora = f", LoRA {_amount(model.lora)}" if model.lora is not None else ""
        size = "" if model.where == "behind an endpoint" else f"; {model.dtype}; {_size(model)}{lora}"
        note(f"{model.player}: {model.name}\n  {model.where}{size}")
    _show_memory(found)
    gpus = _show_gpus(found, rates, memory) if rates is not None and found.phases else None
    warn(found.warnings)
    if found.missing is not None:
        raise DataError(found.missing)
    require_models(settings)
    require_playable(settings)
    require_trackers(settings)
    result({"recipe": recipe, **_figures(found), "gpus": gpus})


def _figures(found: Plan) -> dict[str, Any]:
    """What is shown of the data, the models and the memory, for who reads JSON."""
    fields = ("player", "name", "where", "dtype", "parameters", "parts", "lora", "published")
    files = [
        {
            "path": questions.path,
            "questions": len(questions),
            "images": len({record.image for record in questions}),
            "categories": questions.by_category(),
            "dropped": questions.dropped_by_reason(),
        }
        for questions in found.data
    ]
    return {
        "data": {"files": files, "train": found.sides[0], "held_out": found.sides[1]},
        "models": [{name: getattr(model, name) for name in fields} for model in found.models],
        "memory": [
            {
                "phase": phase.name,
                "bytes": phase.load.parts,
                "total": phase.load.total,
                "lacks": phase.unknown,
            }
            for phase in found.phases
        ],
        "saved": found.saved,
        "warnings": found.warnings,
    }


def _show_memory(found: Plan) -> None:
    say, setup = note, found.setup
    say("\nMemory", style="bold")
    if not found.phases:
        say("unknown: a model is not on this disk, and its size is not known")
        return
    side = round(setup.pixels**0.5)
    divided = [name for name in TRAININGS if getattr(setup, name) == "fsdp2"]
    say(
        f"GB on each GPU at most, of {_number(setup)}; pictures of {side} x {side} pixels, "
        + (f"weights divided (FSDP2): {', '.join(divided)}" if divided else "all weights on each")
    )
    parts = ("weights", "gradients", "optimiser", "activations", "cache", "libraries")
    say(f"{'':<22}" + "".join(f"{name:>12}" for name in (*parts, "together")))
    for phase in found.phases:
        amounts = [*(phase.load.parts.get(name, 0.0) for name in parts), phase.load.total]
        say(f"{phase.name:<22}" + "".join(f"{amount / 1e9:>12.2f}" for amount in amounts))
        if phase.unknown:
            say(f"  without activations and cache of {', '.join(phase.unknown)}: unknown shape")
    if found.saved:
        sizes = ", ".join(f"{player} {size / 1e9:.2f} GB" for player, size in found.saved.items())
        say(f"a saved state: {sizes}")


def _number(setup: Setup) -> str:
    """GPUs, and those of each phase where they differ."""
    each = {phase: setup.gpus_of(phase) for phase in PHASES}
    if len(set(each.values())) == 1:
        return str(setup.gpus)
    return f"{setup.gpus} ({', '.join(f'{phase} {number}' for phase, number in each.items())})"


def _show_gpus(found: Plan, rates: Rates, memory: float) -> dict[str, Any]:
    """Say whether the GPUs do, and how long they take; gives the same for who reads JSON."""
    say, gpus = note, found.setup.gpus
    say("\nGPUs", style="bold")
    too_large = [phase.name for phase in found.phases if phase.load.total > memory]
    size = f"{_number(found.setup)} x {memory / 1e9:g} GB"
    say(f"{size}: " + ("every phase fits" if not too_large else f"too small for: {', '.join(too_large)}"))
    least = found.smallest(memory)
    say(f"smallest number that does: {least if least is not None else 'none, divided in this way'}")
    each = {phase: found.setup.gpus_of(phase) for phase in PHASES}
    told = {"number": gpus, "by_phase": each, "bytes": memory, "too_large": too_large, "smallest": least}
    lasts = found.duration(rates)
    if lasts is None:
        say("time unknown: the shape of a player is not known")
        return told
    say(
        f"an update at {rates.utilisation:.0%} of {rates.tflops:g} TFLOP/s ({rates.sampling:.1%} while "
        f"tokens are sampled, {rates.reply} a reply): Attacker {lasts.attacker_update:.3g} s, Defender "
        f"{lasts.defender_update:.3g} s"
    )
    price = "" if lasts.cost is None else f", cost {lasts.cost:,.0f} at {rates.price:g} a GPU hour"
    say(f"the run: {lasts.run / 3600:.3g} h{price}")
    seconds = {name: getattr(lasts, name) for name in ("attacker_update", "defender_update", "run")}
    return told | {"seconds": seconds, "cost": lasts.cost}


def _show_data(found: Plan) -> None:
    say = note
    say(found.data_note)
    for questions in found.data:
        images = len({record.image for record in questions})
        say(f"{plural(len(questions), 'question')} about {plural(images, 'image file')}")
        for category, count in questions.by_category().items():
            say(f"  {category}: {count}")
        if questions.dropped:
            say(f"{plural(questions.dropped, 'bad record')} dropped:")
            for reason, count in questions.dropped_by_reason().items():
                say(f"  {reason}: {count}")
    if found.data:
        train, held_out = found.sides
        say(f"{train} to train on, {held_out} held out")


def _size(model: ModelPlan) -> str:
    if model.parameters is None:
        return "parameters unknown"
    detail = ", ".join(f"{part} {_amount(size)}" for part, size in model.parts.items() if part)
    return (
        f"{_amount(model.parameters)} parameters"
        + (f" ({detail})" if detail else "")
        + (", as published" if model.published else "")
    )


def _amount(parameters: int) -> str:
    return f"{parameters / 1e9:.2f} B" if parameters >= 1e8 else f"{parameters / 1e6:.2f} M"

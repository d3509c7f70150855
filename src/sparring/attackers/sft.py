"""Fine-tuning of an editor on (picture, instruction, edited picture) triplets by flow matching."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from PIL.Image import Image
from torch import Tensor

from sparring.attackers.rollout import by_size
from sparring.config import AttackerSettings, BootstrapSettings
from sparring.data.errors import TrainingError
from sparring.engine.optimizer import Optimizer
from sparring.models.editors import Conditions, FlowEditor
from sparring.rl.nft import noised
from sparring.seeds import derive_seed

Pair = tuple[Image, str, Image]
STATE = "sft.safetensors"


def finetune(
    editor: FlowEditor,
    pairs: Sequence[Pair],
    settings: BootstrapSettings,
    attacker: AttackerSettings,
    seed: int,
    folder: str | Path,
    *,
    save_every: int = 10,
) -> Iterator[tuple[int, dict[str, float]]]:
    """Train the editor's trainable weights (its LoRA where it has one) for `settings.steps` steps, going on
    from a state in `folder`. Gives (step, {"loss", "grad_norm"}) after each step, and takes the next one
    when that is asked for.

    The loss is |v(x_sigma) - (eps - x0)|^2 with sigma one of the levels that the sampler's
    `attacker.rollout_steps` steps begin from.
    Pictures are encoded once. A run that is stopped and called again ends with the same weights, bit by bit.
    Raises TrainingError when there are no pairs, RunError when the state is damaged.
    """
    if not pairs:
        raise TrainingError(
            "there is no pair to fine-tune the editor on: forge more questions (bootstrap.questions), or "
            "more candidates of each (forge.attempts)"
        )
    optimizer = Optimizer(
        editor.trainable_parameters(),
        learning_rate=settings.learning_rate,
        weight_decay=0.0,
        max_grad_norm=attacker.max_grad_norm,
    )
    state, start = Path(folder) / STATE, 0
    if state.exists():
        start = int(optimizer.load(state)[0]["step"])
    encoded = _encode(editor, pairs, attacker.micro_batch) if start < settings.steps else []
    for step in range(start, settings.steps):
        chosen = batch_of(len(pairs), min(settings.batch, len(pairs)), step, seed)
        generator = torch.Generator().manual_seed(derive_seed(seed, "sft noise", step))
        total = 0.0
        for places in by_size([pairs[i][0] for i in chosen]):
            for first in range(0, len(places), attacker.micro_batch):
                part = [encoded[chosen[place]] for place in places[first : first + attacker.micro_batch]]
                loss = flow_matching_loss(
                    editor,
                    Conditions.cat([c for c, _ in part]).to(editor.device),
                    torch.cat([x for _, x in part]).to(editor.device),
                    attacker.rollout_steps,
                    generator,
                )
                loss = loss * len(part) / len(chosen)
                torch.autograd.backward(loss)
                total += loss.item()
        norm = optimizer.step(f"fine-tuning step {step}")
        yield step, {"loss": total, "grad_norm": norm or 0.0}
        if (step + 1) % save_every == 0 or step + 1 == settings.steps:
            optimizer.save(state, {"step": step + 1})


def flow_matching_loss(
    editor: FlowEditor, conditions: Conditions, x0_BTC: Tensor, steps: int, generator: torch.Generator
) -> Tensor:
    """Mean squared error of the velocity at one random noise level for each row. Differentiable.

    The levels are those that the sampler begins its steps from: an editor of few steps knows no others.
    """
    schedule = editor.sigmas(steps, conditions)[:-1].cpu()
    sigma_B = schedule[torch.randint(steps, (conditions.batch,), generator=generator)].to(x0_BTC)
    noise = torch.randn(x0_BTC.shape, generator=generator).to(x0_BTC)
    x_BTC, u_BTC = noised(x0_BTC, noise, sigma_B)
    return ((editor.velocity(x_BTC, sigma_B, conditions) - u_BTC) ** 2).mean()


def batch_of(pairs: int, batch: int, step: int, seed: int) -> list[int]:
    """Which pairs a step sees: all of them in a shuffled order, again and again. A function of
    (seed, step).
    """
    places = range(step * batch, (step + 1) * batch)
    orders = {}
    for epoch in {place // pairs for place in places}:
        orders[epoch] = torch.randperm(
            pairs, generator=torch.Generator().manual_seed(derive_seed(seed, "sft order", epoch))
        ).tolist()
    return [orders[place // pairs][place % pairs] for place in places]


def _encode(editor: FlowEditor, pairs: Sequence[Pair], batch: int) -> list[tuple[Conditions, Tensor]]:
    """(conditions of one row, x0 of one row) of every pair, in the CPU's memory: at a megapixel a pair of a
    large editor is some 12 MB, and there may be thousands.
    """
    encoded: dict[int, tuple[Conditions, Tensor]] = {}
    for places in by_size([pair[0] for pair in pairs]):
        for first in range(0, len(places), batch):
            part = places[first : first + batch]
            conditions = editor.encode([pairs[i][0] for i in part], [pairs[i][1] for i in part])
            x0_BTC = editor.clean_latents([pairs[i][2] for i in part], conditions)
            for row, place in enumerate(part):
                rows = slice(row, row + 1)
                encoded[place] = (conditions.select(rows).to("cpu"), x0_BTC[rows].cpu())
    return [encoded[place] for place in range(len(pairs))]

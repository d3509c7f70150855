"""One update of a Defender: ours, every picture and prompt encoded once for its group, against TRL's
`GRPOTrainer`.

python benchmarks/defender_update.py [--visual-tokens 256 1024] [--group 8] [--completion 64] [--repeats 1]

Both train all weights of the same random Qwen2.5-VL (22 M parameters) on the same replies of one group with
the same advantages: loss, backward pass, AdamW step. TRL's part is its own trainer's `compute_loss`, with
its own log-probabilities and its DAPO loss, without gradient checkpointing; its inputs are prepared before
the clock starts, ours prepare the picture inside it. The gradients must agree to 1e-4 of their norm. Memory
is the process's peak above what it holds at rest, which for both are the weights. One JSON line a picture
size. Seconds are processor time; a ratio above 1 means that ours is faster. Bars: 3 times faster at 256
visual tokens, 5 times at 1024, half the memory.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from _defenders import QUESTION, finish, measured, parameters, picture, random_vlm, report
from datasets import Dataset
from PIL import Image
from torch import Tensor
from trl import GRPOConfig, GRPOTrainer

from sparring.config import DefenderSettings
from sparring.data.records import Answer, VisualQuestion
from sparring.defenders.rollout import Group
from sparring.defenders.trainer import DefenderTrainer
from sparring.models.vlms.base import Sampling
from sparring.models.vlms.local import LocalVLM
from sparring.rl.advantages import group_advantages

RATE = 1e-6


def sample(vlm: LocalVLM, image: Image.Image, group: int, length: int) -> Group:
    """One group of replies with rewards that differ, and log-probabilities over all tokens."""
    (replies,) = vlm.generate([image], [QUESTION], Sampling(length, n=group, temperature=1.0))
    # placeholders of pictures are never written, but TRL counts their probabilities in, so from here on we do
    # too
    vlm.forbidden = ()
    with torch.no_grad():
        logprobs, _ = vlm.completion_logprobs(
            vlm.encode([image], [QUESTION]), [[reply.token_ids for reply in replies]]
        )
    replies = [
        replace(reply, logprobs=tuple(own)) for reply, own in zip(replies, logprobs.tolist(), strict=True)
    ]
    question = VisualQuestion("q", Path("none.png"), "Where is the cup?", ("left", "right"), "A")
    answers = tuple(Answer("q", vlm.name, reply.text, None, "none", False) for reply in replies)
    return Group(
        image, question, QUESTION, tuple(replies), answers, tuple(float(i % 3 == 0) for i in range(group))
    )


def trl_trainer(
    vlm: LocalVLM, folder: str, group: int, length: int, *, checkpointing: bool = False
) -> GRPOTrainer:
    """TRL's trainer around the model, at DAPO's settings."""
    settings: dict[str, Any] = {
        "output_dir": folder,
        "per_device_train_batch_size": group,
        "num_generations": group,
        "max_completion_length": length,
        "loss_type": "dapo",
        "beta": 0.0,
        "epsilon": 0.2,
        "epsilon_high": 0.28,
        "learning_rate": RATE,
        "weight_decay": 0.01,
        "gradient_checkpointing": checkpointing,
        "bf16": vlm.model.dtype == torch.bfloat16,
        "use_cpu": vlm.device.type == "cpu",
        "report_to": "none",
        "max_steps": 1,
    }
    tokenizer = vlm.processor.tokenizer
    nothing = Dataset.from_list([{"prompt": "nothing"}])
    trainer = GRPOTrainer(
        vlm.model,
        lambda **_: [0.0],
        GRPOConfig(**settings),
        train_dataset=nothing,
        processing_class=tokenizer,
    )
    trainer.current_gradient_accumulation_steps = trainer.args.steps_per_generation = 1
    trainer.model.train()
    return trainer


def trl_inputs(vlm: LocalVLM, group: Group) -> dict[str, Any]:
    """The padded batch that TRL's trainer makes of a group for its loss: prompt and picture once for every
    reply.
    """
    size = len(group.replies)
    batch = vlm.encode([group.image] * size, [group.prompt] * size)
    completions = torch.tensor([reply.token_ids for reply in group.replies], device=vlm.device)
    return {
        "prompt_ids": batch["input_ids"],
        "prompt_mask": batch["attention_mask"],
        "completion_ids": completions,
        "completion_mask": torch.ones_like(completions),
        "pixel_values": batch["pixel_values"],
        "image_grid_thw": batch["image_grid_thw"],
        "num_images": [1] * size,
        "mm_token_type_ids": torch.cat([batch["mm_token_type_ids"], torch.zeros_like(completions)], dim=1),
        "advantages": group_advantages(torch.tensor([group.rewards])).flatten().to(vlm.device),
        "num_items_in_batch": torch.tensor(float(completions.numel()), device=vlm.device),
    }


def watch(optimizer: torch.optim.Optimizer, weights: list[torch.nn.Parameter], seen: list[Tensor]) -> None:
    """Keep the gradients of the optimizer's first step in `seen`. By then the activations, the peak of the
    memory, are gone.
    """

    def look(*_: Any) -> None:
        if not seen:
            seen.extend(weight.grad.clone() for weight in weights if weight.grad is not None)

    optimizer.register_step_pre_hook(look)


def compare(tokens: int, options: argparse.Namespace) -> bool:
    """One line for pictures of so many visual tokens."""
    ours_vlm, trl_vlm = random_vlm(tokens), random_vlm(tokens)
    group = sample(ours_vlm, picture(tokens), options.group, options.completion)
    settings = DefenderSettings(
        model="random",
        group_size=options.group,
        micro_batch=options.group,
        learning_rate=RATE,
        max_grad_norm=1e9,
    )
    ours = DefenderTrainer(ours_vlm, settings, seed=0)
    seen: dict[str, list[Tensor]] = {"ours": [], "trl": []}
    with tempfile.TemporaryDirectory() as folder:
        rival = trl_trainer(trl_vlm, folder, options.group, options.completion)
    optimizer = torch.optim.AdamW(rival.model.parameters(), lr=RATE, weight_decay=0.01)
    inputs = trl_inputs(trl_vlm, group)

    def update_ours() -> None:
        ours._learn([group], 0)

    def update_trl() -> None:
        rival.compute_loss(rival.model, inputs).backward()
        torch.nn.utils.clip_grad_norm_(rival.model.parameters(), 1e9)
        optimizer.step()
        optimizer.zero_grad()

    for name, stepper, vlm in (("ours", ours.optimizer.adamw, ours_vlm), ("trl", optimizer, trl_vlm)):
        watch(stepper, list(vlm.model.parameters()), seen[name])
    times: dict[str, list[tuple[float, float | None]]] = {"ours": [], "trl": []}
    for _ in range(options.repeats):
        times["ours"].append(measured(update_ours))
        times["trl"].append(measured(update_trl))
    assert len(seen["ours"]) == len(seen["trl"]) == len(list(ours_vlm.model.parameters()))
    size = torch.stack([gradient.norm() for gradient in seen["trl"]]).norm()
    error = (
        torch.stack(
            [(one - other).norm() for one, other in zip(seen["ours"], seen["trl"], strict=True)]
        ).norm()
        / size
    )
    seconds = {name: sum(s for s, _ in own) / len(own) for name, own in times.items()}
    memory = {name: max(m or 0.0 for _, m in own) for name, own in times.items()}
    ratio, share = seconds["trl"] / seconds["ours"], memory["ours"] / memory["trl"] if memory["trl"] else None
    case = {
        "visual_tokens": tokens,
        "group": options.group,
        "completion": options.completion,
        "parameters": parameters(ours_vlm),
        "threads": 1,
    }
    figures = {
        "ours": round(seconds["ours"], 3),
        "rival": round(seconds["trl"], 3),
        "ratio": round(ratio, 2),
        "unit": "seconds an update",
        "ours_peak_mb": round(memory["ours"]),
        "rival_peak_mb": round(memory["trl"]),
        "memory_share": None if share is None else round(share, 3),
        "gradient_error": float(f"{error.item():.2g}"),
    }
    wanted = 5 if tokens >= 1024 else 3
    bars = {
        f"{wanted} times faster": ratio >= wanted,
        "half the memory": share is None or share <= 0.5,
        "same gradients": error.item() <= 1e-4,
    }
    return report("Defender update against TRL's GRPOTrainer", case, figures, bars)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--visual-tokens", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--completion", type=int, default=64, help="tokens of every reply")
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    results = [compare(tokens, options) for tokens in options.visual_tokens]
    finish(all(results))


if __name__ == "__main__":
    main()

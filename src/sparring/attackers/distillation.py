"""Step-distilled editors, such as FLUX.2-klein without "base" in its name: a few steps of theirs are no flow
from noise to pictures.

What trains on freshly noised pictures asks such an editor for velocities that it was never taught, and its
pictures blur while the reward rises (NVlabs/DiffusionNFT#45). Flow-GRPO replays the editor's own
steps; it can drift too, which a KL to the start slows down.
"""

from __future__ import annotations

from sparring.config import AttackerSettings, FlowGRPOSettings, ForwardProcessSettings

START_KL = 0.04  # what Flow-GRPO's paper takes for composition and text (arXiv 2505.05470, section 5.1)


def distillation_warning(settings: AttackerSettings, *, step_distilled: bool) -> str | None:
    """What a person should know before such an editor is trained; None where there is nothing to say."""
    if not step_distilled or not settings.steps or not isinstance(settings.algorithm, ForwardProcessSettings):
        return None
    return (
        f"attacker.algorithm: {settings.algorithm.type} trains on freshly noised pictures, and "
        f"{settings.model} is step-distilled, as its model_index.json says (is_distilled): its pictures are "
        f"known to blur while the reward rises. Name the editor that it was distilled from "
        f"(FLUX.2-klein-base-4B for FLUX.2-klein-4B), with its steps and guidance, or set "
        f"attacker.algorithm to flow_grpo."
    )


def with_start_kl(settings: AttackerSettings, *, step_distilled: bool) -> AttackerSettings:
    """The settings with a KL weight where none is set: 0.04 for Flow-GRPO on such an editor, else 0."""
    if settings.kl_weight is not None:
        return settings
    held = step_distilled and isinstance(settings.algorithm, FlowGRPOSettings)
    return settings.model_copy(update={"kl_weight": START_KL if held else 0.0})

"""Where a recipe is computed: in this process, in several of this machine, or on a Ray cluster."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from sparring.config.base import Settings


class PhaseSettings(Settings):
    """What one kind of phase has of its own; null: as `engine` has it."""

    workers: int | None = Field(None, ge=1, description="processes of the phase; null: engine.workers")
    gpus_per_worker: float | None = Field(
        None, ge=0, description="GPUs of each of them; null: engine.gpus_per_worker"
    )


class TrainingPhaseSettings(PhaseSettings):
    """The same for a player's training."""

    strategy: Literal["data_parallel", "fsdp2"] = Field(
        "data_parallel",
        description="data_parallel: every worker has all weights of the player; fsdp2: each has its part, "
        "and they come together block by block",
    )


class AttackerPhaseSettings(TrainingPhaseSettings):
    """The same for the Attacker's training."""

    overlap: bool = Field(
        False,
        description="Defender and judge model see the edits of an attacker.micro_batch while those of the "
        "next are made, in a thread beside; else all edits of an update together, when all are made",
    )


class EngineSettings(Settings):
    """Who computes. What is computed does not depend on it, bar rounding, so a run may go on with others."""

    kind: Literal["local", "ray"] = Field(
        "local",
        description="local: processes of this machine, of which one alone is the command's own; ray: actors "
        "of a Ray cluster (pip install 'sparring[ray]')",
    )
    workers: int = Field(1, ge=1, description="processes of every phase")
    gpus_per_worker: float | None = Field(
        None, ge=0, description="GPUs of each; null: one where the recipe's device is a GPU, else none"
    )
    address: str | None = Field(
        None,
        description="of a Ray cluster, such as auto or 10.0.0.1:6379; null: the one that RAY_ADDRESS names, "
        "else one is begun on this machine and ended with the run",
    )
    restarts: int = Field(
        3,
        ge=0,
        description="how often a phase may begin anew, from its last saved state, because a worker or its "
        "machine died",
    )
    peak_tflops: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="TFLOP/s of one device at its peak, dense, for trackers' model_flops_utilisation and "
        "for plan; null: of a GPU that is known by its name, in 16 bits",
    )
    attacker: AttackerPhaseSettings = Field(
        default_factory=lambda: AttackerPhaseSettings(), description="the Attacker's training"
    )
    defender: TrainingPhaseSettings = Field(
        default_factory=lambda: TrainingPhaseSettings(), description="the Defender's training"
    )
    play: PhaseSettings = Field(
        default_factory=lambda: PhaseSettings(),
        description="frozen players: clean answers, the curriculum, held-out play, the forge",
    )

    def workers_of(self, phase: Phase) -> int:
        """Processes of a phase."""
        return self.of(phase).workers or self.workers

    def gpus_of(self, phase: Phase, device: str) -> float:
        """GPUs of each of a phase's processes, which compute on that kind of device."""
        own = self.of(phase).gpus_per_worker
        chosen = self.gpus_per_worker if own is None else own
        return float(device == "cuda") if chosen is None else chosen

    def sharded(self, phase: Phase) -> bool:
        """Has each process of a training its part of the weights?"""
        own = self.of(phase)
        return isinstance(own, TrainingPhaseSettings) and own.strategy == "fsdp2"

    def of(self, phase: Phase) -> PhaseSettings:
        """What a phase has of its own."""
        own: PhaseSettings = getattr(self, phase)
        return own


Phase = Literal["attacker", "defender", "play"]
PHASES: tuple[Phase, ...] = get_args(Phase)

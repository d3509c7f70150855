"""The forge: painters, proposals, checks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sparring.config.attacker import AttackerSettings, CropSettings
from sparring.config.base import CheckpointSettings, Device, Images, ModelSettings, Seed, Settings
from sparring.config.defender import DefenderSettings
from sparring.config.judge import JudgeSettings

Implant = Literal["editor", "whole", "painter"]


class PainterSettings(CheckpointSettings):
    """What paints a part of a picture (`sparring.forge.painters`)."""

    model: str = Field(
        "paste",
        description="a folder or hub id of an inpainting or fill model (FLUX.1-Fill, Qwen-Image, "
        'FLUX.2-klein); or without a model: "paste" (or paste:FOLDER) lays a cut-out into the box, "edges" '
        "draws the picture's border outwards",
    )
    transformer: str | None = Field(
        None, description="a transformer in place of the model's own: folder, hub id or REPO:SUBFOLDER"
    )
    steps: int = Field(28, ge=1, description="denoising steps")
    guidance_scale: float = Field(
        1.0,
        ge=0,
        description="embedded (FLUX.1-Fill: 30 is usual) or true classifier-free guidance (1 is off)",
    )
    prompt: str = Field(
        "{object}", description="what the model is told; {object} is replaced by what is to be painted"
    )
    crop: CropSettings = Field(
        default_factory=lambda: CropSettings(), description="where in a large picture the model works"
    )


class ExtendSettings(Settings):
    """Stage 1: the picture becomes a part of a larger scene."""

    painter: PainterSettings | None = Field(None, description="null leaves the stage out")
    scene: str = Field(
        "a busy, realistic scene that goes on naturally around the picture",
        description="the {object} of the painter's prompt",
    )
    share: tuple[float, float] = Field(
        (0.02, 0.1), description="what core objects take up of the extended picture is drawn between these"
    )
    growth: float = Field(
        3.0,
        gt=1,
        description="the extended picture is at most so many times as wide, and as high, as the picture",
    )
    directions: tuple[Literal["horizontal", "vertical", "both"], ...] = Field(
        ("horizontal", "vertical", "both"),
        min_length=1,
        description="where room is made; one of them is drawn",
    )
    least: float = Field(
        1.15, ge=1, description="a picture that would grow by less than this factor in area is left as it is"
    )
    checks: tuple[Literal["composition", "duplication", "realism"], ...] = Field(
        ("composition", "duplication", "realism"),
        description="what the judge model is asked about the extended picture; all must pass",
    )


class ProposeSettings(ModelSettings):
    """Stage 2, proposals: boxes and what is to be put there."""

    model: str | None = Field(
        None, description="a VLM (folder, hub id, endpoint); null: free places, objects from `categories`"
    )
    temperature: float = Field(0.8, ge=0, description="of the VLM's proposals")
    max_new_tokens: int = Field(400, ge=1, description="longest reply of the VLM")
    number: int = Field(1, ge=1, description="distractors put into one picture")
    categories: tuple[str, ...] | None = Field(
        None,
        description="objects to draw from without a VLM; null: the painter's cut-outs, or everyday things",
    )
    size: tuple[float, float] = Field(
        (0.25, 0.4),
        description="longer side of a box without a VLM, in shorter sides of the picture: drawn between",
    )
    locate: bool = Field(
        False, description="a VLM finds the boxes of the targets of questions that have none"
    )


class BoxSettings(Settings):
    """Which boxes of distractors are let through."""

    smallest: float = Field(0.002, ge=0, lt=1, description="least area, as a share of the picture")
    largest: float = Field(0.35, gt=0, le=1, description="largest area, as a share of the picture")
    aspect: float = Field(4.0, ge=1, description="at most so many times as long as wide")
    side: int = Field(6, ge=1, description="least side in pixels")
    margin: int = Field(1, ge=0, description="pixels kept free between a box and a target or another box")
    margin_share: float = Field(
        0.0, ge=0, lt=1, description="... and so large a share of the picture's shorter side, if that is more"
    )


class PanelSettings(Settings):
    """How the judge model is asked for verdicts."""

    votes: int = Field(
        3,
        ge=1,
        description="times that a question is put; more than half must pass, a reply without verdict fails",
    )
    temperature: float = Field(0.7, ge=0, description="of its replies")
    max_new_tokens: int = Field(200, ge=1, description="longest reply")
    templates: str | None = Field(
        None, description="folder of templates that take the place of the bundled ones of the same name"
    )
    prompts: bool = Field(
        False, description="ask also whether a proposed object would leave the right answer right"
    )


class ForgeStages(Settings):
    """The bootstrap dataset (AOT-SFT): pairs of a clean and an adversarial picture (`sparring forge`)."""

    extend: ExtendSettings = Field(default_factory=lambda: ExtendSettings(), description="stage 1")
    propose: ProposeSettings = Field(default_factory=lambda: ProposeSettings(), description="stage 2")
    box: BoxSettings = Field(default_factory=lambda: BoxSettings(), description="which boxes are let through")
    implant: Implant = Field(
        "editor",
        description="who puts distractors in. editor: the attacker's editor edits the picture by its "
        "instruction, the regions that it changed are the boxes, and all around them is put back; whole: "
        "its edit is taken as it is, a change of light too, and its boxes are told and not checked; "
        "painter: a painter fills the proposed box",
    )
    painter: PainterSettings = Field(
        default_factory=lambda: PainterSettings(), description="of the distractors"
    )
    panel: PanelSettings = Field(
        default_factory=lambda: PanelSettings(), description="how verdicts are asked for"
    )
    attempts: int = Field(2, ge=1, description="candidates tried of every question, until one is effective")
    right_when_clean: bool = Field(
        True, description="go on only with questions that the Defender gets right on the clean picture"
    )
    effective: float = Field(
        1.0, gt=0, le=1, description="share of the judge's trials that must fail, in a row from the first on"
    )
    splits: tuple[float, float] = Field(
        (0.05, 0.05), description="shares of the source pictures in the validation and test splits"
    )


class ForgeSettings(Settings):
    """One forge: the stages and the players that work in them."""

    data: str = Field(description="file or folder of the source")
    format: Literal[
        "auto",
        "jsonl",
        "huggingface",
        "vlmevalkit",
        "vstar",
        "vstar-relations",
        "coco",
        "pope",
        "hallusionbench",
        "vqav2",
        "amber",
    ] = Field("auto", description="kind of the source; auto: told by what lies there")
    images: Images = None
    licence: str | None = Field(
        None, description="licence of the source pictures and questions, for the dataset's card"
    )
    limit: int | None = Field(None, ge=1, description="records at most, the source's first; null: all")
    seed: Seed = 0
    device: Device = "auto"
    threads: int = Field(
        1, ge=1, description="CPU threads of torch in every worker; last digits may depend on it"
    )
    batch: int = Field(32, ge=1, description="records worked on together; what a kill can cost each worker")
    stages: ForgeStages = Field(description="from a question to a pair")
    attacker: AttackerSettings = Field(description="its editor, where that implants distractors")
    defender: DefenderSettings = Field(description="whom a distractor must mislead")
    judge: JudgeSettings = Field(
        default_factory=lambda: JudgeSettings(), description="checks of edits, and the panel's model"
    )

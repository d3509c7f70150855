"""What all settings share, and those that stand in several sections."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

DType = Annotated[Literal["float32", "bfloat16", "float16"], Field(description="number type of the weights")]
Device = Annotated[Literal["auto", "cpu", "cuda"], Field(description="auto: a GPU where there is one")]
Seed = Annotated[int, Field(description="of everything that is drawn")]
Images = Annotated[
    str | None,
    Field(description="folder of pictures that the data name by path; null: the data's own folder"),
]
SkipBadRecords = Annotated[
    bool,
    Field(description="drop records that do not load, and say how many and why, instead of stopping"),
]
Limit = Annotated[int | None, Field(ge=1, description="questions at most, drawn by the seed; null: all")]


class Settings(BaseModel):
    """Base of all settings: immutable, unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class AlgorithmSettings(Settings):
    """One of several algorithms, told apart by `type`: what it alone reads."""

    type: str


def by_type(value: Any, default: str) -> Any:
    """{type: NAME} for a bare NAME; settings without a type are the default's."""
    if isinstance(value, str):
        return {"type": value}
    return {"type": default, **value} if isinstance(value, dict) else value


class CallSettings(Settings):
    """A Python callable named by a recipe, with its keyword arguments."""

    call: str = Field(description="`package.module:function`, imported when the run starts")
    arguments: dict[str, Any] = Field(default_factory=dict, description="keyword arguments handed to it")


Audit = Annotated[
    CallSettings | None,
    Field(
        description="called as f(question, edited_image, **arguments) -> True, False or None: "
        "is the right answer still right? It is no reward; null: nobody is asked"
    ),
]


class LoraSettings(Settings):
    """Low-rank adapters, trained in place of the weights."""

    rank: int = Field(64, ge=1, description="of the two factors of every adapter")
    alpha: int = Field(128, ge=1, description="their product counts alpha / rank times")


class PriceSettings(Settings):
    """What a hosted model costs, in any currency."""

    prompt: float = Field(ge=0, description="for a million tokens of prompts, pictures included")
    completion: float = Field(ge=0, description="for a million tokens of replies")


class EndpointSettings(Settings):
    """How a model behind an OpenAI-compatible endpoint is asked."""

    key_variable: str = Field(
        "SPARRING_API_KEY",
        description="environment variable that holds the API key; unset: no key is sent",
    )
    concurrency: int = Field(8, ge=1, description="requests under way at a time")
    deadline: float = Field(
        120.0,
        gt=0,
        description="seconds that one request may take in all; then it counts as failed",
    )
    retries: int = Field(6, ge=0, description="further tries of a request that failed in a way that may pass")
    first_wait: float = Field(
        0.5,
        gt=0,
        description="seconds before the first further try; doubled before every other, with jitter",
    )
    longest_wait: float = Field(
        60.0,
        gt=0,
        description="upper bound of that wait; a server's Retry-After is waited for where it is longer",
    )
    budget: int | None = Field(
        None,
        ge=0,
        description="requests at most, failed ones included, over all processes of a run; null: no bound",
    )
    price_per_million: PriceSettings | None = Field(
        None,
        description="null: tokens are counted, their price is not",
    )
    limit_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens",
        description="what the server calls the longest reply; some only take max_completion_tokens",
    )
    extra_body: dict[str, Any] = Field(
        default_factory=dict,
        description="further fields of every request, for settings of one kind of server",
    )


class CheckpointSettings(Settings):
    """Which model, and how it is loaded."""

    model: str | None = Field(None, description="a folder or hub id")
    dtype: DType = "float32"


class ModelSettings(CheckpointSettings):
    """A vision-language model that is asked something: which one, and how it is loaded or asked."""

    model: str | None = Field(
        None,
        description="a transformers folder, a hub id, or an endpoint: http://127.0.0.1:8000/v1#model",
    )
    endpoint: EndpointSettings = Field(
        default_factory=lambda: EndpointSettings(),
        description="where model is an endpoint: how it is asked",
    )


class OptimizerSettings(Settings):
    """How gradients are taken and followed, by either player: AdamW."""

    learning_rate: float = Field(gt=0, description="of a round's first update")
    learning_rate_end: float = Field(
        1.0,
        ge=0,
        le=1,
        description="share of the learning rate that a round's last update has; it falls in a straight line",
    )
    optimizer_steps: int = Field(
        1,
        ge=1,
        description="optimiser steps in one update, each on its own share of the samples; only with more "
        "than one are ratios clipped, 1 is strictly on-policy",
    )
    weight_decay: float = Field(ge=0, description="AdamW's, decoupled from the gradient")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are scaled down to this norm")
    micro_batch: int = Field(64, ge=1, description="edits, or answers, in one forward and backward pass")
    gradient_checkpointing: bool = Field(
        False,
        description="keep the input of every transformer block alone and compute the rest again in the "
        "backward pass: less memory, more time",
    )

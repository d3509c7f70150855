"""What all settings share, those that stand in several sections, and how their tree is read from outside:
what stands below a field, and of which class it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

DType = Annotated[Literal["float32", "bfloat16", "float16"], Field(description="number type of the weights")]
Device = Annotated[Literal["auto", "cpu", "cuda"], Field(description="auto: a GPU where there is one")]
Seed = Annotated[int, Field(ge=0, description="of everything that is drawn")]
Threads = Annotated[int | None, Field(ge=1, description="CPU threads of torch; null leaves torch's choice")]
Images = Annotated[
    str | None,
    Field(description="folder of pictures that the data name by path; null: the data's own folder"),
]
SkipBadRecords = Annotated[
    bool, Field(description="drop records that do not load, and say how many and why, instead of stopping")
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
        "SPARRING_API_KEY", description="environment variable that holds the API key; unset: no key is sent"
    )
    concurrency: int = Field(8, ge=1, description="requests under way at a time")
    deadline: float = Field(
        120.0, gt=0, description="seconds that one request may take in all; then it counts as failed"
    )
    retries: int = Field(6, ge=0, description="further tries of a request that failed in a way that may pass")
    first_wait: float = Field(
        0.5, gt=0, description="seconds before the first further try; doubled before every other, with jitter"
    )
    longest_wait: float = Field(
        60.0,
        gt=0,
        description="upper bound of that wait; a server's Retry-After is waited for where it is longer",
    )
    budget: int | None = Field(
        None,
        ge=0,
        description="requests at most, failed ones included, over all processes of a run, on Ray of each "
        "worker; null: no bound",
    )
    price_per_million: PriceSettings | None = Field(
        None, description="null: tokens are counted, their price is not"
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
        None, description="a transformers folder, a hub id, or an endpoint: http://127.0.0.1:8000/v1#model"
    )
    endpoint: EndpointSettings = Field(
        default_factory=lambda: EndpointSettings(), description="where model is an endpoint: how it is asked"
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


Kind = type[Settings]


def default_of(info: FieldInfo) -> Any:
    """The default of a field that is not required."""
    return info.get_default(call_default_factory=True, validated_data={})


def section_of(info: FieldInfo) -> Kind | None:
    """The settings class below a field; None where it holds a value, or one of several classes."""
    if info.discriminator is not None:
        return None
    kinds = (info.annotation, *get_args(info.annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Settings)), None)


def choices_of(info: FieldInfo) -> dict[str, Kind]:
    """Type -> settings class, of a field that holds one of several classes; empty for every other field."""
    if info.discriminator is None:
        return {}
    return {kind.model_fields["type"].default: kind for kind in get_args(info.annotation)}


def type_in(info: FieldInfo, value: Any) -> str:
    """The type that is written: a bare name, the `type` of settings, or the default where none is said."""
    named = value.get("type") if isinstance(value, dict) else value
    return named if isinstance(named, str) else str(default_of(info).type)


def opened(info: FieldInfo | None, value: Any) -> Any:
    """What is written in a field, with settings in place of a bare name."""
    return {"type": value} if info is not None and info.discriminator and isinstance(value, str) else value


def below(info: FieldInfo | None, value: Any) -> Kind | None:
    """The settings class below a field that holds `value`; None where it holds no settings."""
    if info is None:
        return None
    return choices_of(info).get(type_in(info, value)) if info.discriminator else section_of(info)


def kind_at(kind: Kind, names: Sequence[str], data: Any) -> Kind | None:
    """The settings class below `names` in `data`, mappings of settings `kind`; None where there is none."""
    found: Kind | None = kind
    for name in names:
        data = data.get(name) if isinstance(data, dict) else None
        found = below(found.model_fields.get(name), data) if found is not None else None
    return found


def field_at(kind: Kind, names: Sequence[str], data: Any) -> FieldInfo | None:
    """The field of these names in `data`, mappings of the settings `kind`; None where there is none."""
    found = kind_at(kind, names[:-1], data)
    return found.model_fields.get(names[-1]) if found is not None and names else None

"""What all settings share, and those that stand in several sections."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

DType = Literal["float32", "bfloat16", "float16"]


class Settings(BaseModel):
    """Base of all settings: immutable, unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CallSettings(Settings):
    """A Python callable named by a recipe, with its keyword arguments."""

    call: str = Field(description="`package.module:function`, imported when the run starts")
    arguments: dict[str, Any] = Field(default_factory=dict, description="keyword arguments handed to it")


class LoraSettings(Settings):
    rank: int = Field(64, ge=1)
    alpha: int = Field(128, ge=1)


class PriceSettings(Settings):
    """What a hosted model costs, in any currency."""

    prompt: float = Field(ge=0, description="for a million tokens of prompts, pictures included")
    completion: float = Field(ge=0, description="for a million tokens of replies")


class EndpointSettings(Settings):
    """How a model behind an OpenAI-compatible endpoint is asked."""

    key_variable: str = Field("SPARRING_API_KEY", description="environment variable that holds the API key; unset: no key is sent")
    concurrency: int = Field(8, ge=1, description="requests under way at a time")
    deadline: float = Field(120.0, gt=0, description="seconds that one request may take in all; then it counts as failed")
    retries: int = Field(6, ge=0, description="further tries of a request that failed in a way that may pass")
    first_wait: float = Field(0.5, gt=0, description="seconds before the first further try; doubled before every other, with jitter")
    longest_wait: float = Field(60.0, gt=0, description="upper bound of that wait; a server's Retry-After is waited for where it is longer")
    budget: int | None = Field(
        None, ge=0, description="requests at most, failed ones included, over all processes of a run; null: no bound"
    )
    price_per_million: PriceSettings | None = Field(None, description="null: tokens are counted, their price is not")
    limit_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="what the server calls the longest reply; some hosted models only take max_completion_tokens"
    )
    extra_body: dict[str, Any] = Field(
        default_factory=dict, description="further fields of every request, for settings of one kind of server"
    )

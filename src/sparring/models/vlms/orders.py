"""What servers are told between updates: which weights to answer with. Two kinds of servers, looked up in mid
2026; neither has been tried with the server itself.

* vLLM (0.16 and later). Adapters: `/v1/load_lora_adapter`, with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True. All
  weights: `/collective_rpc` has every worker call `reload_weights(weights_path=...)` (vllm#32133; the request
  as in vllm#48284), then what was computed with the old ones is dropped: prefixes, processed pictures and
  features of the vision tower. Both with VLLM_SERVER_DEV_MODE=1.
* SGLang (0.5 and later). Adapters: `/load_lora_adapter`, with --enable-lora. All weights:
  `/update_weights_from_disk`, which drops the cached prefixes too ("SGLang for RL systems" in its
  documentation). Tokens of chat replies come with `return_token_ids` (sglang#30917).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Kind = Literal["vllm", "sglang"]


@dataclass(frozen=True, slots=True)
class Order:
    """Something that a server is to do, and that does no harm when done twice.

    path: below the server's root, which an API's URL names with /v1 behind it. done: does the answer's text
    say that it was done? done_before: a refusal that holds this text means that an earlier try was heard.
    """

    path: str
    body: Mapping[str, Any] = field(default_factory=dict)
    done: Callable[[str], bool] = lambda answer: True
    done_before: str | None = None


def load_adapter(kind: Kind, name: str, folder: Path) -> list[Order]:
    """Load the LoRA adapter in that folder, as peft writes it, under that name."""
    body = {"lora_name": name, "lora_path": str(folder)}
    path, done = _ADAPTERS[kind]
    return [Order(f"{path}/load_lora_adapter", body, done, done_before="already")]


def unload_adapter(kind: Kind, name: str) -> list[Order]:
    """Forget the adapter of that name."""
    path, done = _ADAPTERS[kind]
    unknown = {"vllm": "found", "sglang": "exist"}[kind]
    return [Order(f"{path}/unload_lora_adapter", {"lora_name": name}, done, done_before=unknown)]


def load_weights(kind: Kind, name: str, folder: Path) -> list[Order]:
    """Answer with the weights of the checkpoint in that folder from here on, the vision tower's included."""
    if kind == "sglang":
        body = {"model_path": str(folder), "flush_cache": True, "weight_version": name}
        return [Order("/update_weights_from_disk", body, _succeeded)]
    call = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
    caches = ("/reset_prefix_cache", "/reset_mm_cache", "/reset_encoder_cache")
    return [Order("/collective_rpc", call, _has_results), *(Order(path) for path in caches)]


def how_to_ask(kind: Kind, name: str, *, adapter: bool) -> dict[str, Any]:
    """What stands in a request for replies with tokens by the weights of that name: see `Requests.job`."""
    tokens = {"tokens": True if kind == "vllm" else "return_token_ids"}
    if not adapter:
        return tokens | {"weights": name}
    return tokens | ({"model": name} if kind == "vllm" else {"lora_path": name})


def _answer(text: str) -> dict[str, Any]:
    try:
        answer = json.loads(text)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _succeeded(text: str) -> bool:
    return _answer(text).get("success") is True


def _has_results(text: str) -> bool:
    return "results" in _answer(text)


_ADAPTERS: dict[Kind, tuple[str, Callable[[str], bool]]] = {
    "vllm": ("/v1", lambda text: text.strip('" ').startswith("Success")),
    "sglang": ("", _succeeded),
}

"""A server as vLLM or SGLang is one for a Defender in training: a base model, LoRA adapters or whole weights
loaded while it runs, replies with tokens.

python lora_server.py MODEL [--faulty N] [--slow S] [--log FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from PIL import Image
from transformers import AutoModelForImageTextToText

from endpoint_server import Server, question
from sparring.models.vlms.base import Sampling
from sparring.models.vlms.local import LocalVLM
from sparring.models.vlms.processors import load_processor

LOADING = threading.Lock()
"""transformers loads in one thread at a time: it changes torch's defaults while it does."""


class Served:
    """The base model under the name "defender", and adapters by name, each merged into a copy of it.

    kind: whose protocol it speaks. fault: "deaf" says that it takes new weights and goes on with the old ones;
    "blind" takes all but those of the vision tower. limits: `min_pixels` and `max_pixels` of its pictures.
    """

    def __init__(self, folder: str, *, kind: str = "vllm", fault: str = "", **limits: int) -> None:
        self.folder, self.kind, self.fault = folder, kind, fault
        self.processor = load_processor(folder, **limits)
        self.models = {"defender": self._vlm(AutoModelForImageTextToText.from_pretrained(folder))}
        self.lock = threading.Lock()
        self.told = list[str]()

    def _vlm(self, model: Any) -> LocalVLM:
        return LocalVLM(model, self.processor, name="served")

    def obey(self, path: str, body: dict[str, Any]) -> tuple[int, str]:
        """What a request says that asks for no completion."""
        with self.lock, LOADING:
            self.told.append(path)
            if path.endswith("_lora_adapter"):
                return self._adapter(path, body)
            if self.kind == "sglang":
                assert (path, body["flush_cache"]) == ("/update_weights_from_disk", True)
                self._load(body["model_path"])
                return 200, json.dumps({"success": True, "message": "Succeeded to update model weights."})
            if path == "/collective_rpc":
                assert body["method"] == "reload_weights"
                self._load(body["kwargs"]["weights_path"])
                return 200, json.dumps({"results": [None]})
            assert path in ("/reset_prefix_cache", "/reset_mm_cache", "/reset_encoder_cache")
            return 200, ""

    def _adapter(self, path: str, body: dict[str, Any]) -> tuple[int, str]:
        name, sglang = body["lora_name"], self.kind == "sglang"
        assert path.rpartition("/")[0] == ("" if sglang else "/v1")

        def say(done: bool, text: str) -> tuple[int, str]:
            if sglang:
                return (200 if done else 400), json.dumps({"success": done, "error_message": text})
            said = f"Success: {text}" if done else json.dumps({"error": {"message": text}})
            return (200 if done else 400), said

        if path.endswith("/unload_lora_adapter"):
            if self.models.pop(name, None) is None:
                return say(False, f"The lora adapter {name} cannot be found, or does not exist.")
            return say(True, f"LoRA adapter {name} removed.")
        if name in self.models:
            return say(False, f"The lora adapter {name} has already been loaded.")
        base = AutoModelForImageTextToText.from_pretrained(self.folder)
        self.models[name] = self._vlm(PeftModel.from_pretrained(base, body["lora_path"]).merge_and_unload())
        return say(True, f"LoRA adapter {name} added.")

    def _load(self, folder: str) -> None:
        if self.fault == "deaf":
            return
        model = self.models["defender"].model
        state = AutoModelForImageTextToText.from_pretrained(folder).state_dict()
        if self.fault == "blind":
            tower = self.models["defender"].tower
            state = {name: tensor for name, tensor in state.items() if not name.startswith(tower)}
        model.load_state_dict(state, strict=not self.fault)

    def answer(self, image: Image.Image, body: dict[str, Any]) -> dict[str, Any]:
        """A reply with its tokens."""
        assert body["logprobs"]
        assert body["return_token_ids" if self.kind == "sglang" else "return_tokens_as_token_ids"]
        name = body.get("lora_path", body["model"])
        sampling = Sampling(
            body["max_tokens"],
            body["temperature"],
            body.get("top_p", 1.0),
            body.get("top_k", 0),
            seed=body["seed"],
        )
        with self.lock:
            ((reply,),) = self.models[name].generate([image], [question(body)], sampling)
            prompt = self.models[name].encode([image], [question(body)])["attention_mask"]
        beside = {"choice": {"token_ids": reply.token_ids}} if self.kind == "sglang" else {}
        content = [
            {"token": "?" if beside else f"token_id:{token}", "logprob": value}
            for token, value in zip(reply.token_ids, reply.logprobs, strict=True)
        ]
        reason = "stop" if reply.finished else "length"
        return {
            **beside,
            "text": reply.text,
            "tokens": reply.tokens,
            "prompt_tokens": int(prompt.sum()),
            "logprobs": {"content": content},
            "finish_reason": reason,
        }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--faulty", type=int, default=0)
    parser.add_argument("--slow", type=float, default=3.0)
    parser.add_argument("--log", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    served = Served(arguments.model)
    with Server(
        served.answer,
        faulty=arguments.faulty,
        slow=arguments.slow,
        log=arguments.log,
        orders=served.obey,
    ) as own:
        print(own.url, flush=True)
        # the parent is gone
        threading.Thread(target=lambda: (sys.stdin.read(), own.shutdown()), daemon=True).start()
        own.serve_forever()

"""A server as vLLM is one for a Defender in training: a base model, LoRA adapters loaded and unloaded while
it runs, replies with tokens.

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


class Served:
    """The adapters by name, each merged into a copy of the base model."""

    def __init__(self, folder: str) -> None:
        self.folder, self.processor = folder, load_processor(folder)
        self.models: dict[str, LocalVLM] = {}
        self.lock = threading.Lock()

    def adapters(self, verb: str, body: dict[str, Any]) -> tuple[int, str]:
        name = body["lora_name"]
        with self.lock:
            if verb == "unload_lora_adapter":
                if self.models.pop(name, None) is None:
                    return 404, json.dumps(
                        {"error": {"message": f"The lora adapter '{name}' cannot be found."}}
                    )
                return 200, f"Success: LoRA adapter '{name}' removed successfully."
            if name in self.models:
                return 400, json.dumps(
                    {"error": {"message": f"The lora adapter '{name}' has already been loaded."}}
                )
            base = AutoModelForImageTextToText.from_pretrained(self.folder)
            self.models[name] = LocalVLM(
                PeftModel.from_pretrained(base, body["lora_path"]).merge_and_unload(),
                self.processor,
                name=name,
            )
            return 200, f"Success: LoRA adapter '{name}' added successfully."

    def answer(self, image: Image.Image, body: dict[str, Any]) -> dict[str, Any]:
        assert body["logprobs"]
        assert body["return_tokens_as_token_ids"]
        sampling = Sampling(
            body["max_tokens"],
            body["temperature"],
            body.get("top_p", 1.0),
            body.get("top_k", 0),
            seed=body["seed"],
        )
        with self.lock:
            ((reply,),) = self.models[body["model"]].generate([image], [question(body)], sampling)
        content = [
            {"token": f"token_id:{token}", "logprob": value}
            for token, value in zip(reply.token_ids, reply.logprobs, strict=True)
        ]
        reason = "stop" if reply.finished else "length"
        return {
            "text": reply.text,
            "tokens": reply.tokens,
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
        adapters=served.adapters,
    ) as own:
        print(own.url, flush=True)
        # the parent is gone
        threading.Thread(target=lambda: (sys.stdin.read(), own.shutdown()), daemon=True).start()
        own.serve_forever()

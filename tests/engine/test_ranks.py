"""Two processes over gloo make the updates that one process makes of the same questions, bar rounding: data
parallel, and with FSDP2.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import defender_ranks
from small_vlms import tiny_qwen2_5_vl
from sparring.config import DefenderSettings, LoraSettings
from sparring.defenders import rollout
from sparring.engine.ranks import Ranks


def two_processes(kind: str, model: Path, out: Path, settings: DefenderSettings) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        defender_ranks.__file__,
        str(model),
        str(out),
        kind,
        settings.model_dump_json(),
    ]
    workers = []
    for rank in ("0", "1"):
        environment = os.environ | {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "PYTHONPATH": os.pathsep.join(sys.path),
            "ACCELERATE_USE_CPU": "true",
        }
        workers.append(
            subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        )
    try:
        said = [worker.communicate(timeout=170)[0] for worker in workers]
        assert [worker.returncode for worker in workers] == [0, 0], "\n".join(text[-3000:] for text in said)
    finally:
        for worker in workers:
            worker.kill()


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["all", "lora"])
@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_two_processes_are_one(
    kind: str, weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields: dict[str, Any] = {
        # of seven questions a batch: an odd number of groups, so the processes' shares differ
        "prompts_per_step": 5,
        "group_size": 6,
        "max_new_tokens": 4,
        "micro_batch": 6,
        "max_refills": 3,
        "learning_rate": 1e-3,
        "weight_decay": 0.1,
        "kl_weight": 0.05,
        "prompt": "{question}",
        "gradient_checkpointing": True,
        "lora": LoraSettings(rank=2, alpha=4) if weights == "lora" else None,
        "optimizer_steps": 2 if weights == "all" else 1,
    }
    settings = DefenderSettings(model="none", **fields)
    model = tiny_qwen2_5_vl(tmp_path / "model")
    monkeypatch.setattr(rollout, "answer_reward", defender_ranks.reward)
    defender_ranks.train(str(model), settings, tmp_path / "one", None)
    two_processes(kind, model, tmp_path / "two", settings)
    one, two = (json.loads((tmp_path / name / "history.json").read_text()) for name in ("one", "two"))
    for expected, found in zip(one, two, strict=True):
        assert expected["kept_groups"] > 1
        assert found["ratio_first"] < 1e-4
        for name in expected.keys() - {"ratio_first"}:
            assert found[name] == pytest.approx(expected[name], rel=1e-3, abs=1e-5), name
    assert sum(metrics["thrown_low"] + metrics["thrown_high"] for metrics in one) > 0
    for file, part in (("state/trainer.safetensors", "weight/"), ("model/model.safetensors", "")):
        first, second, start = (
            load_file(tmp_path / "one" / file),
            load_file(tmp_path / "two" / file),
            load_file(model / "model.safetensors"),
        )
        assert first.keys() == second.keys()
        for name, tensor in first.items():
            if name.startswith(part):
                assert (tensor - second[name]).abs().max() <= 1e-5, name
        if not part:
            assert max((first[name] - tensor).abs().max() for name, tensor in start.items()) > 1e-4


def test_shares_cover_everything_once() -> None:
    ranks = Ranks()
    assert ranks.share(5) == slice(0, 5)
    ranks.count = 3
    shares = []
    for ranks.number in range(3):
        shares.append(list(range(7))[ranks.share(7)])
    assert [number for own in shares for number in own] == list(range(7))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1

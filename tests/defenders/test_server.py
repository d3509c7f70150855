"""Roll-outs for training by a server in a process of its own, which runs the bundled Defender and is given
every update's adapter.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import lora_server
from endpoint_server import FAULTS, serving
from small_vlms import noise_pictures
from sparring.config import DefenderSettings, EndpointSettings, LoraSettings, RolloutServerSettings
from sparring.data.errors import ModelError
from sparring.data.records import VisualQuestion
from sparring.defenders import rollout
from sparring.defenders.trainer import DefenderTrainer
from sparring.models.vlms.base import Sampling
from sparring.models.vlms.local import LocalVLM
from sparring.models.vlms.server import RolloutServer
from sparring.recipes import resolve_model
from sparring.rl.policy import Surrogate, policy_loss

QUESTIONS = [
    VisualQuestion(f"q{i}", Path("q.png"), "Where is the cup?", ("left", "right"), "AB"[i % 2])
    for i in range(2)
]
ITEMS = list(zip(noise_pictures(2), QUESTIONS, strict=True))


@contextmanager
def server_process(log: Path, **settings: Any) -> Iterator[str]:
    options = [f"--{name}={value}" for name, value in settings.items()]
    command = [
        sys.executable,
        lora_server.__file__,
        resolve_model("arena/defender"),
        f"--log={log}",
        *options,
    ]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.kill()


def settings(url: str, **fields: Any) -> DefenderSettings:
    endpoint = EndpointSettings(first_wait=0.01, deadline=fields.pop("deadline", 60.0))
    few = {
        "prompt": "{question}\n{options}",
        "prompts_per_step": 2,
        "group_size": 3,
        "max_new_tokens": 6,
        "temperature": 2.0,  # the bundled Defender is sure of itself, and equal answers teach nothing
        "max_refills": 1,
        "learning_rate": 1e-2,
        "keep_reward_above": -1.0,
        "keep_reward_below": 2.0,
        "lora": LoraSettings(rank=2, alpha=8),
        "rollout_server": RolloutServerSettings(address=f"{url}#defender", endpoint=endpoint),
    }
    return DefenderSettings(model="arena/defender", **(few | fields))


def trainer(chosen: DefenderSettings, folder: Path) -> DefenderTrainer:
    assert chosen.rollout_server is not None
    vlm = LocalVLM.load(resolve_model("arena/defender"))
    return DefenderTrainer(vlm, chosen, seed=3, server=RolloutServer(chosen.rollout_server, folder))


@pytest.fixture(autouse=True)
def toy_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        rollout, "answer_reward", lambda text, *_, **__: {"accuracy": zlib.crc32(text.encode()) % 5 / 4}
    )


@pytest.mark.slow
def test_faults_change_no_update(tmp_path: Path) -> None:
    results = []
    for name, how, deadline in (("well", {}, 60.0), ("ill", {"faulty": 1, "slow": 16.0}, 15.0)):
        log = tmp_path / f"{name}.log"
        with server_process(log, **how) as url:
            player = trainer(settings(url, deadline=deadline), tmp_path / name)
            history = [player.update(lambda _: ITEMS, step) for step in range(3)]
        lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        results.append(
            (
                history,
                {key: value.detach().clone() for key, value in player.optimizer.parameters.items()},
                lines,
            )
        )
        # Every update's answers are those of the adapter as it is by then: no staleness.
        assert [metrics["ratio_first"] < 1e-3 for metrics in history] == [True] * 3
        assert all(metrics["grad_norm"] > 0 for metrics in history)
        loaded = [line["body"]["lora_name"] for line in lines if line["outcome"] == "load_lora_adapter 200"]
        assert len(set(loaded)) == 3
        unloaded = {
            line["body"]["lora_name"] for line in lines if line["outcome"] == "unload_lora_adapter 200"
        }
        assert unloaded == set(loaded[:2])
        assert [path.name for path in (tmp_path / name).glob("sparring-*")] == loaded[2:]
    (well, weights, _), (ill, others, lines) = results
    assert well == ill
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert {line["outcome"] for line in lines} >= set(FAULTS)


def test_a_stale_server_is_corrected_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that goes on with the first adapter: the ratio shows it, and tokens weigh as the policy of now has
    them, within the cap.
    """
    served = lora_server.Served(resolve_model("arena/defender"))
    seen: list[tuple[Tensor, Tensor]] = []
    with serving(served.answer, adapters=served.adapters) as server:
        player = trainer(settings(server.url, learning_rate=5e-2), tmp_path)
        assert player.server is not None
        player.update(lambda _: ITEMS, 0)
        stale = player.server.adapter
        monkeypatch.setattr(player.server, "publish", lambda _: stale)

        def loss_of(
            objective: Surrogate,
            logprobs: Tensor,
            old: Tensor,
            *arguments: Any,
            weights_NT: Tensor,
            **fields: Any,
        ) -> Any:
            seen.append((old, weights_NT))
            assert torch.equal(old, logprobs.detach())
            return policy_loss(objective, logprobs, old, *arguments, weights_NT=weights_NT, **fields)

        monkeypatch.setattr("sparring.defenders.trainer.policy_loss", loss_of)
        metrics = player.update(lambda _: ITEMS, 1)
    assert metrics["ratio_first"] > 0.05
    assert metrics["ratio_mean"] == pytest.approx(1)
    (weights,) = [weights for _, weights in seen]
    assert weights.max() <= 2.0
    assert (weights - 1).abs().max() > 0.05


def test_importance_weights_by_hand() -> None:
    logprobs = torch.tensor([[-1.0, -2.0], [-0.5, -3.0]], requires_grad=True)
    weights = torch.tensor([[2.0, 0.5], [1.0, 7.0]])
    mask = torch.tensor([[True, True], [True, False]])
    advantages = torch.tensor([1.0, -3.0])
    for how in ("clipped", "detached"):
        loss, _ = policy_loss(
            Surrogate(0.2, 0.28, surrogate=how),  # type: ignore[arg-type]
            logprobs,
            logprobs.detach(),
            advantages,
            mask,
            weights_NT=weights,
        )
        (gradient,) = torch.autograd.grad(loss, logprobs)
        torch.testing.assert_close(gradient, torch.tensor([[-2.0, -0.5], [3.0, 0.0]]) / 3)


def test_what_cannot_be_served_is_said(tmp_path: Path) -> None:
    with serving() as server:
        chosen = settings(server.url)
        assert chosen.rollout_server is not None
        one = RolloutServer(chosen.rollout_server, tmp_path)
        with pytest.raises(ModelError, match="nothing was published"):
            one.generate([], [], Sampling(1, n=1, temperature=1.0))
        with pytest.raises(ModelError, match="LoRA"):
            one.publish(LocalVLM.load(resolve_model("arena/defender")))
        one.adapter = "dice"
        with pytest.raises(ModelError, match="return_tokens_as_token_ids"):
            one.generate(noise_pictures(1), ["Why?"], Sampling(4, n=1, temperature=1.0))

"""Two processes over gloo make the updates that one process makes of the same questions, bar rounding: both
players, data parallel and with FSDP2.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import player_ranks
from small_checkpoints import tiny_flux2_klein
from small_vlms import tiny_qwen2_5_vl
from sparring.defenders import rollout
from sparring.engine import ranks
from sparring.engine.crew import Alone, Crew, Make, Team
from sparring.engine.pool import LocalWorker
from sparring.engine.ranks import Ranks

DEFENDER: dict[str, Any] = {
    "model": "none",
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
}
ATTACKER: dict[str, Any] = {
    "model": "none",
    "questions_per_step": 5,
    "group_size": 4,
    "rollout_steps": 3,
    "evaluation_steps": 3,
    "micro_batch": 3,
    "learning_rate": 3e-4,  # AdamW makes steps of this size of the rounding of next to nothing
    "kl_weight": 0.05,
    "keep_best": 2,
}
FLOW_GRPO = {"type": "flow_grpo", "window": {"size": 2, "shared_start": True}}
NFT = {"type": "diffusion_nft", "forward_timesteps": 2}


def three_updates(crew: Crew[player_ranks.Player], out: Path) -> list[dict[str, float]]:
    """The last one by trainers that read a saved state."""
    history = crew.all(player_ranks.train, [0, 1], out)
    crew.all(player_ranks.resume, out)
    last = crew.all(player_ranks.train, [2], out)
    crew.all(player_ranks.write, out)
    assert all(own == history[0] for own in history), "all processes tell the same"
    return history[0] + last[0]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return {
        f"{file.relative_to(out)} {name}": tensor
        for file in sorted(out.rglob("*.safetensors"))
        for name, tensor in load_file(file).items()
        if not name.startswith(("exp_avg", "step/"))  # AdamW's moments; the weights say what they did
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("defender", DEFENDER | {"optimizer_steps": 2}),
        ("defender", DEFENDER | {"lora": {"rank": 2, "alpha": 4}}),
        (
            "attacker",
            ATTACKER | {"algorithm": FLOW_GRPO, "lora": {"rank": 2, "alpha": 4}, "optimizer_steps": 2},
        ),
        ("attacker", ATTACKER | {"algorithm": NFT, "lora": {"rank": 2, "alpha": 4}}),
        ("attacker", ATTACKER | {"algorithm": FLOW_GRPO, "lora": None}),
        ("attacker", ATTACKER | {"algorithm": NFT, "lora": None, "questions_per_step": 1}),
    ],
    ids=["defender", "defender-lora", "grpo-lora", "nft-lora", "grpo", "nft-one-question"],
)
@pytest.mark.parametrize("strategy", ["data_parallel", "fsdp2"])
def test_two_processes_are_one(
    strategy: str, kind: str, fields: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout, "answer_reward", rollout.answer_reward)  # put back after `Defending`
    make = tiny_qwen2_5_vl if kind == "defender" else tiny_flux2_klein
    model = make(tmp_path / "model")
    one = three_updates(Alone(player_ranks.play(kind, str(model), fields, False)), tmp_path / "one")
    workers = [LocalWorker(), LocalWorker()]
    try:
        how = Make(player_ranks.play, (kind, str(model), fields, strategy == "fsdp2"), together=True)
        two = three_updates(Team(workers, how, print), tmp_path / "two")
    finally:
        for worker in workers:
            worker.end()
    for expected, found in zip(one, two, strict=True):
        assert expected.get("kept_groups", 2) > 1
        assert expected.get("dead_groups", 0) < 1
        assert abs(found.get("ratio_first", 0) - expected.get("ratio_first", 0)) < 1e-4
        for name in expected.keys() - {"ratio_first"}:
            assert found[name] == pytest.approx(expected[name], rel=1e-3, abs=1e-5), name
    first, second = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert (tensor - second[name]).abs().max() <= 1e-5, name
    start = weights(model)
    moved = [
        (tensor - start[name.removeprefix("model/")]).abs().max().item()
        for name, tensor in first.items()
        if name.removeprefix("model/") in start
    ] or [tensor.abs().max().item() for name, tensor in first.items() if "lora_B" in name]
    assert max(moved) > 1e-4


def test_shares_cover_everything_once() -> None:
    assert Ranks().share(5) == slice(0, 5)
    shares = [list(range(7))[Ranks(3, number).share(7)] for number in range(3)]
    assert [number for own in shares for number in own] == list(range(7))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_gradients_are_summed_in_buckets_of_a_type_and_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "BUCKET", 40)
    sizes = [
        (3, torch.float32),
        (5, torch.float32),
        (6, torch.float32),
        (30, torch.float32),
        (2, torch.float64),
    ]
    tensors = [torch.zeros(size, dtype=dtype) for size, dtype in sizes]
    found = [[len(tensor) for tensor in bucket] for bucket in ranks._buckets(tensors)]
    assert found == [[3, 5], [6], [30], [2]]
    parameters = [torch.nn.Parameter(tensor) for tensor in tensors]
    for number, parameter in enumerate(parameters[:-1]):
        parameter.grad = torch.arange(float(len(parameter))) + number
    sent = list[int]()

    def twice(tensor: torch.Tensor) -> None:
        sent.append(tensor.numel())
        tensor.mul_(2)

    monkeypatch.setattr(ranks.distributed, "all_reduce", twice)
    Ranks(2, 0).sum_gradients(parameters)
    assert sent == [5, 8, 6, 30]  # which are used at all, then the buckets
    for number, parameter in enumerate(parameters[:-1]):
        assert torch.equal(parameter.grad, 2 * (torch.arange(float(len(parameter))) + number))
    assert parameters[-1].grad is None

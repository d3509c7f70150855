"""Roll-outs for training by a server in a process of its own, which runs the bundled Defender and is given
every update's adapter.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import lora_server
from endpoint_server import FAULTS, serving
from small_vlms import noise_pictures
from sparring.config import (
    DefenderSettings,
    EndpointSettings,
    LoraSettings,
    Recipe,
    RolloutServerSettings,
)
from sparring.data.errors import ModelError, RunError
from sparring.data.records import VisualQuestion
from sparring.defenders import rollout
from sparring.defenders.trainer import DefenderTrainer
from sparring.engine.crew import Luggage
from sparring.models.vlms.base import Sampling
from sparring.models.vlms.local import LocalVLM
from sparring.models.vlms.server import RolloutServer
from sparring.recipes import resolve_model
from sparring.rl.policy import Surrogate, policy_loss
from sparring.selfplay.game import Table
from sparring.selfplay.league import League
from sparring.selfplay.seats import DefenderSeat, adapters_before

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


def settings(*urls: str, served: dict[str, Any] | None = None, **fields: Any) -> DefenderSettings:
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
        "rollout_server": RolloutServerSettings(
            address=[f"{one}#defender" for one in urls], endpoint=endpoint, **(served or {})
        ),
    }
    return DefenderSettings(**({"model": "arena/defender"} | few | fields))


def trainer(chosen: DefenderSettings, folder: Path) -> DefenderTrainer:
    assert chosen.rollout_server is not None
    limits = {"min_pixels": chosen.min_pixels, "max_pixels": chosen.max_pixels}
    vlm = LocalVLM.load(resolve_model("arena/defender"), **limits)
    server = RolloutServer(chosen.rollout_server, folder, **limits)
    return DefenderTrainer(vlm, chosen, seed=3, server=server)


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
    with serving(served.answer, orders=served.obey) as server:
        player = trainer(settings(server.url, learning_rate=5e-2), tmp_path)
        assert player.server is not None
        player.update(lambda _: ITEMS, 0)
        stale = player.server.published
        monkeypatch.setattr(player.server, "publish", lambda _: stale)
        monkeypatch.setattr(player.server, "look", lambda *_: 0.0)

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
        one.published = "dice"
        with pytest.raises(ModelError, match="return_tokens_as_token_ids"):
            one.generate(noise_pictures(1), ["Why?"], Sampling(4, n=1, temperature=1.0))


def test_a_server_that_forgets_nothing_any_more_costs_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spent(orders: Any) -> None:
        raise RunError("the budget of 3 requests is used up")

    chosen = settings("http://127.0.0.1:9/v1")
    assert chosen.rollout_server is not None
    one = RolloutServer(chosen.rollout_server, tmp_path)
    one.published = "sparring-1"
    (tmp_path / "sparring-1").mkdir()
    monkeypatch.setattr(one, "_tell", spent)
    with pytest.warns(UserWarning, match="may still be loaded: the budget of 3"):
        one.forget()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kind", "adapted"),
    [
        ("vllm", False),
        pytest.param("sglang", True, marks=pytest.mark.slow),
        pytest.param("sglang", False, marks=pytest.mark.slow),
    ],
)
def test_two_servers_take_what_was_trained_and_share_the_prompts(
    tmp_path: Path, kind: str, adapted: bool
) -> None:
    """A LoRA or all weights, the vision tower among them: the updates are those of one server, and the tokens
    come with the log-probabilities that training gives them.
    """
    how = {"learning_rate": 1e-2 if adapted else 1e-3, "served": {"kind": kind}}
    how |= {} if adapted else {"lora": None}
    weights: list[dict[str, Tensor]] = []
    for count in (1, 2):
        own = [lora_server.Served(resolve_model("arena/defender"), kind=kind) for _ in range(count)]
        with ExitStack() as stack:
            servers = [stack.enter_context(serving(one.answer, orders=one.obey)) for one in own]
            player = trainer(settings(*(server.url for server in servers), **how), tmp_path / str(count))
            history = [player.update(lambda _: ITEMS, step) for step in range(3)]
            asked = [sum("messages" in line.get("body", {}) for line in server.lines) for server in servers]
        weights.append({name: value.detach().clone() for name, value in player.optimizer.parameters.items()})
        assert all(metrics["ratio_first"] < 1e-3 for metrics in history)
        assert all(metrics["server_difference"] < 1e-4 for metrics in history)
        assert all(metrics["grad_norm"] > 0 and metrics["untrusted"] == 0 for metrics in history)
        assert len(set(asked)) == 1, "prompts are not shared out evenly"
        assert len(list((tmp_path / str(count)).glob("sparring-*"))) == 1
        if not adapted and kind == "vllm":  # nothing that was computed with the old weights is left
            assert {"/reset_prefix_cache", "/reset_mm_cache", "/reset_encoder_cache"} <= set(own[-1].told)
    assert any("visual" in name or "vision" in name for name in weights[0])
    assert all(torch.equal(weights[1][name], value) for name, value in weights[0].items())


@pytest.mark.parametrize(
    ("fault", "said"), [("deaf", "exactly what it said before"), ("blind", "differ by .* nats a token")]
)
def test_a_server_that_does_not_take_the_weights_ends_the_training(
    tmp_path: Path, fault: str, said: str
) -> None:
    """Beside one that does; the message names the faulty one. "Blind" is one that leaves the vision tower."""
    own = [lora_server.Served(resolve_model("arena/defender"), fault=one) for one in ("", fault)]
    with (
        serving(own[0].answer, orders=own[0].obey) as good,
        serving(own[1].answer, orders=own[1].obey) as bad,
    ):
        player = trainer(settings(good.url, bad.url, lora=None, learning_rate=3e-3), tmp_path)
        player.update(lambda _: ITEMS, 0)
        with pytest.raises(ModelError, match=f"{bad.url}#defender does not answer .*{said}"):
            player.update(lambda _: ITEMS, 1)


def test_another_model_is_found_out_at_once(tmp_path: Path) -> None:
    """One whose weights are not those of defender.model, under an adapter of the right shape."""
    served = lora_server.Served(resolve_model("arena/defender"))
    noisy = served.models["defender"].model
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in noisy.parameters():
            parameter.add_(torch.randn_like(parameter) * parameter.std() * 0.5)
    noisy.save_pretrained(tmp_path / "other")
    served.folder = str(tmp_path / "other")
    with serving(served.answer, orders=served.obey) as server:
        player = trainer(settings(server.url), tmp_path / "player")
        with pytest.raises(ModelError, match=r"differ by .* nats a token .*allowed: 0\.2"):
            player.update(lambda _: ITEMS, 0)


def test_a_later_round_samples_by_what_all_rounds_have_learned(tmp_path: Path) -> None:
    """The servers keep the first round's base model, so they are sent the adapters of all rounds as one."""
    served = lora_server.Served(resolve_model("arena/defender"))
    with serving(served.answer, orders=served.obey) as server:
        own = settings(server.url, model=resolve_model("arena/defender"))
        recipe = Recipe(name="served", data={"path": "q"}, attacker={"model": "none"}, defender=own)
        league = League(recipe, tmp_path, torch.device("cpu"))
        table = Table(recipe, league, None, lambda text: 3)  # type: ignore[arg-type]
        differences = []
        for number in (1, 2, 3):
            seat = DefenderSeat(table, f"round{number}/defender", number, tmp_path / f"served{number}")
            history = [seat.trainer.update(lambda _: ITEMS, step) for step in range(2)]
            differences += [metrics["server_difference"] for metrics in history]
            assert all(metrics["ratio_first"] < 1e-3 for metrics in history)
            (folder,) = (tmp_path / f"served{number}").iterdir()
            sent = load_file(folder / "adapter_model.safetensors")
            ranks = {tensor.shape[0] for name, tensor in sent.items() if ".lora_A." in name}
            assert ranks == {2 * number}
            if number == 3:  # what the workers of other machines are brought is enough
                whole = league.defender_folder("round2")
                packed = Luggage.pack(tmp_path, [whole, *adapters_before(league, 3)])
                there = League(recipe, packed.unpack(tmp_path / "there"), torch.device("cpu"))
                assert all(folder.is_dir() for folder in adapters_before(there, 3))
            seat.write(league.defender_folder(f"round{number}"))
            assert not list((tmp_path / f"served{number}").iterdir())
            assert list(served.models) == ["defender"]
    assert max(differences) < 1e-4


@pytest.mark.parametrize("limits", [{"min_pixels": 36 * 36}, {"max_pixels": 108 * 108}])
def test_a_server_that_resizes_pictures_otherwise_is_found_out_at_once(
    tmp_path: Path, limits: dict[str, int]
) -> None:
    """Its pictures are sent as they are, and it must have the Defender's own limits."""
    for own in (limits, {}):
        served = lora_server.Served(resolve_model("arena/defender"), **own)
        with serving(served.answer, orders=served.obey) as server:
            player = trainer(settings(server.url, **limits), tmp_path / str(len(own)))
            if own:
                assert player.update(lambda _: ITEMS, 0)["server_difference"] < 1e-4
            else:
                with pytest.raises(ModelError, match=r"limits of defender\.min_pixels and max_pixels"):
                    player.update(lambda _: ITEMS, 0)


def test_replies_that_differ_too_far_are_counted_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that claims for one reply a token that the policy finds a million times less likely: the
    update is the one in which that reply weighs nothing.
    """
    updates = []
    for claimed in (False, True):
        served = lora_server.Served(resolve_model("arena/defender"))
        with serving(served.answer, orders=served.obey) as server:
            player = trainer(settings(server.url), tmp_path / str(claimed))
            assert player.server is not None
            generate = player.server.generate

            def lying(*arguments: Any, generate: Any = generate, claimed: bool = claimed) -> Any:
                replies = generate(*arguments, starts=())
                first = replies[0][0]
                if claimed:
                    wrong = (first.logprobs[0] + math.log(1e6), *first.logprobs[1:])
                    replies[0][0] = replace(first, logprobs=wrong)
                return replies

            monkeypatch.setattr(player.server, "generate", lambda *a, lying=lying, **_: lying(*a))
            if not claimed:  # the same, by hand: nothing of it counts
                whole = player._loss

                def without(groups: Any, advantages_N: Tensor, *more: Any, whole: Any = whole) -> Any:
                    if groups[0].question.id == "q0":
                        advantages_N = advantages_N.clone()
                        advantages_N[0] = 0.0
                    return whole(groups, advantages_N, *more)

                monkeypatch.setattr(player, "_loss", without)
            updates.append(player.update(lambda _: ITEMS, 0))
            updates[-1]["weights"] = torch.cat(  # type: ignore[assignment]
                [value.detach().flatten() for value in player.optimizer.parameters.values()]
            )
    assert [metrics["untrusted"] for metrics in updates] == [0.0, 1.0]
    assert torch.equal(updates[0]["weights"], updates[1]["weights"])  # type: ignore[arg-type]
    assert updates[0]["grad_norm"] == pytest.approx(updates[1]["grad_norm"])

"""Muon against torch's own, which computes in bfloat16, and by what an orthogonal step is."""

from __future__ import annotations

import pytest
import torch

from workshop.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(24, 64), (64, 24), (32, 32)])
def test_singular_values_are_near_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    made = orthogonal(matrix)
    values = torch.linalg.svdvals(made)
    assert 0.6 < values.min() <= values.max() < 1.3
    assert torch.cosine_similarity(made.flatten(), (u @ vh).flatten(), dim=0) > 0.97


@pytest.mark.parametrize("shape", [(24, 64), (64, 24)])
def test_steps_are_those_of_torch(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(shape, generator=generator)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    optimizers = (
        Muon([ours], 0.1),
        torch.optim.Muon([theirs], lr=0.1, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
    )
    for _ in range(4):
        gradient = torch.randn(shape, generator=generator)
        for weight, optimizer in zip((ours, theirs), optimizers, strict=True):
            weight.grad = gradient.clone()
            optimizer.step()
    assert (theirs - start).abs().mean() > 0.03
    assert torch.cosine_similarity((ours - start).flatten(), (theirs - start).flatten(), dim=0) > 0.999
    assert (ours - theirs).abs().mean() < 0.02 * (theirs - start).abs().mean()


def test_it_finds_a_minimum() -> None:
    generator = torch.Generator().manual_seed(2)
    wanted, weight = torch.randn(8, 12, generator=generator), torch.nn.Parameter(torch.zeros(8, 12))
    optimizer = Muon([weight], 0.3, weight_decay=0.0)
    for step in range(200):
        optimizer.param_groups[0]["lr"] = 0.3 * (1 - step / 200)
        optimizer.zero_grad()
        (weight - wanted).square().sum().backward()
        optimizer.step()
    assert (weight - wanted).abs().max() < 0.1

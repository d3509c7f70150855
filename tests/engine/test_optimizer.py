"""The optimiser against PyTorch's AdamW and one in float64, steps that it leaves out, its state on disk."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sparring.data.errors import RunError, TrainingError
from sparring.engine.optimizer import Optimizer, rate_factor
from sparring.engine.ranks import Ranks

RATE, DECAY, LONGEST, STEPS, END = 0.01, 0.1, 1.0, 12, 0.2
SHAPES = {"matrix": (4, 3), "bias": (3,), "never used": (2,)}


def parameters_of(dtype: torch.dtype = torch.float32) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    drawn = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    return {name: nn.Parameter(tensor.to(dtype)) for name, tensor in drawn.items()}


def gradients_of(step: int) -> dict[str, Tensor]:
    """Some are longer than what is allowed, some are not."""
    generator = torch.Generator().manual_seed(100 + step)
    drawn = {name: torch.randn(SHAPES[name], generator=generator) for name in ("matrix", "bias")}
    return {name: gradient * 3.0 ** (step % 3 - 2) for name, gradient in drawn.items()}


def optimizer_of(parameters: Mapping[str, nn.Parameter], ranks: Ranks | None = None) -> Optimizer:
    return Optimizer(parameters, learning_rate=RATE, weight_decay=DECAY, max_grad_norm=LONGEST, ranks=ranks)


def backward(optimizer: Optimizer, step: int) -> None:
    """As a loss would."""
    for name, gradient in gradients_of(step).items():
        optimizer.parameters[name].grad = gradient.to(optimizer.parameters[name].dtype)


def trained(optimizer: Optimizer, steps: Iterable[int]) -> list[float | None]:
    """The gradients' norms."""
    norms = []
    for step in steps:
        optimizer.set_rate(step, STEPS, END)
        backward(optimizer, step)
        norms.append(optimizer.step("here"))
    return norms


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def assert_same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def adamw_in_float64(starts: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[float]]:
    """The weights after all steps (arXiv 1711.05101, algorithm 2) and the norms of the gradients."""
    weights = {name: start.double() for name, start in starts.items()}
    first, second = ({name: torch.zeros_like(weight) for name, weight in weights.items()} for _ in "mv")
    norms = []
    for step in range(STEPS):
        gradients = {name: gradient.double() for name, gradient in gradients_of(step).items()}
        norms.append(math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients.values())))
        rate = RATE * (1 + (END - 1) * step / (STEPS - 1))
        for name, gradient in gradients.items():
            gradient = gradient * min(1.0, LONGEST / norms[-1])
            first[name] = 0.9 * first[name] + 0.1 * gradient
            second[name] = 0.999 * second[name] + 0.001 * gradient**2
            mean, square = first[name] / (1 - 0.9 ** (step + 1)), second[name] / (1 - 0.999 ** (step + 1))
            weights[name] = weights[name] * (1 - rate * DECAY) - rate * mean / (square.sqrt() + 1e-8)
    return weights, norms


def test_steps_are_those_of_adamw_written_down_in_float64() -> None:
    parameters = parameters_of()
    expected, lengths = adamw_in_float64(copied(parameters))
    assert min(lengths) < LONGEST < max(lengths)
    assert trained(optimizer_of(parameters), range(STEPS)) == pytest.approx(lengths, rel=1e-6)
    for name, parameter in parameters.items():
        torch.testing.assert_close(parameter.detach().double(), expected[name], atol=2e-6, rtol=0)


def test_steps_are_those_of_pytorch_to_the_bit() -> None:
    parameters, theirs = parameters_of(), parameters_of()
    adamw = torch.optim.AdamW(theirs.values(), lr=RATE, weight_decay=DECAY)
    norms = []
    for step in range(STEPS):
        for group in adamw.param_groups:
            group["lr"] = RATE * (1 + (END - 1) * (step / (STEPS - 1)))
        for name, gradient in gradients_of(step).items():
            theirs[name].grad = gradient
        norms.append(nn.utils.clip_grad_norm_(theirs.values(), LONGEST).item())
        adamw.step()
        adamw.zero_grad()
    assert trained(optimizer_of(parameters), range(STEPS)) == norms
    assert_same(parameters, theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_parameters_in_16_bits_follow_copies_that_learn_in_float32(dtype: torch.dtype) -> None:
    parameters = parameters_of(dtype)
    optimizer = optimizer_of(parameters)
    theirs = {name: nn.Parameter(parameter.detach().float()) for name, parameter in parameters.items()}
    adamw = torch.optim.AdamW(theirs.values(), lr=RATE, weight_decay=DECAY)
    for step in range(5):
        backward(optimizer, step)
        rounded = {name: nn.Parameter(torch.zeros_like(parameter)) for name, parameter in parameters.items()}
        for name, gradient in gradients_of(step).items():
            rounded[name].grad = gradient.to(dtype)
        nn.utils.clip_grad_norm_(rounded.values(), LONGEST)
        for name, other in theirs.items():
            gradient_16 = rounded[name].grad
            other.grad = None if gradient_16 is None else gradient_16.float()
        adamw.step()
        optimizer.step("here")
    assert_same(optimizer.master, theirs)
    assert all(torch.equal(parameter, theirs[name].to(dtype)) for name, parameter in parameters.items())


def test_steps_too_small_for_16_bits_add_up() -> None:
    """Near 1, bfloat16 has steps of 1/128 or 1/256: one of 1/1000 is rounded away, ten are not."""
    weight = nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    optimizer = Optimizer({"w": weight}, learning_rate=1e-3, weight_decay=0.0, max_grad_norm=1.0)
    seen = []
    for _ in range(10):
        weight.grad = torch.ones_like(weight)
        optimizer.step("here")
        seen.append(weight.item())
    assert seen[0] == 1.0
    assert seen[-1] == pytest.approx(0.99, abs=1 / 256)


@pytest.mark.parametrize(("longest", "kept"), [(1.0, [0.6, 0.8]), (10.0, [6.0, 8.0]), (100.0, [30.0, 40.0])])
def test_a_gradient_is_cut_to_its_longest_length(longest: float, kept: list[float]) -> None:
    """AdamW hides the length of a first gradient from the weights; its moments show it."""
    weight = nn.Parameter(torch.zeros(2))
    optimizer = Optimizer({"w": weight}, learning_rate=0.1, weight_decay=0.0, max_grad_norm=longest)
    weight.grad = torch.tensor([30.0, 40.0])
    assert optimizer.step("here") == pytest.approx(50.0)
    torch.testing.assert_close(optimizer.adamw.state[weight]["exp_avg"], 0.1 * torch.tensor(kept))


def test_gradients_of_all_processes_are_summed_before_they_are_cut() -> None:
    class Pair(Ranks):
        """Another process has the same gradients."""

        def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad *= 2

    (alone,), (summed,) = (trained(optimizer_of(parameters_of(), ranks), [0]) for ranks in (None, Pair()))
    assert summed == pytest.approx(2 * (alone or 0.0))


def test_gradients_are_forgotten() -> None:
    optimizer = optimizer_of(parameters_of(torch.bfloat16))
    trained(optimizer, [0])
    assert all(tensor.grad is None for tensor in (*optimizer.parameters.values(), *optimizer.master.values()))


def test_without_weights_there_is_nothing_to_train() -> None:
    with pytest.raises(TrainingError, match="no trainable weights"):
        optimizer_of({})


# ---- steps left out


def break_gradient(optimizer: Optimizer, value: float) -> None:
    backward(optimizer, 1)
    gradient = optimizer.parameters["bias"].grad
    assert gradient is not None
    gradient[1] = value


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_not_finite_changes_nothing(dtype: torch.dtype, value: float) -> None:
    optimizer, undisturbed = optimizer_of(parameters_of(dtype)), optimizer_of(parameters_of(dtype))
    trained(optimizer, [0])
    before = copied(optimizer.parameters)
    break_gradient(optimizer, value)
    assert optimizer.step("here") is None
    assert optimizer.skipped_in_a_row == 1
    assert_same(before, optimizer.parameters)
    assert trained(optimizer, [1, 2]) == trained(undisturbed, [0, 1, 2])[1:]
    assert optimizer.skipped_in_a_row == 0
    assert_same(optimizer.parameters, undisturbed.parameters)


def test_five_steps_left_out_in_a_row_end_the_training() -> None:
    optimizer = optimizer_of(parameters_of())
    for _ in range(4):
        optimizer.leave_out("update 3")
    trained(optimizer, [0])
    for _ in range(2):
        backward(optimizer, 1)
        optimizer.leave_out("update 4")  # its loss was not finite
        assert optimizer.parameters["bias"].grad is None
        break_gradient(optimizer, math.nan)
        optimizer.step("update 5")
    break_gradient(optimizer, math.nan)
    with pytest.raises(TrainingError, match=r"update 7 on q1: .*finite in 5 steps in a row.*learning_rate"):
        optimizer.step("update 7 on q1")


# ---- schedule


def test_the_rate_falls_in_a_straight_line() -> None:
    assert [rate_factor(step, 5, 0.2) for step in range(5)] == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])
    assert rate_factor(9, 5, 0.2) == pytest.approx(0.2)


@pytest.mark.parametrize("steps", [0, 1])
def test_one_update_has_the_full_rate(steps: int) -> None:
    assert rate_factor(0, steps, 0.0) == 1.0


def test_an_end_of_one_changes_nothing() -> None:
    assert {rate_factor(step, 7, 1.0) for step in range(7)} == {1.0}


# ---- state


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_saved_state_goes_on_to_the_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    """Twice, since what was read from a file is written again; the count of steps left out is in it too."""
    path = tmp_path / "state" / "it.safetensors"
    undisturbed = optimizer_of(parameters_of(dtype))
    expected = trained(undisturbed, range(STEPS))
    optimizer = optimizer_of(parameters_of(dtype))
    norms = trained(optimizer, range(3))
    for first in (3, 7):
        optimizer.leave_out("here")
        optimizer.save(path, {"seed": 2**60 + 1, "weight": 0.1}, {"old/matrix": torch.arange(3)})
        trained(optimizer, [11])  # work that the kill will cost
        others = {name: nn.Parameter(torch.ones_like(start)) for name, start in parameters_of(dtype).items()}
        optimizer = optimizer_of(others)
        numbers, extra = optimizer.load(path)
        assert (numbers["seed"], numbers["weight"], optimizer.skipped_in_a_row) == (2**60 + 1, 0.1, 1)
        assert extra.keys() == {"old/matrix"}
        assert extra["old/matrix"].tolist() == [0, 1, 2]
        norms += trained(optimizer, range(first, 7 if first == 3 else STEPS))
    assert norms == expected
    assert_same(optimizer.parameters, undisturbed.parameters)
    assert_same(optimizer.master, undisturbed.master)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_state_from_before_the_first_step_has_no_moments(tmp_path: Path) -> None:
    optimizer, other = optimizer_of(parameters_of()), optimizer_of(parameters_of())
    optimizer.save(tmp_path / "it.safetensors")
    trained(other, [0, 1])
    other.load(tmp_path / "it.safetensors")
    assert trained(other, range(3)) == trained(optimizer, range(3))
    assert_same(other.parameters, optimizer.parameters)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (
            {**parameters_of(), "matrix": nn.Parameter(torch.zeros(12))},
            r"matrix is \[4, 3\] there and \[12\]",
        ),
        ({**parameters_of(), "more": nn.Parameter(torch.zeros(1))}, r"more is missing there and \[1\] here"),
        ({"bias": nn.Parameter(torch.zeros(3))}, r"matrix is \[4, 3\] there and missing here"),
        (parameters_of(torch.bfloat16), "bias is missing there"),
    ],
    ids=["shape", "more", "fewer", "dtype"],
)
def test_a_state_of_others_is_refused(tmp_path: Path, other: dict[str, nn.Parameter], named: str) -> None:
    path = tmp_path / "it.safetensors"
    saved = optimizer_of(parameters_of())
    trained(saved, [0])
    saved.save(path)
    before = copied(other)
    with pytest.raises(RunError, match=f"it.safetensors: .*other trainable weights.*{named}"):
        optimizer_of(other).load(path)
    assert_same(before, other)


def test_a_state_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    optimizer, path = optimizer_of(parameters_of()), tmp_path / "it.safetensors"
    with pytest.raises(RunError, match="no readable training state"):
        optimizer.load(path)
    path.write_bytes(b"half a file")
    with pytest.raises(RunError, match="no readable training state"):
        optimizer.load(path)
    # As Defenders' states were.
    save_file({f"model.{name}": parameter.detach() for name, parameter in optimizer.parameters.items()}, path)
    with pytest.raises(RunError, match=r"an older version's form\. Remove the stage's folder"):
        optimizer.load(path)

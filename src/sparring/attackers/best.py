"""The weights of a round's best stretch of updates: an Attacker that lives on the edge of the integrity gate may end a round on the wrong side of it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

REWARDS = "rewards"


class BestWeights:
    """Of every `window` updates in a row the mean reward is taken; of the best stretch the mean of the weights that made its edits is kept.

    A mean, because the weights of neighbouring updates differ by noise as much as by what was learned. With a window of 0, or fewer updates
    than the window, none are kept. The best stretch is the earliest where several are equal.
    """

    def __init__(self, window: int) -> None:
        self.window, self.rewards = window, list[float]()
        self.recent, self.weights = list[dict[str, Tensor]](), dict[str, Tensor]()

    @property
    def update(self) -> int | None:
        """The number of the best stretch's last update, from 0."""
        means = self._means()
        return means.index(max(means)) + self.window - 1 if means else None

    def see(self, reward: float, weights: Mapping[str, Tensor]) -> None:
        """The next update: the mean reward of its edits, and the weights that made them, which are copied."""
        if not self.window:
            return
        self.rewards.append(reward)
        self.recent = [*self.recent, {name: tensor.detach().clone() for name, tensor in weights.items()}][-self.window :]
        if self.update == len(self.rewards) - 1:
            self.weights = {name: torch.stack([one[name] for one in self.recent]).mean(0) for name in weights}

    def _means(self) -> list[float]:
        """The mean reward of every stretch, the oldest first."""
        if not self.window:
            return []
        return [sum(self.rewards[end - self.window : end]) / self.window for end in range(self.window, len(self.rewards) + 1)]

    def state(self) -> dict[str, Tensor]:
        """What a resumed training needs."""
        recent = {f"{number}/{name}": tensor for number, one in enumerate(self.recent) for name, tensor in one.items()}
        kept = {f"kept/{name}": tensor for name, tensor in self.weights.items()}
        return {REWARDS: torch.tensor(self.rewards, dtype=torch.float64), **recent, **kept}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave."""

        def under(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

        self.rewards, self.weights = tensors[REWARDS].tolist(), under("kept/")
        self.recent = [under(f"{number}/") for number in range(min(self.window, len(self.rewards)))]

"""The weights of a round's best stretch of updates: an Attacker that lives on the edge of the integrity gate may end a round on the wrong side of it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

REWARDS = "rewards"


class BestWeights:
    """Of every `window` updates in a row the mean reward is taken; the weights that made the edits of the best stretch's last update are kept.

    With a window of 0, or fewer updates than the window, none are kept. The best stretch is the earliest where several are equal.
    """

    def __init__(self, window: int) -> None:
        self.window, self.rewards, self.weights = window, list[float](), dict[str, Tensor]()

    @property
    def update(self) -> int | None:
        """The number of the update, from 0, whose edits the kept weights made."""
        means = self._means()
        return means.index(max(means)) + self.window - 1 if means else None

    def see(self, reward: float, weights: Mapping[str, Tensor]) -> None:
        """The next update: the mean reward of its edits, and the weights that made them (copied if they are to be kept)."""
        self.rewards.append(reward)
        if self.update == len(self.rewards) - 1:
            self.weights = {name: tensor.detach().clone() for name, tensor in weights.items()}

    def _means(self) -> list[float]:
        """The mean reward of every stretch, the oldest first."""
        if not self.window:
            return []
        return [sum(self.rewards[end - self.window : end]) / self.window for end in range(self.window, len(self.rewards) + 1)]

    def state(self) -> dict[str, Tensor]:
        """What a resumed training needs."""
        return {REWARDS: torch.tensor(self.rewards, dtype=torch.float64), **self.weights}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave."""
        self.rewards = tensors[REWARDS].tolist()
        self.weights = {name: tensor for name, tensor in tensors.items() if name != REWARDS}

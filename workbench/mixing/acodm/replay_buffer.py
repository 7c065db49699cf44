"""The last transitions of the agent, kept as arrays.

    buffer = ReplayBuffer(10_000, state=22, domains=5)
    buffer.add(state_S, mixture_K, reward_K, next_S)
    batch = buffer.sample(32, rng)

Shapes: N transitions, S state, K domains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Transitions:
    """A mini-batch: states (N, S), mixtures (N, K), rewards per domain (N, K), next states."""

    state_NS: Tensor
    mixture_NK: Tensor
    reward_NK: Tensor
    next_NS: Tensor


class ReplayBuffer:
    """A ring of transitions.  State fields: the filled part and how many were ever added."""

    def __init__(self, capacity: int, *, state: int, domains: int):
        self._widths = (state, domains, domains, state)
        self._rows = np.empty((capacity, sum(self._widths)), dtype=np.float32)
        self.added = 0

    def __len__(self) -> int:
        return min(self.added, len(self._rows))

    def add(self, *parts: np.ndarray) -> None:
        """Keep state, mixture, reward per domain and next state in place of the oldest."""
        self._rows[self.added % len(self._rows)] = np.concatenate(parts)
        self.added += 1

    def sample(self, count: int, rng: np.random.Generator) -> Transitions:
        """`count` transitions, uniformly with replacement."""
        rows = torch.from_numpy(self._rows[rng.integers(0, len(self), count)])
        return Transitions(*rows.split(self._widths, dim=1))

    def state_dict(self) -> dict[str, Any]:
        return {"rows": torch.from_numpy(self._rows[: len(self)].copy()), "added": self.added}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the newest transitions that fit, whatever the capacity they come from."""
        saved, capacity = state["rows"].numpy(), len(self._rows)
        newest = np.roll(saved, -state["added"], axis=0)[-capacity:]
        # A full ring keeps its count, so that after a resume every row lies where it lay.
        self.added = state["added"] if len(newest) == capacity else len(newest)
        place = np.arange(self.added - len(newest), self.added) % capacity
        self._rows[place] = newest

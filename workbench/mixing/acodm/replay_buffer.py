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


@dataclass(frozen=True)
class Transitions:
    """A mini-batch: states (N, S), mixtures (N, K), rewards per domain (N, K), next states."""

    state_NS: np.ndarray
    mixture_NK: np.ndarray
    reward_NK: np.ndarray
    next_NS: np.ndarray


class ReplayBuffer:
    """A ring of transitions.  State fields: the filled part and how many were ever added."""

    def __init__(self, capacity: int, *, state: int, domains: int):
        widths = (state, domains, domains, state)
        ends = np.cumsum(widths).tolist()
        self._parts = [slice(e - w, e) for w, e in zip(widths, ends, strict=True)]
        self._rows = np.empty((capacity, sum(widths)), dtype=np.float32)
        self.added = 0

    def __len__(self) -> int:
        return min(self.added, len(self._rows))

    def add(self, *parts: np.ndarray) -> None:
        """Keep state, mixture, reward per domain and next state in place of the oldest."""
        self._rows[self.added % len(self._rows)] = np.concatenate(parts)
        self.added += 1

    def sample(self, count: int, rng: np.random.Generator) -> Transitions:
        """`count` transitions, uniformly with replacement."""
        rows = self._rows[rng.integers(0, len(self), count)]
        return Transitions(*(rows[:, part] for part in self._parts))

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

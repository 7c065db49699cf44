"""Named random streams: every draw has a name, a seed and, where it can, a step.

    rng = RandomStreams(seed=0)
    rng["exploration"].normal()              # stateful, saved in checkpoints
    rng.at("sampler", step).random(8)        # stateless: the same for the same (seed, name, step)

Streams are independent of each other and of the order in which they are first used, so adding a
consumer never changes what another one draws.  A stateless draw needs no checkpoint and is the
same on every rank and in every fork.
"""

from __future__ import annotations

import threading
import zlib
from typing import Any

import numpy as np

PROCESS_GENERATORS = threading.RLock()
"""Held by whoever seeds the generators that a process has one of: runs train side by side."""


def _words(name: str) -> int:
    return zlib.crc32(name.encode())


def stream_seed(seed: int, name: str, *indices: int) -> int:
    """A 63-bit seed that is a function of (seed, name, indices); for torch generators."""
    state = np.random.SeedSequence([seed, _words(name), *indices]).generate_state(1, np.uint64)
    return int(state[0] >> 1)


class RandomStreams:
    """NumPy generators by name under one seed; state fields: the generators drawn from so far."""

    def __init__(self, seed: int):
        self.seed = int(seed)
        self._streams: dict[str, np.random.Generator] = {}

    def __getitem__(self, name: str) -> np.random.Generator:
        if name not in self._streams:
            self._streams[name] = self.at(name)
        return self._streams[name]

    def at(self, name: str, *indices: int) -> np.random.Generator:
        """A fresh generator for (seed, name, indices), such as (…, step) or (…, domain, epoch)."""
        return np.random.default_rng([self.seed, _words(name), *indices])

    def state_dict(self) -> dict[str, Any]:
        streams = {name: g.bit_generator.state for name, g in self._streams.items()}
        return {"seed": self.seed, "streams": streams}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seed = state["seed"]
        self._streams = {}
        for name, bits in state["streams"].items():
            self[name].bit_generator.state = bits

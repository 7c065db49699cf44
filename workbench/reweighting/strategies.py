"""Strategies: how a sample's normalised loss becomes the exponent of its weight.

    linupper(h_B, delta=1.0)      # f(h); weights are softmax(f(h) / temperature)

A strategy of one's own is one function under a new name, usable wherever a reweighter is named:

    @strategy("mine")
    def mine(h_B, *, delta): return -h_B

Shapes: B rows.  Source: Sow et al. 2025 (arXiv 2502.06733), section 3.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from workbench.core import ConfigError, unknown_name

Strategy = Callable[..., Tensor]
STRATEGIES: dict[str, Strategy] = {}


def strategy(name: str) -> Callable[[Strategy], Strategy]:
    """Register `f(h_B, *, delta) -> Tensor (B,)` as a strategy called `name`."""

    def add(function: Strategy) -> Strategy:
        STRATEGIES[name] = function
        return function

    return add


def find_strategy(name: str) -> Strategy:
    """The strategy called `name`; ConfigError naming the nearest when there is none."""
    if name not in STRATEGIES:
        problem, remedy = unknown_name("strategy", name, STRATEGIES)
        raise ConfigError(problem, remedy=remedy)
    return STRATEGIES[name]


@strategy("linupper")
def linupper(h_B: Tensor, *, delta: float = 1.0) -> Tensor:
    """Down-weights the easy half of the loss range and caps the hard half.

    f(h) = min(h + delta, delta), with h in [-delta, delta].
    """
    return torch.clamp(h_B + delta, max=delta)

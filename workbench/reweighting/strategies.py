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
_LISTENERS: list[Callable[[str], object]] = []


def strategy(name: str) -> Callable[[Strategy], Strategy]:
    """Register `f(h_B, *, delta) -> Tensor (B,)` as a strategy called `name`.

    Raises:
        ConfigError: the name is taken.
    """

    def add(function: Strategy) -> Strategy:
        if name in STRATEGIES or name == "uniform":
            raise ConfigError(
                f"strategy '{name}' is registered twice", remedy="choose another name"
            )
        STRATEGIES[name] = function
        for listener in _LISTENERS:
            listener(name)
        return function

    return add


def on_strategy(listener: Callable[[str], object]) -> None:
    """Call `listener(name)` for every strategy there is and every one still to come."""
    for name in STRATEGIES:
        listener(name)
    _LISTENERS.append(listener)


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


@strategy("quadratic")
def quadratic(h_B: Tensor, *, delta: float = 1.0) -> Tensor:
    """Prefers the middle of the loss range: f(h) = 1 - h² / delta²."""
    return 1 - (h_B / delta) ** 2


@strategy("extremes")
def extremes(h_B: Tensor, *, delta: float = 1.0) -> Tensor:
    """Prefers both ends of the loss range: f(h) = |h|."""
    return h_B.abs()


@strategy("upper")
def upper(h_B: Tensor, *, delta: float = 1.0) -> Tensor:
    """Prefers hard samples throughout: f(h) = (h + delta) / 2 (in the official code only)."""
    return (h_B + delta) / 2

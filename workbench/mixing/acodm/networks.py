"""The actor and the critic: plain networks with layer norm.

    actor = network(inputs=22, outputs=5, hidden=(96, 96), seed=0)

The paper's have five hidden layers of 1024; ours grow with the state, because an update must cost
little beside a training step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

PAPER_HIDDEN = (1024,) * 5


def default_hidden(inputs: int) -> tuple[int, int]:
    """Two layers of four times the state, at least 64, in steps of 32."""
    width = max(64, 32 * math.ceil(4 * inputs / 32))
    return width, width


def network(*, inputs: int, outputs: int, hidden: Sequence[int], seed: int) -> nn.Sequential:
    """Linear, LayerNorm, ReLU per hidden layer, then Linear; initialised from `seed` alone."""
    layers: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for width in hidden:
            layers += [nn.Linear(inputs, width), nn.LayerNorm(width), nn.ReLU()]
            inputs = width
        layers.append(nn.Linear(inputs, outputs))
    return nn.Sequential(*layers)


@torch.no_grad()
def soft_update(target: nn.Module, online: nn.Module, tau: float) -> None:
    """target <- (1 - tau) target + tau online, parameter by parameter."""
    for kept, new in zip(target.parameters(), online.parameters(), strict=True):
        kept.lerp_(new, tau)

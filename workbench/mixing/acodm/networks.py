"""The actor and the critic: plain networks with layer norm, and their gradients written out.

    actor = Network(inputs=22, outputs=5, hidden=(96, 96), seed=0)
    value_NO = actor(x_NI)
    slope_NI = actor.backward(slope_NO)          # of the last call; fills actor.gradient_P

The paper's have five hidden layers of 1024; ours grow with the state.  An update of networks this
small spends most of its time in bookkeeping when autograd does it, so the gradient is taken here.
Shapes: N rows, I inputs, O outputs, P parameters.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

PAPER_HIDDEN = (1024,) * 5


def default_hidden(inputs: int) -> tuple[int, int]:
    """Two layers of four times the state, at least 64, in steps of 32."""
    width = max(64, 32 * math.ceil(4 * inputs / 32))
    return width, width


def reference_network(
    *, inputs: int, outputs: int, hidden: Sequence[int], seed: int
) -> nn.Sequential:
    """Linear, LayerNorm, ReLU per hidden layer, then Linear; initialised from `seed` alone."""
    layers: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for width in hidden:
            layers += [nn.Linear(inputs, width), nn.LayerNorm(width), nn.ReLU()]
            inputs = width
        layers.append(nn.Linear(inputs, outputs))
    return nn.Sequential(*layers)


class Network:
    """`reference_network` on one vector of parameters.  State fields: that vector."""

    def __init__(self, *, inputs: int, outputs: int, hidden: Sequence[int], seed: int):
        module = reference_network(inputs=inputs, outputs=outputs, hidden=hidden, seed=seed)
        self._shapes = [parameter.shape for parameter in module.parameters()]
        self._lay_out(parameters_to_vector(module.parameters()).detach())

    def _lay_out(self, parameter_P: Tensor) -> None:
        self.parameter_P, self.gradient_P = parameter_P, torch.zeros_like(parameter_P)
        self._values, self._slopes = (
            [part.view(shape) for part, shape in zip(parts, self._shapes, strict=True)]
            for parts in (
                whole_P.split([shape.numel() for shape in self._shapes])
                for whole_P in (self.parameter_P, self.gradient_P)
            )
        )
        self._kept: list[tuple[Tensor, ...]] = []

    def copy(self) -> Network:
        """Another network of the same parameters."""
        twin = copy.copy(self)
        twin._lay_out(self.parameter_P.clone())
        return twin

    @torch.no_grad()
    def __call__(self, x_NI: Tensor) -> Tensor:
        """Outputs (N, O), without autograd."""
        self._kept = []
        for i in range(0, len(self._values) - 2, 4):
            weight, bias, scale, shift = self._values[i : i + 4]
            y_NI = F.linear(x_NI, weight, bias)
            normed_NI, mean_N, rstd_N = torch.native_layer_norm(
                y_NI, bias.shape, scale, shift, 1e-5
            )
            self._kept.append((x_NI, y_NI, mean_N, rstd_N))
            x_NI = normed_NI.relu_()
        self._kept.append((x_NI,))
        return F.linear(x_NI, *self._values[-2:])

    @torch.no_grad()
    def backward(self, slope_NO: Tensor, *, parameters: bool = True) -> Tensor:
        """From the slope of a loss in the last outputs, (N, O), that in its inputs, (N, I).

        Args:
            parameters: also put the slope in the parameters in `gradient_P`.
        """
        (out_NI,) = self._kept[-1]
        slope = self._linear_backward(-2, out_NI, slope_NO, parameters)
        for layer in range(len(self._kept) - 2, -1, -1):
            x_NI, y_NI, mean_N, rstd_N = self._kept[layer]
            scale, shift = self._values[4 * layer + 2 : 4 * layer + 4]
            slope, *own = torch.ops.aten.native_layer_norm_backward(
                slope.mul_(out_NI > 0), y_NI, scale.shape, mean_N, rstd_N, scale, shift,
                [True, parameters, parameters],
            )  # fmt: skip
            if parameters:
                for kept, new in zip(self._slopes[4 * layer + 2 : 4 * layer + 4], own, strict=True):
                    kept.copy_(new)
            slope, out_NI = self._linear_backward(4 * layer, x_NI, slope, parameters), x_NI
        return slope

    def _linear_backward(
        self, index: int, x_NI: Tensor, slope_NO: Tensor, parameters: bool
    ) -> Tensor:
        if parameters:
            torch.mm(slope_NO.T, x_NI, out=self._slopes[index])
            torch.sum(slope_NO, 0, out=self._slopes[index + 1])
        return slope_NO @ self._values[index]

    def state_dict(self) -> dict[str, Any]:
        return {"parameters": self.parameter_P.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.parameter_P.copy_(state["parameters"])


def soft_update(target_P: Tensor, online_P: Tensor, tau: float) -> None:
    """target <- (1 - tau) target + tau online."""
    target_P.lerp_(online_P, tau)

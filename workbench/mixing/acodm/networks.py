"""The actor and the critic: plain networks with layer norm, and their gradients written out.

    actor = Network(inputs=22, outputs=5, hidden=(96, 96), seed=0)
    value_NO = actor(x_NI)
    slope_NI = actor.backward(slope_NO)          # of the last call; fills actor.gradient_P

The paper's have five hidden layers of 1024; ours grow with the state.  Networks this small spend
most of an update in bookkeeping when autograd does it, so it is written out, on float32 arrays.
Shapes: N rows, I inputs, O outputs, P parameters.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector

from workbench.core import PROCESS_GENERATORS

PAPER_HIDDEN = (1024,) * 5
EPSILON = 1e-5
"""Of layer norm, as in torch."""
BETAS = (0.9, 0.999)


def default_hidden(inputs: int) -> tuple[int, int]:
    """Two layers of four times the state, at least 64, in steps of 32."""
    width = max(64, 32 * math.ceil(4 * inputs / 32))
    return width, width


def reference_network(
    *, inputs: int, outputs: int, hidden: Sequence[int], seed: int
) -> nn.Sequential:
    """Linear, LayerNorm, ReLU per hidden layer, then Linear; initialised from `seed` alone."""
    layers: list[nn.Module] = []
    with PROCESS_GENERATORS, torch.random.fork_rng(devices=[]):
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
        self._shapes = [tuple(parameter.shape) for parameter in module.parameters()]
        self._lay_out(parameters_to_vector(module.parameters()).detach().numpy())

    def _lay_out(self, parameter_P: np.ndarray) -> None:
        self.parameter_P, self.gradient_P = parameter_P, np.zeros_like(parameter_P)
        self._values = self._parts(self.parameter_P)
        self._slopes = self._parts(self.gradient_P)
        self._kept: list[tuple[np.ndarray, ...]] = []

    def _parts(self, whole_P: np.ndarray) -> list[np.ndarray]:
        ends = np.cumsum([math.prod(shape) for shape in self._shapes])[:-1]
        parts = np.split(whole_P, ends)
        return [part.reshape(shape) for part, shape in zip(parts, self._shapes, strict=True)]

    def copy(self) -> Network:
        """Another network of the same parameters."""
        twin = copy.copy(self)
        twin._lay_out(self.parameter_P.copy())
        return twin

    @property
    def flops_per_row(self) -> int:
        """Operations of a forward pass: its matrix products, two for each weight."""
        return sum(2 * math.prod(shape) for shape in self._shapes if len(shape) == 2)

    def __call__(self, x_NI: np.ndarray) -> np.ndarray:
        """Outputs (N, O)."""
        self._kept = []
        for i in range(0, len(self._values) - 2, 4):
            weight, bias, scale, shift = self._values[i : i + 4]
            y_NO = x_NI @ weight.T
            y_NO += bias
            y_NO -= np.add.reduce(y_NO, axis=1, keepdims=True) / len(bias)
            variance_N = np.einsum("no,no->n", y_NO, y_NO) / len(bias)
            rstd_N1 = (1 / np.sqrt(variance_N + EPSILON))[:, None]
            y_NO *= rstd_N1
            self._kept.append((x_NI, y_NO, rstd_N1))
            x_NI = y_NO * scale
            x_NI += shift
            np.maximum(x_NI, 0, out=x_NI)
        self._kept.append((x_NI,))
        return x_NI @ self._values[-2].T + self._values[-1]

    def backward(self, slope_NO: np.ndarray, *, parameters: bool = True) -> np.ndarray:
        """From the slope of a loss in the last outputs, (N, O), that in its inputs, (N, I).

        Args:
            parameters: also put the slope in the parameters in `gradient_P`.
        """
        (out_NO,) = self._kept[-1]
        slope = self._linear_backward(len(self._values) - 2, out_NO, slope_NO, parameters)
        for layer in range(len(self._kept) - 2, -1, -1):
            x_NI, y_NO, rstd_N1 = self._kept[layer]
            slope *= out_NO > 0
            if parameters:
                np.einsum("no,no->o", slope, y_NO, out=self._slopes[4 * layer + 2])
                np.add.reduce(slope, axis=0, out=self._slopes[4 * layer + 3])
            slope *= self._values[4 * layer + 2]
            # What layer norm takes out: the mean, and what lies along its own output.
            along_N = np.einsum("no,no->n", slope, y_NO) / y_NO.shape[1]
            slope -= np.add.reduce(slope, axis=1, keepdims=True) / y_NO.shape[1]
            slope -= y_NO * along_N[:, None]
            slope *= rstd_N1
            slope, out_NO = self._linear_backward(4 * layer, x_NI, slope, parameters), x_NI
        return slope

    def _linear_backward(
        self, index: int, x_NI: np.ndarray, slope_NO: np.ndarray, parameters: bool
    ) -> np.ndarray:
        if parameters:
            np.matmul(slope_NO.T, x_NI, out=self._slopes[index])
            np.add.reduce(slope_NO, axis=0, out=self._slopes[index + 1])
        return slope_NO @ self._values[index]

    def state_dict(self) -> dict[str, Any]:
        return {"parameters": torch.from_numpy(self.parameter_P.copy())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.parameter_P[:] = state["parameters"].numpy()


class Adam:
    """Kingma and Ba 2015 (arXiv 1412.6980), of one network.  State fields: moments and steps."""

    def __init__(self, network: Network, learning_rate: float):
        self._network, self._learning_rate, self._steps = network, learning_rate, 0
        self._mean_P, self._square_P = np.zeros((2, len(network.parameter_P)), dtype=np.float32)
        self._scratch_P = np.empty_like(self._mean_P)

    def step(self) -> None:
        """Move the parameters by the network's `gradient_P`."""
        self._steps += 1
        gradient_P, scratch_P = self._network.gradient_P, self._scratch_P
        for moment_P, power_P, decay in (
            (self._mean_P, gradient_P, BETAS[0]),
            (self._square_P, np.square(gradient_P), BETAS[1]),
        ):
            moment_P *= decay
            moment_P += np.multiply(power_P, 1 - decay, out=scratch_P)
        mean_left, square_left = (1 - beta**self._steps for beta in BETAS)
        np.sqrt(self._square_P, out=scratch_P)
        scratch_P /= math.sqrt(square_left)
        scratch_P += 1e-8
        np.divide(self._mean_P, scratch_P, out=scratch_P)
        scratch_P *= self._learning_rate / mean_left
        self._network.parameter_P -= scratch_P

    def state_dict(self) -> dict[str, Any]:
        moments = np.stack([self._mean_P, self._square_P])
        return {"moments": torch.from_numpy(moments), "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._mean_P[:], self._square_P[:] = state["moments"].numpy()
        self._steps = state["steps"]


def soft_update(target_P: np.ndarray, online_P: np.ndarray, tau: float) -> None:
    """target <- (1 - tau) target + tau online, in place."""
    target_P += tau * (online_P - target_P)

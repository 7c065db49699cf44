"""Gradient descent under sample weights, recorded so that every statement can be checked.

    path = descend(problem, "linupper", step_size=1 / problem.smoothness, steps=300)
    path.violations, path.bound_S[-1], path.average_excess_S[-1]

θ_{t+1} = θ_t − η Σ w_i ∇f_i(θ_t), with weights of sum 1 here, as in the statements.
Shapes: S steps, M rows of a batch, D parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from workbench.core import ConfigError, RandomStreams, unknown_name
from workbench.reweighting import sample_weights
from workbench.theory.problems import LinearRegression, Problem

CONTROLS = ("norm_matched", "shuffled")
PAPER_FLOOR = 1e-6
_TOLERANCE = 1e-9
_DIVERGED = 1e12

Weigh = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False, repr=False)
class Trajectory:
    """What happened, and what the theory says of it.

    theta_SD: (S+1, D), from θ_0; test_loss_S: (S+1,), expected loss of a clean new row.
    loss_SM, excess_SM: f_i(θ_t) and Δ_i = f_i(θ_t) − f_i(θ*); weight_SM: w_i, sum 1.
    step_size_S: η_t, the length really used: it changes under `norm_matched` only.
    diverged: the losses left all bounds, and the record ends there.
    """

    strategy: str
    temperature: float
    control: str | None
    optimum_D: np.ndarray
    theta_SD: np.ndarray
    test_loss_S: np.ndarray
    loss_SM: np.ndarray
    excess_SM: np.ndarray
    weight_SM: np.ndarray
    step_size_S: np.ndarray
    diverged: bool

    def __repr__(self) -> str:
        name = self.strategy if self.control is None else f"{self.strategy}, {self.control}"
        first, last = self.test_loss_S[[0, -1]]
        end = " (diverged)" if self.diverged else ""
        steps = len(self.step_size_S)
        return f"Trajectory({name}: test loss {first:.3g} → {last:.3g} in {steps} steps{end})"

    @property
    def mean_loss_S(self) -> np.ndarray:
        """F(θ_t), the unweighted mean over the batch."""
        return self.loss_SM.mean(axis=1)

    @property
    def distance_S(self) -> np.ndarray:
        """‖θ_t − θ*‖², shape (S+1,)."""
        return ((self.theta_SD - self.optimum_D) ** 2).sum(axis=1)

    @property
    def covariance_S(self) -> np.ndarray:
        """C_t = Σ (w_i − 1/M) Δ_i: covariance of the weights (mean 1) and the excess losses."""
        return ((self.weight_SM - 1 / self.weight_SM.shape[1]) * self.excess_SM).sum(axis=1)

    @property
    def ess_fraction_S(self) -> np.ndarray:
        """Effective sample size 1/Σw², as a fraction of M."""
        return 1 / (self.weight_SM**2).sum(axis=1) / self.weight_SM.shape[1]

    @property
    def max_weight(self) -> float:
        """Largest weight of any step in the convention of mean 1, M·max w."""
        return float(self.weight_SM.max() * self.weight_SM.shape[1])

    @property
    def excess_range_S(self) -> np.ndarray:
        """Smallest, mean and largest Δ_i of each step, shape (S, 3)."""
        excess = self.excess_SM
        return np.stack([excess.min(axis=1), excess.mean(axis=1), excess.max(axis=1)], axis=1)

    @property
    def slack_S(self) -> np.ndarray:
        """By how much the one-step inequality holds; negative where it is violated.

        ‖θ_{t+1} − θ*‖² ≤ ‖θ_t − θ*‖² − 2η Σ w_i Δ_i for convex, L-smooth f_i that one θ* all
        minimises, and η ≤ 1/L.
        """
        weighted_S = (self.weight_SM * self.excess_SM).sum(axis=1)
        return -np.diff(self.distance_S) - 2 * self.step_size_S * weighted_S

    @property
    def capped_slack_S(self) -> np.ndarray:
        """The same for ‖θ_{t+1} − θ*‖² ≤ ‖θ_t − θ*‖² − η (F(θ_t) − F*) − 2η C_t.

        Holds under the same assumptions for w_i ≤ 2/M and η ≤ 1/(4L): the cap bounds the second
        order by L (F − F*) times 4η², whatever the weights, so they enter through C_t alone.
        """
        gain_S = self.excess_SM.mean(axis=1) + 2 * self.covariance_S
        return -np.diff(self.distance_S) - self.step_size_S * gain_S

    @property
    def violations(self) -> int:
        """Steps that break the one-step inequality by more than rounding."""
        return self._broken(self.slack_S)

    @property
    def capped_violations(self) -> int:
        """Steps that break the inequality for capped weights by more than rounding."""
        return self._broken(self.capped_slack_S)

    def _broken(self, slack_S: np.ndarray) -> int:
        return int((slack_S < -_TOLERANCE * self.distance_S[0]).sum())

    @property
    def average_excess_S(self) -> np.ndarray:
        """Mean of F(θ_t) − F* over the first 1, 2, … S steps, longer steps counting more."""
        return self._average(self.excess_SM.mean(axis=1))

    @property
    def bound_S(self) -> np.ndarray:
        """What `average_excess_S` cannot exceed: ‖θ_0 − θ*‖² / (2 Σ η_t) − mean C_t.

        With a constant η and T steps the first term is ‖θ_0 − θ*‖² / (2ηT).
        """
        return self.distance_S[0] / (2 * np.cumsum(self.step_size_S)) - self._average(
            self.covariance_S
        )

    @property
    def capped_bound_S(self) -> np.ndarray:
        """The bound for capped weights: ‖θ_0 − θ*‖² / Σ η_t − 2 mean C_t."""
        return 2 * self.bound_S

    def _average(self, value_S: np.ndarray) -> np.ndarray:
        return np.cumsum(self.step_size_S * value_S) / np.cumsum(self.step_size_S)

    @property
    def mean_test_loss(self) -> float:
        """Mean of the test loss over all steps; infinite when the path diverged."""
        return float("inf") if self.diverged else float(self.test_loss_S[:-1].mean())


def descend(
    problem: Problem,
    strategy: str = "uniform",
    *,
    temperature: float = 1.0,
    step_size: float,
    steps: int,
    control: str | None = None,
    normalise: str = "range",
    floor: float = PAPER_FLOOR,
    max_weight: float | None = None,
    start_D: np.ndarray | None = None,
    seed: int = 0,
) -> Trajectory:
    """Descend from θ_0 (zero by default) with weights from each row's own loss.

    Args:
        step_size: η.
        control: None; `norm_matched` gives every step the length that uniform weights would;
            `shuffled` deals the same weights out to rows at random.
        normalise, floor, max_weight: as in `sample_weights`; the floor is the paper's.
        seed: of the shuffling.
    Raises:
        ConfigError: unknown strategy or control, or a step size or number of steps not above 0.
    """
    _check(step_size, steps, control)
    weigh = partial(
        _weights,
        strategy=strategy,
        temperature=temperature,
        normalise=normalise,
        floor=floor,
        max_weight=max_weight,
    )
    theta_D = np.zeros_like(problem.optimum_D) if start_D is None else np.array(start_D, float)
    theta, taken = [theta_D], []
    for step in _steps(problem, theta_D, weigh, step_size, steps, control, RandomStreams(seed)):
        theta.append(step.theta_D)
        taken.append(step)
    theta_SD = np.stack(theta)
    off_SD = theta_SD - problem.planted_D
    return Trajectory(
        strategy=strategy,
        temperature=temperature,
        control=control,
        optimum_D=problem.optimum_D,
        theta_SD=theta_SD,
        test_loss_S=0.5 * off_SD**2 @ problem.second_moment_D,
        loss_SM=np.stack([step.loss_M for step in taken]),
        excess_SM=np.stack([step.excess_M for step in taken]),
        weight_SM=np.stack([step.weight_M for step in taken]),
        step_size_S=np.array([step.step_size for step in taken]),
        diverged=len(taken) < steps,
    )


class _Step(NamedTuple):
    """Losses and weights at θ_t, and θ_{t+1}."""

    theta_D: np.ndarray
    loss_M: np.ndarray
    excess_M: np.ndarray
    weight_M: np.ndarray
    step_size: float


def _steps(
    problem: Problem,
    theta_D: np.ndarray,
    weigh: Weigh,
    step_size: float,
    steps: int,
    control: str | None,
    streams: RandomStreams,
) -> Iterator[_Step]:
    """The steps of one path; ends early when the losses diverge."""
    for step in range(steps):
        batch = problem.batch(step)
        residual_M = batch.residuals(theta_D)
        loss_M = 0.5 * residual_M**2
        # Written so that NaN counts as diverged too.
        if not loss_M.max() < _DIVERGED:
            return
        weight_M = weigh(loss_M)
        if control == "shuffled":
            weight_M = streams.at("shuffled weights", step).permutation(weight_M)
        gradient_D = (weight_M * residual_M) @ batch.x_MD
        eta = step_size
        if control == "norm_matched":
            eta *= _norm_ratio(batch, residual_M, gradient_D)
        theta_D = theta_D - eta * gradient_D
        yield _Step(theta_D, loss_M, loss_M - batch.optimum_losses, weight_M, eta)


def _check(step_size: float, steps: int, control: str | None) -> None:
    if not step_size > 0:
        raise ConfigError(f"step_size = {step_size}", remedy="give a number above 0")
    if steps < 1:
        raise ConfigError(f"steps = {steps}", remedy="give 1 or more")
    if control is not None and control not in CONTROLS:
        problem, remedy = unknown_name("control", control, CONTROLS)
        raise ConfigError(problem, remedy=remedy)


def _weights(loss_M: np.ndarray, *, strategy: str, **options: object) -> np.ndarray:
    """Weights of sum 1 for the statements, from those of mean 1 that the loop uses."""
    if strategy == "uniform":
        return np.full(len(loss_M), 1 / len(loss_M))
    weight_M = sample_weights(torch.from_numpy(loss_M), strategy=strategy, **options)  # pyright: ignore
    return weight_M.double().numpy() / len(loss_M)


def _norm_ratio(batch: LinearRegression, residual_M: np.ndarray, gradient_D: np.ndarray) -> float:
    """Length of the uniform gradient over that of the weighted one; 1 at a stationary point."""
    length = np.linalg.norm(gradient_D)
    uniform = np.linalg.norm(residual_M @ batch.x_MD) / len(residual_M)
    return float(uniform / length) if length > 0 else 1.0

"""Least-squares problems whose best parameters are known.

    problem = linear_regression(rows=128, width=200)      # one fixed batch, every row can be fitted
    problem = stream(steps=200, width=50)                 # a fresh batch at every step

Row i has the loss f_i(θ) = ½ (x_iᵀθ − y_i)² and the gradient (x_iᵀθ − y_i) x_i.
Shapes: S steps, M rows of a batch, D parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from workbench.core import ConfigError, RandomStreams

OUTLIER_SIZE = 10.0
"""By how much an outlier's label is off; clean labels have standard deviation 1."""


class Problem(Protocol):
    """What gradient descent asks of a problem."""

    @property
    def planted_D(self) -> np.ndarray: ...
    @property
    def optimum_D(self) -> np.ndarray: ...
    @property
    def second_moment_D(self) -> np.ndarray: ...
    def batch(self, step: int) -> LinearRegression: ...


@dataclass(frozen=True, eq=False, repr=False)
class LinearRegression:
    """A fixed set of rows.

    x_MD, y_M: the rows, float64.
    planted_D: the parameters that made the clean labels.
    optimum_D: θ*, a minimiser of the mean loss; the planted parameters when every row fits them.
    second_moment_D: E[x_d²] of the rows' source, which has uncorrelated columns.
    """

    x_MD: np.ndarray
    y_M: np.ndarray
    planted_D: np.ndarray
    optimum_D: np.ndarray
    second_moment_D: np.ndarray

    def __repr__(self) -> str:
        rows, width = self.x_MD.shape
        fits = "one optimum fits" if self.interpolates else "no optimum fits"
        return f"LinearRegression({rows} rows, {width} parameters, {fits} every row)"

    def batch(self, step: int) -> LinearRegression:
        """All rows, at every step."""
        return self

    def residuals(self, theta_D: np.ndarray) -> np.ndarray:
        """x_iᵀθ − y_i, shape (M,)."""
        return self.x_MD @ theta_D - self.y_M

    def losses(self, theta_D: np.ndarray) -> np.ndarray:
        """f_i(θ), shape (M,)."""
        return 0.5 * self.residuals(theta_D) ** 2

    def gradients(self, theta_D: np.ndarray) -> np.ndarray:
        """∇f_i(θ), shape (M, D)."""
        return self.residuals(theta_D)[:, None] * self.x_MD

    @cached_property
    def optimum_losses(self) -> np.ndarray:
        """f_i(θ*), shape (M,); zero exactly where the row can be fitted with all others."""
        return self.losses(self.optimum_D)

    @property
    def interpolates(self) -> bool:
        """Whether θ* fits every row, as the theory assumes."""
        return bool(self.optimum_losses.max() < 1e-12)

    @cached_property
    def smoothness(self) -> float:
        """L = max_i ‖x_i‖²: every f_i is L-smooth."""
        return float((self.x_MD**2).sum(axis=1).max())

    def level_set(self, height: float, *, points: int = 181) -> np.ndarray:
        """Where F = F(θ*) + height, for two parameters: a closed line, shape (points, 2).

        Raises:
            ConfigError: the problem has not two parameters.
        """
        if self.x_MD.shape[1] != 2:
            raise ConfigError(
                f"contours of {self.x_MD.shape[1]} parameters", remedy="build it with width=2"
            )
        hessian = self.x_MD.T @ self.x_MD / len(self.y_M)
        angle = np.linspace(0, 2 * np.pi, points)
        circle = np.stack([np.cos(angle), np.sin(angle)])
        values, vectors = np.linalg.eigh(hessian)
        axes = vectors * np.sqrt(2 * height / values)
        return self.optimum_D + (axes @ circle).T


@dataclass(frozen=True, eq=False, repr=False)
class Stream:
    """A fresh batch at every step, drawn beforehand: x_SMD, y_SM; the rest as above.

    θ* is the planted parameters, the minimiser of the expected loss.
    """

    x_SMD: np.ndarray
    y_SM: np.ndarray
    planted_D: np.ndarray
    second_moment_D: np.ndarray

    def __repr__(self) -> str:
        steps, rows, width = self.x_SMD.shape
        return f"Stream({steps} steps of {rows} rows, {width} parameters)"

    @property
    def optimum_D(self) -> np.ndarray:
        return self.planted_D

    def batch(self, step: int) -> LinearRegression:
        """The rows of `step`.

        Raises:
            ConfigError: the stream was drawn for fewer steps.
        """
        if step >= len(self.x_SMD):
            raise ConfigError(
                f"step {step} of a stream of {len(self.x_SMD)} steps",
                remedy="draw a longer one with stream(steps=…)",
            )
        return LinearRegression(
            self.x_SMD[step],
            self.y_SM[step],
            self.planted_D,
            self.planted_D,
            self.second_moment_D,
        )


def linear_regression(
    *,
    rows: int = 128,
    width: int = 200,
    noise: float = 0.0,
    outliers: float = 0.0,
    redundancy: float = 0.0,
    subspace: int = 5,
    seed: int = 0,
) -> LinearRegression:
    """A fixed batch of Gaussian rows with y = Xθ, which more noise or outliers change steadily.

    The default is the problem of the convergence check: `default_rng(seed)` draws X, then θ/√D.

    Args:
        noise: standard deviation of the error of every label; clean labels have about 1.
        outliers: share of rows whose label is off by ±`OUTLIER_SIZE`.
        redundancy: share of rows that lie in a subspace of `subspace` columns, stretched to the
            mean squared length of the other rows.
        seed: of the rows; errors have streams of their own, so rows stay when an error changes.
    Raises:
        ConfigError: a share outside [0, 1], a negative noise, or a subspace wider than the rows.
    """
    _check(width, noise, outliers, redundancy, subspace)
    rng = np.random.default_rng(seed)
    x_MD = rng.standard_normal((rows, width))
    planted_D = rng.standard_normal(width) / np.sqrt(width)
    _make_redundant(x_MD, redundancy, subspace)
    error_M = _label_errors(RandomStreams(seed), (rows,), noise, outliers)
    y_M = x_MD @ planted_D + error_M
    optimum_D = np.linalg.lstsq(x_MD, y_M)[0] if error_M.any() else planted_D
    return LinearRegression(
        x_MD, y_M, planted_D, optimum_D, _second_moment(width, redundancy, subspace)
    )


def stream(
    *,
    steps: int = 200,
    rows: int = 128,
    width: int = 50,
    noise: float = 0.0,
    outliers: float = 0.0,
    redundancy: float = 0.0,
    subspace: int = 5,
    seed: int = 0,
) -> Stream:
    """Fresh Gaussian rows at every step; arguments as for `linear_regression`."""
    _check(width, noise, outliers, redundancy, subspace)
    rng = np.random.default_rng(seed)
    x_SMD = rng.standard_normal((steps, rows, width))
    planted_D = rng.standard_normal(width) / np.sqrt(width)
    _make_redundant(x_SMD, redundancy, subspace)
    y_SM = x_SMD @ planted_D
    y_SM += _label_errors(RandomStreams(seed), y_SM.shape, noise, outliers)
    return Stream(x_SMD, y_SM, planted_D, _second_moment(width, redundancy, subspace))


def _check(width: int, noise: float, outliers: float, redundancy: float, subspace: int) -> None:
    for name, share in (("outliers", outliers), ("redundancy", redundancy)):
        if not 0 <= share <= 1:
            raise ConfigError(f"{name} = {share} is no share of rows", remedy="give 0 to 1")
    if not noise >= 0:
        raise ConfigError(f"noise = {noise}", remedy="give a standard deviation of 0 or more")
    if redundancy and not 1 <= subspace <= width:
        raise ConfigError(
            f"a subspace of {subspace} columns in rows of {width}", remedy=f"give 1 to {width}"
        )


def _make_redundant(x_MD: np.ndarray, redundancy: float, subspace: int) -> None:
    """Move the first rows of every batch into the first columns; x_MD may have leading axes."""
    count, width = round(redundancy * x_MD.shape[-2]), x_MD.shape[-1]
    x_MD[..., :count, subspace:] = 0
    x_MD[..., :count, :subspace] *= np.sqrt(width / subspace)


def _second_moment(width: int, redundancy: float, subspace: int) -> np.ndarray:
    moment_D = np.full(width, 1 - redundancy)
    moment_D[:subspace] += redundancy * width / subspace
    return moment_D


def _label_errors(
    streams: RandomStreams, shape: tuple[int, ...], noise: float, outliers: float
) -> np.ndarray:
    error = np.zeros(shape)
    if noise:
        error += noise * streams["label noise"].standard_normal(shape)
    if outliers:
        rng = streams["outliers"]
        chosen, sign = rng.random(shape) < outliers, rng.choice((-1.0, 1.0), shape)
        error += OUTLIER_SIZE * chosen * sign
    return error

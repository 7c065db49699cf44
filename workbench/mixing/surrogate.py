"""A surrogate of training: losses predicted from the mixture, with intervals, from finished runs.

    surrogate = fit_surrogate(mixture_NK, loss_ND)
    loss_MD = surrogate.predict(mixture_MK)
    low_MD, high_MD = surrogate.interval(mixture_MK, level=0.9)

Ridge regression on shares and their logarithms, or LightGBM on shares as RegMix has it (Liu et al.
2025, arXiv 2407.01492).  Intervals are the jackknife+ of Barber et al. 2021 (arXiv 1905.02928).
Shapes: N runs, K domains, D losses, M mixtures asked for, F fits that leave runs out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from workbench.core import ConfigError, unknown_name

FEWEST_MIXTURES = 4
MOST_FITS = 40
"""Above so many mixtures, several are left out at a time: the CV+ of the same paper."""
LOG_FLOOR = 0.01
"""Added to a share before its logarithm: what nothing of a domain costs is finite."""
STRENGTHS = np.logspace(-4, 2, 25)

Predict = Callable[[np.ndarray], np.ndarray]


def fewest_mixtures(level: float) -> int:
    """Different mixtures that an interval of this level needs.

    The jackknife+ takes order statistics of as many values; with fewer the interval has no end.

    Raises:
        ConfigError: the level is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ConfigError(f"level = {level} is no probability", remedy="give one such as 0.9")
    # The rounding keeps 0.9 / (1 - 0.9) at 9.
    return max(FEWEST_MIXTURES, math.ceil(round(level / (1 - level), 9)))


@dataclass(frozen=True)
class Surrogate:
    """A fitted regression of D losses on the mixture.

    predict: mixtures (M, K) -> losses (M, D) in the unit fitted on, here nats per token.
    explained_D: share of the variance over runs that is predicted when each mixture is left out in
        turn; at 0 or below, a prediction is no better than the mean.
    settings: the method and what it was fitted with, in JSON types.
    """

    predict: Predict
    explained_D: np.ndarray
    settings: dict[str, Any]
    mixtures: int
    _without_F: tuple[Predict, ...] = field(repr=False)
    _fit_N: np.ndarray = field(repr=False)
    _residual_ND: np.ndarray = field(repr=False)

    def interval(self, mixture_MK: np.ndarray, *, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Where a new run's losses fall with probability `level`: lower and upper ends, (M, D).

        Of every fit that leaves a run out, its prediction moved by that run's residual; then order
        statistics.  For mixtures drawn like the fitted ones the coverage is at least 2 level - 1
        whatever the law, and close to `level` in practice.  Elsewhere nothing is promised.  Widened
        to hold the prediction itself, which a skewed set of fits can leave out.

        Raises:
            ConfigError: too few mixtures were fitted for this level.
        """
        if self.mixtures < fewest_mixtures(level):
            raise ConfigError(
                f"an interval of {level:.0%} needs {fewest_mixtures(level)} different mixtures, "
                f"there are {self.mixtures}",
                remedy="train more mixtures, or ask for a lower level",
            )
        without_FMD = np.stack([predict(mixture_MK) for predict in self._without_F])
        centre_NMD, residual_N1D = without_FMD[self._fit_N], self._residual_ND[:, None]
        runs = len(centre_NMD)
        upper = math.ceil(round(level * (runs + 1), 9))
        low_NMD = np.sort(centre_NMD - residual_N1D, axis=0)
        high_NMD = np.sort(centre_NMD + residual_N1D, axis=0)
        loss_MD = self.predict(mixture_MK)
        low_MD = np.minimum(low_NMD[runs - upper], loss_MD)
        return low_MD, np.maximum(high_NMD[upper - 1], loss_MD)


def fit_surrogate(
    mixture_NK: np.ndarray,
    loss_ND: np.ndarray,
    *,
    method: str = "ridge",
    group_N: Sequence[Any] | None = None,
) -> Surrogate:
    """Fit losses on mixtures, and again without each mixture.

    Args:
        mixture_NK: shares of the domains, rows that sum to 1.
        loss_ND: what the runs reached.
        method: `ridge`, its strength chosen by generalised leave-one-out for each loss, or
            `lightgbm`.
        group_N: equal for runs that repeat each other, which are left out together; by default
            runs of equal mixtures.
    Raises:
        ConfigError: unknown method, LightGBM not installed, fewer than four mixtures, or a value
            that is not finite.
    """
    mixture_NK, loss_ND = np.asarray(mixture_NK, float), np.asarray(loss_ND, float)
    regress = regression(method)
    fit_N, fits = _left_out_together(mixture_NK, group_N)
    _check(mixture_NK, loss_ND, mixtures := len(np.unique(fit_N)))
    if mixtures > MOST_FITS:
        # Mixtures come in no order that means anything, so every MOST_FITS-th goes together.
        fit_N, fits = fit_N % MOST_FITS, MOST_FITS
    without_F = tuple(
        regress(mixture_NK[fit_N != fit], loss_ND[fit_N != fit]) for fit in range(fits)
    )
    residual_ND = np.empty_like(loss_ND)
    for fit, predict in enumerate(without_F):
        own_N = fit_N == fit
        residual_ND[own_N] = np.abs(loss_ND[own_N] - predict(mixture_NK[own_N]))
    return Surrogate(
        predict=regress(mixture_NK, loss_ND),
        explained_D=_explained(loss_ND, residual_ND),
        settings={"method": method, **_SETTINGS[method]},
        mixtures=mixtures,
        _without_F=without_F,
        _fit_N=fit_N,
        _residual_ND=residual_ND,
    )


def regression(method: str) -> Callable[[np.ndarray, np.ndarray], Predict]:
    """The fit itself, (mixture_NK, loss_ND) -> predict, without intervals.

    Raises:
        ConfigError: unknown method, or LightGBM is not installed.
    """
    if method not in _METHODS:
        problem, remedy = unknown_name("surrogate", method, _METHODS)
        raise ConfigError(problem, remedy=remedy)
    if method == "lightgbm":
        _lightgbm()
    return _METHODS[method]


def _left_out_together(
    mixture_NK: np.ndarray, group_N: Sequence[Any] | None
) -> tuple[np.ndarray, int]:
    """Number of the fit that leaves a run out, (N,), and how many fits there are."""
    keys = [tuple(row) for row in mixture_NK.round(6)] if group_N is None else list(group_N)
    number = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return np.array([number[key] for key in keys], dtype=int), len(number)


def _check(mixture_NK: np.ndarray, loss_ND: np.ndarray, mixtures: int) -> None:
    if mixtures < FEWEST_MIXTURES or len(loss_ND) != len(mixture_NK):
        raise ConfigError(
            f"{len(loss_ND)} runs of {mixtures} mixtures are too few to regress on",
            remedy=f"train {FEWEST_MIXTURES} or more mixtures",
        )
    if not np.isfinite(loss_ND).all() or not np.isfinite(mixture_NK).all():
        raise ConfigError("a loss or a mixture is not finite", remedy="leave out that run")


def _explained(loss_ND: np.ndarray, residual_ND: np.ndarray) -> np.ndarray:
    spread_D = ((loss_ND - loss_ND.mean(axis=0)) ** 2).sum(axis=0)
    missed_D = (residual_ND**2).sum(axis=0)
    return np.where(spread_D > 0, 1 - missed_D / np.where(spread_D > 0, spread_D, 1), 0.0)


def _ridge(mixture_NK: np.ndarray, loss_ND: np.ndarray) -> Predict:
    from sklearn.linear_model import RidgeCV
    from sklearn.preprocessing import StandardScaler

    def features(mixture_MK: np.ndarray) -> np.ndarray:
        return np.concatenate([mixture_MK, np.log(mixture_MK + LOG_FLOOR)], axis=1)

    scaler: Any = StandardScaler().fit(features(mixture_NK))
    model: Any = RidgeCV(STRENGTHS, alpha_per_target=True)
    model.fit(scaler.transform(features(mixture_NK)), loss_ND)
    weight_FD = (np.reshape(model.coef_, (loss_ND.shape[1], -1)) / scaler.scale_).T
    constant_D = np.ravel(model.intercept_) - scaler.mean_ @ weight_FD
    return lambda mixture_MK: features(np.asarray(mixture_MK, float)) @ weight_FD + constant_D


def _lightgbm() -> Any:
    try:
        import lightgbm  # pyright: ignore[reportMissingImports]
    except (ImportError, OSError) as error:
        raise ConfigError(
            f"the surrogate 'lightgbm' cannot be used here: {error}",
            remedy="pip install lightgbm, or use method='ridge'",
        ) from None
    return lightgbm


def _boosted(mixture_NK: np.ndarray, loss_ND: np.ndarray) -> Predict:
    # LightGBM's own 20 rows a leaf would leave a tree of few runs without a split.
    rows_a_leaf = max(2, min(20, len(mixture_NK) // 8))
    options: dict[str, Any] = {**_SETTINGS["lightgbm"], "min_child_samples": rows_a_leaf}
    models = [
        _lightgbm().LGBMRegressor(**options, n_jobs=1, verbosity=-1).fit(mixture_NK, loss_N)
        for loss_N in loss_ND.T
    ]
    return lambda mixture_MK: np.stack([model.predict(mixture_MK) for model in models], axis=1)


_METHODS = {"ridge": _ridge, "lightgbm": _boosted}
_SETTINGS: dict[str, dict[str, Any]] = {
    "ridge": {"features": ["p", "log p"], "log_floor": LOG_FLOOR},
    # Of RegMix' published code, without its early stopping on the runs that are then predicted.
    "lightgbm": {"n_estimators": 1000, "learning_rate": 0.01, "random_state": 42},
}

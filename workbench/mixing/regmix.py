"""RegMix: the best mixture as a regression of loss on mixture predicts it.  Liu et al. 2025.

    fit = fit_mixtures(mixture_NK, loss_N)
    best_K = best_mixture(fit, domains=5, seed=0)

arXiv 2407.01492.  Many small runs at random mixtures give the pairs; `batch.find_mixture` makes
them.  Shapes: N runs, K domains, M candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from workbench.core import ConfigError

CANDIDATES = 20_000
AVERAGED = 100
"""The best so many candidates are averaged, as in the paper: one alone follows the fit's errors."""
STRENGTHS = np.logspace(-4, 2, 25)


@dataclass(frozen=True)
class Surrogate:
    """A fitted regression.

    predict: mixtures (M, K) -> losses (M,).
    explained: share of the variance over runs that is predicted when each is left out in turn;
        at 0 or below, the best mixture is a guess.
    """

    predict: Callable[[np.ndarray], np.ndarray]
    explained: float


def fit_mixtures(mixture_NK: np.ndarray, loss_N: np.ndarray) -> Surrogate:
    """Ridge regression of the loss on shares and their logarithms (diminishing returns).

    Raises:
        ConfigError: fewer than four runs, or a value that is not finite.
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import LeaveOneOut, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    mixture_NK, loss_N = np.asarray(mixture_NK, float), np.asarray(loss_N, float)
    if len(loss_N) < 4 or len(loss_N) != len(mixture_NK):
        raise ConfigError(
            f"{len(loss_N)} runs are too few to regress on", remedy="train 4 or more mixtures"
        )
    if not np.isfinite(loss_N).all() or not np.isfinite(mixture_NK).all():
        raise ConfigError("a loss or a mixture is not finite", remedy="leave out that run")
    model = make_pipeline(StandardScaler(), RidgeCV(STRENGTHS))
    left_out_N = cross_val_predict(model, _features(mixture_NK), loss_N, cv=LeaveOneOut())
    spread = float(((loss_N - loss_N.mean()) ** 2).sum())
    explained = 1 - float(((loss_N - left_out_N) ** 2).sum()) / spread if spread > 0 else 0.0
    model.fit(_features(mixture_NK), loss_N)
    return Surrogate(lambda mixture_MK: model.predict(_features(mixture_MK)), explained)


def best_mixture(surrogate: Surrogate, *, domains: int, seed: int) -> np.ndarray:
    """Mean of the candidates with the lowest predicted loss, (K,)."""
    candidates_MK = np.random.default_rng(seed).dirichlet(np.ones(domains), CANDIDATES)
    order_M = np.argsort(surrogate.predict(candidates_MK))
    return candidates_MK[order_M[:AVERAGED]].mean(axis=0)


def _features(mixture_NK: np.ndarray) -> np.ndarray:
    return np.concatenate([mixture_NK, np.log(mixture_NK + 0.01)], axis=1)

"""RegMix: the best mixture as a regression of loss on mixture predicts it.  Liu et al. 2025.

    fit = fit_mixtures(mixture_NK, loss_N)
    best_K = best_mixture(fit, domains=5, seed=0)
    MIXERS.build("regmix", task, trials="out/regmix/mixture.json")

arXiv 2407.01492.  Many small runs at random mixtures give the pairs; `batch.find_mixture` makes
them.  Shapes: N runs, K domains, M candidates.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workbench.core import MIXERS, ConfigError, MixingTask
from workbench.mixing.floor import DEFAULT_FLOOR
from workbench.mixing.static import Static

FEWEST_TRIALS = 4
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
    if len(loss_N) < FEWEST_TRIALS or len(loss_N) != len(mixture_NK):
        raise ConfigError(
            f"{len(loss_N)} runs are too few to regress on",
            remedy=f"train {FEWEST_TRIALS} or more mixtures",
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


@MIXERS.register("regmix")
class RegMix(Static):
    """The mixture that a regression on small runs predicts to be best, for the whole run.

    Args:
        task: supplied by the loop.
        trials: file that `batch.find_mixture(method="regmix")` wrote.
        floor, guaranteed_rows: as in every mixer.
    """

    def __init__(
        self,
        task: MixingTask,
        *,
        trials: str,
        floor: float = DEFAULT_FLOOR,
        guaranteed_rows: int = 0,
    ):
        mixture_NK, loss_N = _read_trials(trials, task.names)
        best_K = best_mixture(fit_mixtures(mixture_NK, loss_N), domains=len(task), seed=task.seed)
        best = dict(zip(task.names, best_K.tolist(), strict=True))
        super().__init__(task, mixture=best, floor=floor, guaranteed_rows=guaranteed_rows)


def _read_trials(path: str, domains: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Mixtures (N, K) and losses in nats (N,) of the runs of a regmix job."""
    try:
        trials = json.loads(Path(path).read_text())["trials"]
        found = {name for trial in trials for name in trial["mixture"]}
        mixture_NK = [[float(trial["mixture"][name]) for name in domains] for trial in trials]
        loss_N = [float(trial["nats"]) for trial in trials]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"cannot read trials over {', '.join(domains)} from {path}: "
            f"{type(error).__name__}: {error}",
            remedy="give the mixture.json of `workbench mixture --method regmix` on this corpus",
        ) from None
    if found != set(domains):
        raise ConfigError(
            f"the trials in {path} are over {sorted(found)}, the corpus has {list(domains)}",
            remedy="search again on this corpus",
        )
    return np.array(mixture_NK), np.array(loss_N)

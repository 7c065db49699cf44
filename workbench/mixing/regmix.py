"""RegMix: the best mixture as a regression of loss on mixture predicts it.  Liu et al. 2025.

    surrogate = fit_surrogate(mixture_NK, loss_N[:, None])
    best_K = best_mixture(surrogate, domains=5, seed=0)
    MIXERS.build("regmix", task, trials="out/regmix/mixture.json")

arXiv 2407.01492.  Many small runs at random mixtures give the pairs; `batch.find_mixture` makes
them; `surrogate` regresses.  Shapes: N runs, K domains, M candidates.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from workbench.core import MIXERS, ConfigError, MixingTask
from workbench.mixing.floor import DEFAULT_FLOOR
from workbench.mixing.static import Static
from workbench.mixing.surrogate import Surrogate, fit_surrogate

CANDIDATES = 20_000
AVERAGED = 100
"""The best so many candidates are averaged, as in the paper: one alone follows the fit's errors."""


def best_mixture(surrogate: Surrogate, *, domains: int, seed: int) -> np.ndarray:
    """Mean of the candidates with the lowest predicted loss, (K,); of several losses their mean."""
    candidates_MK = np.random.default_rng(seed).dirichlet(np.ones(domains), CANDIDATES)
    order_M = np.argsort(surrogate.predict(candidates_MK).mean(axis=1))
    return candidates_MK[order_M[:AVERAGED]].mean(axis=0)


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
        surrogate = fit_surrogate(mixture_NK, loss_N[:, None])
        best_K = best_mixture(surrogate, domains=len(task), seed=task.seed)
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

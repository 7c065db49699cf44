"""How far a mixture lies outside those that were sampled, and which one inside is best.

    outside = outside_hull(mixture_K, sampled_NK)
    outside.share                      # 0 inside; 0.12: 12 % of the rows would have to move
    best_K = lowest_inside(predict, sampled_NK)

Inside the convex hull of the sampled mixtures a surrogate interpolates, outside it guesses.
Shapes: N sampled mixtures, K domains, M mixtures asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

INSIDE_SHARE = 1e-6
DIRECTIONS = 512
"""Mixtures of the hull that a search is drawn towards, the sampled ones not counted."""
ROUNDS, SHRINK = 32, 0.8
"""The last round moves by less than a thousandth of the way."""


@dataclass(frozen=True)
class Outside:
    """share: the smallest part of the rows that would have to change domain; nearest_K: where to.

    The share is the total variation distance, half the sum of absolute differences.
    """

    share: float
    nearest_K: np.ndarray

    @property
    def inside(self) -> bool:
        return self.share <= INSIDE_SHARE


def outside_hull(mixture_K: np.ndarray, sampled_NK: np.ndarray) -> Outside:
    """Distance of a mixture to the convex hull of others, by a linear program.

    min ½ Σ_k u_k  with  -u ≤ p - Σ_n w_n s_n ≤ u,  w ≥ 0,  Σ w = 1.
    """
    from scipy.optimize import linprog

    mixture_K, sampled_NK = np.asarray(mixture_K, float), np.asarray(sampled_NK, float)
    runs, domains = sampled_NK.shape
    slack_KK = -np.eye(domains)
    found = linprog(
        c=np.concatenate([np.zeros(runs), np.full(domains, 0.5)]),
        A_ub=np.block([[sampled_NK.T, slack_KK], [-sampled_NK.T, slack_KK]]),
        b_ub=np.concatenate([mixture_K, -mixture_K]),
        A_eq=np.concatenate([np.ones(runs), np.zeros(domains)])[None],
        b_eq=[1.0],
    )
    nearest_K = found.x[:runs] @ sampled_NK
    return Outside(float(0.5 * np.abs(mixture_K - nearest_K).sum()), nearest_K)


def lowest_inside(
    value: Callable[[np.ndarray], np.ndarray], sampled_NK: np.ndarray, *, seed: int = 0
) -> np.ndarray:
    """The mixture inside the hull of others at which a value is lowest, (K,).

    A search by shrinking steps towards points of the hull, which never leaves it: it asks for
    neither slopes nor one valley, so that it serves trees as well as a regression.

    Args:
        value: mixtures (M, K) -> (M,).
    """
    sampled_NK = np.asarray(sampled_NK, float)
    rng = np.random.default_rng(seed)
    # Few mixtures with much weight each: even weights would all lie near the middle.
    weight_MN = rng.dirichlet(np.full(len(sampled_NK), 1 / sampled_NK.shape[1]), DIRECTIONS)
    towards_MK = np.concatenate([sampled_NK, weight_MN @ sampled_NK])
    best_K = sampled_NK.mean(axis=0)
    lowest = float(value(best_K[None])[0])
    for step in SHRINK ** np.arange(ROUNDS):
        tried_MK = best_K + step * (towards_MK - best_K)
        value_M = value(tried_MK)
        if value_M.min() < lowest:
            best_K, lowest = tried_MK[value_M.argmin()], float(value_M.min())
    return best_K

"""How far a mixture lies outside those that were sampled.

    outside = outside_hull(mixture_K, sampled_NK)
    outside.share                      # 0 inside; 0.12: 12 % of the rows would have to move

Inside the convex hull of the sampled mixtures a surrogate interpolates, outside it guesses.
Shapes: N sampled mixtures, K domains.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

INSIDE_SHARE = 1e-6


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

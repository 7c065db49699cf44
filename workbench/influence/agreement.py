"""How well two rankings agree, and how often one group outranks another; numpy alone.

    spearman(score_N, truth_N)                  # 1 same order, -1 reversed, 0 unrelated
    outranks(clean_n, noise_m)                  # share of pairs in which the first is higher

Shapes: N, n, m values of one ranking.
"""

from __future__ import annotations

import numpy as np


def mean_ranks(value_N: np.ndarray) -> np.ndarray:
    """Ranks from 1, equal values sharing their mean rank; float64 (N,)."""
    _, place_N, count = np.unique(value_N, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return (last - (count - 1) / 2)[place_N]


def spearman(a_N: np.ndarray, b_N: np.ndarray) -> float:
    """Rank correlation; 0 where one of the two does not tell its values apart."""
    a_N, b_N = mean_ranks(a_N), mean_ranks(b_N)
    a_N, b_N = a_N - a_N.mean(), b_N - b_N.mean()
    scale = float(np.sqrt((a_N @ a_N) * (b_N @ b_N)))
    return float(a_N @ b_N) / scale if scale > 0 else 0.0


def outranks(high_n: np.ndarray, low_m: np.ndarray) -> float:
    """Share of pairs in which the first is higher, equal ones counted half: the area under ROC."""
    rank = mean_ranks(np.concatenate([high_n, low_m]))[: len(high_n)]
    pairs = len(high_n) * len(low_m)
    return float(rank.sum() - len(high_n) * (len(high_n) + 1) / 2) / pairs

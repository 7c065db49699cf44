"""Linear datamodeling score: do sums of scores predict what retraining on subsets does?

    retrained = retrain(train, rows=400, subsets=60, seeds=3)
    lds(score_QN, retrained)                       # 0.294 [0.250, 0.337] over 60 subsets
    lds_gain(ekfac_QN, identity_QN, retrained)     # paired: what one has over the other

Park et al. 2023 (TRAK, arXiv 2303.14186, section 4.1): Spearman over subsets between the summed
scores of the members and the outcome, mean over queries.
Shapes: N candidate rows, S subsets, Q queries (reference rows, or their mean).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from workbench.core import NumericsError, PolicyError, Progress, RandomStreams, silent
from workbench.influence.agreement import spearman

Train = Callable[[np.ndarray, int], np.ndarray]
"""Given places of the rows to train on, int64, and a seed: losses of the queries, nats, (Q,)."""
DRAWS = 500


@dataclass(frozen=True)
class Retrained:
    """Who was in each subset, bool (S, N), and the queries' losses, mean over seeds, (S, Q)."""

    member_SN: np.ndarray
    loss_SQ: np.ndarray


@dataclass(frozen=True)
class Estimate:
    """A mean over queries with its 95 % bootstrap interval over subsets and queries."""

    value: float
    low: float
    high: float
    subsets: int
    queries: int

    def __str__(self) -> str:
        interval = f"[{self.low:.3f}, {self.high:.3f}]"
        return f"{self.value:.3f} {interval} over {self.subsets} subsets"


def retrain(
    train: Train,
    *,
    rows: int,
    subsets: int = 60,
    seeds: int = 3,
    share: float = 0.5,
    seed: int = 0,
    progress: Progress = silent,
) -> Retrained:
    """Train on random subsets, several times each.

    Args:
        train: a whole training from the start; called subsets × seeds times.
        rows: N; share: part of them that each subset holds.
    Raises:
        PolicyError: fewer than three subsets, or a share that leaves a subset or its rest empty.
        NumericsError: a training that ends with losses that are not finite.
    """
    size = round(share * rows)
    if subsets < 3 or not 0 < size < rows:
        raise PolicyError(
            f"{subsets} subsets of {size} of {rows} rows cannot be ranked",
            remedy="take at least 3 subsets and a share between 0 and 1",
        )
    streams = RandomStreams(seed)
    member_SN = np.zeros((subsets, rows), dtype=bool)
    losses = []
    for subset in range(subsets):
        chosen = np.sort(streams.at("lds", subset).permutation(rows)[:size])
        member_SN[subset, chosen] = True
        found = np.mean([np.asarray(train(chosen, one), float) for one in range(seeds)], axis=0)
        if not np.isfinite(found).all():
            raise NumericsError(
                f"training on subset {subset} ended with losses that are not finite",
                remedy="lower the proxy's learning rate",
            )
        losses.append(np.atleast_1d(found))
        progress({"stage": "retraining", "done": subset + 1, "total": subsets})
    return Retrained(member_SN, np.stack(losses))


def lds(score_QN: np.ndarray, retrained: Retrained, *, seed: int = 0) -> Estimate:
    """Linear datamodeling score.

    Args:
        score_QN: influence scores for each query, higher is more helpful; a single (N,) is held
            against the mean loss of the queries.
    Raises:
        PolicyError: scores of other rows or queries than those retrained.
    """
    return _estimate([_pairs(score_QN, retrained)], [1.0], seed)


def lds_gain(
    score_QN: np.ndarray, other_QN: np.ndarray, retrained: Retrained, *, seed: int = 0
) -> Estimate:
    """How much more the first explains than the second, on the same resampled subsets."""
    pairs = [_pairs(score_QN, retrained), _pairs(other_QN, retrained)]
    return _estimate(pairs, [1.0, -1.0], seed)


Pairs = tuple[np.ndarray, np.ndarray]
"""Predicted and seen decrease of every query's loss, both (S, Q)."""


def _pairs(score_QN: np.ndarray, retrained: Retrained) -> Pairs:
    loss_SQ = retrained.loss_SQ
    if score_QN.ndim == 1:
        score_QN, loss_SQ = score_QN[None], loss_SQ.mean(axis=1, keepdims=True)
    expected = (loss_SQ.shape[1], retrained.member_SN.shape[1])
    if score_QN.shape != expected:
        raise PolicyError(
            f"scores of shape {score_QN.shape} for {expected} queries and rows",
            remedy="score the rows that were retrained on, for each query or for their mean",
        )
    return retrained.member_SN @ score_QN.T.astype(float), -loss_SQ


def _estimate(pairs: list[Pairs], signs: list[float], seed: int) -> Estimate:
    subsets, queries = pairs[0][0].shape
    value = _mean(pairs, signs, np.arange(subsets), np.arange(queries))
    rng = RandomStreams(seed)["lds bootstrap"]
    drawn = [
        _mean(
            pairs, signs, rng.integers(subsets, size=subsets), rng.integers(queries, size=queries)
        )
        for _ in range(DRAWS)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(value, float(low), float(high), subsets, queries)


def _mean(
    pairs: list[Pairs], signs: list[float], subset_S: np.ndarray, query_Q: np.ndarray
) -> float:
    total = 0.0
    for (predicted_SQ, seen_SQ), sign in zip(pairs, signs, strict=True):
        predicted_SQ, seen_SQ = predicted_SQ[subset_S], seen_SQ[subset_S]
        total += sign * np.mean([spearman(predicted_SQ[:, q], seen_SQ[:, q]) for q in query_Q])
    return float(total)

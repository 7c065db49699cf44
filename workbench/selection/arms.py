"""What every cluster still holds: rows to score, rows to give away, and what became of each.

    arms = Arms(cluster_N, tokens_N, clusters=100, rng=rng)
    rows = arms.draw(cluster, 8)               # to be scored; positions in the pool, new each time
    arms.emit(cluster, 32, budget_tokens)      # to be trained on; none twice

Arms run out: an empty, short or exhausted cluster gives what it has, and never blocks.
Shapes: N pool, C clusters, n rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workbench.core import PolicyError


@dataclass(frozen=True)
class Emitted:
    """What one acceptance gave: positions in the pool.

    unscored: how many of them had no score; full: the next row did not fit the budget.
    """

    row_n: np.ndarray
    unscored: int
    full: bool


class Arms:
    """Rows by cluster, in a random order that is drawn once.

    Args:
        cluster_N: cluster of each row, below `clusters`.
        tokens_N: active tokens of each row.
        clusters: C, clusters without rows included.
        held_N: rows that may be scored and given; None for all.
        rng: decides the order in which a cluster's rows are taken.
    Raises:
        PolicyError: a row with a cluster outside 0 … C - 1.
    """

    def __init__(
        self,
        cluster_N: np.ndarray,
        tokens_N: np.ndarray,
        *,
        clusters: int,
        held_N: np.ndarray | None = None,
        rng: np.random.Generator,
    ):
        if len(cluster_N) and not 0 <= cluster_N.min() <= cluster_N.max() < clusters:
            raise PolicyError(
                f"clusters from {cluster_N.min()} to {cluster_N.max()} where there are {clusters}",
                remedy="number the clusters from 0 to C - 1",
            )
        self.cluster_N, self.tokens_N = np.asarray(cluster_N), np.asarray(tokens_N, np.int64)
        self.scored_N = np.zeros(len(cluster_N), dtype=bool)
        self.accepted_N = np.zeros(len(cluster_N), dtype=bool)
        held_n = np.arange(len(cluster_N)) if held_N is None else np.flatnonzero(held_N)
        held_n = rng.permutation(held_n)
        held_n = held_n[np.argsort(self.cluster_N[held_n], kind="stable")]
        edges = np.searchsorted(self.cluster_N[held_n], np.arange(1, clusters))
        self._rows_C = np.split(held_n, edges)
        self.rows_C = np.array([len(rows) for rows in self._rows_C], dtype=np.int64)
        """Rows of each cluster that there were to be had at the beginning."""
        self.unscored_C = self.rows_C.copy()
        """Rows of each cluster that `draw` can still give."""
        self.tokens_C = np.array([self.tokens_N[rows].sum() for rows in self._rows_C], np.int64)
        """Tokens of each cluster that `emit` can still give."""

    def draw(self, cluster: int, rows: int) -> np.ndarray:
        """At most `rows` rows of a cluster that were neither scored nor given away; int64 (n,)."""
        left_n = self._left(cluster)
        chosen_n = left_n[~self.scored_N[left_n]][:rows]
        self.scored_N[chosen_n] = True
        self.unscored_C[cluster] -= len(chosen_n)
        return chosen_n

    def emit(self, cluster: int, rows: int, budget_tokens: int) -> Emitted:
        """At most `rows` rows of a cluster within a budget, scored ones first; none twice.

        What this returns is what is accepted: there is no second list.
        """
        left_n = self._left(cluster)
        scored_n = self.scored_N[left_n]
        row_n = np.concatenate([left_n[scored_n], left_n[~scored_n]])[:rows]
        fits = int(np.searchsorted(np.cumsum(self.tokens_N[row_n]), budget_tokens, side="right"))
        full, row_n = fits < len(row_n), row_n[:fits]
        unscored = int((~self.scored_N[row_n]).sum())
        self.accepted_N[row_n] = True
        self.unscored_C[cluster] -= unscored
        self.tokens_C[cluster] -= int(self.tokens_N[row_n].sum())
        return Emitted(row_n, unscored, full)

    def accepted_C(self) -> np.ndarray:
        """Accepted rows of each cluster, int64 (C,)."""
        return np.bincount(self.cluster_N[self.accepted_N], minlength=len(self.rows_C))

    def _left(self, cluster: int) -> np.ndarray:
        row_n = self._rows_C[cluster]
        return row_n[~self.accepted_N[row_n]]

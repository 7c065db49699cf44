"""What every cluster still holds: rows to score, rows to give away, and what became of each.

    arms = Arms(cluster_N, tokens_N, group_N, rng=rng)
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

    unscored: how many of `row_n` and of the near-duplicates left out had no score.
    full: the next row did not fit the budget.
    """

    row_n: np.ndarray
    unscored: int
    full: bool


class Arms:
    """Rows by cluster in a random order that is drawn once.

    Args:
        cluster_N: cluster of each row, below `clusters`.
        tokens_N: active tokens of each row.
        group_N: near-duplicate group of each row; None when nothing is known of duplicates.
        clusters: C, clusters without rows included.
        copies: rows of one group that may be accepted; None for any number.
        rng: decides the order in which a cluster's rows are taken.
    Raises:
        PolicyError: a row with a cluster outside 0 … C - 1.
    """

    def __init__(
        self,
        cluster_N: np.ndarray,
        tokens_N: np.ndarray,
        group_N: np.ndarray | None = None,
        *,
        clusters: int,
        copies: int | None = 1,
        rng: np.random.Generator,
    ):
        if len(cluster_N) and not 0 <= cluster_N.min() <= cluster_N.max() < clusters:
            raise PolicyError(
                f"clusters from {cluster_N.min()} to {cluster_N.max()} where there are {clusters}",
                remedy="number the clusters from 0 to C - 1",
            )
        self.tokens_N = np.asarray(tokens_N, dtype=np.int64)
        self.scored_N = np.zeros(len(cluster_N), dtype=bool)
        self.accepted_N = np.zeros(len(cluster_N), dtype=bool)
        self.left_out_N = np.zeros(len(cluster_N), dtype=bool)
        self._cluster_N = np.asarray(cluster_N)
        self._group_N, self._copies = group_N, copies
        self._taken: dict[int, int] = {}
        shuffled = rng.permutation(len(cluster_N))
        shuffled = shuffled[np.argsort(self._cluster_N[shuffled], kind="stable")]
        edges = np.searchsorted(self._cluster_N[shuffled], np.arange(1, clusters))
        self._rows_C = np.split(shuffled, edges)
        self._unscored_C = self.rows_C.copy()
        self._tokens_C = self._total_C(self.tokens_N)

    @property
    def rows_C(self) -> np.ndarray:
        """Rows of each cluster at the beginning, int64 (C,)."""
        return np.array([len(rows) for rows in self._rows_C], dtype=np.int64)

    @property
    def accepted_C(self) -> np.ndarray:
        """Accepted rows of each cluster, int64 (C,)."""
        return self._total_C(self.accepted_N)

    @property
    def unscored_C(self) -> np.ndarray:
        """Rows of each cluster that `draw` can still give, int64 (C,)."""
        return self._unscored_C

    @property
    def tokens_C(self) -> np.ndarray:
        """Tokens of each cluster that `emit` can still give, int64 (C,)."""
        return self._tokens_C

    def draw(self, cluster: int, rows: int) -> np.ndarray:
        """At most `rows` rows of a cluster that were neither scored nor given away; int64 (n,)."""
        chosen_n = self._left(cluster, scored=False)[:rows]
        self.scored_N[chosen_n] = True
        self._unscored_C[cluster] -= len(chosen_n)
        return chosen_n

    def emit(self, cluster: int, rows: int, budget_tokens: int) -> Emitted:
        """At most `rows` rows of a cluster within a budget, scored ones first; none twice.

        What this returns is what is accepted: there is no second list.  A row whose group has
        had its `copies` is left out for good.
        """
        accepted, left_out, full = [], [], False
        for row in self._left(cluster).tolist():
            if len(accepted) == rows:
                break
            if self._is_copy(row):
                left_out.append(row)
                continue
            budget_tokens -= int(self.tokens_N[row])
            if budget_tokens < 0:
                full = True
                break
            self._count_copy(row)
            accepted.append(row)
        self.accepted_N[accepted] = True
        self.left_out_N[left_out] = True
        gone_n = np.array(accepted + left_out, dtype=np.int64)
        unscored = int((~self.scored_N[gone_n]).sum())
        self._unscored_C[cluster] -= unscored
        self._tokens_C[cluster] -= int(self.tokens_N[gone_n].sum())
        return Emitted(gone_n[: len(accepted)], unscored, full)

    def _left(self, cluster: int, *, scored: bool | None = None) -> np.ndarray:
        """Rows of a cluster that are still to be had: scored ones first, or only (un)scored."""
        row_n = self._rows_C[cluster]
        row_n = row_n[~(self.accepted_N[row_n] | self.left_out_N[row_n])]
        was_n = self.scored_N[row_n]
        if scored is None:
            return np.concatenate([row_n[was_n], row_n[~was_n]])
        return row_n[was_n == scored]

    def _is_copy(self, row: int) -> bool:
        if self._group_N is None or self._copies is None:
            return False
        return self._taken.get(int(self._group_N[row]), 0) >= self._copies

    def _count_copy(self, row: int) -> None:
        if self._group_N is not None:
            group = int(self._group_N[row])
            self._taken[group] = self._taken.get(group, 0) + 1

    def _total_C(self, values_N: np.ndarray) -> np.ndarray:
        totals_C = np.bincount(self._cluster_N, values_N, minlength=len(self._rows_C))
        return totals_C.astype(np.int64)

"""Groups of rows with nearly the same text, and a cap of one chosen row for each.

    group_N = near_duplicates(task.source, pool.sample_id_N)
    cap = DuplicateCap(task); order_n = cap.admit(pool, order_N); cap.take(pool, order_n[:10])

The MinHash of `data.duplicates`, row by row: a copy that is packed at another place of its row
shares only the words that both rows hold.  Shapes: N rows of the pool, H hashes, b bands,
P pairs of rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from workbench.core import ConfigError, Pool, Progress, SampleSource, SelectionTask, silent
from workbench.data.duplicates import BANDS, ROWS_PER_BAND, band_hashes, minhash
from workbench.selection.first_pool import FirstPool
from workbench.selection.row_values import cache_folder, row_values

SIMILARITY = 0.8
_CHUNK_PAIRS = 65_536


def near_duplicates(
    source: SampleSource,
    sample_id_N: np.ndarray,
    *,
    similarity: float = SIMILARITY,
    cache_dir: Path | None = None,
    progress: Progress = silent,
) -> np.ndarray:
    """Group of each row, int32 (N,): rows of a group are linked by near-duplicate pairs.

    Groups are numbered by their first row.  Rows that share a band are compared, each with the
    first and the one before it of its bucket, and linked when the estimated Jaccard similarity of
    their shingles is at least `similarity`.  Takes 448 bytes a row.

    Raises:
        ConfigError: `similarity` outside (0, 1].  DataError: no rows.
    """
    if not 0 < similarity <= 1:
        raise ConfigError(f"similarity = {similarity}", remedy="set it in (0, 1]")

    def signatures(sample_id_B: np.ndarray) -> np.ndarray:
        return np.stack([minhash(source.text(int(each))) for each in sample_id_B])

    settings = {"minhash": 1, "bands": BANDS, "rows_per_band": ROWS_PER_BAND}
    signature_NH = row_values(
        signatures,
        sample_id_N,
        folder=cache_folder(cache_dir, "minhash", source.content_hash, settings),
        progress=progress,
        stage="near-duplicates",
    )
    return _groups(signature_NH, similarity)


def _groups(signature_NH: np.ndarray, similarity: float) -> np.ndarray:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows = len(signature_NH)
    band_Nb = band_hashes(signature_NH)
    linked = [_linked(signature_NH, band_N, similarity) for band_N in band_Nb.T]
    left, right = (np.concatenate(side) for side in zip(*linked, strict=True))
    graph = coo_array((np.ones(len(left), dtype=bool), (left, right)), shape=(rows, rows))
    _, label_N = connected_components(graph, directed=False)
    _, first, inverse_N = np.unique(label_N, return_index=True, return_inverse=True)
    # Position of each label's first row among all first rows.
    return np.argsort(np.argsort(first)).astype(np.int32)[inverse_N]


def _linked(
    signature_NH: np.ndarray, band_N: np.ndarray, similarity: float
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of rows of equal band that are similar enough, as two arrays of places."""
    order_N = np.argsort(band_N, kind="stable")
    _, start, size = np.unique(band_N[order_N], return_index=True, return_counts=True)
    first_N = np.repeat(order_N[start], size)
    previous_N = np.concatenate([order_N[:1], order_N[:-1]])
    later_N = np.ones(len(order_N), dtype=bool)
    later_N[start] = False
    left = np.concatenate([first_N[later_N], previous_N[later_N]])
    right = np.tile(order_N[later_N], 2)
    similarity_P = np.empty(len(left))
    for i in range(0, len(left), _CHUNK_PAIRS):
        pairs = slice(i, i + _CHUNK_PAIRS)
        similarity_P[pairs] = (signature_NH[left[pairs]] == signature_NH[right[pairs]]).mean(axis=1)
    kept = similarity_P >= similarity
    return left[kept], right[kept]


class DuplicateCap:
    """Lets one row of every near-duplicate group be chosen, over all choices of a run.

    State fields: the first pool's ids, its groups, and which groups are used up.
    """

    def __init__(self, task: SelectionTask, *, similarity: float = SIMILARITY):
        self._task, self._similarity = task, similarity
        self._first = FirstPool()
        self._group_N = np.empty(0, dtype=np.int32)
        self._used_G = np.empty(0, dtype=bool)

    def admit(self, pool: Pool, order_N: np.ndarray) -> np.ndarray:
        """The places of `order_N`, in order, less those of a group met earlier or used up."""
        group_n = self._groups(pool)[order_N]
        _, first = np.unique(group_n, return_index=True)
        first = np.sort(first)
        return order_N[first[~self._used_G[group_n[first]]]]

    def take(self, pool: Pool, chosen_n: np.ndarray) -> None:
        """Use up the groups of the chosen places."""
        self._used_G[self._groups(pool)[chosen_n]] = True

    def _groups(self, pool: Pool) -> np.ndarray:
        if not self._first:
            task = self._task
            self._group_N = near_duplicates(
                task.source,
                pool.sample_id_N,
                similarity=self._similarity,
                cache_dir=task.cache_dir,
                progress=task.progress,
            )
            self._first = FirstPool(pool.sample_id_N)
            self._used_G = np.zeros(self._group_N.max() + 1, dtype=bool)
        return self._group_N[self._first.places(pool.sample_id_N)]

    def state_dict(self) -> dict[str, Any]:
        import torch

        return {
            "first": self._first.state_dict(),
            "group": torch.from_numpy(self._group_N.copy()),
            "used": torch.from_numpy(self._used_G.copy()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._first.load_state_dict(state["first"])
        self._group_N = state["group"].numpy().copy()
        self._used_G = state["used"].numpy().copy()

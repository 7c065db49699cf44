"""Clusters of rows: spherical k-means with stable ids, and which clusters lie close together.

    clusters = cluster(embedding_ND, clusters=100, seed=0)
    clusters.label_N, clusters.rows_C, clusters.neighbours(0.2)

Distances are cosine distances, 1 - cos, in [0, 2].  Shapes: N rows, D width, C clusters.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from workbench.core import ConfigError, DataError, stream_seed, unknown_name
from workbench.selection.options import require_number

CHUNK_ROWS = 16_384
"""Rows assigned at a time: 64 MiB of similarities for 1000 clusters."""


@dataclass(frozen=True)
class Clusters:
    """Rows in C clusters, none of them empty.

    label_N: int32, in [0, C); centre_CD: float32, unit length; distance_N: float32, from each row
    to its own centre.  asked: clusters asked for; those that ended without rows are left out.
    """

    label_N: np.ndarray
    centre_CD: np.ndarray
    distance_N: np.ndarray
    asked: int

    def __len__(self) -> int:
        return len(self.centre_CD)

    @cached_property
    def rows_C(self) -> np.ndarray:
        """Rows of each cluster, int64."""
        return np.bincount(self.label_N, minlength=len(self))

    def members(self) -> list[np.ndarray]:
        """For each cluster its rows, as ascending places in [0, N)."""
        order_N = np.argsort(self.label_N, kind="stable")
        return np.split(order_N, np.cumsum(self.rows_C)[:-1])

    def neighbours(self, distance: float) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each cluster the others whose centres are nearer than d0 = `distance`.

        Returns:
            (ids int32, weights float64 = 1 - d / d0 in (0, 1]) by cluster, ids ascending.
        """
        if not distance > 0:
            raise ConfigError(f"neighbour distance = {distance}", remedy="set it above 0")
        return [
            neighbour
            for first in range(0, len(self), CHUNK_ROWS)
            for neighbour in self._near(first, distance)
        ]

    def _near(self, first: int, distance: float) -> list[tuple[np.ndarray, np.ndarray]]:
        some_cD = self.centre_CD[first : first + CHUNK_ROWS]
        distance_cC = np.clip(1 - some_cD @ self.centre_CD.T, 0, 2).astype(np.float64)
        distance_cC[np.arange(len(some_cD)), first + np.arange(len(some_cD))] = np.inf
        found = []
        for row_C in distance_cC:
            ids = np.flatnonzero(row_C < distance).astype(np.int32)
            found.append((ids, 1 - row_C[ids] / distance))
        return found


def default_clusters(rows: int) -> int:
    """Clusters of a pool when nobody says: the square root of its rows, at least 1."""
    return max(1, math.isqrt(rows))


def cluster(
    embedding_ND: np.ndarray, *, clusters: int, backend: str = "minibatch", seed: int = 0
) -> Clusters:
    """Spherical k-means: centres of unit length, each row with the centre of largest cosine.

    The backend finds centres; normalising them and the final assignment are the same for all.  A
    centre that no row is nearest to is left out, so there may be fewer clusters than asked for.
    Clusters are numbered by their first row: row 0 is in cluster 0, and the order in which
    threads finish changes no number.

    Args:
        embedding_ND: float32, rows of unit length, or zero: those alone are one cluster.
        backend: `minibatch` (scikit-learn) or `faiss` (an extra).
    Raises:
        ConfigError: unknown or missing backend, fewer than 1 cluster.
        DataError: fewer rows than clusters, or vectors that are not finite.
    """
    _require(embedding_ND, clusters, backend)
    centre_CD = BACKENDS[backend](embedding_ND, clusters, stream_seed(seed, "clusters") % 2**31)
    length_C = np.linalg.norm(centre_CD, axis=1)
    if length_C.any():
        centre_CD, length_C = centre_CD[length_C > 0], length_C[length_C > 0]
    centre_CD = centre_CD / np.where(length_C > 0, length_C, 1)[:, None]
    label_N, distance_N = _assign(embedding_ND, centre_CD.astype(np.float32))
    found, first_C, label_N = np.unique(label_N, return_index=True, return_inverse=True)
    order_C = np.argsort(first_C)
    number_C = np.empty(len(found), dtype=np.int32)
    number_C[order_C] = np.arange(len(found), dtype=np.int32)
    centre_CD = centre_CD[found[order_C]].astype(np.float32)
    return Clusters(number_C[label_N], centre_CD, distance_N, clusters)


def require_backend(backend: str) -> None:
    """ConfigError for what is not one of `BACKENDS`."""
    if backend not in BACKENDS:
        problem, remedy = unknown_name("clustering backend", backend, BACKENDS)
        raise ConfigError(problem, remedy=remedy)


def _require(embedding_ND: np.ndarray, clusters: int, backend: str) -> None:
    require_backend(backend)
    require_number("clusters", clusters, least=1, whole=True)
    if len(embedding_ND) < clusters:
        raise DataError(
            f"{clusters} clusters of {len(embedding_ND)} rows",
            remedy=f"set clusters to at most {len(embedding_ND)}",
        )
    if not np.isfinite(embedding_ND).all():
        raise DataError(
            "embeddings are not finite", remedy="choose another embedder or another model"
        )


def _assign(embedding_ND: np.ndarray, centre_CD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    label_N = np.empty(len(embedding_ND), dtype=np.int32)
    distance_N = np.empty(len(embedding_ND), dtype=np.float32)
    for first in range(0, len(embedding_ND), CHUNK_ROWS):
        rows = slice(first, first + CHUNK_ROWS)
        cosine = embedding_ND[rows] @ centre_CD.T
        label_N[rows] = cosine.argmax(axis=1)
        distance_N[rows] = np.clip(1 - cosine.max(axis=1), 0, 2)
    return label_N, distance_N


def _minibatch(embedding_ND: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    from sklearn.cluster import MiniBatchKMeans

    # The stubs know n_init as text only.
    means = MiniBatchKMeans(clusters, batch_size=4096, n_init=1, random_state=seed)  # pyright: ignore
    return np.asarray(means.fit(embedding_ND).cluster_centers_)


def _faiss(embedding_ND: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    try:
        import faiss  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ConfigError(
            "clustering backend 'faiss' needs the package faiss-cpu",
            remedy="pip install 'workbench[cluster]', or use backend='minibatch'",
        ) from None
    # faiss warns below 39 rows a cluster; here small pools are ordinary.
    means = faiss.Kmeans(
        embedding_ND.shape[1],
        clusters,
        niter=20,
        spherical=True,
        seed=seed,
        min_points_per_centroid=1,
    )
    means.train(np.ascontiguousarray(embedding_ND, dtype=np.float32))
    return np.asarray(means.centroids)


BACKENDS: dict[str, Callable[[np.ndarray, int, int], np.ndarray]] = {
    "minibatch": _minibatch,
    "faiss": _faiss,
}

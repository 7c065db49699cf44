"""The pool in clusters: embedded and clustered once, looked up in every later choice.

    clustered = ClusteredPool(task, clusters=100)
    clusters = clustered.see(pool, model); clustered.labels(pool); clustered.map(pool)

Shapes: N rows of a pool, D width of the embeddings, C clusters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from workbench.core import ConfigError, Pool, SelectionTask
from workbench.selection.clustering import Clusters, cluster, default_clusters, require_backend
from workbench.selection.embedders import EMBEDDERS, embed
from workbench.selection.first_pool import FirstPool
from workbench.selection.options import require_number
from workbench.selection.projection import project, require_method


class ClusteredPool:
    """Clusters and map of the first pool seen.

    State fields: the first pool's ids, labels, distances and map, the centres, and how many
    clusters were asked for.

    Args:
        clusters: None for `default_clusters`.
        embedder: a name of `EMBEDDERS`, or a mapping of `name` and its options.
        backend: `minibatch` or `faiss`.
        projection: `pca` or `umap`, for the map.
    Raises:
        ConfigError: an unknown name or option, or no number of clusters.
    """

    def __init__(
        self,
        task: SelectionTask,
        *,
        clusters: int | None = None,
        embedder: str | Mapping[str, Any] = "tfidf",
        backend: str = "minibatch",
        projection: str = "pca",
    ):
        named = _named(embedder)
        if clusters is not None:
            require_number("clusters", clusters, least=1, whole=True)
        require_backend(backend)
        require_method(projection)
        self._task, self._asked = task, clusters
        self._embedder, self._options = named.pop("name"), named
        EMBEDDERS.check(self._embedder, self._options)
        self._backend, self._projection = backend, projection
        self._first = FirstPool()
        self._clusters: Clusters | None = None
        self._map_N2 = np.empty((0, 2), dtype=np.float32)

    @property
    def runs_a_model(self) -> bool:
        """Whether the embedder does; one that does not say so is taken to."""
        return getattr(EMBEDDERS.get(self._embedder), "runs_a_model", True)

    def see(self, pool: Pool, model: Any = None) -> Clusters:
        """The clusters; made from this pool if it is the first."""
        if self._clusters is None:
            task = self._task
            embedding_ND = embed(
                task, pool.sample_id_N, model, embedder=self._embedder, **self._options
            )
            task.progress({"stage": "clustering", "done": 0, "total": len(pool)})
            asked = default_clusters(len(pool)) if self._asked is None else self._asked
            self._clusters = cluster(
                embedding_ND, clusters=asked, backend=self._backend, seed=task.seed
            )
            self._map_N2 = project(
                embedding_ND, method=self._projection, cache_dir=task.cache_dir, seed=task.seed
            )
            task.progress({"stage": "clustering", "done": len(pool), "total": len(pool)})
            self._first = FirstPool(pool.sample_id_N)
        return self._clusters

    def labels(self, pool: Pool) -> np.ndarray:
        """Cluster of each row of a pool, int32 (N,); after `see`."""
        assert self._clusters is not None
        return self._clusters.label_N[self._first.places(pool.sample_id_N)]

    def map(self, pool: Pool) -> np.ndarray:
        """Place of each row on the map, float32 (N, 2); after `see`."""
        return self._map_N2[self._first.places(pool.sample_id_N)]

    def state_dict(self) -> dict[str, Any]:
        import torch

        if self._clusters is None:
            return {}
        arrays = {
            "label": self._clusters.label_N,
            "distance": self._clusters.distance_N,
            "centre": self._clusters.centre_CD,
            "map": self._map_N2,
        }
        tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
        return {"asked": self._clusters.asked, "first": self._first.state_dict(), **tensors}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._clusters, self._first = None, FirstPool()
        if state:
            label_N, distance_N, centre_CD, self._map_N2 = (
                state[name].numpy().copy() for name in ("label", "distance", "centre", "map")
            )
            self._clusters = Clusters(label_N, centre_CD, distance_N, state["asked"])
            self._first.load_state_dict(state["first"])


def _named(embedder: str | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(embedder, str):
        return {"name": embedder}
    if not isinstance(embedder, Mapping) or not isinstance(embedder.get("name"), str):
        raise ConfigError(
            f"embedder = {embedder!r}",
            remedy='give a name such as "tfidf", or {"name": "tfidf", "width": 64}',
        )
    return dict(embedder)

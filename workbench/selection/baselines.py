"""What Quad has to beat: random rows, rows by the model's loss, equal tokens of every cluster.

    SELECTORS.build("perplexity", task, band="middle").select(pool, budget, model)

Shapes: N rows of the pool, n of them, C clusters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from workbench.core import SELECTORS, ConfigError, NumericsError, Pool, SelectionTask, unknown_name
from workbench.selection.clustered_pool import ClusteredPool
from workbench.selection.ordered import Judged, OrderedSelector

BANDS = ("low", "middle", "high")


@SELECTORS.register("random")
class Random(OrderedSelector):
    """Rows drawn evenly from the pool.  Options and state: see `OrderedSelector`."""

    judges_with_model = False

    def __init__(self, task: SelectionTask, *, deduplicate: bool = False):
        super().__init__(task, deduplicate=deduplicate)

    def judge(self, pool: Pool, open_n: np.ndarray, model: Any, rng: np.random.Generator) -> Judged:
        return Judged(rng.permutation(open_n), "random")


@SELECTORS.register("perplexity")
class Perplexity(OrderedSelector):
    """Rows by the model's own loss on them.

    After Marion et al. 2023 ("When Less is More", arXiv 2309.04564), who find the middle best.
    State: see `OrderedSelector`.

    Args:
        band: `low` and `high` take from that end, `middle` from the median outwards.
        deduplicate: see `OrderedSelector`.
    """

    def __init__(self, task: SelectionTask, *, band: str = "middle", deduplicate: bool = False):
        if band not in BANDS:
            problem, remedy = unknown_name("band", band, BANDS)
            raise ConfigError(problem, remedy=remedy)
        super().__init__(task, deduplicate=deduplicate)
        self._band = band

    def judge(self, pool: Pool, open_n: np.ndarray, model: Any, rng: np.random.Generator) -> Judged:
        loss_n = row_losses(self.task, pool.sample_id_N[open_n], model)
        order_n = np.argsort(loss_n, kind="stable")
        if self._band == "high":
            order_n = order_n[::-1]
        if self._band == "middle":
            order_n = order_n[np.argsort(np.abs(np.arange(len(open_n)) - (len(open_n) - 1) / 2))]
        loss_N = np.full(len(pool), np.nan, dtype=np.float32)
        loss_N[open_n] = loss_n
        quartiles = np.quantile(loss_n, [0.25, 0.5, 0.75]).tolist()
        return Judged(
            open_n[order_n],
            f"{self._band} loss",
            columns={"loss": loss_N},
            facts=dict(zip(("loss_25", "loss_50", "loss_75"), quartiles, strict=True)),
        )


@SELECTORS.register("cluster_uniform")
class ClusterUniform(OrderedSelector):
    """The same number of tokens from every cluster, rows of a cluster at random.

    A cluster with too few rows gives all of them, and the others share the rest.
    State fields: those of `OrderedSelector`, and the clusters of the first pool.

    Args:
        clusters, embedder, backend, projection: see `ClusteredPool`.
        deduplicate: see `OrderedSelector`.
    """

    def __init__(
        self,
        task: SelectionTask,
        *,
        clusters: int | None = None,
        embedder: str | Mapping[str, Any] = "tfidf",
        backend: str = "minibatch",
        projection: str = "pca",
        deduplicate: bool = False,
    ):
        super().__init__(task, deduplicate=deduplicate)
        self._clustered = ClusteredPool(
            task, clusters=clusters, embedder=embedder, backend=backend, projection=projection
        )

    @property
    def judges_with_model(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the embedder is a model."""
        return self._clustered.runs_a_model

    def judge(self, pool: Pool, open_n: np.ndarray, model: Any, rng: np.random.Generator) -> Judged:
        clusters = self._clustered.see(pool, model)
        label_N, map_N2 = self._clustered.labels(pool), self._clustered.map(pool)
        return Judged(
            open_n[_in_turns(label_N[open_n], pool.tokens_N[open_n], rng)],
            "cluster in turn",
            cluster_N=label_N,
            columns={"x": map_N2[:, 0], "y": map_N2[:, 1]},
            facts={"clusters": len(clusters), "clusters_with_rows": len(np.unique(label_N))},
        )

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "clustered": self._clustered.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._clustered.load_state_dict(state["clustered"])


def _in_turns(label_N: np.ndarray, tokens_N: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Order in which every cluster has given as many tokens as the others, to within a row."""
    shuffled_N = rng.permutation(len(label_N))
    by_cluster_N = shuffled_N[np.argsort(label_N[shuffled_N], kind="stable")]
    before_N = np.cumsum(tokens_N[by_cluster_N]) - tokens_N[by_cluster_N]
    _, start, size = np.unique(label_N[by_cluster_N], return_index=True, return_counts=True)
    within_N = before_N - np.repeat(before_N[start], size)
    # Equal places are drawn by lot, so that the last turn favours no cluster.
    return by_cluster_N[np.lexsort((rng.random(len(label_N)), within_N))]


def row_losses(task: SelectionTask, sample_id_N: np.ndarray, model: Any) -> np.ndarray:
    """Loss of each row in nats per token, float32 (N,); the model is left as it is.

    Raises:
        NumericsError: a loss that is not finite.
    """
    import torch

    loss_N = np.empty(len(sample_id_N), dtype=np.float32)
    was_training = model.training
    model.eval()
    try:
        for first in range(0, len(sample_id_N), task.batch_rows):
            rows = slice(first, first + task.batch_rows)
            tokens = torch.as_tensor(task.source.tokens(sample_id_N[rows])).to(task.device)
            with torch.inference_mode():
                loss_N[rows] = model(tokens[:, :-1], tokens[:, 1:]).float().cpu().numpy()
            done = min(first + task.batch_rows, len(sample_id_N))
            task.progress({"stage": "row losses", "done": done, "total": len(sample_id_N)})
    finally:
        model.train(was_training)
    broken = ~np.isfinite(loss_N)
    if broken.any():
        raise NumericsError(
            f"{broken.sum()} of {len(loss_N)} rows have a loss that is not finite, such as sample "
            f"{int(sample_id_N[np.argmax(broken)])}",
            remedy="judge with an earlier checkpoint, or lower peak_lr",
        )
    return loss_N

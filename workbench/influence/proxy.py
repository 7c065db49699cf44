"""A decoder so small that it can be trained again for every question, and its LDS.

    proxy = Proxy(vocab_size=64, context_tokens=12)
    model = proxy.trained(rows_NT, seed=0)
    compare_lds(proxy, rows_NT, query_QT, subsets=30).estimates["ekfac"]

Shapes: N candidate rows, T tokens, Q queries (held-out rows), S subsets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from workbench.config import ModelConfig
from workbench.core import DataError, Progress, RandomStreams, silent
from workbench.influence.direction import Direction, reference_gradient
from workbench.influence.factors import fit_factors
from workbench.influence.lds import Estimate, lds, lds_gain, retrain
from workbench.influence.preconditioners import preconditioner
from workbench.influence.scores import score_rows
from workbench.models import Decoder, build_model
from workbench.models.linear_maps import linear_maps


@dataclass(frozen=True)
class Proxy:
    """Shape and training of a decoder; AdamW at a constant rate, rows drawn with replacement."""

    vocab_size: int
    context_tokens: int
    width: int = 32
    layers: int = 2
    heads: int = 2
    steps: int = 60
    batch_rows: int = 32
    learning_rate: float = 1e-2

    def trained(self, rows_NT: np.ndarray, *, seed: int = 0) -> Decoder:
        """From the seed's initial weights, on rows int64 (N, T + 1).

        Raises:
            DataError: no rows.
        """
        if not len(rows_NT):
            raise DataError("there are no rows to train a proxy on", remedy="give at least one")
        model = self._fresh(seed)
        optimizer = torch.optim.AdamW(model.parameters(), lr=self.learning_rate)
        rng = RandomStreams(seed)["proxy rows"]
        for _ in range(self.steps):
            part = torch.from_numpy(rows_NT[rng.integers(len(rows_NT), size=self.batch_rows)])
            optimizer.zero_grad(set_to_none=True)
            model(part[:, :-1], part[:, 1:]).mean().backward()
            optimizer.step()
        model.zero_grad(set_to_none=True)
        return model

    def _fresh(self, seed: int) -> Decoder:
        shape = {
            "num_hidden_layers": self.layers,
            "hidden_size": self.width,
            "intermediate_size": 3 * self.width // 2,
            "num_attention_heads": self.heads,
        }
        config = ModelConfig(name="tiny", overrides=shape)
        return build_model(
            config, vocab_size=self.vocab_size, context_tokens=self.context_tokens, seed=seed
        )


@dataclass(frozen=True)
class LdsComparison:
    """LDS by preconditioner, of random scores too, and what EK-FAC has over identity, paired."""

    estimates: dict[str, Estimate]
    gain: Estimate


def compare_lds(
    proxy: Proxy,
    rows_NT: np.ndarray,
    query_QT: np.ndarray,
    *,
    subsets: int = 30,
    seeds: int = 1,
    models: int = 1,
    damping: float = 0.1,
    seed: int = 0,
    progress: Progress = silent,
) -> LdsComparison:
    """Retrain the proxy on random halves of the rows, and let scores predict each query's loss.

    Args:
        models: scores are the mean over proxies of so many seeds, each trained on all rows.
        subsets, seeds: trainings, as in `lds.retrain`.
    Raises:
        PolicyError: too few subsets to rank.
    """

    def losses(chosen: np.ndarray, one: int) -> np.ndarray:
        model, queries = proxy.trained(rows_NT[chosen], seed=one), torch.from_numpy(query_QT)
        with torch.no_grad():
            return model(queries[:, :-1], queries[:, 1:]).numpy()

    retrained = retrain(
        losses, rows=len(rows_NT), subsets=subsets, seeds=seeds, seed=seed, progress=progress
    )
    found = [
        _query_scores(proxy.trained(rows_NT, seed=one), rows_NT, query_QT, damping)
        for one in range(models)
    ]
    scores = {name: np.mean([each[name] for each in found], axis=0) for name in found[0]}
    shape = (len(query_QT), len(rows_NT))
    scores["random"] = RandomStreams(seed)["random scores"].normal(size=shape)
    estimates = {name: lds(score_QN, retrained) for name, score_QN in scores.items()}
    return LdsComparison(estimates, lds_gain(scores["ekfac"], scores["identity"], retrained))


def _query_scores(
    model: Decoder, rows_NT: np.ndarray, query_QT: np.ndarray, damping: float
) -> dict[str, np.ndarray]:
    """Scores of all rows for each query, (Q, N), by preconditioner."""
    maps = linear_maps(model)
    factors = fit_factors(model, [rows_NT], maps, kind="ekfac", labels="data")
    gradients = [reference_gradient(model, query_T[None], maps) for query_T in query_QT]
    scores = {}
    for name in ("identity", "kfac", "ekfac"):
        precondition = preconditioner(name, factors, damping=damping)
        directions = [Direction(precondition.apply(gradient)) for gradient in gradients]
        scores[name] = np.stack(
            [score_rows(model, rows_NT, d, batch_rows=len(rows_NT)).score_N for d in directions]
        )
    return scores

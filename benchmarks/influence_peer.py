"""kronfluence (Grosse et al. 2023) on a decoder of ours, for side-by-side runs.

    peer = Peer(model, maps, folder, batch_rows=16)
    peer.fit("ekfac", rows_NT); peer.score("ekfac", reference_MT, rows_NT)      # float (N,)

Equal settings: the data's labels, relative damping of 0.1, float32, one aggregated query.
"""

# pyright: reportMissingImports=false
# Only the extra `bench` has it, and types are checked without.

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kronfluence.analyzer import Analyzer, prepare_model
from kronfluence.arguments import FactorArguments, ScoreArguments
from kronfluence.task import Task
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from workbench.models import Decoder
from workbench.models.linear_maps import LinearMaps


class SumOfTokenLosses(Task):
    """The training loss its documentation asks for: summed over rows and tokens."""

    def __init__(self, names: list[str]):
        super().__init__()
        self._names = names

    def compute_train_loss(self, batch: Any, model: nn.Module, sample: bool = False) -> Tensor:
        if sample:
            raise NotImplementedError("labels are those of the data")
        rows_BT1 = batch[0]
        return model(rows_BT1[:, :-1], rows_BT1[:, 1:]).sum() * (rows_BT1.shape[1] - 1)

    def compute_measurement(self, batch: Any, model: nn.Module) -> Tensor:
        return self.compute_train_loss(batch, model)

    def get_influence_tracked_modules(self) -> list[str]:
        return self._names


class Peer:
    """Factors and scores of kronfluence; the model given is copied."""

    def __init__(self, model: Decoder, maps: LinearMaps, folder: Path, *, batch_rows: int):
        task = SumOfTokenLosses(list(maps.names))
        wrapped = prepare_model(copy.deepcopy(model), task)
        self._batch_rows = batch_rows
        self._analyzer = Analyzer(
            "peer",
            wrapped,
            task,
            cpu=not torch.cuda.is_available(),
            log_level=logging.ERROR,
            disable_tqdm=True,
            output_dir=str(folder),
        )

    def fit(self, strategy: str, rows_NT: np.ndarray) -> None:
        """Factors by "identity", "kfac" or "ekfac", replacing earlier ones."""
        self._analyzer.fit_all_factors(
            strategy,
            _dataset(rows_NT),
            per_device_batch_size=self._batch_rows,
            factor_args=FactorArguments(strategy=strategy, use_empirical_fisher=True),
            overwrite_output_dir=True,
        )

    def score(self, strategy: str, reference_MT: np.ndarray, rows_NT: np.ndarray) -> np.ndarray:
        """Scores of the rows against the summed gradient of the reference rows."""
        # Its damping of None is 0.1 times the mean eigenvalue, as ours.
        options = ScoreArguments(damping_factor=None, aggregate_query_gradients=True)
        self._analyzer.compute_pairwise_scores(
            strategy,
            strategy,
            _dataset(reference_MT),
            _dataset(rows_NT),
            per_device_query_batch_size=self._batch_rows,
            per_device_train_batch_size=self._batch_rows,
            score_args=options,
            overwrite_output_dir=True,
        )
        scores = self._analyzer.load_pairwise_scores(strategy)
        assert scores is not None, "kronfluence stored no scores"
        return scores["all_modules"][0].numpy()


def _dataset(rows_NT: np.ndarray) -> TensorDataset:
    return TensorDataset(torch.from_numpy(rows_NT))

"""Scores that are computed once: kept by sample id, on disk under what they depend on.

    memo = Memo(folder)                          # None keeps them in memory alone
    ids = memo.missing(sample_ids)
    memo.add(ids, score_n, spent); memo.get(sample_ids)

What they cost is kept beside them, so that a run which only reads them owes it, see `bill`.
Every `add` writes one file beside its place and renames it, so that a process may die at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from workbench.core import DataError, PolicyError
from workbench.influence import bill
from workbench.influence.bill import Spent


def content_key(
    model: nn.Module, matrices: Mapping[str, Tensor], corpus_hash: str, settings: Mapping[str, Any]
) -> str:
    """Hash of all that scores depend on: every weight, the direction, the corpus, the settings."""
    found = hashlib.sha256(json.dumps([corpus_hash, settings], sort_keys=True).encode())
    for group in (model.state_dict(), matrices):
        for name in sorted(group):
            tensor = group[name].detach().cpu().contiguous()
            found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()[:24]


class Memo:
    """Scores by sample id.

    Args:
        folder: where shards of scores are kept; what is there is read at once.  With several ranks
            rank 0 reads and writes, and the others are told.
    Raises:
        DataError: a file in the folder that cannot be read.
    """

    def __init__(self, folder: Path | None):
        self._folder = folder
        self._scores: dict[int, float] = {}
        self._unpaid: dict[int, tuple[float, float]] = {}
        if folder is not None:
            kept = [self._read() if _rank() == 0 else None]
            if dist.is_available() and dist.is_initialized():
                dist.broadcast_object_list(kept)
            for ids, score_n, cost_n2 in kept[0] or ():
                self._keep(ids, score_n)
                self._unpaid |= zip(ids.tolist(), map(tuple, cost_n2.tolist()), strict=True)

    def missing(self, sample_id_n: Iterable[int]) -> np.ndarray:
        """Ids without a score, each once, ascending, int64; the others are taken as read."""
        wanted = np.unique(np.asarray(sample_id_n, dtype=np.int64))
        if found := [i for i in wanted.tolist() if i in self._unpaid]:
            cost_n2 = np.array([self._unpaid.pop(i) for i in found])
            bill.read(self._name, np.array(found), cost_n2)
        return np.array([i for i in wanted.tolist() if i not in self._scores], dtype=np.int64)

    def get(self, sample_id_n: np.ndarray) -> np.ndarray:
        """Scores in the order asked for, float32."""
        ids = np.asarray(sample_id_n).tolist()
        return np.array([self._scores[i] for i in ids], dtype=np.float32)

    @property
    def _name(self) -> str:
        return f"scores {self._folder.name if self._folder else ''}"

    def add(self, sample_id_n: np.ndarray, score_n: np.ndarray, spent: Spent) -> None:
        """Keep new scores and what they took together."""
        bill.computed(self._name, sample_id_n)
        if self._folder is not None and _rank() == 0:
            self._folder.mkdir(parents=True, exist_ok=True)
            numbers = [int(path.stem.removeprefix("part_")) for path in self._kept()]
            path = self._folder / f"part_{max(numbers, default=-1) + 1:06d}.npz"
            aside = path.with_name(f".aside-{path.name}")
            with aside.open("wb") as file:
                cost = np.array([spent.seconds, spent.flops])
                np.savez(file, sample_id=sample_id_n, score=score_n, cost=cost)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        self._keep(sample_id_n, score_n)

    def _keep(self, sample_id_n: np.ndarray, score_n: np.ndarray) -> None:
        self._scores |= zip(sample_id_n.tolist(), score_n.tolist(), strict=True)

    def _kept(self) -> list[Path]:
        return sorted(self._folder.glob("part_*.npz")) if self._folder else []

    def _read(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        found = []
        for path in self._kept():
            try:
                with np.load(path) as columns:
                    ids, spent = columns["sample_id"], Spent(*columns.get("cost", (0.0, 0.0)))
                    found.append((ids, columns["score"], spent.share(len(ids))))
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
                raise DataError(
                    f"{path} cannot be read as scores: {error}",
                    remedy="delete the file; its rows are then scored again",
                ) from None
        return found


class WeightWatch:
    """Knows whether a model's weights were written to since."""

    def __init__(self, model: nn.Module):
        self._model = model
        self._seen = self._versions()

    def require_unchanged(self) -> None:
        """Raises PolicyError when they were: scores of two models must not be mixed."""
        if self._versions() != self._seen:
            raise PolicyError(
                "the model has changed since this scorer was made",
                remedy="make a new direction and a new scorer after a training step",
            )

    def _versions(self) -> list[tuple[int, int]]:
        return [(id(p), p._version) for p in self._model.parameters()]


def _rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0

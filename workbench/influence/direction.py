"""From a reference set to the one direction that candidates are scored against.

    direction = reference_direction(decoder, reference_MT, preconditioner("identity"), maps)
    direction.matrices["model.model.layers.0.mlp.up_proj"]        # (O, I) float32
    direction.save(path); Direction.load(path).low_rank(64)

The score of a token is s^T P a summed over maps, with P = +(F + damping)^{-1} g_ref: the predicted
decrease of the reference loss.  The published formula has a minus; higher is more helpful here.
Shapes: M reference rows, b rows at a time, T tokens, O outputs, I inputs, r rank.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from workbench.core import ConfigError, NumericsError, Progress, RunError, silent
from workbench.influence.preconditioners import Preconditioner
from workbench.influence.rows import require_batch_rows, require_rows
from workbench.models.decoder import Decoder
from workbench.models.linear_maps import LinearMap, observed, token_loss


@dataclass(frozen=True)
class LowRank:
    """P ≈ left_Or @ right_Ir^T, singular values shared out evenly.

    kept: part of |P|^2 that the r largest singular values hold.
    """

    left_Or: Tensor
    right_Ir: Tensor
    kept: float


@dataclass(frozen=True)
class Direction:
    """One matrix per linear map, float32 (O, I), and the settings it was made with."""

    matrices: dict[str, Tensor]
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def norm(self) -> float:
        """Frobenius norm over all maps."""
        return (
            float(sum(matrix.double().square().sum() for matrix in self.matrices.values())) ** 0.5
        )

    def to(self, device: str | torch.device) -> Direction:
        moved = {name: matrix.to(device) for name, matrix in self.matrices.items()}
        return Direction(moved, self.settings)

    def low_rank(self, rank: int) -> dict[str, LowRank]:
        """The best approximation of rank r, or of a map's full rank if smaller, map by map.

        Raises:
            ConfigError: a rank below 1.
        """
        require_rank(rank)
        return {name: _truncate(matrix, rank) for name, matrix in self.matrices.items()}

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, replacing an older one whole."""
        path = Path(path)
        aside = path.with_name(f".aside-{path.name}")
        matrices = {name: matrix.cpu().contiguous() for name, matrix in self.matrices.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(matrices, aside, metadata={"settings": json.dumps(self.settings)})
        return aside.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> Direction:
        """Raises RunError when the file is missing, torn or something else."""
        try:
            with safe_open(path, "pt") as file:
                settings = json.loads(file.metadata()["settings"])
                return cls({name: file.get_tensor(name) for name in file.keys()}, settings)  # noqa: SIM118
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise RunError(
                f"{path} is no saved direction: {error}", remedy="compute the direction again"
            ) from None


def reference_gradient(
    model: Decoder,
    rows_MT: np.ndarray,
    maps: Sequence[LinearMap],
    *,
    batch_rows: int = 16,
    device: str = "cpu",
    progress: Progress = silent,
) -> dict[str, Tensor]:
    """Gradient of the reference loss with respect to every map, float32 at least, (O, I).

    The loss is the mean over rows of a row's mean loss per token.  With several ranks each takes
    every world-th batch and all get the sum.

    Args:
        rows_MT: int64 (M, T + 1).
        device: where the model is.
    Raises:
        ConfigError: a batch of no rows.
        DataError: no reference rows, or rows of another shape, type or vocabulary.
        NumericsError: a gradient that is not finite, naming the map.
    """
    require_rows(model, rows_MT, "reference rows", some=True)
    require_batch_rows(batch_rows)
    rank, world = (dist.get_rank(), dist.get_world_size()) if _distributed() else (0, 1)
    gradients = {found.name: _zeros(found, device) for found in maps}

    def see(found: LinearMap, a_bTI: Tensor, s_bTO: Tensor) -> None:
        total_OI = gradients[found.name]
        s_NO, a_NI = (side.flatten(0, 1).to(total_OI.dtype) for side in (s_bTO, a_bTI))
        total_OI += s_NO.T @ a_NI

    starts = range(0, len(rows_MT), batch_rows)
    for start in starts[rank::world]:
        rows = torch.from_numpy(rows_MT[start : start + batch_rows]).to(device)
        with observed(model, maps, see):
            (token_loss(model, maps, rows).sum() / len(rows_MT)).backward()
        done = min(start + batch_rows, len(rows_MT))
        progress({"stage": "reference gradient", "done": done, "total": len(rows_MT)})
    for name, gradient in gradients.items():
        if world > 1:
            dist.all_reduce(gradient)
        if not gradient.isfinite().all():
            raise NumericsError(
                f"the reference gradient of '{name}' is not finite",
                remedy="use a checkpoint whose loss on the reference set is finite",
            )
    return gradients


def reference_direction(
    model: Decoder,
    reference_MT: np.ndarray,
    preconditioner: Preconditioner,
    maps: Sequence[LinearMap],
    *,
    batch_rows: int = 16,
    device: str = "cpu",
    progress: Progress = silent,
) -> Direction:
    """+(F + damping)^{-1} g_ref: up-weighting along it lowers the reference loss.

    Args and errors as `reference_gradient`, and those of the preconditioner.
    """
    gradients = reference_gradient(
        model, reference_MT, maps, batch_rows=batch_rows, device=device, progress=progress
    )
    matrices = {k: v.float() for k, v in preconditioner.apply(gradients).items()}
    return Direction(matrices, {**preconditioner.settings, "reference_rows": len(reference_MT)})


def require_rank(rank: int) -> None:
    """ConfigError for an approximation of rank 0."""
    if rank < 1:
        raise ConfigError(f"the rank is {rank}", remedy="take a rank of at least 1, such as 64")


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def _zeros(found: LinearMap, device: str) -> Tensor:
    dtype = torch.promote_types(found.weight.dtype, torch.float32)
    return torch.zeros(found.outputs, found.inputs, dtype=dtype, device=device)


def _truncate(matrix_OI: Tensor, rank: int) -> LowRank:
    left, values, right = torch.linalg.svd(matrix_OI.float(), full_matrices=False)
    root_r = values[:rank].sqrt()
    total = values.square().sum().clamp(min=torch.finfo(values.dtype).tiny)
    kept = float(values[:rank].square().sum() / total)
    return LowRank(left[:, :rank] * root_r, right[:rank].T * root_r, kept)

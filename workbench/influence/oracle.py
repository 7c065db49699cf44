"""The one-step oracle: train on a row for one tiny step, and see what the reference loss does.

    decrease_N = one_step_oracle(model, rows_NT, reference_MT, maps)
    spearman(decrease_N, identity_score_N)        # at least .99 where scores are computed right

Slow and without approximation: as many evaluations of the reference set as there are rows.
Shapes: N rows, M reference rows, T tokens.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from workbench.core import NumericsError, Progress, silent
from workbench.influence.rows import require_batch_rows, require_rows
from workbench.models import Decoder
from workbench.models.linear_maps import LinearMap, at_rest, linear_maps, token_loss

RELATIVE_STEP = 1e-5
"""Length of the longest step, against that of the weights: curvature must not show."""


def one_step_oracle(
    model: Decoder,
    rows_NT: np.ndarray,
    reference_MT: np.ndarray,
    maps: Sequence[LinearMap],
    *,
    relative_step: float = RELATIVE_STEP,
    batch_rows: int = 16,
    device: str = "cpu",
    progress: Progress = silent,
) -> np.ndarray:
    """Decrease of the reference loss per unit of learning rate, one SGD step on each row; (N,).

    Works on a float64 copy of the model, of which only the weights of `maps` move.  Equals the
    identity score up to the step.

    Args:
        rows_NT, reference_MT: int64 (N, T + 1) and (M, T + 1).
        device: where the copy is put; it must know float64.
    Raises:
        ConfigError: a batch of no rows.
        DataError: no rows, or rows of another shape, type or vocabulary.
        NumericsError: gradients that are zero or not finite.
    """
    require_rows(model, rows_NT, "rows to train on", some=True)
    require_rows(model, reference_MT, "reference rows", some=True)
    require_batch_rows(batch_rows)
    twin = copy.deepcopy(model).to(device=device, dtype=torch.float64)
    maps = linear_maps(twin, names=tuple(found.name for found in maps))
    weights = [found.weight for found in maps]
    kept = [weight.detach().clone() for weight in weights]
    rows, reference = (torch.from_numpy(own).to(device) for own in (rows_NT, reference_MT))

    def gradient(row: int) -> list[Tensor]:
        loss_B = token_loss(twin, maps, rows[row : row + 1])
        return list(torch.autograd.grad(loss_B.sum(), weights))

    with at_rest(twin):
        for weight in weights:
            weight.requires_grad_(True)
        longest = max(_norm(gradient(row)) for row in range(len(rows)))
        if not 0 < longest < float("inf"):
            raise NumericsError(
                f"the longest gradient of a row is {longest}",
                remedy="take a checkpoint with finite losses",
            )
        rate = relative_step * _norm(kept) / longest
        before = _mean_loss(twin, maps, reference, batch_rows)
        decrease_N = np.empty(len(rows))
        for row in range(len(rows)):
            step = gradient(row)
            with torch.no_grad():
                for weight, start, slope in zip(weights, kept, step, strict=True):
                    torch.sub(start, slope, alpha=rate, out=weight)
                after = _mean_loss(twin, maps, reference, batch_rows)
                for weight, start in zip(weights, kept, strict=True):
                    weight.copy_(start)
            decrease_N[row] = (before - after) / rate
            progress({"stage": "one-step oracle", "done": row + 1, "total": len(rows)})
    return decrease_N


@torch.no_grad()
def _mean_loss(
    model: Decoder, maps: Sequence[LinearMap], rows_MT: Tensor, batch_rows: int
) -> float:
    losses = [token_loss(model, maps, part) for part in rows_MT.split(batch_rows)]
    return float(torch.cat(losses).mean())


def _norm(tensors: Sequence[Tensor]) -> float:
    return float(torch.stack([t.square().sum() for t in tensors]).sum().sqrt())

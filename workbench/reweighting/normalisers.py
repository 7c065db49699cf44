"""Normalisers: from losses to h in [-delta, delta], on the device, without a host sync.

    h_B = NORMALISERS["rank"](loss_B, counts_B, delta=1.0, floor=None)

`range` is the paper's.  One outlier ruins it, so `rank` and `quantile` look at order instead of
distance, wholly or in the tails.  Shapes: B rows.  Source of `range`: Sow et al. 2025.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

RELATIVE_FLOOR = 1e-3
"""Smallest loss range that is stretched to full contrast, as a share of the mean loss."""
QUANTILES = (0.05, 0.95)

Bounds = tuple[Tensor, Tensor]


def range_bounds(loss_B: Tensor, counts_B: Tensor) -> Bounds:
    """Smallest and largest loss of the rows that count, scalars."""
    low = torch.where(counts_B, loss_B, torch.inf).amin()
    high = torch.where(counts_B, loss_B, -torch.inf).amax()
    return low, high


def quantile_bounds(loss_B: Tensor, counts_B: Tensor) -> Bounds:
    """The 5 % and 95 % quantiles of the rows that count, scalars."""
    levels = torch.tensor(QUANTILES, dtype=loss_B.dtype, device=loss_B.device)
    low, high = torch.nanquantile(torch.where(counts_B, loss_B, torch.nan), levels)
    return low, high


def within(
    loss_B: Tensor, counts_B: Tensor, bounds: Bounds, *, delta: float, floor: float | None
) -> Tensor:
    """h_i = delta (2 (l_i - low) / max(high - low, floor) - 1), clipped to [-delta, delta].

    Written this way round because 2l/D - (low + high)/D cancels in float32.
    """
    low, high = bounds
    if floor is None:
        total = torch.where(counts_B, loss_B, 0.0).sum()
        smallest = RELATIVE_FLOOR * (total / counts_B.sum().clamp(min=1)).abs()
        smallest = smallest.clamp(min=torch.finfo(loss_B.dtype).tiny)
    else:
        smallest = torch.full_like(low, floor)
    width = torch.maximum(high - low, smallest)
    above_B = torch.where(counts_B, loss_B - low, 0.0)
    return (delta * (2 * above_B / width - 1)).clamp(-delta, delta)


def by_range(loss_B: Tensor, counts_B: Tensor, *, delta: float, floor: float | None) -> Tensor:
    """The paper's: the batch's smallest loss becomes -delta, its largest delta."""
    return within(loss_B, counts_B, range_bounds(loss_B, counts_B), delta=delta, floor=floor)


def by_quantile(loss_B: Tensor, counts_B: Tensor, *, delta: float, floor: float | None) -> Tensor:
    """The 5 % and 95 % quantiles become the ends; what lies outside is clipped."""
    return within(loss_B, counts_B, quantile_bounds(loss_B, counts_B), delta=delta, floor=floor)


def by_rank(loss_B: Tensor, counts_B: Tensor, *, delta: float, floor: float | None) -> Tensor:
    """Only the order counts: ranks 0 … M-1 spread evenly, equal losses share their mean rank."""
    comparable_B = torch.where(counts_B, loss_B, torch.inf)
    ascending_B = comparable_B.sort().values
    below_B = torch.searchsorted(ascending_B, comparable_B, right=False)
    upto_B = torch.searchsorted(ascending_B, comparable_B, right=True)
    rank_B = (below_B + upto_B - 1).to(loss_B.dtype) / 2
    last = (counts_B.sum() - 1).clamp(min=1)
    return (delta * (2 * rank_B / last - 1)).clamp(-delta, delta)


NORMALISERS: dict[str, Callable[..., Tensor]] = {
    "range": by_range,
    "rank": by_rank,
    "quantile": by_quantile,
}
BOUNDS: dict[str, Callable[[Tensor, Tensor], Bounds]] = {
    "range": range_bounds,
    "quantile": quantile_bounds,
}
"""Normalisers that depend on the batch through two numbers alone, which can lag behind."""

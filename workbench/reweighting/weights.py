"""Per-sample weights from per-sample losses: normalise, apply a strategy, softmax.

    weight_B = sample_weights(loss_B, strategy="linupper", temperature=0.4)

Everything stays on the losses' device, in float32, without a host sync.
Shapes: B rows of the global batch.  Source: Sow et al. 2025 (arXiv 2502.06733), algorithm 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from workbench.reweighting.strategies import find_strategy

RELATIVE_FLOOR = 1e-3
"""Smallest loss range that is stretched to full contrast, as a share of the mean loss."""


def sample_weights(
    loss_B: Tensor,
    *,
    strategy: str,
    temperature: float,
    delta: float = 1.0,
    floor: float | None = None,
    valid_B: Tensor | None = None,
) -> Tensor:
    """Weights with mean 1 over the valid rows and 0 elsewhere.

    w_i = M softmax_i(f(h_i) / r) over the M valid rows; a row whose loss is not finite counts as
    invalid.  No gradient flows through the weights.

    Args:
        loss_B: nats per token, any float type.
        strategy: name of f, see `strategies`.
        temperature: r > 0; large values tend to uniform weights.
        delta: half-width of the normalised loss range.
        floor: smallest range l_max - l_min that is divided by, in nats; None takes 1e-3 of the
            mean loss, so that near-equal losses get near-equal weights (the paper's is 1e-6).
        valid_B: rows that count; all when None.
    Returns:
        float32 weights, shape (B,); all zero when no row is valid.
    """
    loss_B = loss_B.detach().float()
    counts_B = torch.isfinite(loss_B) if valid_B is None else valid_B & torch.isfinite(loss_B)
    h_B = normalised_range(loss_B, counts_B, delta=delta, floor=floor)
    exponent_B = find_strategy(strategy)(h_B, delta=delta) / temperature
    exponent_B = torch.where(counts_B, exponent_B, -torch.inf)
    share_B = torch.softmax(exponent_B, dim=0)
    # softmax of nothing but -inf is NaN: no valid row means no weight at all.
    return torch.where(counts_B, share_B * counts_B.sum(), 0.0)


def normalised_range(
    loss_B: Tensor, counts_B: Tensor, *, delta: float, floor: float | None
) -> Tensor:
    """h_i = delta (2 (l_i - l_min) / max(l_max - l_min, floor) - 1) in [-delta, delta].

    Written this way round because 2l/D - (l_max + l_min)/D cancels in float32.  The upper end is
    below delta when the floor is the larger of the two.
    """
    low = torch.where(counts_B, loss_B, torch.inf).amin()
    high = torch.where(counts_B, loss_B, -torch.inf).amax()
    if floor is None:
        total = torch.where(counts_B, loss_B, 0.0).sum()
        smallest = RELATIVE_FLOOR * (total / counts_B.sum().clamp(min=1)).abs()
        smallest = smallest.clamp(min=torch.finfo(torch.float32).tiny)
    else:
        smallest = torch.full_like(low, floor)
    width = torch.maximum(high - low, smallest)
    above_B = torch.where(counts_B, loss_B - low, 0.0)
    return delta * (2 * above_B / width - 1)

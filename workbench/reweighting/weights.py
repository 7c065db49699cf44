"""Per-sample weights from per-sample losses: normalise, apply a strategy, softmax.

    weight_B = sample_weights(loss_B, strategy="linupper", temperature=0.4)

Everything stays on the losses' device without a host sync.
Shapes: B rows of the global batch, G temperatures of a grid.
Source: Sow et al. 2025 (arXiv 2502.06733), algorithm 1; cap and target size are ours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from workbench.core import ConfigError, unknown_name
from workbench.reweighting.normalisers import NORMALISERS
from workbench.reweighting.strategies import find_strategy

TEMPERATURES = (1e-3, 1e3)
"""Range in which a temperature is looked for when a target effective sample size is given."""
GRID_POINTS = 33
GRID_ROUNDS = 4


def sample_weights(
    loss_B: Tensor,
    *,
    strategy: str,
    temperature: float | Tensor,
    delta: float = 1.0,
    normalise: str = "range",
    floor: float | None = None,
    max_weight: float | None = None,
    target_ess: float | None = None,
    valid_B: Tensor | None = None,
) -> Tensor:
    """Weights with mean 1 over the valid rows and 0 elsewhere.

    w_i = M softmax_i(f(h_i) / r) over the M valid rows; a row whose loss is not finite counts as
    invalid.  No gradient flows through the weights.

    Args:
        loss_B: nats per token; float64 is kept, everything else is computed in float32.
        strategy: name of f, see `strategies`; `uniform` gives every valid row 1.
        temperature: r > 0; large values tend to uniform weights.
        delta: half-width of the normalised loss range.
        normalise: `range`, `rank` or `quantile`, see `normalisers`.
        floor: smallest loss range that is divided by, in nats; None takes 1e-3 of the mean loss,
            so that near-equal losses get near-equal weights (the paper's is 1e-6).
        max_weight: cap on a weight, above 1; what is cut off goes to the others in proportion.
        target_ess: effective sample size 1 / sum w² as a fraction of M; r is then found for it
            and `temperature` is not used.  The nearest reachable size where f caps it.
        valid_B: rows that count; all when None.
    Returns:
        float32 weights (float64 for float64 losses), shape (B,); all zero when no row is valid.
    Raises:
        ConfigError: unknown strategy or normaliser, or an option out of range.
    """
    check_options(normalise=normalise, max_weight=max_weight, target_ess=target_ess)
    if strategy == "uniform":
        valid_B = torch.ones_like(loss_B, dtype=torch.bool) if valid_B is None else valid_B
        return (valid_B & torch.isfinite(loss_B)).to(_wide(loss_B).dtype)
    weight_B, _ = weights_and_temperature(
        loss_B,
        strategy=strategy,
        temperature=temperature,
        delta=delta,
        normalise=normalise,
        floor=floor,
        max_weight=max_weight,
        target_ess=target_ess,
        valid_B=valid_B,
    )
    return weight_B


def weights_and_temperature(
    loss_B: Tensor,
    *,
    strategy: str,
    temperature: float | Tensor,
    delta: float,
    normalise: str,
    floor: float | None,
    max_weight: float | None,
    target_ess: float | None,
    valid_B: Tensor | None,
) -> tuple[Tensor, float | Tensor]:
    """`sample_weights`, and the temperature they were computed with; options are not checked."""
    loss_B = _wide(loss_B)
    counts_B = torch.isfinite(loss_B) if valid_B is None else valid_B & torch.isfinite(loss_B)
    f = find_strategy(strategy)
    h_B = NORMALISERS[normalise](loss_B, counts_B, delta=delta, floor=floor)
    f_B = torch.where(counts_B, f(h_B, delta=delta), -torch.inf)
    if target_ess is not None:
        temperature = temperature_for(f_B, counts_B, target_ess)
    # softmax of nothing but -inf is NaN: no valid row means no weight at all.
    weight_B = torch.where(counts_B, torch.softmax(f_B / temperature, dim=0), 0.0)
    weight_B = weight_B * counts_B.sum()
    if max_weight is not None:
        weight_B = capped(weight_B, counts_B, max_weight)
    return weight_B, temperature


def _wide(loss_B: Tensor) -> Tensor:
    """Detached, in float32 unless it is float64."""
    loss_B = loss_B.detach()
    return loss_B if loss_B.dtype == torch.float64 else loss_B.float()


def check_options(*, normalise: str, max_weight: float | None, target_ess: float | None) -> None:
    """Raise ConfigError for an option that cannot work."""
    if normalise not in NORMALISERS:
        problem, remedy = unknown_name("normaliser", normalise, NORMALISERS)
        raise ConfigError(problem, remedy=remedy)
    if max_weight is not None and not max_weight > 1:
        raise ConfigError(
            f"max_weight = {max_weight} leaves no room: weights have mean 1",
            remedy="give a number above 1, such as 2",
        )
    if target_ess is not None and not 0 < target_ess <= 1:
        raise ConfigError(
            f"target_ess = {target_ess} is not a fraction of the batch",
            remedy="give a number above 0 and at most 1, such as 0.8",
        )


def temperature_for(f_B: Tensor, counts_B: Tensor, target_ess: float) -> Tensor:
    """The temperature whose weights have the effective size `target_ess` · M, a scalar.

    The size grows with the temperature, so a grid around the crossing is refined a few times;
    a grid costs one operation where bisection would cost as many as it has steps.
    """
    low, high = (torch.full((), t, dtype=f_B.dtype, device=f_B.device).log() for t in TEMPERATURES)
    count = counts_B.sum().clamp(min=1)
    share_G = torch.linspace(0, 1, GRID_POINTS, dtype=f_B.dtype, device=f_B.device)
    for _ in range(GRID_ROUNDS):
        log_G = low + (high - low) * share_G
        p_GB = torch.softmax(f_B / log_G.exp()[:, None], dim=1)
        ess_G = 1 / (p_GB**2).sum(dim=1) / count
        above = (ess_G < target_ess).sum().clamp(1, GRID_POINTS - 1)
        low, high = log_G[above - 1], log_G[above]
    return high.exp()


def capped(weight_B: Tensor, counts_B: Tensor, max_weight: float) -> Tensor:
    """Weights cut at `max_weight`, the rest scaled up in proportion until the mean is 1 again.

    Repeating cut and scale-up ends where the k largest are at the cap for the smallest k that
    leaves no other above it; sorting finds that k at once.
    """
    size = len(weight_B)
    total = counts_B.sum().to(weight_B.dtype)
    descending_B = weight_B.sort(descending=True).values
    cut_K = torch.arange(size, device=weight_B.device, dtype=weight_B.dtype)
    rest_K = total - (descending_B.cumsum(0) - descending_B)
    scale_K = (total - cut_K * max_weight) / rest_K.clamp(min=torch.finfo(weight_B.dtype).tiny)
    fits_K = descending_B * scale_K <= max_weight * (1 + 1e-6)
    # argmax of a boolean is its first True.
    scale = scale_K[fits_K.int().argmax()]
    return (weight_B * scale).clamp(max=max_weight)

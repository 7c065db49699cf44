"""The four ways to a row's derivative along a direction, each a function of one batch.

    with at_rest(model):                              # eval mode, no weight asks for a gradient
        scored = ghost(model, maps, matrices)(rows_BT1, None)
    scored.row_B                                      # <P, gradient of the row's loss>

All four compute d loss_i(theta + h P) / dh at h = 0, `difference` up to its step and `low_rank` up
to what the rank leaves out.  Shapes: B rows, T tokens, L maps, O outputs, I inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from workbench.core import NumericsError
from workbench.kernels import sample_loss
from workbench.kernels.influence_scores import InfluenceProbe
from workbench.models import Decoder
from workbench.models.linear_maps import LinearMap, token_loss

Matrices = Mapping[str, Tensor]
"""P of each map by name, (O, I)."""
Maps = Sequence[LinearMap]


@dataclass(frozen=True)
class Scored:
    """Scores of a batch; the parts of tokens and maps where the way knows them."""

    row_B: Tensor
    token_BT: Tensor | None = None
    map_BL: Tensor | None = None


Way = Callable[[Tensor, Tensor | None], Scored]
"""Given rows int64 (B, T + 1) and their losses (B,) where those are known."""


def ghost(
    model: Decoder, maps: Maps, matrices: Mapping[str, Tensor | tuple[Tensor, Tensor]]
) -> Way:
    """Forward, activation-only backward, contraction: see `kernels.influence_scores`.

    Args:
        matrices: P of each map, or factors U (O, r) and V (I, r) of it, which is `low_rank`.
    """
    probe = InfluenceProbe({found.name: found.module for found in maps}, matrices)

    def way(rows_BT1: Tensor, _loss_B: Tensor | None) -> Scored:
        tokens = rows_BT1.shape[1] - 1
        scores = probe.score(lambda: token_loss(model, maps, rows_BT1), tokens)
        return Scored(scores.row_B, scores.token_BT, scores.layer_BL)

    return way


def forward_mode(model: Decoder, maps: Maps, matrices: Matrices) -> Way:
    """Forward-mode derivative of the loss along P (`torch.func.jvp`); holds all logits."""
    loss = _FullLoss(model, maps)
    weights, tangents = _weights(maps), _tangents(maps, matrices)

    def way(rows_BT1: Tensor, _loss_B: Tensor | None) -> Scored:
        def moved(weights: dict[str, Tensor]) -> Tensor:
            return functional_call(loss, weights, (rows_BT1,))

        # Fused attention has no forward-mode derivative.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            return Scored(jvp(moved, (weights,), (tangents,))[1])

    return way


def difference(model: Decoder, maps: Maps, matrices: Matrices, *, relative_step: float) -> Way:
    """[loss(theta + h P) - loss(theta - h P)] / 2h, or one-sided from losses already known.

    Forward passes only.  h is chosen so that |h P| = relative_step |W| over all maps.  Known
    losses are those of `precise_loss`: see there.

    Raises:
        NumericsError: a direction without length.
    """
    loss = _Loss(model, maps)
    weights, tangents = _weights(maps), _tangents(maps, matrices)
    length = _norm(tangents)
    if not length > 0:
        raise NumericsError(
            "the direction is zero", remedy="check the reference set and the preconditioner"
        )
    step = relative_step * _norm(weights) / length

    def losses(signed_step: float, rows_BT1: Tensor) -> Tensor:
        moved = {name: w.add(tangents[name], alpha=signed_step) for name, w in weights.items()}
        return functional_call(loss, moved, (rows_BT1,))

    def way(rows_BT1: Tensor, loss_B: Tensor | None) -> Scored:
        with torch.no_grad():
            ahead_B = losses(step, rows_BT1)
            if loss_B is not None:
                return Scored((ahead_B - loss_B) / step)
            return Scored((ahead_B - losses(-step, rows_BT1)) / (2 * step))

    return way


def precise_loss(model: Decoder, maps: Maps, rows_BT1: Tensor) -> Tensor:
    """`token_loss` in float64 from token losses in the model's precision, (B,).

    A difference lives on the last digits of a loss: the float32 sum over a row's tokens rounds
    several times more than all of the forward pass before it.
    """
    labels_N = rows_BT1[:, 1:].flatten()
    hidden_ND = model.hidden(rows_BT1[:, :-1]).flatten(0, 1)
    heads = [found.module for found in maps if found.kind == "head"]
    if heads:
        nll_N = F.cross_entropy(heads[0](hidden_ND), labels_N, reduction="none")
    else:
        # Every token as a row of its own, whose mean is not rounded.
        nll_N = sample_loss(hidden_ND[:, None], model.head_VD, labels_N[:, None])
    return nll_N.view(len(rows_BT1), -1).double().mean(dim=1)


class _Loss(nn.Module):
    """Loss of each row as a module, so that weights can be swapped in by path."""

    def __init__(self, decoder: Decoder, maps: Maps):
        super().__init__()
        self.decoder, self._maps = decoder, maps

    def forward(self, rows_BT1: Tensor) -> Tensor:
        return precise_loss(self.decoder, self._maps, rows_BT1)


class _FullLoss(_Loss):
    """The same with all logits, since the chunked loss has no forward-mode derivative."""

    def forward(self, rows_BT1: Tensor) -> Tensor:
        hidden_BTD = self.decoder.hidden(rows_BT1[:, :-1])
        return sample_loss(hidden_BTD, self.decoder.head_VD, rows_BT1[:, 1:], form="full")


def _weights(maps: Maps) -> dict[str, Tensor]:
    return {f"decoder.{found.name}.weight": found.weight.detach() for found in maps}


def _tangents(maps: Maps, matrices: Matrices) -> dict[str, Tensor]:
    """P in the layout, type and place of each weight."""
    return {
        f"decoder.{found.name}.weight": found.from_OI(matrices[found.name]).to(found.weight)
        for found in maps
    }


def _norm(tensors: Mapping[str, Tensor]) -> float:
    return float(torch.stack([t.double().square().sum() for t in tensors.values()]).sum().sqrt())

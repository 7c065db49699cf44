"""The ghost contraction: what each row's gradient says about one direction, without the gradient.

    probe = InfluenceProbe({"q_proj": module, ...}, {"q_proj": P_OI, ...})
    scores = probe.score(lambda: model(tokens_BT, labels_BT))
    scores.row_B                                    # <P, gradient of the row's loss>

For y = W a with output gradient s, a row's weight gradient is the sum over its tokens of s a^T, so
<P, G> = sum over tokens of s^T P a (Zhang et al. 2025, arXiv 2409.16986; Kwon et al. 2024 for the
trick).  One forward and an activation-only backward pass: no weight gradient is ever formed.
Shapes: B rows, T tokens, O outputs, I inputs, L layers, r rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workbench.core import ModelError
from workbench.kernels.choice import choose

LowRank = tuple[Tensor, Tensor]
"""U (O, r) and V (I, r) with P = U V^T."""


@dataclass(frozen=True)
class ProbeScores:
    """What one batch gave; float32, or float64 for a float64 model.

    loss_B: nats per token; token_BT: the part of each position, which includes what a token does
    to the losses of later ones; layer_BL: the part of each layer, in the order of the probe's.
    """

    loss_B: Tensor
    token_BT: Tensor
    layer_BL: Tensor

    @property
    def row_B(self) -> Tensor:
        return self.layer_BL.sum(dim=1)


class InfluenceProbe:
    """Contracts the gradients of some linear maps with a fixed matrix each.

    Args:
        layers: name to `nn.Linear` or `Conv1D`; nothing is left on them outside `score`.
        directions: for each of these names P, (O, I), or its factors, see `LowRank`.
    Raises:
        ModelError: names differ, a layer is no linear map, or a matrix does not fit its layer.
    """

    def __init__(self, layers: Mapping[str, nn.Module], directions: Mapping[str, Tensor | LowRank]):
        if set(layers) != set(directions):
            odd = sorted(set(layers) ^ set(directions))
            raise ModelError(
                f"layers and direction differ in '{odd[0]}'",
                remedy="make the direction for the layers that are scored",
            )
        self._slots = [_Slot(name, layers[name], directions[name]) for name in layers]

    def score(self, loss_of: Callable[[], Tensor], tokens: int | None = None) -> ProbeScores:
        """Scores of the rows whose losses `loss_of` computes.

        Args:
            loss_of: runs the model on a batch and returns loss_B; row i may depend on row i alone.
            tokens: T, for models with layers that are given (B·T, I).
        Raises:
            ModelError: a layer is not called as a module, or on neither (B, T, I) nor (B·T, I).
        """
        with torch.enable_grad(), self._watching():
            loss_B = loss_of()
            for slot in self._slots:
                slot.require_rows(len(loss_B), tokens)
            # The anchors are empty: asking for their gradients walks the graph and adds nothing.
            anchors = [slot.anchor for slot in self._slots]
            torch.autograd.grad(loss_B.sum(), anchors, allow_unused=True)
        parts = [cast(Tensor, slot.score).view(len(loss_B), -1) for slot in self._slots]
        parts_LBT = torch.stack(parts)
        return ProbeScores(loss_B.detach(), parts_LBT.sum(dim=0), parts_LBT.sum(dim=2).T)

    @contextmanager
    def _watching(self) -> Iterator[None]:
        for slot in self._slots:
            slot.score = None
            # On the instance, where it takes precedence over the class for this one module.
            slot.module.forward = slot.forward  # pyright: ignore
        try:
            yield
        finally:
            for slot in self._slots:
                del slot.module.forward


class _Slot:
    """One watched layer, its matrix, and the scores of the batch so far, (B, T) or (B·T,)."""

    def __init__(self, name: str, module: nn.Module, direction: Tensor | LowRank):
        weight = getattr(module, "weight", None)
        if not isinstance(weight, Tensor) or weight.dim() != 2:
            raise ModelError(f"layer '{name}' is no linear map", remedy="score linear maps")
        self.name = name
        self.module = cast(nn.Linear, module)
        self.transposed = type(module).__name__ == "Conv1D"
        self.score: Tensor | None = None
        self.anchor = torch.empty(0, device=weight.device, requires_grad=True)
        sides = direction if isinstance(direction, tuple) else (direction,)
        shape = tuple(weight.shape[::-1] if self.transposed else weight.shape)
        given = (sides[0].shape[0], sides[-1].shape[0] if len(sides) == 2 else sides[0].shape[1])
        if given != shape:
            raise ModelError(
                f"the direction of layer '{name}' is {given}, its weight {shape}",
                remedy="make the direction for this model",
            )
        wide = torch.promote_types(weight.dtype, torch.float32)
        self._sides = [side.detach().to(weight.device, wide) for side in sides]

    def forward(self, a: Tensor) -> Tensor:
        weight, bias = self.module.weight.detach(), self.module.bias
        weight = weight.T if self.transposed else weight
        bias = None if bias is None else bias.detach()
        if torch.is_autocast_enabled(a.device.type):
            # Autocast does not reach into a function of our own.
            dtype = torch.get_autocast_dtype(a.device.type)
            a, weight = a.to(dtype), weight.to(dtype)
            bias = None if bias is None else bias.to(dtype)
        if self.score is None:
            self.score = a.new_zeros(a.shape[:-1], dtype=self._sides[0].dtype)
        return _WatchedLinear.apply(a, self.anchor, weight, bias, self)  # pyright: ignore

    def require_rows(self, rows: int, tokens: int | None) -> None:
        if self.score is None:
            raise ModelError(
                f"layer '{self.name}' is not called as a module, so it cannot be watched",
                remedy='leave it out of the direction, or score with way="jvp"',
            )
        shape = tuple(self.score.shape)
        apart = shape[0] == rows if len(shape) == 2 else tokens and shape == (rows * tokens,)
        if not apart:
            raise ModelError(
                f"layer '{self.name}' sees {shape} positions in a batch of {rows} rows, so they "
                "cannot be told apart",
                remedy='leave it out of the direction, or score with way="jvp"',
            )

    def add(self, a_BTI: Tensor, s_BTO: Tensor) -> None:
        sides = [side.to(a_BTI.dtype) for side in self._sides]
        wide = self._sides[0].dtype
        self.score = cast(Tensor, self.score) + contract(s_BTO, sides, a_BTI, wide)


def contract(s_BTO: Tensor, sides: Sequence[Tensor], a_BTI: Tensor, wide: torch.dtype) -> Tensor:
    """s^T P a of each token, in the type `wide`.

    Args:
        sides: P, (O, I), or its two factors, see `LowRank`.
    """
    if len(sides) == 2:
        product, other = s_BTO @ sides[0], a_BTI @ sides[1]
    elif choose("scores", s_BTO, sides[0], a_BTI).form == "triton":
        from workbench.kernels.triton_products import contraction

        return contraction(s_BTO, sides[0], a_BTI)
    elif a_BTI.shape[-1] < s_BTO.shape[-1]:
        product, other = s_BTO @ sides[0], a_BTI
    else:
        product, other = F.linear(a_BTI, sides[0]), s_BTO
    # In place: the product is ours alone, and fresh pages cost as much as the multiplication.
    return product.to(wide).mul_(other).sum(dim=-1)


class _WatchedLinear(torch.autograd.Function):
    """y = a W^T + b that hands its input and output gradient on and makes no weight gradient."""

    @staticmethod
    def forward(ctx, a, anchor, weight_OI, bias_O, slot):
        ctx.save_for_backward(a, weight_OI)
        ctx.slot = slot
        return F.linear(a, weight_OI, bias_O)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, s):  # pyright: ignore[reportIncompatibleMethodOverride]
        a, weight_OI = ctx.saved_tensors
        ctx.slot.add(a, s)
        return s @ weight_OI if ctx.needs_input_grad[0] else None, None, None, None, None


def reference_scores(
    loss_B: Tensor, weights: Sequence[Tensor], directions: Sequence[Tensor]
) -> Tensor:
    """The slow truth: every row's own gradient, in the layout of `weights`; (B, L)."""
    rows = []
    for loss in loss_B:
        grads = torch.autograd.grad(loss, weights, retain_graph=True)
        rows.append(torch.stack([(g * p).sum() for g, p in zip(grads, directions, strict=True)]))
    return torch.stack(rows)

"""Mean gradients of each domain from one backward pass over rows of all domains.

    tracker = GradientTracker(layers, domains=8)
    with tracker.rows([0, 0, 1, 3]):              # the forward of one micro-batch
        loss_b = model(tokens_bT, labels_bT)
    (weight_b * loss_b).sum().backward()
    gram_KK = tracker.gram()                      # <G_i, G_j>, G_i = sum over rows of i

For y = W a with output gradient s, the weight gradient is the sum over tokens of s a^T.  The exact
form cuts this product at the borders between domains: the parts add up to the weight gradient, so
no product is made twice.  The projected form keeps P^T G Q for fixed Gaussian P and Q.
Shapes: b rows of a micro-batch, T tokens, K domains, O outputs, I inputs, k projection width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workbench.core import ConfigError, ModelError
from workbench.kernels.choice import choose

Run = tuple[int, int, int]
"""Domain, first row and end of rows that follow each other."""
Reduce = Callable[[Tensor], Tensor]


def domain_runs(domain_b: Sequence[int]) -> list[Run]:
    """Stretches of rows of one domain; rows in order of their domain give the fewest."""
    runs, first = [], 0
    for domain, rows in groupby(domain_b):
        end = first + len(list(rows))
        runs.append((int(domain), first, end))
        first = end
    return runs


def reference_domain_gradients(
    loss_b: Tensor, domain_b: Sequence[int], weights: Sequence[Tensor], domains: int
) -> Tensor:
    """The slow truth: one backward pass per domain, (K, parameters), in the layout of `weights`."""
    found = []
    for domain in range(domains):
        own = torch.tensor([d == domain for d in domain_b], device=loss_b.device)
        loss = torch.where(own, loss_b, 0.0).sum()
        grads = torch.autograd.grad(loss, weights, retain_graph=True)
        found.append(torch.cat([grad.flatten() for grad in grads]))
    return torch.stack(found)


def projection_error(width: int) -> float:
    """Relative standard error of a projected squared norm, ((1 + 2/k)^2 - 1)^(1/2), per layer.

    Exact for a gradient of rank one and an upper bound otherwise: with Gaussian columns,
    |P^T u|^2 |Q^T v|^2 is a product of two independent chi-squared variables over k.
    """
    return math.sqrt((1 + 2 / width) ** 2 - 1)


@dataclass
class _Slot:
    """One tracked layer and what its backward passes have given since the last reset."""

    module: nn.Linear
    """Or a `Conv1D`, which has the same attributes."""
    transposed: bool
    parts_KOI: Tensor | None = None
    gram_KK: Tensor | None = None
    projections: tuple[Tensor, Tensor] | None = None
    squares: list[Tensor] = field(default_factory=list)
    uses: int = 0
    """Forward passes of the micro-batch: more than one where blocks share the layer."""

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs; `Conv1D` stores its weight the other way round."""
        rows, columns = self.module.weight.shape
        return (columns, rows) if self.transposed else (rows, columns)


class GradientTracker:
    """Per-domain gradients of some linear maps, added up over micro-batches.

    Args:
        layers: name to `nn.Linear` or `Conv1D`; nothing is left on them outside `rows`.
        domains: K.
        projection_width: k of the projected form; the exact form when None.
        seed: of the projections.
        row_norms: also keep the squared norm of every row's own gradient.
    """

    def __init__(
        self,
        layers: Mapping[str, nn.Module],
        domains: int,
        *,
        projection_width: int | None = None,
        seed: int = 0,
        row_norms: bool = False,
    ):
        if projection_width is not None and projection_width < 1:
            raise ConfigError(
                f"projection_width = {projection_width}", remedy="give at least 1, or None"
            )
        for name, module in layers.items():
            weight = getattr(module, "weight", None)
            if not isinstance(weight, Tensor) or weight.dim() != 2:
                raise ModelError(f"layer '{name}' is no linear map", remedy="track linear maps")
        self.domains = domains
        self.row_norms = row_norms
        self.keeps_parts = True
        self._slots = [
            _Slot(cast(nn.Linear, module), type(module).__name__ == "Conv1D")
            for module in layers.values()
        ]
        self.projection_width, self._seed = projection_width, seed
        self._runs: list[Run] | None = None

    @property
    def sampling_error(self) -> float:
        """Relative standard error that projecting adds at most; 0 for the exact form."""
        return 0.0 if self.projection_width is None else projection_error(self.projection_width)

    @property
    def weights(self) -> list[Tensor]:
        return [slot.module.weight for slot in self._slots]

    def reset(self, *, keeps_parts: bool = True) -> None:
        """Forget the last step.

        Args:
            keeps_parts: False where one micro-batch on one rank is all there is: products are then
                taken layer by layer, and no more than one layer's parts exist at a time.
        """
        self.keeps_parts = keeps_parts
        for slot in self._slots:
            slot.parts_KOI = slot.gram_KK = None
            slot.squares = []

    @contextmanager
    def rows(self, domain_b: Sequence[int]) -> Iterator[None]:
        """Track the forward passes within, of rows of these domains; a no-op without autograd."""
        if not torch.is_grad_enabled():
            yield
            return
        self._runs = domain_runs(domain_b)
        for slot in self._slots:
            slot.uses = 0
        with self._instead(self._runs):
            yield

    @contextmanager
    def again(self) -> Iterator[None]:
        """Around a forward pass that repeats one within `rows`, during its backward pass.

        What the repetition keeps for its own backward pass is never used, and adds nothing.
        """
        if self._runs is None:
            yield
            return
        with self._instead(self._runs, again=True):
            yield

    def done(self) -> None:
        """The backward pass of what was within `rows` is over."""
        self._runs = None

    @contextmanager
    def _instead(self, runs: list[Run], *, again: bool = False) -> Iterator[None]:
        # Recomputation of two blocks at once finds the layers observed already.
        idle = [slot for slot in self._slots if "forward" not in vars(slot.module)]
        for slot in idle:
            # On the instance, where it takes precedence over the class for this one module.
            # Not compiled: its backward pass hands parts over to this object.
            forward = torch.compiler.disable(self._forward(slot, runs, again=again))
            slot.module.forward = forward  # pyright: ignore
        try:
            yield
        finally:
            for slot in idle:
                del slot.module.forward

    def gram(self, reduce: Reduce | None = None) -> Tensor:
        """<G_i, G_j> over all tracked layers, float64 (K, K), of the losses as back-propagated.

        Args:
            reduce: sums a tensor over ranks, where there are several.
        """
        device = self._slots[0].module.weight.device
        total_KK = torch.zeros(self.domains, self.domains, dtype=torch.float64, device=device)
        for slot in self._slots:
            if slot.gram_KK is not None:
                total_KK += slot.gram_KK
            elif slot.parts_KOI is not None:
                total_KK += _gram(reduce(slot.parts_KOI) if reduce else slot.parts_KOI)
            elif reduce:
                total_KK += _gram(reduce(self._no_parts(slot)))
        return total_KK

    def row_squares(self) -> Tensor:
        """Squared gradient norm of each row as back-propagated, (b,), in the order of `rows`."""
        return torch.stack([torch.cat(slot.squares) for slot in self._slots]).sum(dim=0)

    def _no_parts(self, slot: _Slot) -> Tensor:
        """A rank without rows takes part in the exchange with zeros."""
        shape = (
            slot.shape
            if self.projection_width is None
            else (self.projection_width, self.projection_width)
        )
        return torch.zeros(self.domains, *shape, device=slot.module.weight.device)

    def _forward(self, slot: _Slot, runs: list[Run], *, again: bool) -> Callable[[Tensor], Tensor]:
        def forward(a: Tensor) -> Tensor:
            slot.uses += not again
            if self.row_norms and slot.uses > 1:
                raise ModelError(
                    "a tracked layer is used by more than one block, so that the gradient norm of "
                    "a row is not known",
                    remedy="choose a mixer that asks for no norms of rows, such as acodm",
                )
            weight, bias = slot.module.weight, slot.module.bias
            weight = weight.T if slot.transposed else weight
            if torch.is_autocast_enabled(a.device.type):
                # Autocast does not reach into a function of our own.
                dtype = torch.get_autocast_dtype(a.device.type)
                a, weight = a.to(dtype), weight.to(dtype)
                bias = None if bias is None else bias.to(dtype)
            if self.projection_width is None:
                return _SplitLinear.apply(a, weight, bias, self, slot, runs)
            y = F.linear(a, weight, bias)
            return y if again else self._projected_forward(slot, runs, a, y)

        return forward

    def _projected_forward(self, slot: _Slot, runs: list[Run], a: Tensor, y: Tensor) -> Tensor:
        output_Ok, input_Ik = self._projections(slot, a)
        with torch.no_grad():
            a_bTk = a.detach() @ input_Ik
        kept = a.detach() if self.row_norms else None

        def backward(s: Tensor) -> None:
            self._add(slot, domain_parts(s @ output_Ok, a_bTk, runs, self.domains))
            if kept is not None:
                slot.squares.append(_row_squares(s, kept))

        y.register_hook(backward)
        return y

    def _projections(self, slot: _Slot, like: Tensor) -> tuple[Tensor, Tensor]:
        """Columns of variance 1/k, so that products of sketches have the true expectation."""
        if slot.projections is None or slot.projections[0].dtype != like.dtype:
            assert self.projection_width is not None
            # On the host, so that every device and rank has the same.
            generator = torch.Generator().manual_seed(self._seed + self._slots.index(slot))
            scale = self.projection_width**-0.5
            sides = [
                torch.randn(n, self.projection_width, generator=generator) * scale
                for n in slot.shape
            ]
            slot.projections = (sides[0].to(like), sides[1].to(like))
        return slot.projections

    def _add(self, slot: _Slot, parts_KOI: Tensor) -> None:
        # Products of parts do not add up: a layer used twice has to keep the parts themselves.
        if not self.keeps_parts and slot.uses == 1:
            slot.gram_KK = _gram(parts_KOI)
        elif slot.parts_KOI is None:
            slot.parts_KOI = parts_KOI.float()
        else:
            slot.parts_KOI += parts_KOI


class _SplitLinear(torch.autograd.Function):
    """y = a W^T + b whose weight gradient is made domain by domain."""

    @staticmethod
    def forward(ctx, a, weight_OI, bias_O, tracker, slot, runs):
        ctx.save_for_backward(a, weight_OI)
        ctx.tracker, ctx.slot, ctx.runs = tracker, slot, runs
        return F.linear(a, weight_OI, bias_O)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, s):  # pyright: ignore[reportIncompatibleMethodOverride]
        a, weight_OI = ctx.saved_tensors
        tracker, slot = ctx.tracker, ctx.slot
        needs_a, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        grad_a = s @ weight_OI if needs_a else None
        grad_bias = s.flatten(0, -2).sum(dim=0) if needs_bias else None
        parts_KOI = domain_parts(s, a, ctx.runs, tracker.domains)
        grad_weight = parts_KOI.sum(dim=0).to(weight_OI.dtype) if needs_weight else None
        tracker._add(slot, parts_KOI)
        if tracker.row_norms:
            slot.squares.append(_row_squares(s, a))
        return grad_a, grad_weight, grad_bias, None, None, None


def domain_parts(s_bTO: Tensor, a_bTI: Tensor, runs: list[Run], domains: int) -> Tensor:
    """sum over the rows and tokens of each domain of s a^T, (K, O, I), float32 at least."""
    if choose("domain gradients", s_bTO, a_bTI).form == "triton":
        from workbench.kernels.triton_products import domain_products

        return domain_products(s_bTO, a_bTI, runs, domains)
    shape = (domains, s_bTO.shape[-1], a_bTI.shape[-1])
    parts_KOI = s_bTO.new_empty(shape, dtype=torch.promote_types(s_bTO.dtype, torch.float32))
    missing = set(range(domains))
    for domain, first, end in runs:
        s_NO = s_bTO[first:end].flatten(0, -2)
        a_NI = a_bTI[first:end].flatten(0, -2)
        if domain not in missing:
            parts_KOI[domain] += s_NO.T @ a_NI
            continue
        missing.discard(domain)
        if s_NO.dtype == parts_KOI.dtype:
            torch.mm(s_NO.T, a_NI, out=parts_KOI[domain])
        else:
            parts_KOI[domain] = s_NO.T @ a_NI
    for domain in missing:
        parts_KOI[domain] = 0
    return parts_KOI


def _gram(parts_KOI: Tensor) -> Tensor:
    # Output by output: one product with few rows and very many columns would use one thread.
    parts_OKI = parts_KOI.transpose(0, 1)
    return torch.bmm(parts_OKI, parts_OKI.mT).sum(dim=0, dtype=torch.float64)


def _row_squares(s_bTO: Tensor, a_bTI: Tensor) -> Tensor:
    """|sum_t s_t a_t^T|^2 of each row, (b,), from T × T products instead of the O × I gradient."""
    s_bTO, a_bTI = s_bTO.float(), a_bTI.float()
    return ((s_bTO @ s_bTO.mT) * (a_bTI @ a_bTI.mT)).sum(dim=(1, 2))

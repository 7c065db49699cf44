"""The gradient of one step: (1/M) sum_i w_i loss_i over the M valid rows of the global batch.

    loss_B, weight_B = accumulate(state, tokens_bT, labels_bT, valid_B, ranks, watch)

The weights need the losses of other rows.  Without micro-batches they are at hand; with them the
reweighter's scope says how they are had.  Shapes: B rows of the global batch, b rows of this rank
or micro-batch, T tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from workbench.core import Scope, StreamingReweighter
from workbench.kernels.memory import sent
from workbench.training.device import autocast
from workbench.training.ranks import Ranks
from workbench.training.signals import StepSignals
from workbench.training.state import TrainState


def accumulate(
    state: TrainState,
    tokens_bT: Tensor,
    labels_bT: Tensor,
    valid_B: Tensor,
    ranks: Ranks,
    watch: StepSignals | None = None,
) -> tuple[Tensor, Tensor]:
    """Add the step's gradient up in the parameters; its losses and weights, (B,) each.

    Args:
        watch: collects what the mixer asked for while the weighted gradient is made.
    """
    step = _Step(state, tokens_bT, labels_bT, valid_B, ranks, watch)
    if not state.reweighter.norm_matched:
        return step.weighted_gradient()
    _Step(state, tokens_bT, labels_bT, valid_B, ranks, None).uniform_gradient()
    target = state.spread.norm()
    state.optimizer.zero_grad(set_to_none=True)
    loss_B, weight_B = step.weighted_gradient()
    state.spread.scale(target / state.spread.norm().clamp(min=torch.finfo(torch.float32).tiny))
    return loss_B, weight_B


def splits(state: TrainState, ranks: Ranks, batch_rows: int) -> bool:
    """Whether the rows of a rank are cut into several micro-batches."""
    rows = state.config.training.micro_batch_rows
    return rows is not None and rows < ranks.largest_part(batch_rows)


class _Step:
    """The rows of this rank, cut into micro-batches."""

    def __init__(
        self,
        state: TrainState,
        tokens_bT: Tensor,
        labels_bT: Tensor,
        valid_B: Tensor,
        ranks: Ranks,
        watch: StepSignals | None,
    ):
        self.state, self.ranks, self.watch = state, ranks, watch
        self.tokens_bT, self.labels_bT, self.valid_B = tokens_bT, labels_bT, valid_B
        self.own = ranks.part(len(valid_B))
        self.valid_b = valid_B[self.own]
        self.valid_count = valid_B.sum().clamp(min=1)
        largest = ranks.largest_part(len(valid_B))
        rows = state.config.training.micro_batch_rows or largest
        self.parts = [slice(i, i + rows) for i in range(0, len(tokens_bT), rows)]
        # The same on all ranks, also where parts differ: they must meet in the same exchanges.
        self.accumulates = splits(state, ranks, len(valid_B))

    def weighted_gradient(self) -> tuple[Tensor, Tensor]:
        reweighter = self.state.reweighter
        if self.accumulates and reweighter.scope is Scope.STREAM:
            assert isinstance(reweighter, StreamingReweighter)
            return self._streamed(reweighter)
        if self.accumulates and reweighter.scope is Scope.MICRO:
            return self._weighed_apart()
        return self._weighed_together()

    def uniform_gradient(self) -> None:
        for part in self.parts:
            self._backward(self._losses(part), self.valid_b[part].float())

    def _weighed_together(self) -> tuple[Tensor, Tensor]:
        """All losses first; with several micro-batches that takes a pass of its own."""
        if len(self.parts) == 1:
            loss_b = self._losses(self.parts[0])
            loss_B, weight_B = self._weigh(loss_b.detach())
            self._backward(loss_b, weight_B[self.own])
            return loss_B, weight_B
        with torch.no_grad():
            loss_b = torch.cat([self._losses(part) for part in self.parts])
        loss_B, weight_B = self._weigh(loss_b)
        for part in self.parts:
            self._backward(self._losses(part), weight_B[self.own][part])
        return loss_B, weight_B

    def _weighed_apart(self) -> tuple[Tensor, Tensor]:
        """Weights of mean 1 within each micro-batch of each rank."""
        losses, weights = [], []
        for part in self.parts:
            loss_b = self._losses(part)
            weight_b = self.state.reweighter.weigh(
                loss_b.detach(), self.valid_b[part], self.state.step
            )
            self._backward(loss_b, weight_b)
            losses.append(loss_b.detach())
            weights.append(weight_b)
        return self._gathered(losses), self._gathered(weights)

    def _streamed(self, reweighter: StreamingReweighter) -> tuple[Tensor, Tensor]:
        """Weights up to a common factor as the losses come; the factor divides the gradient."""
        losses, weights = [], []
        for part in self.parts:
            loss_b = self._losses(part)
            weight_b = reweighter.weigh_ahead(loss_b.detach(), self.valid_b[part], self.state.step)
            self._backward(loss_b, weight_b)
            losses.append(loss_b.detach())
            weights.append(weight_b)
        weight_B = self._gathered(weights)
        factor = self.valid_count / weight_B.sum().clamp(min=torch.finfo(torch.float32).tiny)
        self.state.spread.scale(factor)
        if self.watch is not None:
            self.watch.scaled(factor)
        return self._gathered(losses), weight_B * factor

    def _weigh(self, loss_b: Tensor) -> tuple[Tensor, Tensor]:
        loss_B = self.ranks.gather(loss_b, len(self.valid_B))
        return loss_B, self.state.reweighter.weigh(loss_B, self.valid_B, self.state.step)

    def _losses(self, part: slice) -> Tensor:
        if torch.is_grad_enabled():
            self.state.spread.expect(last=part is self.parts[-1])
        if self.watch is None:
            return self._forward(self.tokens_bT[part], self.labels_bT[part])
        with self.watch.rows(part) as order_b:
            if order_b is None:
                return self._forward(self.tokens_bT[part], self.labels_bT[part])
            order_b = sent(order_b, self.tokens_bT.device)
            tokens_bT, labels_bT = self.tokens_bT[part][order_b], self.labels_bT[part][order_b]
            return self._forward(tokens_bT, labels_bT)[order_b.argsort()]

    def _forward(self, tokens_bT: Tensor, labels_bT: Tensor) -> Tensor:
        training = self.state.config.training
        with autocast(training.device, training.precision):
            return self.state.spread.losses(tokens_bT, labels_bT)

    def _backward(self, loss_b: Tensor, weight_b: Tensor) -> None:
        # Divided by the valid rows of the whole step: dividing once more by the number of
        # micro-batches or ranks would scale the gradient down twice.
        ((weight_b * loss_b).sum() / self.valid_count).backward()
        if self.watch is not None:
            self.watch.weighed(weight_b)

    def _gathered(self, values: list[Tensor]) -> Tensor:
        return self.ranks.gather(torch.cat(values), len(self.valid_B))

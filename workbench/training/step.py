"""One optimiser step: losses per sample, weights, gradients, update.

    outcome = train_step(state, batch)     # tensors stay on the device; nothing is read back

Shapes: B rows of the optimiser step, b rows of one micro-batch, T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.core import Batch, NumericsError, Scope, StepOutcome
from workbench.kernels import sample_loss, valid_rows
from workbench.training.device import autocast
from workbench.training.optimizer import learning_rate, set_learning_rate
from workbench.training.state import TrainState


@dataclass(frozen=True)
class Stepped:
    """A finished step: what the mixer sees, and the scalars of the update (device tensors)."""

    outcome: StepOutcome
    grad_norm: Tensor
    learning_rate: float


def train_step(state: TrainState, batch: Batch) -> Stepped:
    """Run step `state.step` on `batch`, in micro-batches if the config asks for them.

    The gradient is that of (1/M) sum_i w_i loss_i over the M valid rows of the batch.

    Raises:
        NumericsError: a loss or the gradient norm is not finite (checked before the update on a
            CPU, where reading a value costs nothing; on a GPU the recorder checks later).
    """
    config = state.config.training
    tokens_BT = batch.tokens_BT.to(config.device, non_blocking=True)
    labels_BT = batch.labels_BT.to(config.device, non_blocking=True)
    valid_B = valid_rows(labels_BT)
    loss_B, weight_B = _accumulate(state, tokens_BT, labels_BT, valid_B)
    outcome = StepOutcome(
        step=state.step,
        domain_B=batch.domain_B,
        sample_id_B=batch.sample_id_B,
        loss_B=loss_B,
        weight_B=weight_B,
        valid_B=valid_B,
    )
    clip = state.config.optimizer.clip_norm or torch.inf
    grad_norm = torch.nn.utils.clip_grad_norm_(state.model.parameters(), clip)
    rate = learning_rate(state.step, state.config.optimizer, total_steps=config.total_steps)
    stepped = Stepped(outcome, grad_norm, rate)
    if tokens_BT.device.type == "cpu" and not _finite(loss_B, valid_B, grad_norm):
        state.optimizer.zero_grad(set_to_none=True)
        raise NonFiniteStep(stepped)
    set_learning_rate(state.optimizer, rate)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    return stepped


class NonFiniteStep(NumericsError):
    """A step whose update was not applied; the loop names its rows."""

    def __init__(self, stepped: Stepped):
        self.stepped = stepped
        super().__init__(f"step {stepped.outcome.step}: loss or gradient is not finite")


def _finite(loss_B: Tensor, valid_B: Tensor, grad_norm: Tensor) -> bool:
    return bool(torch.isfinite(torch.where(valid_B, loss_B, 0.0)).all() & grad_norm.isfinite())


def _accumulate(
    state: TrainState, tokens_BT: Tensor, labels_BT: Tensor, valid_B: Tensor
) -> tuple[Tensor, Tensor]:
    """Losses and weights of the step, its gradient added up in the parameters."""
    rows = state.config.training.micro_batch_rows or len(tokens_BT)
    parts = [slice(i, i + rows) for i in range(0, len(tokens_BT), rows)]
    weight_B = None
    if len(parts) > 1 and state.reweighter.scope is Scope.STEP:
        with torch.no_grad():
            ahead = [_losses(state, tokens_BT[part], labels_BT[part]) for part in parts]
        weight_B = state.reweighter.weigh(torch.cat(ahead), valid_B, state.step)
    valid_count = valid_B.sum().clamp(min=1)
    losses, weights = [], []
    for part in parts:
        loss_b = _losses(state, tokens_BT[part], labels_BT[part])
        if weight_B is None:
            weight_b = state.reweighter.weigh(loss_b.detach(), valid_B[part], state.step)
        else:
            weight_b = weight_B[part]
        # Summed, then divided by the valid rows of the whole step: dividing once more by the
        # number of micro-batches would scale the gradient down twice.
        ((weight_b * loss_b).sum() / valid_count).backward()
        losses.append(loss_b.detach())
        weights.append(weight_b)
    return torch.cat(losses), torch.cat(weights)


def _losses(state: TrainState, tokens_bT: Tensor, labels_bT: Tensor) -> Tensor:
    training = state.config.training
    with autocast(training.device, training.precision):
        return sample_loss(state.model.hidden(tokens_bT), state.model.head_VD, labels_bT)

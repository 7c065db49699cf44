"""One optimiser step: losses per sample, weights, gradients, update.

    outcome = train_step(state, batch)     # tensors stay on the device; nothing is read back

Shapes: B rows of the global batch, b rows of this rank, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from workbench.core import PROCESS_GENERATORS, Batch, NumericsError, StepOutcome, stream_seed
from workbench.kernels import valid_rows
from workbench.kernels.memory import sent
from workbench.training.accumulate import accumulate, splits
from workbench.training.device import autocast
from workbench.training.optimizer import learning_rate, set_learning_rate
from workbench.training.ranks import Ranks
from workbench.training.state import TrainState


@dataclass(frozen=True)
class Stepped:
    """A finished step: what the mixer sees, and the scalars of the update (device tensors)."""

    outcome: StepOutcome
    grad_norm: Tensor
    learning_rate: float
    diagnostics: Mapping[str, float | Tensor]


def train_step(state: TrainState, batch: Batch) -> Stepped:
    """Run step `state.step` on `batch`, in micro-batches if the config asks for them.

    The gradient is that of (1/M) sum_i w_i loss_i over the M valid rows of the batch.  Of its
    tokens a rank looks at those of its own part alone.

    Raises:
        NumericsError: a loss or the gradient norm is not finite (checked before the update on a
            CPU, where reading a value costs nothing; on a GPU the recorder checks later).
    """
    config = state.config.training
    ranks = Ranks.here()
    own = ranks.part(len(batch))
    tokens_bT = sent(batch.tokens_BT[own], config.device)
    labels_bT = sent(batch.labels_BT[own], config.device)
    valid_B = ranks.gather(valid_rows(labels_bT), len(batch))
    split = ranks.world > 1 or splits(state, ranks, len(batch))
    watch = state.signals.step(state.mixer.needs, batch.domain_B[own], split=split)
    # Before the gradient: what a pass gathers of shards must not lie between it and the update.
    with autocast(config.device, config.precision):
        watch.compare(state.model, tokens_bT, labels_bT, len(batch), config.micro_batch_rows)
    with _own_randomness(state):
        loss_B, weight_B = accumulate(state, tokens_bT, labels_bT, valid_B, ranks, watch)
    outcome = StepOutcome(
        step=state.step,
        domain_B=batch.domain_B,
        sample_id_B=batch.sample_id_B,
        loss_B=loss_B,
        weight_B=weight_B,
        valid_B=valid_B,
    )
    clip = state.config.optimizer.clip_norm or torch.inf
    grad_norm = state.spread.clip(clip)
    rate = learning_rate(state.step, state.config.optimizer, total_steps=config.total_steps)
    stepped = Stepped(outcome, grad_norm, rate, state.reweighter.diagnostics(state.step))
    if tokens_bT.device.type == "cpu" and not _finite(loss_B, valid_B, grad_norm):
        state.optimizer.zero_grad(set_to_none=True)
        raise NonFiniteStep(stepped)
    set_learning_rate(state.optimizer, rate)
    with watch.update():
        state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    state.reweighter.observe(loss_B, valid_B, state.step)
    signals = watch.result(batch.domain_B, valid_B, ranks, valid_B.sum().clamp(min=1))
    return replace(stepped, outcome=replace(outcome, signals=signals)) if signals else stepped


@contextmanager
def _own_randomness(state: TrainState) -> Iterator[None]:
    """Dropout drawn from (seed, step), leaving the generator of the user's cells as it was."""
    if not state.draws:
        yield
        return
    device = torch.device(state.config.training.device)
    with PROCESS_GENERATORS, torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(stream_seed(state.config.seed, "dropout", state.step))
        yield


class NonFiniteStep(NumericsError):
    """A step whose update was not applied; the loop names its rows."""

    def __init__(self, stepped: Stepped):
        self.stepped = stepped
        super().__init__(f"step {stepped.outcome.step}: loss or gradient is not finite")


def _finite(loss_B: Tensor, valid_B: Tensor, grad_norm: Tensor) -> bool:
    return bool(torch.isfinite(torch.where(valid_B, loss_B, 0.0)).all() & grad_norm.isfinite())

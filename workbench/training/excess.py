"""How much worse the model in training is than a finished one, row by row.

    excess = ExcessLoss.of("runs/reference", corpus, device)
    excess_b = excess.rows(model, tokens_bT, labels_bT)

Shapes: b rows, T tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from workbench.core import IGNORE_INDEX
from workbench.data import PreparedCorpus
from workbench.kernels import chunked_token_loss
from workbench.models import Decoder
from workbench.training.finished import finished_model


class ExcessLoss:
    """Losses of a frozen reference model beside those of the model in training."""

    def __init__(self, reference: Decoder):
        self._reference = reference.eval().requires_grad_(False)

    @classmethod
    def of(cls, path: str, corpus: PreparedCorpus, device: str) -> ExcessLoss:
        """The model of a run's newest checkpoint; raises what `finished_model` raises."""
        return cls(finished_model(path, corpus, "reference").to(device))

    @torch.no_grad()
    def rows(self, model: Decoder, tokens_bT: Tensor, labels_bT: Tensor) -> Tensor:
        """Mean over a row's active tokens of max(loss - reference loss, 0) in nats, (b,)."""
        was_training = model.training
        model.eval()
        difference_bT = _losses(model, tokens_bT, labels_bT)
        model.train(was_training)
        difference_bT -= _losses(self._reference, tokens_bT, labels_bT)
        active_bT = labels_bT != IGNORE_INDEX
        return difference_bT.clamp(min=0).mul(active_bT).sum(dim=1) / active_bT.sum(dim=1).clamp(
            min=1
        )


def _losses(model: Decoder, tokens_bT: Tensor, labels_bT: Tensor) -> Tensor:
    return chunked_token_loss(model.hidden(tokens_bT), model.head_VD, labels_bT)

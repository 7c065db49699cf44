"""Loss of each row from the logits of any causal language model of `transformers`.

    rows = row_losses(model(input_ids=tokens_BT).logits, labels_BT)
    (weight_B * rows.loss_B).sum().backward()

Labels are aligned with the inputs, as `transformers` has them: the label of token t is predicted at
t - 1.  Shapes: B rows, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from workbench.core import IGNORE_INDEX, ModelError
from workbench.kernels import token_loss

OWN_LOSS = ("labels", "shift_labels", "num_items_in_batch")
"""Inputs with which a model computes its own loss."""
TOLERANCE = 0.02
"""Of the probe, relative: a model in half precision rounds its loss, another loss differs more."""
NO_LOGITS = (
    "turn the fused loss off: use_liger_kernel=False, or "
    "liger_kernel_config={'fused_linear_cross_entropy': False}"
)


@dataclass(frozen=True)
class RowLosses:
    """loss_B: mean nats per predicted token, 0 without any; tokens_B: predicted tokens, int64."""

    loss_B: Tensor
    tokens_B: Tensor

    @property
    def valid_B(self) -> Tensor:
        """Rows that predict anything, bool."""
        return self.tokens_B > 0

    def token_mean(self) -> Tensor:
        """The loss `transformers` would give: mean over all predicted tokens, a scalar."""
        return (self.loss_B * self.tokens_B).sum() / self.tokens_B.sum().clamp(min=1)


def row_losses(logits_BTV: Tensor, labels_BT: Tensor, *, shifted: bool = False) -> RowLosses:
    """Mean cross-entropy over the predicted tokens of each row.

    Args:
        labels_BT: int64, `IGNORE_INDEX` where nothing is predicted, such as padding.
        shifted: the label of a token is already that of the next one, as in `shift_labels`.
    Raises:
        ModelError: logits and labels do not fit.
    """
    if logits_BTV.dim() != 3 or labels_BT.shape != logits_BTV.shape[:2]:
        raise ModelError(
            f"logits {tuple(logits_BTV.shape)} do not fit labels {tuple(labels_BT.shape)}",
            remedy="give logits (B, T, V) and labels (B, T) of the same tokens",
        )
    if not shifted:
        logits_BTV, labels_BT = logits_BTV[:, :-1], labels_BT[:, 1:]
    tokens_B = (labels_BT != IGNORE_INDEX).sum(dim=1)
    nll_BT = token_loss(logits_BTV, labels_BT.to(logits_BTV.device))
    return RowLosses(nll_BT.sum(dim=1) / tokens_B.clamp(min=1), tokens_B)


def batch_losses(model: Any, inputs: Mapping[str, Any]) -> tuple[RowLosses, Any]:
    """Losses of a batch as a collator makes it, and what the model returned without its labels.

    Raises:
        ModelError: the model gives no logits.
    """
    outputs = model(**{name: value for name, value in inputs.items() if name not in OWN_LOSS})
    return _losses_of(outputs, inputs, model), outputs


def require_row_losses(model: Any, inputs: Mapping[str, Any]) -> None:
    """Prove on one batch that weighing the rows' losses weighs what the model trains on.

    Runs the model once as its own trainer does, with labels and in training mode, and compares its
    loss with ours.  Modes and random streams are left as they were; no gradient is made.

    Raises:
        ModelError: the model hides its logits, as a fused cross-entropy does, or its loss is
            another one, such as one with an auxiliary term.
    """
    kind = type(model).__name__
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        raise ModelError(f"{kind} is no causal decoder", remedy="use a causal language model")
    labels_BT = inputs.get("labels")
    if labels_BT is None:
        raise ModelError(
            f"a batch for {kind} has no labels",
            remedy="use a collator that gives labels, such as DataCollatorForLanguageModeling("
            "tokenizer, mlm=False)",
        )
    was_training, device = model.training, labels_BT.device
    model.train()
    try:
        with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
            outputs = model(**{k: v for k, v in inputs.items() if k != "num_items_in_batch"})
            rows = _losses_of(outputs, inputs, model)
    finally:
        model.train(was_training)
    own = outputs["loss"] if isinstance(outputs, Mapping) else outputs.loss
    if not rows.valid_B.any():
        return
    expected = rows.token_mean()
    if (own - expected).abs() > TOLERANCE * expected.abs().clamp(min=1e-3):
        raise ModelError(
            f"{kind} trains on another loss than the cross-entropy of its logits: {float(own):.4f} "
            f"instead of {float(expected):.4f} nats",
            remedy="switch off what it adds, such as output_router_logits=False or label smoothing",
        )


def _losses_of(outputs: Any, inputs: Mapping[str, Any], model: Any) -> RowLosses:
    logits_BTV = getattr(outputs, "logits", None)
    if not isinstance(logits_BTV, Tensor) or logits_BTV.dim() != 3:
        raise ModelError(
            f"{type(model).__name__} gives no logits in training, so the loss of a row is hidden "
            "in one number for the batch",
            remedy=NO_LOGITS,
        )
    shifted = inputs.get("shift_labels")
    labels_BT = inputs["labels"] if shifted is None else shifted
    return row_losses(logits_BTV, labels_BT, shifted=shifted is not None)

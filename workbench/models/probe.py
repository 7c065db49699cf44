"""Proof, on one tiny batch, that a model can be used through hidden states and head alone.

    require_plain_head(causal_lm)      # ModelError when its logits are not hidden @ head.T

A model that caps, scales or shifts its logits would otherwise train on a wrong loss in silence.
Shapes: B rows, T tokens, D width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.core import ModelError

PROBE_TOKENS = 8
AMPLIFICATION = 1000.0
"""A fresh model's logits are small enough for tanh(x/30)·30 to pass for x; amplified, they show."""


def require_plain_head(model: Any) -> None:
    """Raise ModelError unless logits are hidden @ head.T and no token sees a later one.

    Args:
        model: a `transformers` causal language model on one device; its mode is restored.
    """
    kind = type(model).__name__
    head = model.get_output_embeddings()
    if head is None or getattr(head, "weight", None) is None:
        raise ModelError(f"{kind} has no output embedding", remedy="choose a causal decoder")
    if getattr(head, "bias", None) is not None:
        raise ModelError(
            f"{kind} adds a bias to its logits, which the loss kernel would drop",
            remedy="choose a model without a head bias, such as llama, qwen2 or gpt2",
        )
    hidden_BTD, logits_BTV = _run(model, head)
    expected_BTV = AMPLIFICATION * F.linear(hidden_BTD, head.weight)
    if not _close(logits_BTV, expected_BTV):
        raise ModelError(
            f"the logits of {kind} are not hidden @ head.T: they are capped, scaled or shifted",
            remedy="override the field that does it, such as final_logit_softcapping=None, or "
            "choose another model",
        )
    if not _close(hidden_BTD[0, :-1], hidden_BTD[1, :-1]):
        raise ModelError(
            f"{kind} lets a token see the tokens after it", remedy="choose a causal decoder"
        )


def _run(model: Any, head: Any) -> tuple[Tensor, Tensor]:
    """Body output, and the model's own logits when the head's output is amplified.

    The two rows differ in their last token only.
    """
    tokens_BT = torch.arange(PROBE_TOKENS).repeat(2, 1)
    tokens_BT[1, -1] += 1
    tokens_BT = tokens_BT.to(head.weight.device)
    was_training = model.training
    hook = head.register_forward_hook(lambda _head, _inputs, logits: AMPLIFICATION * logits)
    model.eval()
    try:
        with torch.no_grad():
            hidden_BTD = model.base_model(input_ids=tokens_BT, use_cache=False).last_hidden_state
            return hidden_BTD, model(input_ids=tokens_BT, use_cache=False).logits
    finally:
        hook.remove()
        model.train(was_training)


def _close(actual: Tensor, expected: Tensor) -> bool:
    if actual.shape != expected.shape:
        return False
    scale = expected.abs().max().clamp(min=1e-12)
    return bool(((actual - expected).abs().max() / scale) < 1e-3)

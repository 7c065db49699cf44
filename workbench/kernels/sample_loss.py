"""Cross-entropy of each row of a batch, from hidden states and the output embedding.

    loss_B = sample_loss(hidden_BTD, head_VD, labels_BT)       # nats per token, one value a row
    (weight_B * loss_B).sum().backward()                       # exact for any weights

Forms compute the same numbers: "full" holds all logits, "chunked" those of a few tokens at a time,
"triton" those of a tile in registers; these two compute them twice.  "liger" is Liger-Kernel's, by
name alone.  `reference_sample_loss` is the slow truth of all.

Shapes: B rows, T tokens, D width, V vocabulary, N = B·T.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.core import IGNORE_INDEX, ConfigError, ModelError, NumericsError, unknown_name
from workbench.kernels.choice import choose
from workbench.kernels.chunked import chunked_token_loss, product_type_of

Form = Literal["auto", "full", "chunked", "triton", "liger"]
TokenLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(hidden_BTD, head_VD, labels_BT) to nll_BT."""

FULL_LOGITS_MIB = 128
"""Float32 logits up to this size are held.  Full logits save one product in four of the head, and
their peak is three times their size: here no more than a small model's activations.  `tiny` and
`small` stay below.  `benchmarks/loss_kernel.py` measures both forms on either side."""


def sample_loss(
    hidden_BTD: Tensor,
    head_VD: Tensor,
    labels_BT: Tensor,
    *,
    form: Form = "auto",
    check: bool = False,
) -> Tensor:
    """Mean cross-entropy over the active tokens of each row, in nats per token.

    Gradients are exact under any upstream gradient per row.  A row whose labels are all
    `IGNORE_INDEX` has loss 0 and gradient 0; `valid_rows` tells which rows those are.

    Args:
        hidden_BTD: last hidden states.  Half precision is multiplied as it is and reduced in
            float32; under `torch.autocast` the product has autocast's type, as in `F.linear`.
        head_VD: output embedding; logits are hidden @ head.T.
        labels_BT: int64 next tokens, `IGNORE_INDEX` where nothing is predicted.
        form: "full", "chunked", "triton" or "liger"; "auto" is "full" where the logits are small,
            else "triton" where `choice` allows it, else "chunked".
        check: verify the range of the labels first.  Waits for the device: for debugging only.
    Returns:
        loss_B: float32 (float64 for float64 input), shape (B,).
    Raises:
        ConfigError: unknown form, or one that is not installed or cannot run here.
        ModelError: shapes or types that do not fit.
        NumericsError: with `check`, a label outside [0, V).
    """
    _require_fit(hidden_BTD, head_VD, labels_BT)
    if check:
        _require_range(labels_BT, len(head_VD))
    if form == "auto":
        form = _best_form(hidden_BTD, head_VD, labels_BT)
    nll_BT = _token_loss(form)(hidden_BTD, head_VD, labels_BT)
    active_tokens_B = (labels_BT != IGNORE_INDEX).sum(dim=1).clamp_(min=1)
    return nll_BT.sum(dim=1) / active_tokens_B


def valid_rows(labels_BT: Tensor) -> Tensor:
    """Rows with at least one active token: bool, shape (B,)."""
    return (labels_BT != IGNORE_INDEX).any(dim=1)


def reference_sample_loss(
    hidden_BTD: Tensor,
    head_VD: Tensor,
    labels_BT: Tensor,
    *,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """The slow truth of `sample_loss`: one token at a time, all arithmetic in `dtype`; (B,)."""
    losses = []
    for hidden_TD, labels_T in zip(hidden_BTD.to(dtype), labels_BT.tolist(), strict=True):
        log_p_TV = torch.log_softmax(hidden_TD @ head_VD.to(dtype).T, dim=-1)
        active = [(t, label) for t, label in enumerate(labels_T) if label != IGNORE_INDEX]
        total = -sum((log_p_TV[t, label] for t, label in active), start=0.0 * hidden_TD.sum())
        losses.append(total / max(len(active), 1))
    return torch.stack(losses)


def _best_form(hidden_BTD: Tensor, head_VD: Tensor, labels_BT: Tensor) -> Form:
    logits_mib = 4 * labels_BT.numel() * len(head_VD) / 2**20
    if logits_mib <= FULL_LOGITS_MIB:
        return "full"
    like = head_VD.new_empty(0, head_VD.shape[1], dtype=product_type_of(hidden_BTD))
    return "triton" if choose("loss", like).form == "triton" else "chunked"


def _token_loss(form: str) -> TokenLoss:
    """The function that computes a form; Triton and Liger-Kernel are imported when asked for."""
    forms: dict[str, Callable[[], TokenLoss]] = {
        "full": lambda: _full_token_loss,
        "chunked": lambda: chunked_token_loss,
        "triton": _triton_token_loss,
        "liger": _liger_token_loss,
    }
    if form not in forms:
        problem, remedy = unknown_name("form of sample_loss", form, get_args(Form))
        raise ConfigError(problem, remedy=remedy)
    return forms[form]()


def _triton_token_loss() -> TokenLoss:
    from workbench.kernels.triton_loss import triton_token_loss

    return triton_token_loss


def _liger_token_loss() -> TokenLoss:
    from workbench.kernels.liger import liger_token_loss

    return liger_token_loss


def _full_token_loss(hidden_BTD: Tensor, head_VD: Tensor, labels_BT: Tensor) -> Tensor:
    return token_loss(F.linear(hidden_BTD, head_VD), labels_BT)


def token_loss(logits_BTV: Tensor, labels_BT: Tensor) -> Tensor:
    """Cross-entropy of each token from its logits, in nats, 0 where nothing is predicted; (B, T).

    Float32, float64 for float64 logits.
    """
    logits_NV = logits_BTV.flatten(0, 1)
    wide = torch.promote_types(logits_NV.dtype, torch.float32)
    labels_N = labels_BT.flatten()
    nll_N = F.cross_entropy(
        logits_NV.to(wide), labels_N, ignore_index=IGNORE_INDEX, reduction="none"
    )
    return nll_N.view(labels_BT.shape)


def _require_fit(hidden_BTD: Tensor, head_VD: Tensor, labels_BT: Tensor) -> None:
    shapes = f"hidden {tuple(hidden_BTD.shape)}, head {tuple(head_VD.shape)}"
    if hidden_BTD.dim() != 3 or head_VD.dim() != 2 or hidden_BTD.shape[2] != head_VD.shape[1]:
        raise ModelError(
            f"hidden states and head do not fit: {shapes}",
            remedy="give hidden (B, T, D) and head (V, D)",
        )
    if labels_BT.shape != hidden_BTD.shape[:2]:
        raise ModelError(
            f"labels {tuple(labels_BT.shape)} do not fit {shapes}",
            remedy="give one label per hidden state, shape (B, T)",
        )
    if labels_BT.dtype != torch.int64:
        raise ModelError(f"labels are {labels_BT.dtype}", remedy="convert them with labels.long()")
    if hidden_BTD.dtype != head_VD.dtype and not torch.is_autocast_enabled(head_VD.device.type):
        raise ModelError(
            f"hidden states are {hidden_BTD.dtype}, the head is {head_VD.dtype}",
            remedy="convert one of them, or compute under torch.autocast",
        )


def _require_range(labels_BT: Tensor, vocab_size: int) -> None:
    wrong_BT = (labels_BT != IGNORE_INDEX) & ((labels_BT < 0) | (labels_BT >= vocab_size))
    if wrong_BT.any():
        row, token = wrong_BT.nonzero()[0].tolist()
        raise NumericsError(
            f"label {int(labels_BT[row, token])} of row {row}, token {token} is outside the "
            f"vocabulary of {vocab_size}",
            remedy="use the tokenizer the model was built for",
        )

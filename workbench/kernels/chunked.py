"""Token losses that never hold more than one chunk of logits.

    nll_BT = chunked_token_loss(hidden_BTD, head_VD, labels_BT)

The forward keeps one number a token, the log of the sum of exponentials; the backward computes
each chunk's logits again: four products instead of three, and far fewer fresh pages.
Shapes: B rows, T tokens, D width, V vocabulary, N = B·T, n tokens of a chunk.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from workbench.core import IGNORE_INDEX, NumericsError

_log = logging.getLogger(__name__)

CHUNK_MIB = 32
"""Float32 logits of one chunk.  Below this the head's gradient is added to memory too often."""


@dataclass(frozen=True)
class Passes:
    """The two passes over the logits in which forms of the token loss differ.

    losses: (hidden_ND, head_VD, labels_N) to the loss and the log-sum-exp of each token; the loss
        of an ignored token is 0.
    errors: (hidden_ND, head_VD, labels_N, normaliser_N) to slices of the tokens with their
        softmax − onehot, (n, V) in the type of the head.

    The head comes in the type of the products, the hidden states as they are.
    """

    losses: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
    errors: Callable[[Tensor, Tensor, Tensor, Tensor], Iterator[tuple[slice, Tensor]]]


def chunked_token_loss(
    hidden_BTD: Tensor, head_VD: Tensor, labels_BT: Tensor, *, chunk_tokens: int | None = None
) -> Tensor:
    """Cross-entropy of each token in nats, 0 where the label is `IGNORE_INDEX`; shape (B, T).

    Gradients are exact under any upstream gradient per token.  Products have the type that
    `F.linear` would use, under `torch.autocast` too; sums over the vocabulary and over chunks are
    in float32 (float64 for float64 input).

    Args:
        chunk_tokens: tokens whose logits exist at a time; by default as many as fit `CHUNK_MIB`.
    Raises:
        NumericsError: from the backward, when a second derivative is asked for.
    """
    chunk_tokens = chunk_tokens or max(1, CHUNK_MIB * 2**20 // (4 * len(head_VD)))
    passes = Passes(
        partial(_losses, chunk_tokens=chunk_tokens), partial(_errors, chunk_tokens=chunk_tokens)
    )
    return partwise_token_loss(hidden_BTD, head_VD, labels_BT, passes)


def partwise_token_loss(
    hidden_BTD: Tensor, head_VD: Tensor, labels_BT: Tensor, passes: Passes
) -> Tensor:
    """The loss whose passes over the logits are given; see `chunked_token_loss`."""
    hidden_ND = hidden_BTD.reshape(-1, hidden_BTD.shape[-1])
    nll_N = _PartwiseTokenLoss.apply(hidden_ND, head_VD, labels_BT.reshape(-1), passes)
    return nll_N.view(labels_BT.shape)


class _PartwiseTokenLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, head_VD: Tensor, labels_N: Tensor, passes: Passes):
        product_type = product_type_of(hidden_ND)
        with torch.autocast(hidden_ND.device.type, enabled=False):
            nll_N, normaliser_N = passes.losses(hidden_ND, head_VD.to(product_type), labels_N)
        ctx.save_for_backward(hidden_ND, head_VD, labels_N, normaliser_N)
        ctx.product_type, ctx.errors = product_type, passes.errors
        return nll_N

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor):
        if torch.is_grad_enabled():
            raise NumericsError(
                "the chunked loss has no second derivative",
                remedy="use form='full', or leave out create_graph",
            )
        hidden_ND, head_VD, labels_N, normaliser_N = ctx.saved_tensors
        with torch.autocast(hidden_ND.device.type, enabled=False):
            gradients = _backward(
                hidden_ND,
                head_VD,
                upstream[0].masked_fill(labels_N == IGNORE_INDEX, 0),
                product_type=ctx.product_type,
                errors=lambda head_VD: ctx.errors(hidden_ND, head_VD, labels_N, normaliser_N),
                needed=ctx.needs_input_grad[:2],
            )
        return *gradients, None, None


def _losses(
    hidden_ND: Tensor, head_VD: Tensor, labels_N: Tensor, *, chunk_tokens: int
) -> tuple[Tensor, Tensor]:
    """Loss and log-sum-exp of each token."""
    wide = torch.promote_types(head_VD.dtype, torch.float32)
    nll_N = torch.empty(len(hidden_ND), dtype=wide, device=hidden_ND.device)
    normaliser_N = torch.empty_like(nll_N)
    safe_labels_N = _without_ignored(labels_N)
    for part, logits_nV in _logits(hidden_ND, head_VD, chunk_tokens):
        label_n1 = safe_labels_N[part][:, None]
        label_logit_n = logits_nV.gather(1, label_n1).squeeze(1)
        largest_n1 = logits_nV.amax(dim=1, keepdim=True)
        total_n = logits_nV.sub_(largest_n1).exp_().sum(dim=1)
        torch.add(total_n.log_(), largest_n1.squeeze(1), out=normaliser_N[part])
        torch.sub(normaliser_N[part], label_logit_n, out=nll_N[part])
    return nll_N.masked_fill_(labels_N == IGNORE_INDEX, 0), normaliser_N


def _errors(
    hidden_ND: Tensor,
    head_VD: Tensor,
    labels_N: Tensor,
    normaliser_N: Tensor,
    *,
    chunk_tokens: int,
) -> Iterator[tuple[slice, Tensor]]:
    """Slices of the tokens with their softmax − onehot, in the type of the head."""
    safe_labels_N = _without_ignored(labels_N)
    for part, logits_nV in _logits(hidden_ND, head_VD, chunk_tokens):
        softmax_nV = logits_nV.sub_(normaliser_N[part][:, None]).exp_()
        label_n1 = safe_labels_N[part][:, None]
        softmax_nV.scatter_add_(1, label_n1, -torch.ones_like(label_n1, dtype=softmax_nV.dtype))
        yield part, softmax_nV.to(head_VD.dtype)


def _backward(
    hidden_ND: Tensor,
    head_VD: Tensor,
    upstream_N: Tensor,
    *,
    product_type: torch.dtype,
    errors: Callable[[Tensor], Iterator[tuple[slice, Tensor]]],
    needed: tuple[bool, ...],
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of the hidden states and of the head, None where not needed.

    d nll / d logits = softmax − onehot, scaled by the token's upstream gradient.  The scale goes
    on the D-wide side of both products: V-wide it would be one more sweep over the logits.
    """
    wide = upstream_N.dtype
    product_head_VD = head_VD.to(product_type)
    hidden_grad_ND = torch.empty_like(hidden_ND) if needed[0] else None
    head_grad_VD = torch.zeros_like(head_VD, dtype=wide) if needed[1] else None
    for part, error_nV in errors(product_head_VD):
        scale_n1 = upstream_N[part][:, None]
        if hidden_grad_ND is not None:
            hidden_grad_ND[part] = (error_nV @ product_head_VD) * scale_n1
        if head_grad_VD is not None:
            _add_product(head_grad_VD, error_nV, (hidden_ND[part] * scale_n1).to(product_type))
    head_grad_VD = None if head_grad_VD is None else head_grad_VD.to(head_VD.dtype)
    return hidden_grad_ND, head_grad_VD


def _logits(
    hidden_ND: Tensor, head_VD: Tensor, chunk_tokens: int
) -> Iterator[tuple[slice, Tensor]]:
    """Slices of the tokens with their logits in float32 or wider.

    All chunks share one buffer, so that the next chunk's logits never coexist with the last's.
    """
    tokens = len(hidden_ND)
    wide = torch.promote_types(head_VD.dtype, torch.float32)
    rows = min(chunk_tokens, tokens)
    buffer_nV = head_VD.new_empty(rows, len(head_VD))
    wide_buffer_nV = buffer_nV if wide == head_VD.dtype else buffer_nV.to(wide)
    for start in range(0, tokens, chunk_tokens):
        part = slice(start, min(start + chunk_tokens, tokens))
        length = part.stop - start
        logits_nV = buffer_nV[:length]
        torch.mm(hidden_ND[part].to(head_VD.dtype), head_VD.T, out=logits_nV)
        if wide_buffer_nV is not buffer_nV:
            logits_nV = wide_buffer_nV[:length].copy_(logits_nV)
        yield part, logits_nV


def _add_product(head_grad_VD: Tensor, error_nV: Tensor, scaled_hidden_nD: Tensor) -> None:
    if error_nV.dtype == head_grad_VD.dtype:
        head_grad_VD.addmm_(error_nV.T, scaled_hidden_nD)
    elif not _wide_sum_obstacle(head_grad_VD.device.type):
        wide = head_grad_VD.dtype
        torch.addmm(head_grad_VD, error_nV.T, scaled_hidden_nD, out_dtype=wide, out=head_grad_VD)
    else:
        head_grad_VD.add_(error_nV.T @ scaled_hidden_nD)


@lru_cache
def _wide_sum_obstacle(device: str) -> str:
    """Why a product of half precision is not added up in float32 where it is made, or nothing."""
    reason = ""
    if device != "cuda":
        reason = f"the tensors are on the {device}"
    elif "dtype_out" not in torch.ops.aten.addmm.overloads():
        reason = f"torch {torch.__version__} has no addmm with a type of the sum"
    if reason:
        _log.info("loss: each product is made before it is added in float32, because %s", reason)
    return reason


def _without_ignored(labels_N: Tensor) -> Tensor:
    """Labels that can be looked up.  Only `IGNORE_INDEX` is replaced: a wrong label must fail."""
    return labels_N.masked_fill(labels_N == IGNORE_INDEX, 0)


def product_type_of(hidden_ND: Tensor) -> torch.dtype:
    """Type `F.linear` multiplies in: autocast's inside autocast, which leaves float64 alone."""
    device = hidden_ND.device.type
    if torch.is_autocast_enabled(device) and hidden_ND.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return hidden_ND.dtype

"""Token losses in Triton: logits exist tile by tile in registers, and never as a matrix.

    nll_BT = triton_token_loss(hidden_BTD, head_VD, labels_BT)

The forward keeps an online log of the sum of exponentials.  The backward makes each logit again and
writes softmax − onehot for a part of the tokens, in the type of the products; the two products with
it are the library's.  No atomic additions: the same input gives the same gradient to the bit.
Shapes: B rows, T tokens, D width, V vocabulary, N = B·T, n tokens of a part, S vocabulary parts,
R × C tile of tokens and vocabulary.
"""

# pyright: reportInvalidTypeForm=false

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from workbench.core import IGNORE_INDEX
from workbench.kernels.chunked import Passes, partwise_token_loss, product_type_of
from workbench.kernels.counting import note_flops
from workbench.kernels.tiling import Tile, jit, parts_of, precision_of, strip_product, tl

ERROR_MIB = 512
"""softmax − onehot that exists at a time: the head's gradient is read and written for each part."""
VOCABULARY_PART = 8192
"""Columns that one program of the forward walks along; smaller parts keep more of a device busy."""


def triton_token_loss(
    hidden_BTD: Tensor,
    head_VD: Tensor,
    labels_BT: Tensor,
    *,
    tile: Tile | None = None,
    vocabulary_part: int = VOCABULARY_PART,
    part_tokens: int | None = None,
) -> Tensor:
    """Cross-entropy of each token in nats, 0 where the label is `IGNORE_INDEX`; float32 (B, T).

    Gradients are exact under any upstream gradient per token.  Products have the type that
    `F.linear` would use, under `torch.autocast` too; logits stay in float32.  A label outside the
    vocabulary gives NaN, in the loss and in both gradients.  Twin: `reference_sample_loss`.

    Args:
        hidden_BTD: float32, bfloat16 or float16, as `head_VD`, on a GPU or interpreted.
        tile: of one program; by the type when None.
        part_tokens: tokens whose errors exist at a time; as many as fit `ERROR_MIB` when None.
    Raises:
        NumericsError: from the backward, when a second derivative is asked for.
    """
    part_tokens = part_tokens or _tokens_of_a_part(product_type_of(hidden_BTD), len(head_VD))
    passes = Passes(
        partial(_losses, tile=tile, vocabulary_part=vocabulary_part),
        partial(_errors, tile=tile, part_tokens=part_tokens),
    )
    return partwise_token_loss(hidden_BTD, head_VD, labels_BT, passes)


def _tokens_of_a_part(product_type: torch.dtype, vocab_size: int) -> int:
    """As many as `ERROR_MIB` hold, in whole tiles."""
    rows = Tile.of(product_type).rows
    tokens = ERROR_MIB * 2**20 // (product_type.itemsize * vocab_size)
    return max(rows, tokens // rows * rows)


def _losses(
    hidden_ND: Tensor,
    head_VD: Tensor,
    labels_N: Tensor,
    *,
    tile: Tile | None,
    vocabulary_part: int,
) -> tuple[Tensor, Tensor]:
    """Loss and log-sum-exp of each token."""
    (tokens, width), vocab_size = hidden_ND.shape, len(head_VD)
    hidden_ND = hidden_ND.to(head_VD.dtype)
    tile = (tile or Tile.of(head_VD.dtype)).fitted(tokens, vocab_size, width)
    vocabulary_part = parts_of(vocabulary_part, tile.columns) * tile.columns
    parts = parts_of(vocab_size, vocabulary_part)
    options = {"dtype": torch.float32, "device": hidden_ND.device}
    normaliser_SN = torch.empty(parts, tokens, **options)
    # The one program that meets the label writes its logit: none does for a wrong label.
    label_logit_N = torch.full((tokens,), torch.nan, **options)
    note_flops(2 * tokens * width * vocab_size)
    with torch.cuda.device_of(hidden_ND):
        _losses_of_tile[(parts_of(tokens, tile.rows), parts)](
            hidden_ND,
            *hidden_ND.stride(),
            head_VD,
            *head_VD.stride(),
            labels_N,
            normaliser_SN,
            label_logit_N,
            tokens,
            vocab_size,
            width,
            vocabulary_part,
            R=tile.rows,
            C=tile.columns,
            INNER=tile.inner,
            PRECISION=precision_of(head_VD.dtype),
            **tile.options,
        )
    ignored_N = labels_N == IGNORE_INDEX
    normaliser_N = normaliser_SN.logsumexp(dim=0)
    normaliser_N.masked_fill_(label_logit_N.isnan() & ~ignored_N, torch.nan)
    return (normaliser_N - label_logit_N).masked_fill_(ignored_N, 0), normaliser_N


def _errors(
    hidden_ND: Tensor,
    head_VD: Tensor,
    labels_N: Tensor,
    normaliser_N: Tensor,
    *,
    tile: Tile | None,
    part_tokens: int,
) -> Iterator[tuple[slice, Tensor]]:
    """Slices of the tokens with their softmax − onehot, in the type of the head."""
    (tokens, width), vocab_size = hidden_ND.shape, len(head_VD)
    hidden_ND = hidden_ND.to(head_VD.dtype)
    tile = (tile or Tile.of(head_VD.dtype)).fitted(min(part_tokens, tokens), vocab_size, width)
    buffer_nV = head_VD.new_empty(min(part_tokens, tokens), vocab_size)
    for start in range(0, tokens, part_tokens):
        part = slice(start, min(start + part_tokens, tokens))
        hidden_nD, error_nV = hidden_ND[part], buffer_nV[: part.stop - start]
        grid = (parts_of(len(hidden_nD), tile.rows), parts_of(vocab_size, tile.columns))
        note_flops(2 * len(hidden_nD) * width * vocab_size)
        with torch.cuda.device_of(hidden_ND):
            _errors_of_tile[grid](
                hidden_nD,
                *hidden_nD.stride(),
                head_VD,
                *head_VD.stride(),
                labels_N[part],
                normaliser_N[part],
                error_nV,
                len(hidden_nD),
                vocab_size,
                width,
                R=tile.rows,
                C=tile.columns,
                INNER=tile.inner,
                PRECISION=precision_of(head_VD.dtype),
                **tile.options,
            )
        yield part, error_nV


@jit
def _losses_of_tile(
    hidden,
    hidden_stride,
    hidden_inner_stride,
    head,
    head_stride,
    head_inner_stride,
    labels,
    normaliser_SN,
    label_logit_N,
    tokens,
    vocab_size,
    width,
    vocabulary_part,
    R: tl.constexpr,
    C: tl.constexpr,
    INNER: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Of R tokens and a part of the vocabulary: log-sum-exp, and the logit of a label within."""
    rows_R = tl.program_id(0) * R + tl.arange(0, R)
    inside_R = rows_R < tokens
    label_R = tl.load(labels + rows_R, mask=inside_R, other=-1)
    first = tl.program_id(1) * vocabulary_part
    end = tl.minimum(first + vocabulary_part, vocab_size)
    largest_R = tl.full((R,), float("-inf"), dtype=tl.float32)
    total_R = tl.zeros((R,), dtype=tl.float32)
    label_logit_R = tl.zeros((R,), dtype=tl.float32)
    for start in range(first, end, C):
        columns_C = start + tl.arange(0, C)
        logits_RC = strip_product(
            hidden,
            hidden_stride,
            hidden_inner_stride,
            head,
            head_stride,
            head_inner_stride,
            rows_R,
            columns_C,
            tokens,
            vocab_size,
            width,
            R,
            C,
            INNER,
            PRECISION,
        )
        is_label_RC = columns_C[None, :] == label_R[:, None]
        label_logit_R += tl.sum(tl.where(is_label_RC, logits_RC, 0.0), axis=1)
        logits_RC = tl.where((columns_C < vocab_size)[None, :], logits_RC, float("-inf"))
        new_largest_R = tl.maximum(largest_R, tl.max(logits_RC, axis=1))
        total_R *= tl.exp(largest_R - new_largest_R)
        total_R += tl.sum(tl.exp(logits_RC - new_largest_R[:, None]), axis=1)
        largest_R = new_largest_R
    found_R = inside_R & (label_R >= first) & (label_R < end)
    tl.store(label_logit_N + rows_R, label_logit_R, mask=found_R)
    own = normaliser_SN + tl.program_id(1).to(tl.int64) * tokens
    tl.store(own + rows_R, largest_R + tl.log(total_R), mask=inside_R)


@jit
def _errors_of_tile(
    hidden,
    hidden_stride,
    hidden_inner_stride,
    head,
    head_stride,
    head_inner_stride,
    labels,
    normaliser,
    error_nV,
    tokens,
    vocab_size,
    width,
    R: tl.constexpr,
    C: tl.constexpr,
    INNER: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """softmax − onehot of R tokens and C words, written in the type of `error_nV`."""
    rows_R = tl.program_id(0) * R + tl.arange(0, R)
    columns_C = tl.program_id(1) * C + tl.arange(0, C)
    inside_R, inside_C = rows_R < tokens, columns_C < vocab_size
    label_R = tl.load(labels + rows_R, mask=inside_R, other=-1)
    normaliser_R = tl.load(normaliser + rows_R, mask=inside_R, other=0.0)
    logits_RC = strip_product(
        hidden,
        hidden_stride,
        hidden_inner_stride,
        head,
        head_stride,
        head_inner_stride,
        rows_R,
        columns_C,
        tokens,
        vocab_size,
        width,
        R,
        C,
        INNER,
        PRECISION,
    )
    is_label_RC = columns_C[None, :] == label_R[:, None]
    error_RC = tl.exp(logits_RC - normaliser_R[:, None]) - tl.where(is_label_RC, 1.0, 0.0)
    tl.store(
        error_nV + rows_R.to(tl.int64)[:, None] * vocab_size + columns_C[None, :],
        error_RC.to(error_nV.dtype.element_ty),
        mask=inside_R[:, None] & inside_C[None, :],
    )

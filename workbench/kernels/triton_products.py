"""Products of the two gradient signals in Triton: by domain, symmetric, and contracted.

    parts_KOI = domain_products(s_bTO, a_bTI, domain_runs(domain_b), domains=8)
    A_II += symmetric_product(a_bTI)
    score_BT += contraction(s_BTO, P_OI, a_BTI)

Half precision is multiplied as it is and added in float32.  Twins: `domain_gradients.domain_parts`,
`kronecker.token_moments`, and the product and sum of `influence_scores`.  No atomic additions.
Shapes: b rows, T tokens, K domains, O outputs, I inputs, D width, N = b·T, S parts of a sum,
R × C output tile.
"""

# pyright: reportInvalidTypeForm=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from workbench.kernels.counting import note_flops
from workbench.kernels.memory import sent
from workbench.kernels.tiling import (
    Tile,
    add_product,
    in_lines,
    jit,
    parts_of,
    precision_of,
    strip_product,
    tl,
)

PROGRAMS = 264
"""Programs wanted at least, twice the processors of an H200: long sums are cut for that."""
INPUT_PART = 2048
"""Inputs that one program of the contraction walks along."""


def domain_products(
    s_bTO: Tensor,
    a_bTI: Tensor,
    runs: Sequence[tuple[int, int, int]],
    domains: int,
    *,
    tile: Tile | None = None,
) -> Tensor:
    """sum over the rows and tokens of each domain of s a^T, float32 (K, O, I), in one launch.

    Args:
        runs: domain, first row and end of rows that follow each other; a domain may have several,
            or none, which gives zeros.
    """
    order_b, end_K, largest = _by_domain(tuple(runs), domains, s_bTO.device)
    s_bTO = s_bTO.reshape(len(s_bTO), -1, s_bTO.shape[-1]).contiguous()
    a_bTI = a_bTI.reshape(len(a_bTI), -1, a_bTI.shape[-1]).contiguous()
    (_, tokens, outputs), inputs = s_bTO.shape, a_bTI.shape[-1]
    tile = (tile or Tile.of(s_bTO.dtype)).fitted(outputs, inputs, largest * tokens)
    parts_KOI = s_bTO.new_empty(domains, outputs, inputs, dtype=torch.float32)
    note_flops(2 * len(order_b) * tokens * outputs * inputs)
    with torch.cuda.device_of(s_bTO):
        _domain_tile[(parts_of(outputs, tile.rows), parts_of(inputs, tile.columns), domains)](
            s_bTO,
            a_bTI,
            order_b,
            end_K,
            parts_KOI,
            tokens,
            outputs,
            inputs,
            R=tile.rows,
            C=tile.columns,
            INNER=tile.inner,
            PRECISION=precision_of(s_bTO.dtype),
            **tile.options,
        )
    return parts_KOI


# All layers of a micro-batch ask for the same.
@lru_cache(maxsize=2)
def _by_domain(
    runs: tuple[tuple[int, int, int], ...], domains: int, device: torch.device
) -> tuple[Tensor, Tensor, int]:
    """Rows in order of their domain, (b,); where each domain ends in them, (K,); rows of the most.

    Both on the device, without waiting for it.
    """
    order = [row for _, first, end in sorted(runs) for row in range(first, end)]
    rows_K = [0] * domains
    for domain, first, end in runs:
        rows_K[domain] += end - first
    order_b = sent(torch.tensor(order, dtype=torch.int64), device)
    return order_b, sent(torch.tensor(rows_K).cumsum(dim=0), device), max(rows_K)


def symmetric_product(
    x_bTD: Tensor, weight_bT: Tensor | None = None, *, tile: Tile | None = None
) -> Tensor:
    """sum over rows and tokens of w x x^T, float32 (D, D); only blocks on or below the diagonal.

    Args:
        weight_bT: of each token, rounded to the type of x with the product; 0 leaves a token out.
    """
    x_ND = in_lines(x_bTD)
    count, width = x_ND.shape
    tile = (tile or Tile.of(x_ND.dtype)).fitted(width, width, count)
    blocks = parts_of(width, tile.rows)
    steps = parts_of(count, tile.inner)
    parts = max(1, min(steps, parts_of(2 * PROGRAMS, blocks * (blocks + 1))))
    part = parts_of(steps, parts) * tile.inner
    total_SDD = x_ND.new_empty(parts, width, width, dtype=torch.float32)
    note_flops(2 * count * width**2)
    with torch.cuda.device_of(x_ND):
        _symmetric_tile[(blocks, blocks, parts)](
            x_ND,
            x_ND.stride(0),
            x_ND if weight_bT is None else weight_bT.reshape(-1).contiguous(),
            total_SDD,
            count,
            width,
            part,
            WEIGHTED=weight_bT is not None,
            SIDE=tile.rows,
            INNER=tile.inner,
            PRECISION=precision_of(x_ND.dtype),
            **tile.options,
        )
    return total_SDD[0] if parts == 1 else total_SDD.sum(dim=0)


def contraction(
    s_BTO: Tensor,
    matrix_OI: Tensor,
    a_BTI: Tensor,
    *,
    tile: Tile | None = None,
    input_part: int = INPUT_PART,
) -> Tensor:
    """s^T P a of each token, float32 in the shape of the tokens; s^T P is never written."""
    s_NO, a_NI = in_lines(s_BTO), in_lines(a_BTI)
    (count, outputs), inputs = s_NO.shape, a_NI.shape[1]
    # Half as wide as the others: the tile of a would not fit the registers beside the product.
    tile = (tile or replace(Tile.of(s_NO.dtype), columns=64)).fitted(count, inputs, outputs)
    input_part = parts_of(input_part, tile.columns) * tile.columns
    parts = parts_of(inputs, input_part)
    score_SN = s_NO.new_empty(parts, count, dtype=torch.float32)
    note_flops(2 * count * outputs * inputs)
    with torch.cuda.device_of(s_NO):
        _contraction_tile[(parts_of(count, tile.rows), parts)](
            s_NO,
            s_NO.stride(0),
            matrix_OI,
            *matrix_OI.stride(),
            a_NI,
            a_NI.stride(0),
            score_SN,
            count,
            outputs,
            inputs,
            input_part,
            R=tile.rows,
            C=tile.columns,
            INNER=tile.inner,
            PRECISION=precision_of(s_NO.dtype),
            **tile.options,
        )
    return score_SN.sum(dim=0).view(a_BTI.shape[:-1])


@jit
def _domain_tile(
    s_bTO,
    a_bTI,
    order,
    end_K,
    parts_KOI,
    tokens,
    outputs,
    inputs,
    R: tl.constexpr,
    C: tl.constexpr,
    INNER: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """R outputs and C inputs of one domain, over all its tokens."""
    rows_R = tl.program_id(0) * R + tl.arange(0, R)
    columns_C = tl.program_id(1) * C + tl.arange(0, C)
    domain = tl.program_id(2).to(tl.int64)
    inside_R, inside_C = rows_R < outputs, columns_C < inputs
    first = tl.load(end_K + domain - 1, mask=domain > 0, other=0)
    count = (tl.load(end_K + domain) - first) * tokens
    total_RC = tl.zeros((R, C), dtype=tl.float32)
    for start in range(0, count, INNER):
        token = start + tl.arange(0, INNER).to(tl.int64)
        inside = token < count
        row = tl.load(order + first + token // tokens, mask=inside, other=0)
        line = row * tokens + token % tokens
        s_tile = tl.load(
            s_bTO + line[None, :] * outputs + rows_R[:, None],
            mask=inside[None, :] & inside_R[:, None],
            other=0.0,
        )
        a_tile = tl.load(
            a_bTI + line[:, None] * inputs + columns_C[None, :],
            mask=inside[:, None] & inside_C[None, :],
            other=0.0,
        )
        total_RC = add_product(s_tile, a_tile, total_RC, PRECISION)
    at_RC = rows_R.to(tl.int64)[:, None] * inputs + columns_C[None, :]
    inside_RC = inside_R[:, None] & inside_C[None, :]
    tl.store(parts_KOI + domain * outputs * inputs + at_RC, total_RC, mask=inside_RC)


@jit
def _symmetric_tile(
    x_ND,
    x_stride,
    weight_N,
    total_SDD,
    count,
    width,
    part,
    WEIGHTED: tl.constexpr,
    SIDE: tl.constexpr,
    INNER: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """A block on or below the diagonal and its mirror image, over one part of the tokens."""
    if tl.program_id(1) > tl.program_id(0):
        return
    rows_R = tl.program_id(0) * SIDE + tl.arange(0, SIDE)
    columns_C = tl.program_id(1) * SIDE + tl.arange(0, SIDE)
    inside_R, inside_C = rows_R < width, columns_C < width
    first = tl.program_id(2) * part
    end = tl.minimum(first + part, count)
    total_RC = tl.zeros((SIDE, SIDE), dtype=tl.float32)
    for start in range(first, end, INNER):
        token = start + tl.arange(0, INNER).to(tl.int64)
        inside = token < end
        left = tl.load(
            x_ND + token[None, :] * x_stride + rows_R[:, None],
            mask=inside[None, :] & inside_R[:, None],
            other=0.0,
        )
        right = tl.load(
            x_ND + token[:, None] * x_stride + columns_C[None, :],
            mask=inside[:, None] & inside_C[None, :],
            other=0.0,
        )
        if WEIGHTED:
            weight = tl.load(weight_N + token, mask=inside, other=0.0).to(tl.float32)
            left = (left.to(tl.float32) * weight[None, :]).to(right.dtype)
        total_RC = add_product(left, right, total_RC, PRECISION)
    if WEIGHTED and tl.program_id(0) == tl.program_id(1):
        # Rounding the weighted side alone leaves a trace of asymmetry here.
        total_RC = 0.5 * (total_RC + tl.trans(total_RC))
    own = total_SDD + tl.program_id(2).to(tl.int64) * width * width
    rows_R, columns_C = rows_R.to(tl.int64), columns_C.to(tl.int64)
    inside_RC = inside_R[:, None] & inside_C[None, :]
    tl.store(own + rows_R[:, None] * width + columns_C[None, :], total_RC, mask=inside_RC)
    if tl.program_id(1) < tl.program_id(0):
        tl.store(own + columns_C[None, :] * width + rows_R[:, None], total_RC, mask=inside_RC)


@jit
def _contraction_tile(
    s_NO,
    s_stride,
    matrix,
    matrix_stride,
    matrix_inner_stride,
    a_NI,
    a_stride,
    score_SN,
    count,
    outputs,
    inputs,
    input_part,
    R: tl.constexpr,
    C: tl.constexpr,
    INNER: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Of R tokens: the part of s^T P a that one part of the inputs adds."""
    rows_R = tl.program_id(0) * R + tl.arange(0, R)
    inside_R = rows_R < count
    first = tl.program_id(1) * input_part
    score_R = tl.zeros((R,), dtype=tl.float32)
    for start in range(first, tl.minimum(first + input_part, inputs), C):
        columns_C = start + tl.arange(0, C)
        product_RC = strip_product(
            s_NO,
            s_stride,
            1,
            matrix,
            matrix_inner_stride,
            matrix_stride,
            rows_R,
            columns_C,
            count,
            inputs,
            outputs,
            R,
            C,
            INNER,
            PRECISION,
        )
        a_RC = tl.load(
            a_NI + rows_R.to(tl.int64)[:, None] * a_stride + columns_C[None, :],
            mask=inside_R[:, None] & (columns_C < inputs)[None, :],
            other=0.0,
        )
        score_R += tl.sum(product_RC * a_RC.to(tl.float32), axis=1)
    own = score_SN + tl.program_id(1).to(tl.int64) * count
    tl.store(own + rows_R, score_R, mask=inside_R)

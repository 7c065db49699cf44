"""Kronecker-factored curvature of a linear map y = W a, and a fast way to labels of its own.

    A_II += token_moments(a_bTI); S_OO += token_moments(s_bTO)
    values_I, vectors_II = eigenbasis(A_II / tokens, name)        # columns are eigenvectors
    add_row_squares(squares_OI, a_bTI @ vectors_II, s_bTO @ vectors_OO)

K-FAC: F = S ⊗ A per token (Martens & Grosse 2015).  EK-FAC: its eigenvalues are replaced by the
mean over rows of (Q_S^T G Q_A)^2 (George et al. 2018, equation 9).
Shapes: b rows, T tokens, O outputs, I inputs, D width, V vocabulary, N tokens in a line.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.core import NumericsError
from workbench.kernels.choice import choose

PRODUCT_MIB = 16
"""Row gradients held at a time: enough to keep a device busy, little beside the factors."""
_LOGITS_MIB = 64
_MOMENT_BLOCKS, _LEAST_BLOCK = 4, 64
"""Blocks in which a symmetric product is made, 5/8 of its multiplications; their least width."""


def token_moments(x_bTD: Tensor, weight_bT: Tensor | None = None) -> Tensor:
    """Sum over rows and tokens of x x^T, (D, D), float32 at least.

    Args:
        weight_bT: of each token, not negative; 0 leaves a token out.
    """
    if choose("factors", x_bTD).form == "triton":
        from workbench.kernels.triton_products import symmetric_product

        return symmetric_product(x_bTD, weight_bT)
    x_ND = x_bTD.flatten(0, -2)
    x_ND = x_ND.to(torch.promote_types(x_ND.dtype, torch.float32))
    if weight_bT is not None:
        x_ND = x_ND * weight_bT.reshape(-1, 1).to(x_ND.dtype).sqrt()
    width = x_ND.shape[1]
    # The lower blocks are the upper ones turned.
    blocks = min(_MOMENT_BLOCKS, width // _LEAST_BLOCK) if x_ND.device.type == "cpu" else 1
    if blocks < 2:
        return x_ND.T @ x_ND
    total_DD = x_ND.new_empty(width, width)
    edges = [width * i // blocks for i in range(blocks + 1)]
    for first, last in pairwise(edges):
        torch.mm(x_ND[:, first:last].T, x_ND[:, first:], out=total_DD[first:last, first:])
        total_DD[last:, first:last] = total_DD[first:last, last:].T
    return total_DD


def eigenbasis(moments_DD: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Eigenvalues (D,), ascending, and eigenvectors (D, D) as columns, in float64.

    Rounding makes eigenvalues of a positive matrix slightly negative; those are set to 0.

    Raises:
        NumericsError: not finite, or all 0, naming the factor.
    """
    if not moments_DD.isfinite().all():
        raise NumericsError(
            f"factor '{name}' is not finite",
            remedy="fit in float32, of a checkpoint whose loss is finite",
        )
    if not moments_DD.any():
        raise NumericsError(
            f"factor '{name}' is zero: no activation or gradient reaches it",
            remedy="leave the map out with names=, or fit on other rows",
        )
    values_D, vectors_DD = torch.linalg.eigh(moments_DD.double())
    return values_D.clamp(min=0), vectors_DD


def add_row_squares(squares_OI: Tensor, a_bTI: Tensor, s_bTO: Tensor) -> None:
    """Add the sum over rows of (sum_t s_t a_t^T)^2, element by element, in place.

    A row's gradient is squared as soon as it is made: few exist at a time, however many rows.
    """
    a_bTI, s_bTO = a_bTI.to(squares_OI.dtype), s_bTO.to(squares_OI.dtype)
    rows = max(1, int(PRODUCT_MIB * 2**20) // (squares_OI.numel() * squares_OI.element_size()))
    for first in range(0, len(a_bTI), rows):
        part = slice(first, first + rows)
        product_bOI = torch.bmm(s_bTO[part].mT, a_bTI[part])
        if len(product_bOI) == 1:
            squares_OI.addcmul_(product_bOI[0], product_bOI[0])
        else:
            squares_OI += product_bOI.square_().sum(dim=0)


def reference_token_moments(x_bTD: Tensor, weight_bT: Tensor | None = None) -> Tensor:
    """The slow truth of `token_moments`: one token at a time, in float64."""
    total_DD = x_bTD.new_zeros(x_bTD.shape[-1], x_bTD.shape[-1], dtype=torch.float64)
    weight_bT = torch.ones(x_bTD.shape[:-1]) if weight_bT is None else weight_bT
    for x_D, weight in zip(x_bTD.double().flatten(0, -2), weight_bT.flatten(), strict=True):
        total_DD += weight * torch.outer(x_D, x_D)
    return total_DD


def reference_row_squares(a_bTI: Tensor, s_bTO: Tensor) -> Tensor:
    """The slow truth of `add_row_squares`: every row's gradient, token by token, in float64."""
    total_OI = a_bTI.new_zeros(s_bTO.shape[-1], a_bTI.shape[-1], dtype=torch.float64)
    for a_TI, s_TO in zip(a_bTI.double(), s_bTO.double(), strict=True):
        gradient_OI = torch.zeros_like(total_OI)
        for a_I, s_O in zip(a_TI, s_TO, strict=True):
            gradient_OI += torch.outer(s_O, a_I)
        total_OI += gradient_OI**2
    return total_OI


def sampled_labels(hidden_ND: Tensor, head_VD: Tensor, uniform_N: Tensor) -> tuple[Tensor, Tensor]:
    """Labels from the model's own distribution, and the gradient of their summed loss.

    The gradient of -log p(y) by the hidden state is head^T (p - onehot(y)): with the logits at
    hand for drawing, no second product is needed to differentiate.  Logits exist a part at a time.

    Args:
        hidden_ND: last hidden states; logits are hidden @ head.T.
        uniform_N: in [0, 1); label y is where the cumulated probability passes it.
    Returns:
        labels_N int64, and gradient_ND of sum_n -log p(y_n), in the type of the hidden states.
    """
    wide = torch.promote_types(hidden_ND.dtype, torch.float32)
    labels_N = torch.empty(len(hidden_ND), dtype=torch.int64, device=hidden_ND.device)
    gradient_ND = torch.empty_like(hidden_ND)
    step = max(1, int(_LOGITS_MIB * 2**20) // (4 * len(head_VD)))
    for first in range(0, len(hidden_ND), step):
        part = slice(first, first + step)
        p_nV = F.linear(hidden_ND[part], head_VD).to(wide).softmax(dim=-1)
        labels_n = draw(p_nV, uniform_N[part])
        gradient_ND[part] = p_nV.to(head_VD.dtype) @ head_VD - head_VD[labels_n]
        labels_N[part] = labels_n
    return labels_N, gradient_ND


def draw(p_nV: Tensor, uniform_n: Tensor) -> Tensor:
    """Index in each row of p where the cumulated probability passes a uniform number, int64."""
    cumulated_nV = p_nV.cumsum(dim=-1)
    # Rounding can take a number to 1 and the last sum below it: both are brought inside.
    inside_n = uniform_n.to(p_nV).clamp_(max=1 - torch.finfo(p_nV.dtype).eps)
    at_n1 = inside_n[:, None] * cumulated_nV[:, -1:]
    found_n = torch.searchsorted(cumulated_nV, at_n1, right=True)[:, 0]
    # Nothing passes a number that is not finite: the factors will say so, not the index.
    return found_n.clamp_(max=p_nV.shape[-1] - 1)

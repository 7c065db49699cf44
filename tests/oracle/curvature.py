"""The exact Gauss-Newton matrix of one linear map of a small decoder, one label at a time."""

from __future__ import annotations

import torch
from torch import Tensor


def gauss_newton(decoder, found, rows_NT1: Tensor) -> Tensor:
    """Mean over tokens of sum_v p_v g_v g_v^T, g_v the gradient of log p_v, (O·I, O·I), float64.

    Equal to J^T (diag(p) - p p^T) J averaged over tokens, and to the Fisher matrix of labels drawn
    from the model.
    """
    size = found.outputs * found.inputs
    total = torch.zeros(size, size, dtype=torch.float64)
    tokens_BT = rows_NT1[:, :-1]
    for row in tokens_BT:
        log_p_TV = torch.log_softmax(decoder.hidden(row[None])[0] @ decoder.head_VD.T, dim=-1)
        flat = log_p_TV.flatten()
        each = torch.eye(len(flat), dtype=flat.dtype)
        (jacobian,) = torch.autograd.grad(flat, found.weight, each, is_grads_batched=True)
        rows = torch.stack([found.to_OI(one).flatten() for one in jacobian]).double()
        total += (rows * flat.detach().double().exp()[:, None]).T @ rows
    return total / tokens_BT.numel()


def solve(curvature: Tensor, gradient_OI: Tensor, damping: float) -> Tensor:
    """(F + damping · mean eigenvalue)^{-1} g, dense, (O, I)."""
    own = damping * curvature.diagonal().mean()
    dense = curvature + own * torch.eye(len(curvature), dtype=curvature.dtype)
    return torch.linalg.solve(dense, gradient_OI.double().flatten()).view_as(gradient_OI)

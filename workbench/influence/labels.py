"""The backward passes that factors are made of: a summed loss, with labels of one of two kinds.

    differentiate(decoder, maps, rows_bT1, labels="sampled", generator=numpy_generator)

"sampled": labels from the model's own distribution, which makes E[g g^T] the true Fisher matrix,
equal to the Gauss-Newton matrix.  "data": the labels of the text: the empirical Fisher.
Shapes: b rows, T tokens, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.core import ConfigError, unknown_name
from workbench.kernels.kronecker import draw, sampled_labels
from workbench.models.decoder import Decoder
from workbench.models.linear_maps import LinearMap, token_loss

Labels = Literal["sampled", "data"]


def require_labels(labels: str) -> None:
    """Raises ConfigError for an unknown kind of labels."""
    if labels not in get_args(Labels):
        problem, remedy = unknown_name("kind of labels", labels, get_args(Labels))
        raise ConfigError(problem, remedy=remedy)


def differentiate(
    model: Decoder,
    maps: Sequence[LinearMap],
    rows_bT1: Tensor,
    *,
    labels: str,
    generator: np.random.Generator,
) -> None:
    """Back-propagate the loss of all rows, summed over tokens.

    Args:
        rows_bT1: int64 (b, T + 1) on the model's device.
        generator: of sampled labels; on the host, so that every device draws the same.
    """
    tokens_bT = rows_bT1[:, :-1]
    if labels == "data":
        (token_loss(model, maps, rows_bT1).sum() * tokens_bT.shape[1]).backward()
        return
    uniform_bT = torch.from_numpy(generator.random(tokens_bT.shape)).to(tokens_bT.device)
    hidden_bTD = model.hidden(tokens_bT)
    heads = [found.module for found in maps if found.kind == "head"]
    if heads:
        logits_NV = heads[0](hidden_bTD).flatten(0, 1)
        labels_N = draw(logits_NV.detach().softmax(dim=-1), uniform_bT.flatten())
        F.cross_entropy(logits_NV, labels_N, reduction="sum").backward()
        return
    with torch.no_grad():
        _, gradient_ND = sampled_labels(
            hidden_bTD.flatten(0, 1), model.head_VD, uniform_bT.flatten()
        )
    hidden_bTD.backward(gradient_ND.view_as(hidden_bTD))

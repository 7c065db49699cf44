"""Token losses by Liger-Kernel (Hsu et al. 2024, arXiv 2410.10989), where its gradients are right.

    nll_BT = liger_token_loss(hidden_BTD, head_VD, labels_BT)

Before 0.8.2 the fused form with `reduction="none"` multiplied the gradients of hidden states and
head by the first token's upstream gradient (its pull request 1298): right forward, wrong backward
under any weights of rows.  Those releases are refused.
Shapes: B rows, T tokens, D width, V vocabulary.
"""

from __future__ import annotations

import importlib.metadata
from typing import Any

import torch
from packaging.version import Version
from torch import Tensor

from workbench.core import IGNORE_INDEX, ConfigError
from workbench.kernels.chunked import product_type_of

OLDEST = "0.8.2"
"""First release whose backward takes an upstream gradient per token."""
_REMEDY = f"pip install 'liger-kernel>={OLDEST}', or choose form='triton'"


def liger_token_loss(hidden_BTD: Tensor, head_VD: Tensor, labels_BT: Tensor) -> Tensor:
    """Cross-entropy of each token in nats, 0 where the label is `IGNORE_INDEX`; float32 (B, T).

    Gradients are exact under any upstream gradient per token.  The logits of a chunk are rounded
    to the type of the product, and the call waits for the device to count the active tokens.

    Raises:
        ConfigError: Liger-Kernel is missing or older than `OLDEST`; float64 tensors.
    """
    require_liger()
    product_type = product_type_of(hidden_BTD)
    if product_type == torch.float64:
        raise ConfigError("form 'liger' takes no float64", remedy="use form='chunked'")
    from liger_kernel.transformers.functional import (  # pyright: ignore[reportMissingImports]
        liger_fused_linear_cross_entropy,
    )

    with torch.autocast(hidden_BTD.device.type, enabled=False):
        nll_N: Any = liger_fused_linear_cross_entropy(
            hidden_BTD.reshape(-1, hidden_BTD.shape[-1]).to(product_type),
            head_VD.to(product_type),
            labels_BT.reshape(-1),
            ignore_index=IGNORE_INDEX,
            reduction="none",
            accum_dtype=torch.float32,
        )
    return nll_N.view(labels_BT.shape)


def require_liger() -> None:
    """Raise ConfigError unless a release with right gradients is installed."""
    try:
        found = importlib.metadata.version("liger-kernel")
    except importlib.metadata.PackageNotFoundError as error:
        raise ConfigError(
            "form 'liger' needs liger-kernel, which is not installed", remedy=_REMEDY
        ) from error
    if Version(found) < Version(OLDEST):
        raise ConfigError(
            f"liger-kernel {found} gives wrong gradients under weights of rows", remedy=_REMEDY
        )

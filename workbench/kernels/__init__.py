"""Numerics, each with a slow reference twin beside it."""

from workbench.kernels.choice import kernel_report
from workbench.kernels.chunked import chunked_token_loss
from workbench.kernels.memory import peak_mib
from workbench.kernels.sample_loss import (
    reference_sample_loss,
    sample_loss,
    token_loss,
    valid_rows,
)

__all__ = [
    "chunked_token_loss",
    "kernel_report",
    "peak_mib",
    "reference_sample_loss",
    "sample_loss",
    "token_loss",
    "valid_rows",
]

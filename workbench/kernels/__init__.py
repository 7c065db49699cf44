"""Numerics, each with a slow reference twin beside it."""

from workbench.kernels.sample_loss import reference_sample_loss, sample_loss, valid_rows

__all__ = ["reference_sample_loss", "sample_loss", "valid_rows"]

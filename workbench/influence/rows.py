"""What is asked of rows before any work is done with them.

    require_rows(model, rows_NT, "reference rows")
    require_batch_rows(16)

Shapes: N rows, T tokens.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from workbench.core import ConfigError, DataError
from workbench.models.decoder import Decoder


def require_rows(model: Decoder, rows_NT: Any, what: str = "rows", *, some: bool = False) -> None:
    """Rows must be int64 (N, T + 1), of ids that the model knows.

    Args:
        what: their name in the message; some: none are refused as well.
    Raises:
        DataError: anything else, with what was given.
    """
    if not isinstance(rows_NT, np.ndarray):
        raise DataError(
            f"{what} are a {type(rows_NT).__name__}", remedy="give a NumPy array, int64 (N, T + 1)"
        )
    if rows_NT.ndim != 2 or rows_NT.shape[1] < 2 or rows_NT.dtype != np.int64:
        raise DataError(
            f"{what} are {rows_NT.dtype} of shape {rows_NT.shape}",
            remedy="give full rows, int64 (N, T + 1)",
        )
    if some and not len(rows_NT):
        raise DataError(f"there are no {what}", remedy="give at least one row")
    low, high = (int(rows_NT.min()), int(rows_NT.max())) if len(rows_NT) else (0, 0)
    if low < 0 or high >= len(model.head_VD):
        raise DataError(
            f"{what} have ids from {low} to {high}, the model knows 0 to {len(model.head_VD) - 1}",
            remedy="give rows made with the model's own tokenizer",
        )


def require_batch_rows(batch_rows: int) -> None:
    """ConfigError for a batch of no rows."""
    if batch_rows < 1:
        raise ConfigError(f"batch_rows is {batch_rows}", remedy="score at least one row at a time")

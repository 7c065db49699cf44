"""What the Triton kernels share: the language, the size of a tile, and the product of two strips.

    acc_RC = strip_product(x, ..., y, ..., rows_R, columns_C, ...)     # inside a kernel

Triton is optional.  Without it this module and the kernels import, and `choice` never picks them.
With `TRITON_INTERPRET=1` set before the first import, kernels run on the CPU, slowly.
Shapes: R rows and C columns of a tile, D inner width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

# Parameters of kernels are annotated with a class of the optional package.
# pyright: reportInvalidTypeForm=false


def _left_alone(kernel: Any) -> Any:
    """In place of `triton.jit`, where nothing can run a kernel."""
    return kernel


tl: Any = None
jit: Any = _left_alone
INTERPRETED = False
if find_spec("triton") is not None:
    tl, jit = import_module("triton.language"), import_module("triton").jit
    INTERPRETED = bool(import_module("triton.knobs").runtime.interpret)

LEAST_SIDE = 16
"""Matrix units multiply no smaller tile."""


@dataclass(frozen=True)
class Tile:
    """Sides of the output tile of one program, the inner width it loads at a time, and its warps.

    Chosen by the register and shared-memory arithmetic of an H200, not by measurement.
    """

    rows: int = 128
    columns: int = 128
    inner: int = 64
    warps: int = 8
    stages: int = 3

    @classmethod
    def of(cls, dtype: torch.dtype) -> Tile:
        """Half precision runs on matrix units; exact float32 does not, and needs more registers."""
        return cls() if dtype.itemsize == 2 else cls(64, 64, 32, warps=4)

    def fitted(self, rows: int, columns: int, inner: int) -> Tile:
        """Sides no larger than a small problem needs."""
        return replace(
            self,
            rows=min(self.rows, _power_of_two(rows)),
            columns=min(self.columns, _power_of_two(columns)),
            inner=min(self.inner, _power_of_two(inner)),
        )

    @property
    def options(self) -> dict[str, int]:
        """Keywords of a launch."""
        return {"num_warps": self.warps, "num_stages": self.stages}


def _power_of_two(size: int) -> int:
    return max(LEAST_SIDE, 1 << (size - 1).bit_length())


def parts_of(total: int, step: int) -> int:
    """Steps that cover the total, the last one perhaps not in full."""
    return -(-total // step)


def precision_of(dtype: torch.dtype) -> str:
    """How tiles are multiplied: float32 as torch was told to."""
    if INTERPRETED and dtype == torch.bfloat16:
        return "widened"
    exact = dtype != torch.float32 or torch.get_float32_matmul_precision() == "highest"
    return "ieee" if exact else "tf32"


def in_lines(x: Tensor) -> Tensor:
    """All but the last dimension in one, the last without gaps; (N, D)."""
    x_ND = x.reshape(-1, x.shape[-1])
    return x_ND if x_ND.stride(1) == 1 else x_ND.contiguous()


@jit
def add_product(x_tile, y_tile, total_RC, PRECISION: tl.constexpr):
    """total + x y in float32."""
    if PRECISION == "widened":
        # The interpreter multiplies the bits of bfloat16 as integers.  Products are the same.
        return tl.dot(x_tile.to(tl.float32), y_tile.to(tl.float32), total_RC)
    else:
        return tl.dot(x_tile, y_tile, total_RC, input_precision=PRECISION)


@jit
def strip_product(
    x,
    x_row_stride,
    x_inner_stride,
    y,
    y_column_stride,
    y_inner_stride,
    rows_R,
    columns_C,
    row_count,
    column_count,
    inner_count,
    R: tl.constexpr,
    C: tl.constexpr,
    INNER: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """sum over d of x[row, d] y[column, d] in float32, (R, C); 0 outside the counts."""
    total_RC = tl.zeros((R, C), dtype=tl.float32)
    x_R = x + rows_R.to(tl.int64) * x_row_stride
    y_C = y + columns_C.to(tl.int64) * y_column_stride
    for start in range(0, inner_count, INNER):
        inner = start + tl.arange(0, INNER).to(tl.int64)
        inside = inner < inner_count
        x_tile = tl.load(
            x_R[:, None] + inner[None, :] * x_inner_stride,
            mask=(rows_R < row_count)[:, None] & inside[None, :],
            other=0.0,
        )
        y_tile = tl.load(
            y_C[None, :] + inner[:, None] * y_inner_stride,
            mask=(columns_C < column_count)[None, :] & inside[:, None],
            other=0.0,
        )
        total_RC = add_product(x_tile, y_tile, total_RC, PRECISION)
    return total_RC

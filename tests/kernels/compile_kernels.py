"""Compile every kernel for compute capability 9.0 and print what the compiler says of it.

TRITON_INTERPRET=0 python compile_kernels.py    # name, type, bytes of shared memory, units
"""

from __future__ import annotations

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from workbench.kernels import triton_loss, triton_products
from workbench.kernels.tiling import Tile

H200 = GPUTarget("cuda", 90, 32)
NAMES = {torch.bfloat16: "bf16", torch.float32: "fp32"}
INDICES = {"labels", "order", "end_K"}
WIDE = {"normaliser_SN", "label_logit_N", "normaliser", "parts_KOI", "weight_N", "total_SDD"}
HALF = {"hidden", "head", "error_nV", "s_bTO", "a_bTI", "x_ND", "s_NO", "matrix", "a_NI"}
# Rows of sixteen numbers or more without gaps, as in a model of any usual width.
ALIGNED = {"hidden_stride", "head_stride", "x_stride", "s_stride", "a_stride", "matrix_stride"}
ALIGNED |= {"width", "vocab_size", "outputs", "inputs"}
UNIT = {"hidden_inner_stride": 1, "head_inner_stride": 1, "matrix_inner_stride": 1}


def compiled(kernel, dtype: torch.dtype, tile: Tile, **given):
    names = [parameter.name for parameter in kernel.params]
    sides = {"R": tile.rows, "C": tile.columns, "SIDE": tile.rows, "INNER": tile.inner}
    constants = {**sides, **UNIT, "PRECISION": "ieee", **given}
    constants = {name: value for name, value in constants.items() if name in names}
    pointers = {name: "*i64" for name in INDICES} | {name: "*fp32" for name in WIDE | {"score_SN"}}
    pointers |= {name: f"*{NAMES[dtype]}" for name in HALF}
    signature = {
        name: "constexpr" if name in constants else pointers.get(name, "i32") for name in names
    }
    divisible = {
        (i,): [["tt.divisibility", 16]]
        for i, name in enumerate(names)
        if name in pointers or name in ALIGNED
    }
    source = ASTSource(
        kernel, signature, {(names.index(n),): v for n, v in constants.items()}, divisible
    )
    return triton.compile(source, target=H200, options=tile.options)


def main() -> None:
    half, full = Tile.of(torch.bfloat16), Tile.of(torch.float32)
    cases = [
        (triton_loss._losses_of_tile, torch.bfloat16, half, {}),
        (triton_loss._losses_of_tile, torch.float32, full, {}),
        (triton_loss._errors_of_tile, torch.bfloat16, half, {}),
        (triton_products._domain_tile, torch.bfloat16, half, {}),
        (triton_products._symmetric_tile, torch.bfloat16, half, {"WEIGHTED": False}),
        (triton_products._symmetric_tile, torch.bfloat16, half, {"WEIGHTED": True}),
        (triton_products._contraction_tile, torch.bfloat16, half, {}),
    ]
    for kernel, dtype, tile, given in cases:
        found = compiled(kernel, dtype, tile, **given)
        units = "matrix" if "wgmma" in found.asm["ptx"] else "plain"
        print(kernel.__name__, NAMES[dtype], found.metadata.shared, units)


if __name__ == "__main__":
    main()

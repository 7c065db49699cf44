"""Operations of our own kernels, told to whoever counts what torch dispatches.

    note_flops(2 * tokens * width * vocab_size)       # by the launcher, beside the launch
    with FlopCounterMode() as counter: ...            # finds them like a product of torch's

A launch of Triton is nothing that torch dispatches.  So a launcher calls an operation that does
nothing and counts as its argument: torch's counters follow a backward pass into the threads that
make it on a GPU, a variable of Python's does not.  A kernel counts as its twin would on a GPU:
the form of a kernel must not change what a method is said to cost.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import register_flop_formula

_NAME = "workbench::note_flops"
torch.library.define(_NAME, "(int flops) -> ()")


@torch.library.impl(_NAME, "CompositeExplicitAutograd")
def _nothing(flops: int) -> None:
    """The work is that of the kernel beside it."""


@register_flop_formula(torch.ops.workbench.note_flops, get_raw=True)
def _noted(flops: int, **_result: Any) -> int:
    return flops


def note_flops(flops: int) -> None:
    """Count so many operations, where anybody counts; one multiplication and addition are two."""
    torch.ops.workbench.note_flops(flops)

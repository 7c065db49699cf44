"""Values of the global batch from those of this rank.

    value_B, own = gathered(value_b)          # value_B[own] is value_b

Shapes: b rows of this rank, B rows over all ranks, in the order of the ranks.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def rank_and_world() -> tuple[int, int]:
    """This process's rank and how many there are; (0, 1) without `torch.distributed`."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def gathered(value_b: Tensor) -> tuple[Tensor, slice]:
    """Values of all ranks, which may have different numbers of rows, and where the own ones lie."""
    rank, world = rank_and_world()
    if world == 1:
        return value_b, slice(0, len(value_b))
    size = torch.tensor(len(value_b), device=value_b.device)
    sizes = [torch.empty_like(size) for _ in range(world)]
    dist.all_gather(sizes, size)
    rows = [int(each) for each in sizes]
    padded_b = value_b.new_zeros(max(rows))
    padded_b[: len(value_b)] = value_b
    parts = [torch.empty_like(padded_b) for _ in range(world)]
    dist.all_gather(parts, padded_b)
    first = sum(rows[:rank])
    value_B = torch.cat([part[:count] for part, count in zip(parts, rows, strict=True)])
    return value_B, slice(first, first + len(value_b))

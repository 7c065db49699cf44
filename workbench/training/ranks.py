"""The processes of one run: which rows are whose, and the few small things they exchange.

    ranks = Ranks.here()                       # one rank unless torch.distributed is initialised
    own = ranks.part(batch_rows)               # this rank's rows of the global batch
    loss_B = ranks.gather(loss_b, batch_rows)  # every rank's, in the order of the global batch

Parts are told apart by the global rank: by the local one, every node would take node 0's.
Shapes: B rows of the global batch, b rows of this rank.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Ranks:
    """This process' place among those of the run."""

    rank: int = 0
    world: int = 1

    @classmethod
    def here(cls) -> Ranks:
        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        return cls(dist.get_rank(), dist.get_world_size())

    def part(self, rows: int, rank: int | None = None) -> slice:
        """Rows of a rank (this one when None): contiguous, sizes differ by one at most."""
        rank = self.rank if rank is None else rank
        return slice(rank * rows // self.world, (rank + 1) * rows // self.world)

    def largest_part(self, rows: int) -> int:
        """Rows of the rank that has most."""
        return -(-rows // self.world)

    def gather(self, value_b: Tensor, rows: int) -> Tensor:
        """Values of all ranks in row order, (B,); shorter parts travel padded."""
        if self.world == 1:
            return value_b
        parts = [self.part(rows, rank) for rank in range(self.world)]
        sizes = [part.stop - part.start for part in parts]
        padded = value_b.new_zeros(self.largest_part(rows))
        padded[: len(value_b)] = value_b
        received = [torch.empty_like(padded) for _ in parts]
        dist.all_gather(received, padded)
        return torch.cat([got[:size] for got, size in zip(received, sizes, strict=True)])

    def total(self, value: Tensor) -> Tensor:
        """Sum over ranks, on every rank."""
        if self.world > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its sum over ranks."""
        if self.world > 1:
            for parameter in parameters:
                if parameter.grad is not None:
                    dist.all_reduce(parameter.grad)

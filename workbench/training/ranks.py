"""The processes of one run: which rows are whose, and the few small things they exchange.

    join("cuda")                               # under torchrun: be one of its processes
    ranks = Ranks.here()                       # one rank unless torch.distributed is initialised
    own = ranks.part(batch_rows)               # this rank's rows of the global batch
    loss_B = ranks.gather(loss_b, batch_rows)  # every rank's, in the order of the global batch

Parts are told apart by the global rank: by the local one, every node would take node 0's.
Shapes: B rows of the global batch, b rows of this rank.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from workbench.core import RunError, WorkbenchError

Made = TypeVar("Made")
LOST = (
    *("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out"),
    *(
        "remote process exited",
        "Connection refused",
        "Watchdog caught collective operation timeout",
    ),
)
"""What the engines say when another process of the run is gone."""


def join(device: str) -> Ranks:
    """Become a rank of the run that `torchrun` started; one rank alone outside of it.

    Processes that joined already, or were joined by their caller, stay as they are.
    """
    if dist.is_torchelastic_launched() and not dist.is_initialized():
        on_cuda = torch.device(device).type == "cuda"
        if int(os.environ["WORLD_SIZE"]) > 1:
            # Both engines: small decisions travel between hosts' memories, gradients between GPUs.
            dist.init_process_group("cpu:gloo,cuda:nccl" if on_cuda else "gloo")
            atexit.register(_leave)
    take_device(device)
    return Ranks.here()


def take_device(device: str) -> None:
    """Let this thread use its own GPU of those of its machine."""
    if torch.device(device).type == "cuda" and "LOCAL_RANK" in os.environ:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))


def abandon() -> None:
    """Exit without a word to the others: one that failed would wait for those that wait for it."""
    atexit.unregister(_leave)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


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

    @property
    def leads(self) -> bool:
        """Whether this is the one process that writes the run's folder."""
        return self.rank == 0

    def everyone(self, value: Any) -> list[Any]:
        """A small value of every rank, in their order."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, value)
        return found

    def leading(self, make: Callable[[], Made]) -> Made:
        """What the leading rank makes, a small value, on every rank; or what it raises."""
        made: Made | WorkbenchError | None = None
        if self.leads:
            try:
                made = make()
            except WorkbenchError as error:
                made = error
        made = self.everyone(made)[0]
        if isinstance(made, WorkbenchError):
            raise made
        return cast(Made, made)

    def wait(self) -> None:
        """Until every rank is here."""
        if self.world > 1:
            dist.barrier()

    def require_same(self, what: str, value: Any) -> None:
        """Raise RunError where ranks differ in what each of them decided for itself."""
        found = self.everyone(value)
        if differing := [rank for rank, other in enumerate(found) if other != found[0]]:
            raise RunError(
                f"{what} of rank {differing[0]} is not that of rank 0",
                remedy="resume from the last checkpoint; on mixed GPUs, use ranks of one kind",
            )

    def lost(self, error: BaseException) -> bool:
        """Whether an error says that another rank is gone."""
        return self.world > 1 and any(sign in str(error) for sign in LOST)

"""What kept results cost when they were computed, and what a run owes for those it only reads.

    with measured() as spent: scores = compute(rows)          # spent.seconds, spent.flops
    computed("scores 3f2a", ids)                               # whoever keeps them says so
    read("scores 3f2a", ids, cost_n2)                          # and whoever finds them kept

    bill = Bill()
    with bill.open(): selector.select(pool, budget, model)
    bill.take()                                                # Spent by others, since last time

A cache saves the time of a run, not that of the comparison it is part of: the method needs these
results, whoever paid for them.  Costs of an older workbench were not kept and count as nothing.
Shapes: n rows; columns of a cost are seconds and floating-point operations.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from workbench.models.operations import counted_so_far


@dataclass
class Spent:
    """Seconds on the clock, and floating-point operations of all ranks, which share evenly."""

    seconds: float = 0.0
    flops: float = 0.0

    def share(self, rows: int) -> np.ndarray:
        """The same part for each row, (rows, 2)."""
        return np.tile([self.seconds / max(rows, 1), self.flops / max(rows, 1)], (rows, 1))


@contextmanager
def measured() -> Iterator[Spent]:
    """What the block takes; filled when it ends, which on a GPU is when its queue is empty.

    Operations are those of a `models.operations.counted` block around it, such as a run's choice;
    0 where there is none, since counting is neither free nor exact to the last bit.
    """
    _finish()
    spent, began, before = Spent(), time.perf_counter(), counted_so_far()
    yield spent
    _finish()
    world = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    spent.seconds = time.perf_counter() - began
    spent.flops = (counted_so_far() - before) * world


def _finish() -> None:
    """The host's time is that of putting work into a GPU's queue until that is empty."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


class Bill:
    """What a run owes for results that others computed, each of them once.

    State fields: by the name of a set of results, the ids that this run computed or owed before.
    """

    def __init__(self):
        self._settled: dict[str, np.ndarray] = {}
        self._owed = Spent()

    @contextmanager
    def open(self) -> Iterator[Bill]:
        """`computed` and `read` inside the block go to this bill."""
        token = _OPEN.set(self)
        try:
            yield self
        finally:
            _OPEN.reset(token)

    def take(self) -> Spent:
        """What was owed since the last call."""
        owed, self._owed = self._owed, Spent()
        return owed

    def settle(self, name: str, id_n: np.ndarray, cost_n2: np.ndarray) -> None:
        """Owe for the results that are neither this run's own nor owed for already."""
        settled = self._settled.get(name, np.empty(0, np.int64))
        new_n = ~np.isin(id_n, settled)
        self._settled[name] = np.union1d(settled, id_n)
        seconds, flops = cost_n2[new_n].sum(axis=0, dtype=np.float64).tolist()
        self._owed = Spent(self._owed.seconds + seconds, self._owed.flops + flops)

    def state_dict(self) -> dict[str, Any]:
        return {name: torch.from_numpy(ids) for name, ids in self._settled.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._settled = {name: ids.numpy().copy() for name, ids in state.items()}


_OPEN: ContextVar[Bill | None] = ContextVar("open bill", default=None)


def computed(name: str, id_n: np.ndarray) -> None:
    """The open bill's run has computed these results itself; nothing where no bill is open."""
    read(name, id_n, np.zeros((len(id_n), 2)))


def read(name: str, id_n: np.ndarray, cost_n2: np.ndarray) -> None:
    """The open bill's run has read these results, which cost so much; nothing where none is open.

    Args:
        id_n: int64 (n,), each once: of rows, or numbers of files.
    """
    if (bill := _OPEN.get()) is not None:
        bill.settle(name, np.asarray(id_n, dtype=np.int64), cost_n2)

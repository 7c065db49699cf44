"""The pool a selector saw first: what it learned of those rows, later pools look up.

    first = FirstPool(pool.sample_id_N); label_N[first.places(later.sample_id_N)]

Online selection shrinks the pool from choice to choice; clusters and duplicate groups stay those
of the first.  Shapes: N rows asked for.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from workbench.core import PolicyError


class FirstPool:
    """Places of rows in the first pool; false until it has one.  State field: its ids."""

    def __init__(self, sample_id_N: np.ndarray | None = None):
        ids = np.empty(0) if sample_id_N is None else sample_id_N
        self._remember(np.array(ids, dtype=np.int64))

    def __bool__(self) -> bool:
        return len(self.sample_id_N) > 0

    def places(self, sample_id_N: np.ndarray) -> np.ndarray:
        """Place of each row in the first pool, int64 (N,).

        Raises:
            PolicyError: a row that was not in the first pool.
        """
        found_N = np.searchsorted(self._sorted_N, sample_id_N)
        found_N = np.minimum(found_N, len(self._sorted_N) - 1)
        strange = self._sorted_N[found_N] != sample_id_N
        if strange.any():
            raise PolicyError(
                f"{strange.sum()} rows of the pool, such as sample "
                f"{int(sample_id_N[np.argmax(strange)])}, were not in the first pool",
                remedy="let later pools be parts of the first, or build a new selector",
            )
        return self._order_N[found_N]

    def _remember(self, sample_id_N: np.ndarray) -> None:
        self.sample_id_N = sample_id_N
        self._order_N = np.argsort(sample_id_N)
        self._sorted_N = sample_id_N[self._order_N]

    def state_dict(self) -> dict[str, Any]:
        import torch

        return {"sample_id": torch.from_numpy(self.sample_id_N.copy())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._remember(state["sample_id"].numpy().copy())

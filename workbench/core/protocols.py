"""What the loop asks of a policy.  A policy returns a value; the loop acts.

A policy never touches the loop, the optimiser, a file or the clock, and everything it must
remember is in its `state_dict`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from workbench.core.types import Mixture, Pool, Scope, Selection, Signal, StepOutcome

if TYPE_CHECKING:
    from torch import Tensor


@runtime_checkable
class Stateful(Protocol):
    """Everything that must survive a restart."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@runtime_checkable
class Reweighter(Stateful, Protocol):
    """How much each sample counts."""

    scope: Scope

    def weigh(self, loss_B: Tensor, valid_B: Tensor, step: int) -> Tensor:
        """Weights with mean 1 over the valid rows, 0 elsewhere; detached, float32, shape (B,)."""
        ...


@runtime_checkable
class Mixer(Stateful, Protocol):
    """How much of each domain."""

    needs: frozenset[Signal]

    def propose(self, step: int) -> Mixture: ...

    def observe(self, outcome: StepOutcome) -> None: ...


@runtime_checkable
class Selector(Stateful, Protocol):
    """Which samples the pool offers."""

    def select(self, pool: Pool, budget: int, model: Any) -> Selection: ...

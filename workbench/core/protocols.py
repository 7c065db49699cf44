"""What the loop asks of a policy.  A policy returns a value; the loop acts.

A policy never touches the loop, the optimiser, a file or the clock, and everything it must
remember is in its `state_dict`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from workbench.core.types import Mixture, Pool, Scope, Selection, Signal, StepOutcome, Tracking

if TYPE_CHECKING:
    from torch import Tensor


@runtime_checkable
class Stateful(Protocol):
    """Everything that must survive a restart."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@runtime_checkable
class Reweighter(Stateful, Protocol):
    """How much each sample counts.

    scope: over which rows it normalises when a step is split into micro-batches.
    norm_matched: ask the loop to rescale the gradient to the norm that uniform weights give.
    """

    scope: Scope

    @property
    def norm_matched(self) -> bool: ...

    def weigh(self, loss_B: Tensor, valid_B: Tensor, step: int) -> Tensor:
        """Weights with mean 1 over the valid rows, 0 elsewhere; detached, float32, shape (B,)."""
        ...

    def observe(self, loss_B: Tensor, valid_B: Tensor, step: int) -> None:
        """The losses of a finished step, for what a reweighter remembers between steps."""
        ...

    def diagnostics(self, step: int) -> Mapping[str, float | Tensor]:
        """What to log of the step just weighed; device scalars are read later."""
        ...


@runtime_checkable
class StreamingReweighter(Reweighter, Protocol):
    """A reweighter whose weights are known, up to a common factor, one micro-batch at a time."""

    @property
    def streams(self) -> bool:
        """Whether it can, with the options it has."""
        ...

    def weigh_ahead(self, loss_b: Tensor, valid_b: Tensor, step: int) -> Tensor:
        """Weights of a micro-batch before normalisation; detached, float32, shape (b,)."""
        ...


@runtime_checkable
class Mixer(Stateful, Protocol):
    """How much of each domain.  Built as `factory(task: MixingTask, **options)`."""

    @property
    def needs(self) -> frozenset[Signal]:
        """Signals of the step last proposed for; before the first, all it may ever ask for."""
        ...

    def propose(self, step: int) -> Mixture: ...

    def observe(self, outcome: StepOutcome) -> None:
        """What the step showed; may read the device, which the loop otherwise never does."""
        ...

    def diagnostics(self) -> Mapping[str, Any]:
        """What to log of the step last observed: numbers, and mappings or lists of numbers."""
        ...

    def warnings(self) -> Sequence[str]:
        """What a user should know now, remedy included; the loop shows each once while it holds."""
        ...


@runtime_checkable
class TrackingMixer(Mixer, Protocol):
    """A mixer that asks for signals of tracked weights."""

    @property
    def tracking(self) -> Tracking: ...


@runtime_checkable
class ReferenceMixer(Mixer, Protocol):
    """A mixer that compares the model with an earlier one."""

    @property
    def reference(self) -> str:
        """The folder of a finished run."""
        ...


@runtime_checkable
class SupplyMixer(Mixer, Protocol):
    """A mixer whose proposals depend on how much of each domain there is."""

    def supplied(self, rows_K: np.ndarray) -> None:
        """From now on there are `rows_K` rows of each domain, int64 (K,): a selector chose."""
        ...


@runtime_checkable
class CountedMixer(Mixer, Protocol):
    """A mixer with networks of its own, whose operations are worth counting."""

    @property
    def policy_flops(self) -> float:
        """Of the step last observed; before the first, the most that a step may take."""
        ...


@runtime_checkable
class AgentMixer(Mixer, Protocol):
    """A mixer that learns a policy other runs can use."""

    def agent_state(self) -> dict[str, Any]:
        """All a later mixer needs to act or go on learning: plain types and tensors."""
        ...


@runtime_checkable
class Selector(Stateful, Protocol):
    """Which samples the pool offers.  Built as `factory(task: SelectionTask, **options)`.

    A factory with the attribute `uses_reference = False` is given no reference rows.  A selector
    with `judges_with_model = False` runs no model over the pool, so that its choice costs nothing
    that is counted; without the attribute it is taken to run one.
    """

    def select(self, pool: Pool, budget: int, model: Any) -> Selection:
        """At most `budget` active tokens of the pool, judged with `model`, which stays as it is.

        Raises:
            PolicyError: a budget above the pool's tokens or below its smallest row, or a health
                gate that fails.
        """
        ...

    def tables(self) -> Mapping[str, Mapping[str, np.ndarray]]:
        """What the last selection saw, as columns by table: `samples`, `arms`, `pulls`, as known.

        samples: sample_id, domain, cluster, influence (NaN: not scored), accepted, x, y (a map).
        arms: cluster, rows, mean, low, high (of the reward), pulls, scored, accepted.
        pulls: round, cluster, sample_id, influence, in the order in which they were made.
        """
        ...

    def diagnostics(self) -> Mapping[str, Any]:
        """What to log of the last selection: numbers, texts, and mappings or lists of them."""
        ...

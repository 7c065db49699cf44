"""As many steps as another run's operations allow: the fair length of a baseline.

config.change(match_run="runs/quad_seed0")      # `train` sets total_steps
"""

from __future__ import annotations

from workbench.config import RunConfig
from workbench.core import RunError
from workbench.tracking import RunFolder
from workbench.training.cost import StepCost
from workbench.training.state import TrainState
from workbench.training.summary import charged_flops


def match(state: TrainState) -> RunConfig:
    """The config of `state` with the `total_steps` that cost what its `match_run` did.

    What the state's own selector will compute is not known before and not counted.

    Raises:
        RunError: the other run is not there, not finished, counted nothing, or cost less than one
            step.
    """
    path = state.config.training.match_run
    assert path is not None
    other = RunFolder.open(path)
    if other.status() != "finished":
        raise RunError(
            f"match_run '{path}' is {other.status()}",
            remedy=f"finish it with: workbench resume {path}",
        )
    budget = charged_flops(other)
    steps = int(budget / sum(StepCost(state).step(state.mixer.needs).values()))
    if steps < 1:
        raise RunError(
            f"match_run '{path}' computed {budget:.3g} operations, less than one step of this run",
            remedy="match a run of this workbench that counted its operations, or set total_steps",
        )
    return state.config.change(total_steps=steps)

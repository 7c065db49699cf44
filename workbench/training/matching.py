"""As many steps as another run's operations allow: the fair length of a baseline.

config.change(match_run="runs/quad_seed0")      # `train` sets total_steps
"""

from __future__ import annotations

from pathlib import Path

from workbench.config import RunConfig
from workbench.core import PolicyError, RunError
from workbench.tracking import RunFolder
from workbench.training.cost import StepCost
from workbench.training.earlier import needed_by, settings_of
from workbench.training.state import TrainState
from workbench.training.summary import charged_flops, own_flops


def match(state: TrainState) -> RunConfig:
    """The config of `state` with the `total_steps` that cost what its `match_run` did, which is
    named from the root: a comparison looks for it from anywhere.

    The runs that the state itself needs are paid from the same operations.

    Raises:
        PolicyError: its own selector judges with a model, at a cost nobody knows before.
        RunError: the other run is not there, not finished, counted nothing, or cost less than one
            step; or a run before either of them, which would be charged, is not there.
    """
    path = state.config.training.match_run
    assert path is not None
    other = RunFolder.open(path)
    if other.status() != "finished":
        raise RunError(
            f"match_run '{path}' is {other.status()}",
            remedy=f"finish it with: workbench resume {path}",
        )
    selecting = state.selecting
    if selecting is not None and getattr(selecting.selector, "judges_with_model", True):
        assert state.config.selector is not None
        name = state.config.selector.name
        raise PolicyError(
            f"match_run: what the selector '{name}' will compute with a model is not known before",
            remedy="match the run without it, or set total_steps",
        )
    theirs, ours = needed_by(*settings_of(other)), needed_by(state.config)
    if lost := (*theirs.missing, *ours.missing):
        raise RunError(
            f"match_run '{path}': what made {', '.join(lost)} is not there to be charged",
            remedy="put back the runs, or the mixture file beside the runs that it names",
        )
    budget = charged_flops(other) - own_flops(ours.runs)
    cost = StepCost(state)
    of_a_step = {**cost.step(state.mixer.needs), **cost.policy()}
    steps = int(budget / sum(of_a_step.values()))
    if steps < 1:
        raise RunError(
            f"match_run '{path}' computed {budget:.3g} operations, less than one step of this run",
            remedy="match a run of this workbench that counted its operations, or set total_steps",
        )
    return state.config.change(total_steps=steps, match_run=str(other.path.absolute()))


def matched_before(config: RunConfig, folder: RunFolder) -> RunConfig:
    """The config as it was matched when `folder` was made of it."""
    before, path = folder.config["training"], config.training.match_run
    if path is None:
        return config
    known = before.get("match_run")
    same = known is not None and Path(known).resolve() == Path(path).resolve()
    return config.change(
        total_steps=before["total_steps"], match_run=known if same else str(Path(path).absolute())
    )

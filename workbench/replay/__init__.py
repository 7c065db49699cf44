"""Policies stepped against recorded or synthetic traces, without training."""

from workbench.replay.energies import EnergyWalk, energy_walk
from workbench.replay.environment import Environment
from workbench.replay.play import Trace, play, race
from workbench.replay.recorded import counterfactual, task_of

__all__ = [
    "EnergyWalk",
    "Environment",
    "Trace",
    "counterfactual",
    "energy_walk",
    "play",
    "race",
    "task_of",
]

"""Policies stepped against recorded or synthetic traces, without training."""

from workbench.replay.environment import Environment
from workbench.replay.play import Trace, play

__all__ = ["Environment", "Trace", "play"]

"""Held-out loss per domain, how fast it falls, and verdicts over seeds."""

from workbench.evaluation.curves import HeldOutCurve, held_out_curve, mean_nats, steps_to_reach
from workbench.evaluation.factorial import effects
from workbench.evaluation.held_out import HeldOutCorpus, held_out_loss
from workbench.evaluation.verdicts import Verdict, table, verdict

__all__ = [
    "HeldOutCorpus",
    "HeldOutCurve",
    "Verdict",
    "effects",
    "held_out_curve",
    "held_out_loss",
    "mean_nats",
    "steps_to_reach",
    "table",
    "verdict",
]

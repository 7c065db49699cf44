"""Held-out loss per domain, and verdicts over seeds."""

from workbench.evaluation.held_out import HeldOutCorpus, held_out_loss
from workbench.evaluation.verdicts import Verdict, table, verdict

__all__ = ["HeldOutCorpus", "Verdict", "held_out_loss", "table", "verdict"]

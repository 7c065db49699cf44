"""The loop that trains, and the handle of a run."""

from workbench.training.device import stamp
from workbench.training.downstream import evaluate_downstream
from workbench.training.loop import Callback
from workbench.training.planner import check_fits_device, plan
from workbench.training.rows import prepared_corpus
from workbench.training.run import Run, open_run, resume, start, train

__all__ = [
    "Callback",
    "Run",
    "check_fits_device",
    "evaluate_downstream",
    "open_run",
    "plan",
    "prepared_corpus",
    "resume",
    "stamp",
    "start",
    "train",
]

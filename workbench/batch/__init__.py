"""Runs without a person in front: notebooks through papermill, comparisons, a static report."""

from workbench.batch.comparison import (
    by_domain,
    compare,
    compare_each,
    group_runs,
    runs_at,
)
from workbench.batch.equal_cost import compare_at_equal_cost, cost_curves, cost_table
from workbench.batch.exporting import export
from workbench.batch.factorial import at_equal_compute, factorial
from workbench.batch.forking import fork
from workbench.batch.launch import Launched, attach, launch
from workbench.batch.mixing_scores import MixingScores, mixing_scores, score_table
from workbench.batch.mixtures import find_mixture
from workbench.batch.notebook import execute, read_parameters
from workbench.batch.parameter_sets import Range
from workbench.batch.predictions import record_prediction, score_predictions
from workbench.batch.settings import differing_settings
from workbench.batch.static_report import report
from workbench.batch.study import progress_lines, train_study
from workbench.batch.sweep import Sweep, sweep
from workbench.batch.what_if import fit_runs

__all__ = [
    "Launched",
    "MixingScores",
    "Range",
    "Sweep",
    "at_equal_compute",
    "attach",
    "by_domain",
    "compare",
    "compare_at_equal_cost",
    "compare_each",
    "cost_curves",
    "cost_table",
    "differing_settings",
    "execute",
    "export",
    "factorial",
    "find_mixture",
    "fit_runs",
    "fork",
    "group_runs",
    "launch",
    "mixing_scores",
    "progress_lines",
    "read_parameters",
    "record_prediction",
    "report",
    "runs_at",
    "score_predictions",
    "score_table",
    "sweep",
    "train_study",
]

"""Runs without a person in front: notebooks through papermill, comparisons, a static report."""

from workbench.batch.comparison import compare, differing_settings, group_runs
from workbench.batch.mixing_scores import MixingScores, mixing_scores, score_table
from workbench.batch.mixtures import find_mixture
from workbench.batch.notebook import execute
from workbench.batch.static_report import report
from workbench.batch.study import progress_lines, train_study

__all__ = [
    "MixingScores",
    "compare",
    "differing_settings",
    "execute",
    "find_mixture",
    "group_runs",
    "mixing_scores",
    "progress_lines",
    "report",
    "score_table",
    "train_study",
]

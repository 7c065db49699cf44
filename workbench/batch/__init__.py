"""Runs without a person in front: notebooks through papermill, comparisons, a static report."""

from workbench.batch.comparison import compare, differences, group_runs
from workbench.batch.notebook import execute
from workbench.batch.static_report import report

__all__ = ["compare", "differences", "execute", "group_runs", "report", "train_study"]

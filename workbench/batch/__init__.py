"""Runs without a person in front: notebooks through papermill, comparisons, a static report."""

from workbench.batch.compare import compare, differences, group_runs
from workbench.batch.notebook import execute

__all__ = ["compare", "differences", "execute", "group_runs"]

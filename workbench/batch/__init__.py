"""Runs without a person in front: notebooks through papermill, comparisons, a static report."""

from workbench.batch.notebook import execute

__all__ = ["execute"]

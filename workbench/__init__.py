"""Workbench for data-centric language-model pretraining: select, mix, reweight.

    import workbench as wb
    run = wb.train(wb.RunConfig(reweighter="linupper"), "runs")
    wb.plots.loss({"linupper": run})

Importing the package imports no torch, no datasets and no plotting: names load when first used.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "RunConfig": "workbench.config",
    "Policy": "workbench.config",
    "presets": "workbench.config",
    "WorkbenchError": "workbench.core",
    "prepare": "workbench.data",
    "train": "workbench.training",
    "start": "workbench.training",
    "resume": "workbench.training",
    "open_run": "workbench.training",
    "evaluate_downstream": "workbench.training",
    "stamp": "workbench.training",
}
_ROOMS = (
    "batch",
    "config",
    "core",
    "data",
    "evaluation",
    "influence",
    "integration",
    "kernels",
    "mixing",
    "models",
    "plots",
    "replay",
    "reweighting",
    "selection",
    "theory",
    "tracking",
    "training",
    "widgets",
)

__all__ = ["__version__", *_HOME, *_ROOMS]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name in _ROOMS:
        return importlib.import_module(f"workbench.{name}")
    raise AttributeError(f"module 'workbench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

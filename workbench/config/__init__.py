"""Frozen, typed, strict settings of a run, and presets as functions."""

from workbench.config import papers, presets
from workbench.config.part import Part
from workbench.config.run import (
    POLICY_SLOTS,
    CorpusConfig,
    ModelConfig,
    OptimizerConfig,
    Policy,
    RowsConfig,
    RunConfig,
    SelectionConfig,
    TokenizerConfig,
    TrainingConfig,
)

__all__ = [
    "POLICY_SLOTS",
    "CorpusConfig",
    "ModelConfig",
    "OptimizerConfig",
    "Part",
    "Policy",
    "RowsConfig",
    "RunConfig",
    "SelectionConfig",
    "TokenizerConfig",
    "TrainingConfig",
    "papers",
    "presets",
]

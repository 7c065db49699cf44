"""The vocabulary of the workbench: types, protocols, registry, random streams, errors."""

from workbench.core.errors import (
    ConfigError,
    DataError,
    ModelError,
    NumericsError,
    PolicyError,
    RunError,
    WorkbenchError,
    nearest,
    unknown_name,
)
from workbench.core.protocols import (
    Mixer,
    Reweighter,
    Selector,
    Stateful,
    StreamingReweighter,
)
from workbench.core.random import RandomStreams, stream_seed
from workbench.core.registry import MIXERS, REWEIGHTERS, SELECTORS, Registry
from workbench.core.types import (
    IGNORE_INDEX,
    Batch,
    Domains,
    Mixture,
    Pool,
    Scope,
    Selection,
    Signal,
    StepOutcome,
)

__all__ = [
    "IGNORE_INDEX",
    "MIXERS",
    "REWEIGHTERS",
    "SELECTORS",
    "Batch",
    "ConfigError",
    "DataError",
    "Domains",
    "Mixer",
    "Mixture",
    "ModelError",
    "NumericsError",
    "PolicyError",
    "Pool",
    "RandomStreams",
    "Registry",
    "Reweighter",
    "RunError",
    "Scope",
    "Selection",
    "Selector",
    "Signal",
    "Stateful",
    "StepOutcome",
    "StreamingReweighter",
    "WorkbenchError",
    "nearest",
    "stream_seed",
    "unknown_name",
]

"""Which samples lower the reference loss: factors, directions, scores, and their trust.

    factors = fit_factors(model, batches, linear_maps(model))
    direction = reference_direction(model, reference_MT, preconditioner("ekfac", factors), maps)
    score_rows(model, rows_NT, direction); assess_trust(model, rows_NT, reference_MT, direction)

Names load when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.influence.controls import ControlScores, control_scores
    from workbench.influence.curvature import Factors
    from workbench.influence.direction import Direction, reference_direction, reference_gradient
    from workbench.influence.documents import document_scores
    from workbench.influence.exact import ExactCurvature, exact_curvature
    from workbench.influence.factors import fit_factors
    from workbench.influence.inverses import InverseComparison, compare_inverses
    from workbench.influence.language import ChainLanguage
    from workbench.influence.lds import Estimate, lds_gain, retrain
    from workbench.influence.oracle import one_step_oracle
    from workbench.influence.planner import plan_factors
    from workbench.influence.preconditioners import PRECONDITIONERS, preconditioner
    from workbench.influence.proxy import LdsComparison, Proxy, compare_lds
    from workbench.influence.scores import Scores, score_rows, scorer
    from workbench.influence.trust import TrustReport, assess_trust, planted_controls
    from workbench.models.linear_maps import linear_maps

_HOME = {
    "controls": ("ControlScores", "control_scores"),
    "curvature": ("Factors",),
    "direction": ("Direction", "reference_direction", "reference_gradient"),
    "documents": ("document_scores",),
    "exact": ("ExactCurvature", "exact_curvature"),
    "factors": ("fit_factors",),
    "inverses": ("InverseComparison", "compare_inverses"),
    "language": ("ChainLanguage",),
    # `lds` itself is the module: from workbench.influence.lds import lds.
    "lds": ("Estimate", "lds_gain", "retrain"),
    "oracle": ("one_step_oracle",),
    "planner": ("plan_factors",),
    "preconditioners": ("PRECONDITIONERS", "preconditioner"),
    "proxy": ("LdsComparison", "Proxy", "compare_lds"),
    "scores": ("Scores", "score_rows", "scorer"),
    "trust": ("TrustReport", "assess_trust", "planted_controls"),
}

__all__ = [
    "PRECONDITIONERS",
    "ChainLanguage",
    "ControlScores",
    "Direction",
    "Estimate",
    "ExactCurvature",
    "Factors",
    "InverseComparison",
    "LdsComparison",
    "Proxy",
    "Scores",
    "TrustReport",
    "assess_trust",
    "compare_inverses",
    "compare_lds",
    "control_scores",
    "document_scores",
    "exact_curvature",
    "fit_factors",
    "lds_gain",
    "linear_maps",
    "one_step_oracle",
    "plan_factors",
    "planted_controls",
    "preconditioner",
    "reference_direction",
    "reference_gradient",
    "retrain",
    "score_rows",
    "scorer",
]


def __getattr__(name: str) -> Any:
    if name == "linear_maps":
        return importlib.import_module("workbench.models.linear_maps").linear_maps
    for module, names in _HOME.items():
        if name in names:
            return getattr(importlib.import_module(f"workbench.influence.{module}"), name)
    raise AttributeError(f"module 'workbench.influence' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

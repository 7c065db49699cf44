"""How close each preconditioner comes to the exact inverse, over a grid of dampings.

    found = compare_inverses(model, rows_NT, reference_MT, candidate_NT)
    found.cosine["ekfac"]                          # (G, L): direction of each map against exact
    found.agreement("ekfac")                       # (G,): rank correlation of the scores

Shapes: G dampings, L linear maps, N candidate rows, M reference rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from workbench.core import Progress, silent
from workbench.influence.agreement import spearman
from workbench.influence.direction import Direction, reference_gradient
from workbench.influence.exact import exact_curvature
from workbench.influence.factors import fit_factors
from workbench.influence.preconditioners import Preconditioner, preconditioner
from workbench.influence.scores import score_rows
from workbench.models import Decoder
from workbench.models.linear_maps import linear_maps

DAMPINGS = tuple(10.0**power for power in np.arange(-3, 2.5, 0.5))
ESTIMATES = ("identity", "kfac", "ekfac")


@dataclass(frozen=True)
class InverseComparison:
    """Directions and scores by preconditioner; `score` holds "exact" too, in (G, N) each."""

    damping_G: np.ndarray
    maps: tuple[str, ...]
    cosine: dict[str, np.ndarray]
    score: dict[str, np.ndarray]

    def agreement(self, name: str) -> np.ndarray:
        """Rank correlation with the exact scores at each damping, (G,)."""
        pairs = zip(self.score[name], self.score["exact"], strict=True)
        return np.array([spearman(own_N, exact_N) for own_N, exact_N in pairs])

    def at(self, damping: float) -> int:
        """Place of the damping of the grid that is nearest, by ratio."""
        return int(np.abs(np.log(self.damping_G / damping)).argmin())

    def table(self, damping: float) -> list[dict[str, Any]]:
        """One row a preconditioner: cosine over maps, and rank correlation, at one damping."""
        place = self.at(damping)
        return [
            {
                "preconditioner": name,
                "lowest cosine": float(cosine_GL[place].min()),
                "mean cosine": float(cosine_GL[place].mean()),
                "rank correlation of scores": float(self.agreement(name)[place]),
            }
            for name, cosine_GL in self.cosine.items()
        ]


def compare_inverses(
    model: Decoder,
    rows_NT: np.ndarray,
    reference_MT: np.ndarray,
    candidate_NT: np.ndarray,
    *,
    dampings: Sequence[float] = DAMPINGS,
    draws: int = 100,
    seed: int = 0,
    progress: Progress = silent,
) -> InverseComparison:
    """Exact curvature and factors of the same rows, and what each makes of one reference set.

    Args:
        rows_NT: where curvature is taken; int64 (·, T + 1) like the others.
        dampings: relative to a map's mean eigenvalue, above 0.
        draws: labels sampled for every token when factors are fitted.
    Raises:
        ConfigError: a map too large for the exact curvature.
    """
    maps = linear_maps(model)
    curvature = exact_curvature(model, rows_NT, maps)
    batches = [rows_NT] * draws
    factors = fit_factors(model, batches, maps, kind="ekfac", seed=seed, progress=progress)
    gradients = reference_gradient(model, reference_MT, maps)
    cosine: dict[str, list[list[float]]] = {name: [] for name in ESTIMATES}
    score: dict[str, list[np.ndarray]] = {name: [] for name in (*ESTIMATES, "exact")}
    for place, damping in enumerate(dampings):
        inverses: dict[str, Preconditioner] = {
            name: preconditioner(name, factors, damping=damping) for name in ESTIMATES
        }
        inverses["exact"] = curvature.inverse(damping=damping)
        solved = {name: inverse.apply(gradients) for name, inverse in inverses.items()}
        for name, matrices in solved.items():
            found = score_rows(model, candidate_NT, Direction(matrices), batch_rows=64)
            score[name].append(found.score_N)
            if name != "exact":
                cosine[name].append([_cosine(matrices[m], solved["exact"][m]) for m in maps.names])
        progress({"stage": "dampings", "done": place + 1, "total": len(dampings)})
    return InverseComparison(
        np.array(dampings, dtype=float),
        maps.names,
        {name: np.array(values) for name, values in cosine.items()},
        {name: np.stack(values) for name, values in score.items()},
    )


def _cosine(a_OI: Tensor, b_OI: Tensor) -> float:
    a, b = a_OI.double(), b_OI.double()
    return float((a * b).sum() / (a.norm() * b.norm()))

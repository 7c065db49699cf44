"""What scorers make of clean, shuffled and noise rows on one checkpoint, and its confidence.

    found = control_scores(model, pool_rows_NT, reference_MT)
    found.clean_share("one-step oracle", "uniform noise")     # below 0.5: noise is preferred
    found.report.verdict                                      # what the gate says

Shapes: N rows of the pool, M reference rows, T tokens, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from workbench.core import Progress, silent
from workbench.influence.agreement import outranks
from workbench.influence.direction import reference_direction
from workbench.influence.factors import fit_factors
from workbench.influence.oracle import one_step_oracle
from workbench.influence.preconditioners import preconditioner
from workbench.influence.scores import score_rows
from workbench.influence.trust import TrustReport, assess_trust, planted_controls
from workbench.models import Decoder
from workbench.models.linear_maps import linear_maps

CLEAN = "clean"
ORACLE = "one-step oracle"


@dataclass(frozen=True)
class ControlScores:
    """Scores by scorer and group of rows, and the checkpoint's trust report.

    loss_nats, entropy_nats: per reference token, what it costs and what the model expects it to;
    a model that knows what it does not know has both alike.
    """

    loss_nats: float
    entropy_nats: float
    score: dict[str, dict[str, np.ndarray]]
    report: TrustReport

    @property
    def overconfidence_nats(self) -> float:
        """Loss above what the model expects."""
        return self.loss_nats - self.entropy_nats

    def clean_share(self, scorer: str, control: str) -> float:
        """Share of pairs in which a clean row scores above one of the control."""
        groups = self.score[scorer]
        return outranks(groups[CLEAN], groups[control])

    def table(self) -> dict[str, Any]:
        """Confidence, the share of every scorer and control, and whether the gate lets pass."""
        shares = {
            f"{scorer}: clean above {control}": self.clean_share(scorer, control)
            for scorer, groups in self.score.items()
            for control in groups
            if control != CLEAN
        }
        nats = {
            "loss (nats)": self.loss_nats,
            "loss above what is expected (nats)": self.overconfidence_nats,
        }
        return {**nats, **shares, "gate": "passes" if self.report.passed else "refuses"}


def control_scores(
    model: Decoder,
    rows_NT: np.ndarray,
    reference_MT: np.ndarray,
    *,
    damping: float = 0.1,
    seed: int = 0,
    progress: Progress = silent,
) -> ControlScores:
    """Score rows of the pool, their shuffled twins and noise by identity, EK-FAC and the oracle.

    Args:
        rows_NT: int64 (N, T + 1); factors are fitted on them as well.
        reference_MT: int64 (M, T + 1); the oracle evaluates it 3 N times.
    """
    maps = linear_maps(model)
    factors = fit_factors(model, [rows_NT], maps, kind="ekfac", seed=seed)
    controls = planted_controls(rows_NT, len(model.head_VD), seed=seed)
    groups = {CLEAN: rows_NT, **{name: controls[name] for name in sorted(controls)}}
    every_NT = np.concatenate(list(groups.values()))
    directions = {
        name: reference_direction(
            model, reference_MT, preconditioner(name, factors, damping=damping), maps
        )
        for name in ("identity", "ekfac")
    }
    scores = {name: score_rows(model, every_NT, d).score_N for name, d in directions.items()}
    scores[ORACLE] = one_step_oracle(model, every_NT, reference_MT, maps, progress=progress)
    report = assess_trust(model, rows_NT, reference_MT, directions["ekfac"], seed=seed)
    parted = {
        scorer: dict(zip(groups, np.split(score_N, len(groups)), strict=True))
        for scorer, score_N in scores.items()
    }
    return ControlScores(*_confidence(model, reference_MT), parted, report)


@torch.no_grad()
def _confidence(model: Decoder, rows_MT: np.ndarray) -> tuple[float, float]:
    """Loss and entropy of the predictions, nats per token."""
    rows = torch.from_numpy(rows_MT)
    log_p_MTV = (model.hidden(rows[:, :-1]) @ model.head_VD.T).log_softmax(dim=-1)
    loss_MT = -log_p_MTV.gather(2, rows[:, 1:, None])
    entropy_MT = -(log_p_MTV.exp() * log_p_MTV).sum(dim=-1)
    return float(loss_MT.mean()), float(entropy_MT.mean())

"""How a held-out loss falls over steps, and when one run reaches where another ended.

    curve = held_out_curve(run.events(), without=["noise"])
    steps_to_reach(curve, other.nats_N[-1])          # inf when it never does

Shapes: N evaluations.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.core import DataError


@dataclass(frozen=True)
class HeldOutCurve:
    """Mean held-out loss over domains in nats per token, (N,), at the optimiser steps (N,)."""

    step_N: np.ndarray
    nats_N: np.ndarray

    @property
    def final_nats(self) -> float:
        return float(self.nats_N[-1])


def held_out_curve(
    events: Iterable[Mapping[str, Any]], *, without: Collection[str] = ()
) -> HeldOutCurve:
    """The curve of a run from its events, as the plain mean over domains.

    Args:
        without: domains left out, such as one known to be noise.
    Raises:
        DataError: no evaluation, or none of its domains is left.
    """
    losses = {e["step"]: e["losses"] for e in events if e["kind"] == "held_out"}
    if not losses:
        raise DataError(
            "the run has no held-out loss yet", remedy="let it reach an evaluation first"
        )
    steps = sorted(losses)
    return HeldOutCurve(
        np.array(steps), np.array([mean_nats(losses[step], without) for step in steps])
    )


def mean_nats(losses: Mapping[str, float], without: Collection[str] = ()) -> float:
    """Plain mean over domains of an evaluation's losses in nats per token.

    Raises:
        DataError: every domain is left out.
    """
    kept = [nats for name, nats in losses.items() if name not in without]
    if not kept:
        raise DataError(f"no domain is left of {list(losses)}", remedy="leave out fewer domains")
    return sum(kept) / len(kept)


def steps_to_reach(curve: HeldOutCurve, target_nats: float) -> float:
    """Steps at which the curve first falls to `target_nats`, linear between evaluations; or inf."""
    below = np.flatnonzero(curve.nats_N <= target_nats)
    if not len(below):
        return math.inf
    i = int(below[0])
    if i == 0:
        return float(curve.step_N[0])
    before, after = curve.nats_N[i - 1], curve.nats_N[i]
    share = (before - target_nats) / (before - after)
    return float(curve.step_N[i - 1] + share * (curve.step_N[i] - curve.step_N[i - 1]))

"""From recorded runs to lines: grouping over seeds, smoothing, thinning.

    for label, group in grouped(runs).items():
        line = across(group, lambda run: per_step(run, "loss"))

A group of several runs becomes the mean over the steps that all of them have, with the lowest and
the highest run as band.  Shapes: S steps, P drawn points.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np

from workbench.core import RunError
from workbench.tracking import Ledger

SMOOTHING_STEPS = 10
MAX_POINTS = 2000


class Recorded(Protocol):
    """What a figure asks of a run; `tracking.RunFolder` and `training.Run` are such."""

    @property
    def path(self) -> Path: ...
    @property
    def ledger(self) -> Ledger: ...
    def events(self, kind: str | None = None) -> list[dict[str, Any]]: ...


Runs: TypeAlias = Recorded | Sequence[Recorded] | Mapping[str, Recorded | Sequence[Recorded]]
Groups: TypeAlias = dict[str, list[Recorded]]
Points: TypeAlias = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Line:
    """One curve: x_S and y_S; over several runs also the lowest and highest, each (S,)."""

    x_S: np.ndarray
    y_S: np.ndarray
    low_S: np.ndarray
    high_S: np.ndarray
    runs: int


def grouped(runs: Runs) -> Groups:
    """Label -> runs, in the order given; a run without a label takes its folder's name."""
    if isinstance(runs, Mapping):
        return {
            str(label): list(own) if isinstance(own, Sequence) else [own]
            for label, own in runs.items()
        }
    alone = list(runs) if isinstance(runs, Sequence) else [runs]
    groups: Groups = {}
    for run in alone:
        groups.setdefault(run.path.name, []).append(run)
    return groups


def only(run: Runs) -> Recorded:
    """The one run of a figure that shows a single run.

    Raises:
        RunError: several were given.
    """
    members = [member for group in grouped(run).values() for member in group]
    if len(members) != 1:
        raise RunError(f"this figure shows one run, not {len(members)}", remedy="give one run")
    return members[0]


def per_step(
    run: Recorded, value: Callable[[dict[str, Any]], float | None], kind: str = "step"
) -> Points:
    """Steps and values of a kind of event, ascending; the last word counts where a step recurs."""
    found = {event["step"]: value(event) for event in run.events(kind)}
    known = sorted((step, y) for step, y in found.items() if y is not None)
    y_S = np.array([y for _, y in known], dtype=float)
    return np.array([step for step, _ in known], dtype=float), np.where(
        np.isfinite(y_S), y_S, np.nan
    )


def across(
    group: Sequence[Recorded], points: Callable[[Recorded], Points], *, smoothing_steps: int = 0
) -> Line | None:
    """The line of a group; runs that have nothing yet are left out, None when none has."""
    found = [(x, smooth(y, smoothing_steps)) for x, y in map(points, group) if len(x)]
    if not found:
        return None
    x_S = found[0][0]
    for x, _ in found[1:]:
        x_S = np.intersect1d(x_S, x)
    y_RS = np.stack([y[np.isin(x, x_S)] for x, y in found])
    if not len(x_S):
        return None
    return Line(x_S, y_RS.mean(0), y_RS.min(0), y_RS.max(0), len(found))


def smooth(y_S: np.ndarray, steps: int) -> np.ndarray:
    """Mean weighted by exp(−distance / `steps`) to both sides, so a slope is not delayed.

    Gaps stay gaps.  The last values still move a little while a run goes on.
    """
    if steps < 1:
        return y_S
    known_S = np.isfinite(y_S)
    value_S, weight_S = np.where(known_S, y_S, 0.0), known_S.astype(float)
    total_S, mass_S = (_spread(v, np.exp(-1 / steps)) for v in (value_S, weight_S))
    return np.divide(total_S, mass_S, out=np.full(len(y_S), np.nan), where=known_S)


def _spread(value_S: np.ndarray, keep: float) -> np.ndarray:
    """Σ_t keep^|s − t| · value_t for every s."""

    def past(values: list[float]) -> np.ndarray:
        return np.array(list(accumulate(values, lambda total, value: keep * total + value)))

    return past(value_S.tolist()) + past(value_S[::-1].tolist())[::-1] - value_S


def thin(x_S: np.ndarray, y_S: np.ndarray, points: int = MAX_POINTS) -> np.ndarray:
    """Indices of at most `points` points that keep both ends and every stretch's extremes."""
    if len(y_S) <= points:
        return np.arange(len(y_S))
    stretches = np.array_split(np.arange(1, len(y_S) - 1), (points - 2) // 2)
    kept = [0, len(y_S) - 1]
    for stretch in stretches:
        part = y_S[stretch]
        if np.isnan(part).all():
            kept.append(int(stretch[0]))
            continue
        kept += [int(stretch[np.nanargmin(part)]), int(stretch[np.nanargmax(part)])]
    return np.unique(kept)

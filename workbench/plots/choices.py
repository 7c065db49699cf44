"""What a selector knew of its pool, read from a run folder: rows on a map, arms, rounds.

    choice = read_choice(run, step=None)             # the last one; None where nothing was chosen
    choice.samples; choice.arms; pull_rounds(run.events(), choice.step)

Shapes: N rows of the pool, C clusters.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.plots.series import Recorded
from workbench.tracking import RunFolder

if TYPE_CHECKING:
    import pandas as pd

ON_MAP = ("cluster", "x", "y")


@dataclass(frozen=True)
class Choice:
    """One choice, or the pool of one being made.

    samples: sample_id, domain, cluster, x, y, influence (NaN where not scored), accepted; None for
    a selector that has no map.  arms and pulls: as the selector told them, None where it did not.
    threshold: which an arm had to pass in the end.
    """

    step: int
    samples: pd.DataFrame | None
    arms: pd.DataFrame | None
    pulls: pd.DataFrame | None
    threshold: float | None


def read_choice(run: Recorded, step: int | None = None) -> Choice | None:
    """The choice made before `step`, or the last one; None for a run that has none.

    Raises:
        RunError: nothing was chosen before that step.
    """
    folder = RunFolder.open(run.path)
    if step is None and not folder.selections():
        return None
    record = folder.selection(step)
    tables = record.tables()
    samples = record.frame("samples") if "samples" in tables else None
    threshold = record.manifest.get("selector", {}).get("threshold")
    return Choice(
        int(record.path.name.removeprefix("step_")),
        samples if samples is not None and set(ON_MAP) <= set(samples) else None,
        record.frame("arms") if "arms" in tables else None,
        record.frame("pulls") if "pulls" in tables else None,
        threshold,
    )


def read_pool(run: Recorded, step: int) -> Choice | None:
    """The pool of a choice that is being made at `step`: no row scored, none accepted."""
    record = RunFolder.open(run.path).pool()
    if record is None:
        return None
    samples = record.frame("samples")
    samples["influence"] = np.full(len(samples), np.nan, dtype=np.float32)
    samples["accepted"] = np.zeros(len(samples), dtype=bool)
    return Choice(step, samples, None, None, None)


def pull_rounds(events: Iterable[dict[str, Any]], step: int) -> list[dict[str, Any]]:
    """Events of the rounds of the choice before `step`; of one made twice, the second time."""
    found: list[dict[str, Any]] = []
    for event in events:
        if event["kind"] == "selecting" and event["stage"] == "pull" and event["step"] == step:
            if event["round"] == 0:
                found = []
            found.append(event)
    return found


def arm_history(rounds: Iterable[dict[str, Any]], clusters: int) -> tuple[np.ndarray, np.ndarray]:
    """Pulls and mean reward of each cluster after each round, int32 and float32 (rounds, C).

    The mean is over pulls that scored something, NaN before the first.
    """
    pulls_RC, means_RC = [], []
    pulls_C, scored_C = np.zeros(clusters, dtype=np.int32), np.zeros(clusters)
    sum_C = np.zeros(clusters)
    for event in rounds:
        for cluster, reward in zip(event["clusters"], event["rewards"], strict=True):
            pulls_C[cluster] += 1
            if reward is not None and np.isfinite(reward):
                scored_C[cluster] += 1
                sum_C[cluster] += reward
        mean_C = np.divide(sum_C, scored_C, out=np.full(clusters, np.nan), where=scored_C > 0)
        pulls_RC.append(pulls_C.copy())
        means_RC.append(mean_C.astype(np.float32))
    if not pulls_RC:
        return np.empty((0, clusters), np.int32), np.empty((0, clusters), np.float32)
    return np.stack(pulls_RC), np.stack(means_RC)

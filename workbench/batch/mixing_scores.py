"""How far each way of mixing got: final loss, steps to a baseline's, and what it wasted.

    scores = mixing_scores(runs, "uniform", without=["noise"])
    scores["acodm"].steps_to_baseline[0]              # of seed 0; inf: never reached

All per seed, ready for `evaluation.verdict`; `score_table` prints them as means, and the final
losses as paired differences to the baseline's with their intervals.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.batch.comparison import choose_baseline, group_runs
from workbench.core import DataError

if TYPE_CHECKING:
    import pandas as pd

    from workbench.batch.comparison import Runs
    from workbench.tracking import RunFolder


@dataclass(frozen=True)
class MixingScores:
    """Of the runs of one label, by seed.

    final_nats: mean held-out loss per token over the domains that count; steps_to_baseline: until
    the final loss of the baseline's run of the same seed was reached, or inf; wasted_share: of the
    batches of the second half, the part of the domains left out (0 when none is).  baseline: its
    label.
    """

    final_nats: dict[int, float]
    steps_to_baseline: dict[int, float]
    wasted_share: dict[int, float]
    baseline: str


def mixing_scores(
    runs: Runs, baseline: str = "uniform", *, without: Collection[str] = ()
) -> dict[str, MixingScores]:
    """Scores of every label, the baseline's own included.

    Args:
        without: domains that do not count, such as one known to be noise.
    Raises:
        ConfigError: no such baseline.
        DataError: a seed that the baseline lacks, or a run never evaluated.
    """
    from workbench.evaluation import held_out_curve

    groups = group_runs(runs)
    baseline = choose_baseline(groups, baseline)
    targets = {
        run.config["seed"]: held_out_curve(run.events(), without=without).final_nats
        for run in groups[baseline]
    }
    return {label: _scores(label, own, baseline, targets, without) for label, own in groups.items()}


def _scores(
    label: str,
    runs: Sequence[RunFolder],
    baseline: str,
    targets: Mapping[int, float],
    without: Collection[str],
) -> MixingScores:
    from workbench.evaluation import held_out_curve, steps_to_reach

    curves = {run.config["seed"]: held_out_curve(run.events(), without=without) for run in runs}
    if lacking := sorted(set(curves) - set(targets)):
        raise DataError(
            f"'{label}' has seeds {lacking}, which the baseline lacks",
            remedy="train the baseline with these seeds, or leave the runs out",
        )
    return MixingScores(
        final_nats={seed: curve.final_nats for seed, curve in curves.items()},
        steps_to_baseline={
            seed: steps_to_reach(curve, targets[seed]) for seed, curve in curves.items()
        },
        wasted_share={run.config["seed"]: _wasted(run, without) for run in runs},
        baseline=baseline,
    )


def _wasted(run: RunFolder, without: Collection[str]) -> float:
    steps = run.events("step")
    return float(
        np.mean(
            [
                sum(event["sample_share"].get(name, 0.0) for name in without)
                for event in steps[len(steps) // 2 :]
            ]
        )
    )


def score_table(scores: Mapping[str, MixingScores]) -> pd.DataFrame:
    """Means over seeds, a row per label; how often the baseline was reached, and when.

    Beside the final loss stands its paired difference to the baseline's, with its interval, the
    outcome and the seeds that an effect of this size would need; see `evaluation.Verdict`.  The
    baseline's own row has none of these.
    """
    import pandas as pd

    rows = {}
    for label, own in scores.items():
        reached = [steps for steps in own.steps_to_baseline.values() if math.isfinite(steps)]
        rows[label] = {
            "seeds": len(own.final_nats),
            "held-out loss (nats/token)": round(float(np.mean(list(own.final_nats.values()))), 4),
            **_difference(label, own, scores[own.baseline]),
            "reached the baseline": f"{len(reached)} of {len(own.final_nats)}",
            "after steps (mean)": round(float(np.mean(reached)), 1) if reached else "never",
            "share left out": round(float(np.mean(list(own.wasted_share.values()))), 3),
        }
    return pd.DataFrame.from_dict(rows, orient="index").astype({"seeds needed": "Int64"})


def _difference(label: str, own: MixingScores, baseline: MixingScores) -> dict[str, Any]:
    from workbench.evaluation import verdict

    if label == own.baseline:
        columns = ("difference", "low", "high", "outcome", "seeds needed")
        return {**dict.fromkeys(columns), "outcome": "baseline"}
    found = verdict(baseline.final_nats, own.final_nats, name=label, baseline_name=own.baseline)
    return {
        "difference": round(found.mean_difference, 4),
        "low": round(found.low, 4),
        "high": round(found.high, 4),
        "outcome": found.outcome,
        "seeds needed": found.seeds_needed,
    }

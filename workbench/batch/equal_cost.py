"""What runs cost, phase by phase, and what they reach when they may cost no more than another.

    cost_table(runs)                                 # seconds and FLOPs by phase, a row a setting
    compare_at_equal_cost(runs, "uniform")           # verdicts, at the seconds of the cheapest run
    plots.held_out_by_seconds(cost_curves(runs))

The cost of a run is the time of its steps and of choosing its data; evaluation is a measurement,
not part of the method, and is listed but not charged.  Shapes: N evaluations.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.batch.comparison import (
    Groups,
    check_same_measure,
    choose_baseline,
    final_held_out,
    group_runs,
)
from workbench.core import DataError, RunError

if TYPE_CHECKING:
    import pandas as pd

    from workbench.batch.comparison import Runs
    from workbench.evaluation import Verdict
    from workbench.tracking import RunFolder

NOT_CHARGED = "evaluate"


def phases(run: RunFolder) -> dict[str, dict[str, float | None]]:
    """Phase -> {"seconds", "flops"} of a finished run; FLOPs are None where none were counted."""
    summary = run.summary() or {}
    if compute := summary.get("compute"):
        return {
            phase: {"seconds": own.get("seconds"), "flops": own.get("flops")}
            for phase, own in compute.items()
        }
    return {
        phase: {"seconds": summary[f"{phase}_seconds"], "flops": None}
        for phase in ("train", "select", NOT_CHARGED)
        if summary.get(f"{phase}_seconds") is not None
    }


def cost_table(runs: Runs, *, without: Collection[str] = ()) -> pd.DataFrame:
    """One row a setting, means over its finished runs: seconds by phase, cost, losses in nats.

    `cost_seconds` leaves out evaluation; `cost_flops` is there when every run counted them;
    `held_out_nats` is at the end, `at_equal_cost_nats` where `equal_cost_seconds` were spent.

    Args:
        without: domains that do not count.
    """
    import pandas as pd

    groups = {label: _finished(own) for label, own in group_runs(runs).items()}
    groups = {label: own for label, own in groups.items() if own}
    if not groups:
        return pd.DataFrame()
    curves = {label: [_curve(run, without) for run in own] for label, own in groups.items()}
    budget = _cheapest(curves)
    rows = [
        {
            "setting": label,
            "runs": len(own),
            **_mean_seconds(own),
            "cost_seconds": _mean([seconds_N[-1] for seconds_N, _ in curves[label]]),
            "cost_flops": _mean([_charged_flops(run) for run in own]),
            "held_out_nats": _mean([nats_N[-1] for _, nats_N in curves[label]]),
            "equal_cost_seconds": budget,
            "at_equal_cost_nats": _mean([_at(curve, budget) for curve in curves[label]]),
        }
        for label, own in groups.items()
    ]
    if any(math.isnan(row["cost_flops"]) for row in rows):
        rows = [{name: row[name] for name in row if name != "cost_flops"} for row in rows]
    return pd.DataFrame(rows)


def cost_curves(
    runs: Runs, *, without: Collection[str] = ()
) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Label -> for each evaluated run its seconds spent and held-out loss in nats, both (N,)."""
    return {
        label: [_curve(run, without) for run in own if run.events("held_out")]
        for label, own in group_runs(runs).items()
    }


def compare_at_equal_cost(
    runs: Runs, baseline: str | None = None, *, without: Collection[str] = ()
) -> tuple[list[Verdict], list[str]]:
    """Verdicts on the held-out loss when every run may spend the seconds of the cheapest one.

    Between two evaluations the loss is taken as linear in time.  Time on a machine that does other
    work is noise.

    Returns:
        The verdicts, and which settings are not finished, measured otherwise, or were not evaluated
        that early, in a sentence each.
    Raises:
        ConfigError: no such baseline.
        RunError: the baseline is not finished.
        DataError: no common seed, or the baseline itself has no evaluation that early.
    """
    from workbench.evaluation import verdict

    groups = group_runs(runs)
    baseline = choose_baseline(groups, baseline)
    groups, refused = _like(groups, baseline)
    curves = {
        label: {run.config["seed"]: _curve(run, without) for run in own}
        for label, own in groups.items()
    }
    budget = _cheapest({label: list(own.values()) for label, own in curves.items()})
    nats = {
        label: {seed: _at(curve, budget) for seed, curve in own.items()}
        for label, own in curves.items()
    }
    late = [label for label, own in nats.items() if not all(map(math.isfinite, own.values()))]
    told = f"not evaluated within {budget:.3g} s, the cost of the cheapest run"
    if baseline in late:
        raise DataError(
            f"{baseline} was {told}",
            remedy="lower evaluate_every_steps, or choose another baseline",
        )
    verdicts = [
        verdict(nats[baseline], own, name=label, baseline_name=baseline)
        for label, own in nats.items()
        if label != baseline and label not in late
    ]
    return verdicts, [*refused, *(f"{label} was {told}" for label in late)]


def _like(groups: Groups, baseline: str) -> tuple[Groups, list[str]]:
    """The groups that are finished and measured like the baseline, and why others are not."""
    for run in groups[baseline]:
        final_held_out(run)
    like, refused = {}, []
    for label, own in groups.items():
        try:
            for run in own:
                final_held_out(run)
                check_same_measure(groups[baseline][0], run)
        except RunError as error:
            refused.append(str(error))
        else:
            like[label] = own
    return like, refused


def _finished(runs: list[RunFolder]) -> list[RunFolder]:
    return [run for run in runs if run.status() == "finished" and run.events("held_out")]


def _curve(run: RunFolder, without: Collection[str]) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of steps and of choosing up to each evaluation, and its loss."""
    from workbench.evaluation import held_out_curve

    curve = held_out_curve(run.events(), without=without)
    seconds = {event["step"]: event["seconds"] for event in run.events("step")}
    total = np.array([0.0, *accumulate(seconds[step] for step in sorted(seconds))])
    spent_N = total[np.searchsorted(sorted(seconds), curve.step_N)]
    for event in run.events("selected"):
        spent_N = spent_N + event["seconds"] * (curve.step_N >= event["step"])
    return spent_N, curve.nats_N


def _cheapest(curves: dict[str, list[tuple[np.ndarray, np.ndarray]]]) -> float:
    return min(float(seconds_N[-1]) for own in curves.values() for seconds_N, _ in own)


def _at(curve: tuple[np.ndarray, np.ndarray], seconds: float) -> float:
    """The loss when so much was spent; NaN before the first evaluation."""
    return float(np.interp(seconds, *curve, left=math.nan))


def _mean_seconds(runs: list[RunFolder]) -> dict[str, Any]:
    told = [phases(run) for run in runs]
    names = dict.fromkeys(phase for own in told for phase in own)
    return {
        f"{phase}_seconds": _mean([own.get(phase, {}).get("seconds") or 0.0 for own in told])
        for phase in names
    }


def _charged_flops(run: RunFolder) -> float:
    flops = [own["flops"] for phase, own in phases(run).items() if phase != NOT_CHARGED]
    return sum(math.nan if one is None else one for one in flops)


def _mean(values: list[float]) -> float:
    return float(np.mean(values))

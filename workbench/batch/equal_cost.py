"""What runs cost, phase by phase, and what they reach when they may cost no more than another.

    cost_table(runs)                                 # seconds and FLOPs by phase, a row a setting
    compare_at_equal_cost(runs, "uniform")           # verdicts, at the seconds of the cheapest run
    compare_at_equal_cost(runs, "uniform", by="flops")
    plots.held_out_by_seconds(cost_curves(runs))

The cost of a run is that of its steps and of choosing its data, and what others paid for it before:
runs whose model or agent it uses, at its start, and what it read from their caches, where it did.
Evaluation is a measurement, not part of the method, and is listed but not charged.
Shapes: N evaluations.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Literal

import numpy as np

from workbench.batch.comparison import (
    Groups,
    by_seed,
    check_same_measure,
    choose_baseline,
    final_held_out,
    group_runs,
)
from workbench.core import ConfigError, DataError, RunError, unknown_name

if TYPE_CHECKING:
    import pandas as pd

    from workbench.batch.comparison import Runs
    from workbench.evaluation import Verdict
    from workbench.tracking import RunFolder

    Curve = tuple[np.ndarray, np.ndarray]
    """What was spent up to each evaluation, (N,), and the loss there in nats, (N,)."""

By = Literal["seconds", "flops"]
NOT_CHARGED = "evaluate"
_OF_A_STEP = {"seconds": ("seconds",), "flops": ("flops", "probe_flops", "policy_flops")}
_UNITS = {"seconds": "s", "flops": "FLOPs"}


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
    """One row a setting, means over its finished runs: what phases cost, losses in nats.

    `<phase>_seconds` and `<phase>_flops` are 0 where a setting has no such phase; `cost_seconds`
    and `cost_flops` leave out evaluation.  FLOPs are there when every run counted them;
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
    by_phase = _by_phase(groups)
    rows = [
        {
            "setting": label,
            "runs": len(own),
            **by_phase[label],
            "cost_seconds": _mean([seconds_N[-1] for seconds_N, _ in curves[label]]),
            "cost_flops": sum(_charged_flops(by_phase[label])),
            "held_out_nats": _mean([nats_N[-1] for _, nats_N in curves[label]]),
            "equal_cost_seconds": budget,
            "at_equal_cost_nats": _mean([_at(curve, budget) for curve in curves[label]]),
        }
        for label, own in groups.items()
    ]
    if any(math.isnan(row["cost_flops"]) for row in rows):
        rows = [{k: row[k] for k in row if not k.endswith("_flops")} for row in rows]
    return pd.DataFrame(rows)


def cost_curves(runs: Runs, *, without: Collection[str] = ()) -> dict[str, list[Curve]]:
    """Label -> for each evaluated run its seconds spent and held-out loss in nats, both (N,)."""
    return {
        label: [_curve(run, without) for run in own if run.events("held_out")]
        for label, own in group_runs(runs).items()
    }


def compare_at_equal_cost(
    runs: Runs,
    baseline: str | None = None,
    *,
    by: By = "seconds",
    without: Collection[str] = (),
    repeated: bool = False,
) -> tuple[list[Verdict], list[str]]:
    """Verdicts on the held-out loss when every run may spend what the cheapest one did.

    Between two evaluations the loss is taken as linear in what is spent.  Time on a machine that
    does other work is noise; operations are not, but say nothing of how fast they are done.

    Args:
        by: what is spent, `seconds` or floating-point operations.
        without, repeated: see `compare`.
    Returns:
        The verdicts, and which settings are not finished, measured otherwise, hold a seed twice,
        did not count operations, or were not evaluated that early, in a sentence each; and which
        runs needed others that are not there any more, so that their cost is left out.
    Raises:
        ConfigError: no such baseline, or no such cost.
        RunError: one of these holds of the baseline.
        DataError: no common seed, or the baseline itself has no evaluation that early.
    """
    from workbench.evaluation import verdict

    if by not in _UNITS:
        problem, remedy = unknown_name("cost", by, _UNITS)
        raise ConfigError(problem, remedy=remedy)
    groups = group_runs(runs)
    baseline = choose_baseline(groups, baseline)
    seeds, refused = _like(groups, baseline, by, repeated)
    curves = {
        label: {seed: [_curve(run, without, by) for run in runs] for seed, runs in own.items()}
        for label, own in seeds.items()
    }
    budget = _cheapest({label: list(chain(*own.values())) for label, own in curves.items()})
    nats = {
        label: {seed: [_at(curve, budget) for curve in each] for seed, each in own.items()}
        for label, own in curves.items()
    }
    late = [
        label for label, own in nats.items() if not all(map(math.isfinite, chain(*own.values())))
    ]
    told = f"not evaluated within {budget:.3g} {_UNITS[by]}, the cost of the cheapest run"
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


def _like(
    groups: Groups, baseline: str, by: By, repeated: bool
) -> tuple[dict[str, dict[int, list[RunFolder]]], list[str]]:
    """Runs by label and seed that can be judged against the baseline, and why others cannot."""
    like, refused = {}, []
    for label in sorted(groups, key=lambda label: label != baseline):
        try:
            for run in groups[label]:
                final_held_out(run)
                _require_counted(run, by)
                check_same_measure(groups[baseline][0], run)
                if lost := (run.summary() or {}).get("not_charged"):
                    refused.append(f"{run.path} is compared without the cost of {', '.join(lost)}")
            like[label] = by_seed(label, groups[label], repeated=repeated)
        except RunError as error:
            if label == baseline:
                raise
            refused.append(str(error))
    return {label: like[label] for label in groups if label in like}, refused


def _require_counted(run: RunFolder, by: By) -> None:
    if not all(_OF_A_STEP[by][0] in event for event in run.events("step")):
        raise RunError(
            f"{run.path} was not counted in {by}",
            remedy="train it again, or compare by seconds",
        )


def _finished(runs: list[RunFolder]) -> list[RunFolder]:
    return [run for run in runs if run.status() == "finished" and run.events("held_out")]


def _curve(run: RunFolder, without: Collection[str], by: By = "seconds") -> Curve:
    """What was spent up to each evaluation, and its loss."""
    from workbench.evaluation import held_out_curve

    curve = held_out_curve(run.events(), without=without)
    spent = {
        event["step"]: sum(event.get(field, 0.0) for field in _OF_A_STEP[by])
        for event in run.events("step")
    }
    before = phases(run).get("earlier", {}).get(by) or 0.0
    total = np.array(list(accumulate((spent[step] for step in sorted(spent)), initial=before)))
    spent_N = total[np.searchsorted(sorted(spent), curve.step_N)]
    for event in run.events("selected"):
        chosen = event.get(by, 0.0) + event.get("cached", {}).get(by, 0.0)
        spent_N = spent_N + chosen * (curve.step_N >= event["step"])
    return spent_N, curve.nats_N


def _cheapest(curves: dict[str, list[Curve]]) -> float:
    return min(float(spent_N[-1]) for own in curves.values() for spent_N, _ in own)


def _at(curve: Curve, spent: float) -> float:
    """The loss when so much was spent; NaN before the first evaluation."""
    return float(np.interp(spent, *curve, left=math.nan))


def _by_phase(groups: Groups) -> dict[str, dict[str, float]]:
    """Per label `<phase>_seconds` and `<phase>_flops` of all phases that any setting has."""
    told = {label: [phases(run) for run in own] for label, own in groups.items()}
    names = dict.fromkeys(name for own in chain(*told.values()) for name in own)
    return {
        label: {
            f"{name}_{by}": _mean([_spent(run, name, by) for run in own])
            for by in _UNITS
            for name in names
        }
        for label, own in told.items()
    }


def _spent(run: Mapping[str, Mapping[str, float | None]], phase: str, by: str) -> float:
    """What a phase took; 0 where the run has none, NaN where operations were not counted."""
    if phase not in run:
        return 0.0
    spent = run[phase][by]
    uncounted = 0.0 if by == "seconds" else math.nan
    return uncounted if spent is None else spent


def _charged_flops(by_phase: Mapping[str, float]) -> list[float]:
    return [
        flops
        for name, flops in by_phase.items()
        if name.endswith("_flops") and name != f"{NOT_CHARGED}_flops"
    ]


def _mean(values: list[float]) -> float:
    return float(np.mean(values))

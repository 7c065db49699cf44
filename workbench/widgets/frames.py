"""What the browser is told about runs: plain dictionaries, small enough to send often.

    {"runs": [head(...)], "charts": charts({"linupper": curves})}

Charts carry at most `LINE_POINTS` points a line however long the run is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from workbench.plots.series import SMOOTHING_STEPS, smooth, thin
from workbench.plots.theme import style
from workbench.widgets.curves import RunCurves

LINE_POINTS = 1000
SPARK_POINTS = 120
STRETCHES = 240
MEAN = "mean of domains"

Line = dict[str, Any]


def head(label: str, curves: RunCurves, status: str, *, index: int, live: bool) -> dict[str, Any]:
    """The numbers of the index-th run beside its curves; None for what is not known yet."""
    smooth_S = curves.column("smooth")
    active = status in ("running", "paused")
    return {
        "label": label,
        "colour": style(index).colour,
        "status": status,
        "live": live,
        "step": curves.steps_done,
        "total_steps": curves.total_steps,
        "loss": _finite(smooth_S[-1]) if len(smooth_S) else None,
        "tokens_per_second": _finite(curves.tokens_per_second),
        "elapsed_seconds": curves.elapsed_seconds(running=status == "running"),
        "left_seconds": _finite(curves.left_seconds) if active else None,
    }


def charts(runs: Mapping[str, RunCurves]) -> list[dict[str, Any]]:
    """Training loss and held-out loss of one run, or of several laid over each other."""
    several = len(runs) > 1
    training, held_out = [], []
    for index, (label, curves) in enumerate(runs.items()):
        training += _training_lines(label if several else "", curves, index)
        held_out += _held_out_lines(label, curves, index if several else None)
    marks = [
        {"step": mark.step, "text": f"{label}: {mark.text}" if several else mark.text}
        for label, curves in runs.items()
        for mark in curves.marks
    ]
    shared = {
        "unit": "nats per token",
        "x_label": "optimiser step",
        "x_end": max(curves.steps_done for curves in runs.values()),
        "marks": marks,
    }
    return [
        {
            "title": "Training loss",
            "lines": training,
            "empty": "Appears with the first recorded steps",
            **shared,
        },
        {
            "title": "Held-out loss",
            "lines": held_out,
            "empty": "Appears with the first evaluation",
            **shared,
        },
    ]


def throughput(curves: RunCurves) -> list[float | None]:
    """Tokens per second along the run, for a small curve."""
    seconds_S, tokens_S = curves.column("seconds"), curves.column("tokens")
    if not len(seconds_S):
        return []
    stretches = min(SPARK_POINTS, len(seconds_S))
    first = np.linspace(0, len(seconds_S), stretches, endpoint=False).astype(int)
    seconds = np.add.reduceat(seconds_S, first)
    tokens = np.add.reduceat(tokens_S, first)
    return _values(tokens / np.where(seconds > 0, seconds, np.nan), 0)


def _training_lines(label: str, curves: RunCurves, index: int) -> list[Line]:
    step_S = curves.column("step")
    if not len(step_S):
        return []
    raw = line(label or "each step", step_S, curves.column("loss"), index, faint=True)
    smooth = line(label or "smoothed", step_S, curves.column("smooth"), index)
    raw["marker"] = smooth["marker"] = None
    raw["dash"] = "solid"
    return [raw, smooth]


def _held_out_lines(label: str, curves: RunCurves, run: int | None) -> list[Line]:
    held_out = curves.held_out
    if run is None:
        return [
            line(domain, step_E, loss_E, index)
            for index, (domain, (step_E, loss_E)) in enumerate(held_out.items())
        ]
    lines = [
        line(label, step_E, loss_E, run, group=domain)
        for domain, (step_E, loss_E) in held_out.items()
    ]
    shared = {len(loss_E) for _, loss_E in held_out.values()}
    if len(shared) == 1:
        step_E = next(iter(held_out.values()))[0]
        mean_E = np.mean([loss_E for _, loss_E in held_out.values()], axis=0)
        lines.insert(0, line(label, step_E, mean_E, run, group=MEAN))
    return lines


def line(
    name: str,
    x: np.ndarray,
    y: np.ndarray,
    index: int,
    *,
    faint: bool = False,
    group: str | None = None,
) -> Line:
    """One line of a chart in the look of `index`; `faint` goes behind one of the same name."""
    kept = thin(x, y, LINE_POINTS)
    x, y = x[kept], y[kept]
    look = style(index)
    return {
        "name": name,
        "colour": look.colour,
        "dash": look.dash,
        "marker": look.symbol,
        "faint": faint,
        "group": group,
        "x": x.astype(int).tolist(),
        "y": _values(y, 4),
    }


def stretched(step_S: np.ndarray, y_S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over at most `STRETCHES` stretches, smoothed; both (P,).

    Smoothing after the means costs the same however long the run is.
    """
    length = -(-len(step_S) // STRETCHES)
    first = np.arange(0, len(step_S), length)
    rows_P = np.diff(np.append(first, len(step_S)))
    x_P, y_P = (np.add.reduceat(values, first) / rows_P for values in (step_S, y_S))
    return x_P, smooth(y_P, SMOOTHING_STEPS // length)


def _values(values: np.ndarray, digits: int) -> list[float | None]:
    return [_finite(value) for value in np.round(values, digits).tolist()]


def _finite(value: float | None) -> float | None:
    """JSON has no NaN: a gap in the line."""
    return float(value) if value is not None and math.isfinite(value) else None

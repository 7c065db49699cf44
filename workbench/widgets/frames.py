"""What the browser is told about runs: plain dictionaries, small enough to send a few times a second.

    {"runs": [head(...)], "charts": charts({"linupper": curves})}

Charts carry at most `LINE_POINTS` points a line however long the run is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from workbench.widgets.curves import RunCurves, thin

LINE_POINTS = 1000
SPARK_POINTS = 120
COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "currentColor",
    "#B8A800",
)
"""Okabe and Ito's palette; black follows the theme, yellow is darkened to show on white."""
DASHES = ("", "7 3", "2 3", "8 3 2 3")
MARKERS = ("circle", "square", "diamond", "triangle")
MEAN = "mean of domains"

Line = dict[str, Any]


def style(index: int) -> dict[str, str]:
    """Colour, dash and marker of the index-th line; no two of the first 32 share all three."""
    turn = index // len(COLOURS)
    return {
        "colour": COLOURS[index % len(COLOURS)],
        "dash": DASHES[(index + turn) % len(DASHES)],
        "marker": MARKERS[(index + turn) % len(MARKERS)],
    }


def head(label: str, curves: RunCurves, status: str, *, live: bool) -> dict[str, Any]:
    """The numbers of a run beside its curves; None for what is not known yet."""
    smooth_S = curves.column("smooth")
    active = status in ("running", "paused")
    return {
        "label": label,
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
    return [
        _chart("Training loss", training, marks, "Appears with the first recorded steps"),
        _chart("Held-out loss", held_out, marks, "Appears with the first evaluation"),
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


def _chart(title: str, lines: list[Line], marks: list[dict], empty: str) -> dict[str, Any]:
    return {
        "title": title,
        "unit": "nats per token",
        "x_label": "optimiser step",
        "lines": lines,
        "marks": marks,
        "empty": empty,
    }


def _training_lines(label: str, curves: RunCurves, index: int) -> list[Line]:
    step_S = curves.column("step")
    if not len(step_S):
        return []
    raw = _line(label or "each step", step_S, curves.column("loss"), index, faint=True)
    smooth = _line(label or "smoothed", step_S, curves.column("smooth"), index)
    raw["marker"] = smooth["marker"] = None
    if not label:
        smooth["dash"] = ""
    return [raw, smooth]


def _held_out_lines(label: str, curves: RunCurves, run: int | None) -> list[Line]:
    held_out = curves.held_out
    if run is None:
        return [
            _line(domain, step_E, loss_E, index)
            for index, (domain, (step_E, loss_E)) in enumerate(held_out.items())
        ]
    lines = [
        _line(label, step_E, loss_E, run, group=domain)
        for domain, (step_E, loss_E) in held_out.items()
    ]
    shared = {len(loss_E) for _, loss_E in held_out.values()}
    if len(shared) == 1:
        step_E = next(iter(held_out.values()))[0]
        mean_E = np.mean([loss_E for _, loss_E in held_out.values()], axis=0)
        lines.insert(0, _line(label, step_E, mean_E, run, group=MEAN))
    return lines


def _line(
    name: str,
    x: np.ndarray,
    y: np.ndarray,
    index: int,
    *,
    faint: bool = False,
    group: str | None = None,
) -> Line:
    x, y = thin(x, y, LINE_POINTS)
    return {
        "name": name,
        **style(index),
        "faint": faint,
        "group": group,
        "x": x.astype(int).tolist(),
        "y": _values(y, 4),
    }


def _values(values: np.ndarray, digits: int) -> list[float | None]:
    return [_finite(value) for value in np.round(values, digits).tolist()]


def _finite(value: float | None) -> float | None:
    """JSON has no NaN: a gap in the line."""
    return float(value) if value is not None and math.isfinite(value) else None

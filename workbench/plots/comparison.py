"""Runs side by side: where they differ by domain, what they cost, what they reach for it.

domain_verdicts(batch.by_domain(verdicts))
costs(batch.cost_table(runs).to_dict("records"), by="flops")
held_out_by_seconds(batch.cost_curves(runs))

Shapes: N evaluations, P drawn points.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from workbench.plots.draw import Panel
from workbench.plots.series import Line, Points
from workbench.plots.summaries import VerdictLike, support
from workbench.plots.theme import blank, safe, say_nothing_yet, style

DIFFERENCE_COLOURS = [[0.0, "#56B4E9"], [0.5, "#F7F7F7"], [1.0, "#E69F00"]]
"""Below the baseline to above it; light enough for dark letters at both ends."""
_SIGNS = {"better": "▲ ", "worse": "▼ "}
_POINTS = 60
_ROW_PX = 44
_MEASURES = {
    "seconds": ("Time by phase", ".2f", "seconds"),
    "flops": ("Operations by phase", ".3s", "floating-point operations"),
}
"""Title, number format and unit of what is spent."""


def domain_verdicts(verdicts: Mapping[str, Mapping[str, VerdictLike]]) -> go.Figure:
    """Difference to the baseline by setting and domain; ▲ better and ▼ worse where sure.

    Args:
        verdicts: label -> domain -> verdict; all against the same baseline.
    """
    title = "Difference to the baseline by domain"
    labels = [label for label, own in verdicts.items() if own]
    domains = list(dict.fromkeys(domain for own in verdicts.values() for domain in own))
    figure = blank(title, height=190 + _ROW_PX * max(1, len(labels)))
    if not labels:
        return say_nothing_yet(figure, "nothing compared yet")
    found = [[verdicts[label].get(domain) for domain in domains] for label in labels]
    z = [[v.mean_difference if v else math.nan for v in row] for row in found]
    limit = float(np.nanmax(np.abs(z))) or 1.0
    one = next(v for row in found for v in row if v)
    figure.update_layout(
        title={"text": f"{title}, {one.unit} (baseline {safe(one.baseline_name)})"}
    )
    figure.add_heatmap(
        x=[safe(domain) for domain in domains],
        y=[safe(label) for label in labels],
        z=z,
        text=[[_told(v) for v in row] for row in found],
        customdata=[
            [f"{v.outcome}<br>{support(v)}" if v else "not compared" for v in row] for row in found
        ],
        zmin=-limit,
        zmax=limit,
        colorscale=DIFFERENCE_COLOURS,
        showscale=False,
        texttemplate="%{text}",
        textfont={"color": "#222222"},
        xgap=2,
        ygap=2,
        hovertemplate="%{y} on %{x}<br>%{z:+.4f}<br>%{customdata}<extra></extra>",
    )
    figure.update_xaxes(showgrid=False, showline=False, ticks="")
    figure.update_yaxes(showgrid=False, showline=False, autorange="reversed")
    return figure


def costs(rows: Sequence[Mapping[str, Any]], *, by: str = "seconds") -> go.Figure:
    """Seconds or operations of each setting by phase, stacked.

    Args:
        rows: with `setting` and a `<phase>_seconds` (or `_flops`) for each phase; those that say
            what a run cost or may cost (`cost_seconds`, `equal_cost_seconds`) are sums, not phases.
        by: `seconds`, or `flops` where every run counted them.
    """
    title, format_, unit = _MEASURES[by]
    figure = blank(title, x=unit, height=130 + _ROW_PX * max(1, len(rows)))
    names = rows[0] if rows else ()
    phases = [
        name.removesuffix(f"_{by}")
        for name in names
        if name.endswith(f"_{by}") and "cost" not in name
    ]
    if not phases:
        return say_nothing_yet(figure, f"no {by} were counted" if rows else "no finished run")
    ordered = list(rows)[::-1]
    for index, phase in enumerate(phases):
        if not any(row[f"{phase}_{by}"] for row in ordered):
            continue
        look = style(index)
        figure.add_bar(
            x=[row[f"{phase}_{by}"] for row in ordered],
            y=[safe(row["setting"]) for row in ordered],
            orientation="h",
            name=phase,
            marker={"color": look.colour, "pattern": {"shape": look.pattern}},
            hovertemplate=f"%{{y}}<br>{phase} %{{x:{format_}}} {unit}<extra></extra>",
        )
    figure.update_layout(
        barmode="stack", bargap=0.35, showlegend=True, legend={"traceorder": "normal"}
    )
    figure.update_xaxes(rangemode="tozero")
    figure.update_yaxes(showgrid=False)
    return figure


def held_out_by_seconds(curves: Mapping[str, Sequence[Points]]) -> go.Figure:
    """Held-out loss over seconds spent; several runs as their mean and a band.

    Args:
        curves: label -> for each run, seconds (N,) and nats per token (N,).
    """
    title = "Held-out loss over time spent"
    figure = blank(title, x="seconds of training and choosing", y="loss (nats per token)")
    panel = Panel(figure)
    for index, (label, own) in enumerate(curves.items()):
        line = _over_time([curve for curve in own if len(curve[0])])
        if line:
            panel.line(line, label=label, style=style(index), unit="nats per token", x="%{x:.2f} s")
    if not figure.data:
        return say_nothing_yet(figure, "no held-out evaluation recorded yet")
    figure.update_layout(showlegend=True)
    return figure


def _over_time(curves: Sequence[Points]) -> Line | None:
    """Runs on the stretch of time that all of them have, linear between evaluations."""
    if not curves:
        return None
    begin = max(float(seconds_N[0]) for seconds_N, _ in curves)
    end = min(float(seconds_N[-1]) for seconds_N, _ in curves)
    if begin >= end:
        return None
    x_P = np.linspace(begin, end, _POINTS)
    y_RP = np.stack([np.interp(x_P, *curve) for curve in curves])
    return Line(x_P, y_RP.mean(0), y_RP.min(0), y_RP.max(0), len(curves))


def _told(v: VerdictLike | None) -> str:
    return f"{_SIGNS.get(v.outcome, '')}{v.mean_difference:+.3f}".replace("-", "−") if v else "–"

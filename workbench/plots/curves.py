"""Curves over the steps of a run: loss, held-out loss, throughput, effective sample size.

    curves.loss({"uniform": [a, b, c], "linupper": [d, e, f]})

`runs` is one run, a list, label -> run, or label -> runs (seeds), which become their mean with a
band from the lowest to the highest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from workbench.plots.draw import Panel, mark_events
from workbench.plots.series import (
    SMOOTHING_STEPS,
    Groups,
    Recorded,
    Runs,
    across,
    grouped,
    per_step,
)
from workbench.plots.theme import blank, dress, safe, say_nothing_yet, style

COLUMNS = 3
_PANEL_HEIGHT = 210
MEAN = "mean of domains"


def loss(runs: Runs) -> go.Figure:
    """Training loss in nats per token: smoothed, the unsmoothed faint behind single runs."""
    figure = blank("Training loss", x="step", y="loss (nats per token)")
    groups, panel = grouped(runs), Panel(figure)
    for index, (label, group) in enumerate(groups.items()):
        if len(group) == 1:
            panel.faint(*per_step(group[0], _of("loss")), label=label, style=style(index))
        line = across(
            group, lambda run: per_step(run, _of("loss")), smoothing_steps=SMOOTHING_STEPS
        )
        if line:
            unit = f"nats per token, smoothed over {SMOOTHING_STEPS} steps"
            panel.line(line, label=label, style=style(index), unit=unit)
    return _finished(figure, groups)


def throughput(runs: Runs) -> go.Figure:
    """Trained tokens per second over the steps, smoothed; pauses and evaluation do not count."""
    figure = blank("Throughput", x="step", y="tokens per second")
    groups, panel = grouped(runs), Panel(figure)
    for index, (label, group) in enumerate(groups.items()):
        line = across(
            group, lambda run: per_step(run, _tokens_per_second), smoothing_steps=SMOOTHING_STEPS
        )
        if line:
            unit = "tokens per second"
            panel.line(line, label=label, style=style(index), unit=unit, digits=0)
    figure.update_yaxes(rangemode="tozero")
    return _finished(figure, groups)


def ess(runs: Runs) -> go.Figure:
    """Effective sample size as a fraction of the batch: 1 when all rows weigh the same."""
    figure = blank("Effective sample size", x="step", y="effective rows / rows")
    groups, panel = grouped(runs), Panel(figure)
    for index, (label, group) in enumerate(groups.items()):
        line = across(
            group, lambda run: per_step(run, _of("ess_fraction")), smoothing_steps=SMOOTHING_STEPS
        )
        if line:
            panel.line(line, label=label, style=style(index), unit="of the batch counts")
    figure.update_yaxes(range=[0, 1.05])
    return _finished(figure, groups)


def held_out(runs: Runs, domains: Sequence[str] | None = None) -> go.Figure:
    """Held-out loss in nats per token: one panel for the mean, one for each domain.

    Args:
        domains: which domains and in what order; all that were evaluated when None.
    """
    groups = grouped(runs)
    names = list(domains) if domains is not None else evaluated_domains(groups)
    if not any(run.events("held_out") for group in groups.values() for run in group):
        empty = blank("Held-out loss", x="step", y="loss (nats per token)")
        return say_nothing_yet(empty, "no held-out evaluation recorded yet")
    figure, panels = small_multiples(
        "Held-out loss", [MEAN, *names], y="nats per token", legend=len(groups) > 1
    )
    for number, panel in enumerate(panels):
        value = _of("mean_nats") if number == 0 else _in("losses", names[number - 1])
        _lines(panel, groups, value, "nats per token", kind="held_out", in_legend=number == 0)
    mark_events(figure, groups, panels)
    return figure


def weight_share(runs: Runs) -> go.Figure:
    """Share of the step's sample weight that each domain got, one panel a domain, smoothed."""
    groups = grouped(runs)
    names = recorded_domains(groups)
    if not names:
        return say_nothing_yet(blank("Share of the sample weight", x="step", y="share"))
    figure, panels = small_multiples(
        "Share of the sample weight", names, y="share", legend=len(groups) > 1
    )
    for number, panel in enumerate(panels):
        value = _in("weight_share", names[number])
        _lines(panel, groups, value, "of the weight", smooth=True, in_legend=number == 0)
    mark_events(figure, groups, panels)
    return figure


def small_multiples(
    title: str, names: Sequence[str], *, y: str, legend: bool
) -> tuple[go.Figure, list[Panel]]:
    """A grid of panels, `COLUMNS` wide, each headed by its name."""
    from plotly.subplots import make_subplots

    rows = -(-len(names) // COLUMNS)
    height = 110 + _PANEL_HEIGHT * rows
    gap_px = 58
    figure = make_subplots(
        rows=rows,
        cols=min(COLUMNS, len(names)),
        subplot_titles=[safe(name) for name in names],
        vertical_spacing=min(0.4, gap_px / (height - 110)) if rows > 1 else 0,
        horizontal_spacing=0.09,
    )
    dress(figure, title, height=height)
    figure.update_layout(showlegend=legend, margin={"t": 76})
    figure.update_annotations(font={"size": 12})
    panels = [Panel(figure, i // COLUMNS + 1, i % COLUMNS + 1) for i in range(len(names))]
    for number, panel in enumerate(panels):
        if number + COLUMNS >= len(names):
            figure.update_xaxes(title_text="step", row=panel.row, col=panel.col)
        if number % COLUMNS == 0:
            figure.update_yaxes(title_text=y, row=panel.row, col=panel.col)
    return figure, panels


def evaluated_domains(groups: Groups) -> list[str]:
    return _keys(groups, "held_out", "losses")


def recorded_domains(groups: Groups) -> list[str]:
    """Domains of the mixture, and any other that got weight, in the order first seen."""
    mixed = _keys(groups, "step", "mixture")
    return mixed + [n for n in _keys(groups, "step", "weight_share") if n not in mixed]


def _keys(groups: Groups, kind: str, field: str) -> list[str]:
    found: dict[str, None] = {}
    for group in groups.values():
        for run in group:
            for event in run.events(kind):
                found.update(dict.fromkeys(event[field]))
    return list(found)


def _lines(
    panel: Panel,
    groups: Groups,
    value: Callable[[dict[str, Any]], float | None],
    unit: str,
    *,
    kind: str = "step",
    smooth: bool = False,
    in_legend: bool,
) -> None:
    for index, (label, group) in enumerate(groups.items()):
        line = across(
            group,
            lambda run: per_step(run, value, kind),
            smoothing_steps=SMOOTHING_STEPS if smooth else 0,
        )
        if line:
            panel.line(
                line,
                label=label,
                style=style(index),
                unit=unit,
                markers=kind == "held_out",
                in_legend=in_legend,
            )


def _finished(figure: go.Figure, groups: Groups) -> go.Figure:
    traces: Any = figure.data
    if not any(len(trace.x) for trace in traces):
        figure.data = []
        return say_nothing_yet(figure)
    figure.update_layout(showlegend=len(groups) > 1 or any(len(g) > 1 for g in groups.values()))
    mark_events(figure, groups)
    return figure


def _of(field: str) -> Callable[[dict[str, Any]], float | None]:
    return lambda event: event.get(field)


def _in(field: str, domain: str) -> Callable[[dict[str, Any]], float | None]:
    return lambda event: event[field].get(domain)


def _tokens_per_second(event: dict[str, Any]) -> float | None:
    return event["tokens"] / event["seconds"] if event["seconds"] else None


def shares(run: Recorded, field: str, domain: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and a domain's value in a per-domain field; a domain absent from a step counts 0."""
    return per_step(run, lambda event: event[field].get(domain, 0.0))

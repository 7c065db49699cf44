"""Figures of one run: weight against loss of its samples, and what its domains got.

samples.weights(run, step=120)
samples.implied_mixture(run)
"""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from workbench.plots.curves import recorded_domains, shares
from workbench.plots.draw import Panel, mark_events
from workbench.plots.series import SMOOTHING_STEPS, Runs, grouped, only, smooth, thin
from workbench.plots.theme import RULE, TEXT, Style, blank, safe, say_nothing_yet, style


def weights(run: Runs, step: int | None = None) -> go.Figure:
    """Weight of each sample of one step against its loss, by domain.

    Args:
        step: a step in the ledger; the last one there when None.
    """
    ledger, domains = only(run).ledger, recorded_domains(grouped(run))
    recorded = ledger.steps()
    shown = recorded[1] if step is None and recorded else step
    title = "Weight against loss" + (f", step {shown:,}" if shown is not None else "")
    figure = blank(title, x="loss (nats per token)", y="sample weight (mean 1)")
    rows = ledger.step(shown) if shown is not None else None
    if rows is None or rows.empty:
        said = "no samples recorded yet" if step is None else f"step {step:,} is not in the ledger"
        return say_nothing_yet(figure, said)
    known = domains + sorted(set(rows["domain"]) - set(domains))
    for index, domain in enumerate(known):
        mine = rows[rows["domain"] == domain]
        if mine.empty:
            continue
        figure.add_scatter(
            x=mine["loss"],
            y=mine["weight"],
            customdata=mine["sample_id"].astype(str),
            name=safe(domain),
            mode="markers",
            marker={**style(index).marker(size=9), "opacity": 0.8},
            hovertemplate=f"{safe(domain)}<br>sample %{{customdata}}<br>%{{x:.3f}} nats per token"
            "<br>weight %{y:.3f}<extra></extra>",
        )
    figure.add_hline(y=1, line={"color": RULE, "width": 1, "dash": "dot"}, layer="below")
    figure.update_yaxes(rangemode="tozero")
    figure.update_layout(showlegend=True)
    return figure


def implied_mixture(run: Runs) -> go.Figure:
    """What the weights made of the mixture: share of the weight and of the samples, per domain."""
    title = "Implied mixture: share of the weight against share of the samples"
    figure = blank(title, x="step", y="share of the step")
    groups = grouped(run)
    panel, domains = Panel(figure), recorded_domains({"": [only(run)]})
    if not domains:
        return say_nothing_yet(figure)
    panel.add(_legend_entry("share of the weight", dash="solid"))
    panel.add(_legend_entry("share of the samples", dash="dot"))
    for index, domain in enumerate(domains):
        panel.add(_legend_entry(domain, look=style(index)))
        for field, dash in (("weight_share", "solid"), ("sample_share", "dot")):
            x_S, y_S = shares(only(run), field, domain)
            panel.add(_share(x_S, y_S, domain, field, style(index), dash))
    figure.update_yaxes(rangemode="tozero")
    mark_events(figure, groups)
    return figure


def _legend_entry(name: str, *, dash: str = "solid", look: Style | None = None) -> go.Scatter:
    # Plotly leaves a symbol out of the legend when its size varies along the line.
    return go.Scatter(
        x=[None],
        y=[None],
        name=safe(name),
        legendgroup=name,
        mode="lines+markers" if look else "lines",
        line={"color": look.colour if look else TEXT, "dash": dash, "width": 2},
        marker=look.marker() if look else None,
    )


def _share(
    x_S: np.ndarray, y_S: np.ndarray, domain: str, field: str, look: Style, dash: str
) -> go.Scatter:
    y_S = smooth(y_S, SMOOTHING_STEPS)
    kept = thin(x_S, y_S)
    weight = field == "weight_share"
    # A symbol now and then tells domains apart without colour; the dash says which share it is.
    every = max(1, len(kept) // 8)
    size = np.where(np.arange(len(kept)) % every == every // 2, 7, 0) if weight else 0
    return go.Scatter(
        x=x_S[kept],
        y=y_S[kept],
        name=safe(domain),
        legendgroup=domain,
        showlegend=False,
        mode="lines+markers" if weight else "lines",
        line={"color": look.colour, "dash": dash, "width": 2 if weight else 1.5},
        marker={"color": look.colour, "symbol": look.symbol, "size": size, "line": {"width": 0}},
        hovertemplate=f"{safe(domain)}<br>step %{{x:,}}<br>%{{y:.1%}} of the "
        f"{'weight' if weight else 'samples'}, smoothed over {SMOOTHING_STEPS} steps"
        "<extra></extra>",
    )


def mixture(run: Runs) -> go.Figure:
    """The mixture that the mixer asked for, stacked to 1 over the steps."""
    figure = blank("Requested mixture", x="step", y="probability")
    domains = recorded_domains({"": [only(run)]})
    if not domains:
        return say_nothing_yet(figure)
    for index, domain in enumerate(domains):
        x_S, p_S = shares(only(run), "mixture", domain)
        kept = np.unique(np.linspace(0, len(x_S) - 1, min(len(x_S), 1000)).astype(int))
        look = style(index)
        figure.add_scatter(
            x=x_S[kept],
            y=p_S[kept],
            name=safe(domain),
            mode="lines",
            stackgroup="mixture",
            line={"color": look.colour, "width": 1},
            fillcolor=look.faded(0.55),
            fillpattern={"shape": look.pattern, "fgcolor": TEXT, "fillmode": "overlay", "size": 6},
            hovertemplate=f"{safe(domain)}<br>step %{{x:,}}<br>probability %{{y:.3f}}"
            "<extra></extra>",
        )
    figure.update_yaxes(range=[0, 1])
    figure.update_layout(legend={"traceorder": "reversed"}, showlegend=True)
    mark_events(figure, grouped(run))
    return figure

"""Figures of one run: weight against loss of its samples, and what its domains got.

samples.weights(run, step=120)
samples.weight_histograms(run, step=120)
samples.implied_mixture(run)
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from workbench.plots.curves import recorded_domains, shares, small_multiples
from workbench.plots.draw import Panel, mark_events
from workbench.plots.series import SMOOTHING_STEPS, Runs, grouped, only, smooth, thin
from workbench.plots.theme import RULE, TEXT, Style, blank, dress, safe, say_nothing_yet, style

if TYPE_CHECKING:
    import pandas as pd

MOST_BINS = 30
HOVER_COLUMNS = 60


def weights(
    run: Runs, step: int | None = None, *, excerpt: Callable[[int], str] | None = None
) -> go.Figure:
    """Weight of each sample of one step against its loss, by domain.

    Args:
        step: a step in the ledger; the last one there when None.
        excerpt: gives the text of a sample id, which is shown where the pointer is.
    """
    shown, rows = _rows(run, step)
    title = "Weight against loss" + (f", step {shown:,}" if shown is not None else "")
    figure = blank(title, x="loss (nats per token)", y="sample weight (mean 1)")
    if rows is None:
        return say_nothing_yet(figure, _nothing(step))
    for index, domain in enumerate(_domains(run, rows)):
        mine = rows[rows["domain"] == domain]
        if mine.empty:
            continue
        figure.add_scatter(
            x=mine["loss"],
            y=mine["weight"],
            customdata=mine["sample_id"].astype(str),
            text=[_wrapped(excerpt(int(i))) for i in mine["sample_id"]] if excerpt else None,
            name=safe(domain),
            mode="markers",
            marker={**style(index).marker(size=9), "opacity": 0.8},
            hovertemplate=f"{safe(domain)}<br>sample %{{customdata}}<br>%{{x:.3f}} nats per token"
            "<br>weight %{y:.3f}" + ("<br>%{text}" if excerpt else "") + "<extra></extra>",
        )
    figure.add_hline(y=1, line={"color": RULE, "width": 1, "dash": "dot"}, layer="below")
    figure.update_yaxes(rangemode="tozero")
    figure.update_layout(showlegend=True)
    return figure


def weight_histograms(run: Runs, step: int | None = None) -> go.Figure:
    """How the losses and the weights of one step are spread, stacked by domain.

    Args:
        step: a step in the ledger; the last one there when None.
    """
    from plotly.subplots import make_subplots

    shown, rows = _rows(run, step)
    title = "Losses and weights" + (f", step {shown:,}" if shown is not None else "")
    if rows is None:
        return say_nothing_yet(blank(title), _nothing(step))
    figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.1)
    dress(figure, title, height=320)
    known = _domains(run, rows)
    place_B = places(rows["domain"], known)
    units = {"loss": "loss (nats per token)", "weight": "sample weight (mean 1)"}
    for column, (field, unit) in enumerate(units.items(), 1):
        edges, counts_K = histogram(
            rows[field].to_numpy(float), place_B, len(known), from_zero=field == "weight"
        )
        for index, (domain, counts) in enumerate(zip(known, counts_K, strict=True)):
            trace = _bars(edges, counts, domain, index)
            figure.add_trace(trace.update(showlegend=column == 1), row=1, col=column)
        figure.update_xaxes(title_text=unit, row=1, col=column)
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(title_text="rows", col=1)
    figure.update_layout(showlegend=True)
    return figure


def histogram(
    values_B: np.ndarray, place_B: np.ndarray, domains: int, *, from_zero: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Edges (bins + 1,) and counts (K, bins) of values by the index of their domain.

    Bins are of equal width, about 2 √B and at most `MOST_BINS` of them, the first from 0 with
    `from_zero`; non-finite values are left out.
    """
    finite_B = np.isfinite(values_B)
    values_B, place_B = values_B[finite_B], place_B[finite_B]
    low, high = (values_B.min(), values_B.max()) if len(values_B) else (0.0, 1.0)
    low = 0.0 if from_zero else low
    # Equal weights need bins of some width around them.
    high = max(high, low + 1e-3)
    bins = int(np.clip(2 * np.sqrt(len(values_B)), 8, MOST_BINS))
    edges = np.linspace(low, high * (1 + 1e-9), bins + 1)
    counts_K = [np.histogram(values_B[place_B == k], edges)[0] for k in range(domains)]
    return edges, np.array(counts_K, dtype=int).reshape(domains, bins)


def places(domain_B: Iterable[str], domains: Sequence[str]) -> np.ndarray:
    """Index of each row's domain in `domains`, int64 (B,)."""
    known = {name: k for k, name in enumerate(domains)}
    return np.array([known[name] for name in domain_B], dtype=np.int64)


def _bars(edges: np.ndarray, counts: np.ndarray, domain: str, index: int) -> go.Scatter:
    """One layer of a stack of steps; bars as a filled outline, which panels can stack."""
    width, look = edges[1] - edges[0], style(index)
    x = np.stack([edges[:-1], edges[1:] - 1e-6 * width], axis=1).ravel()
    return go.Scatter(
        x=x,
        y=np.repeat(counts, 2),
        name=safe(domain),
        legendgroup=domain,
        mode="lines",
        stackgroup="rows",
        line={"color": look.colour, "width": 0},
        fillcolor=look.faded(0.75),
        fillpattern={"shape": look.pattern, "fgcolor": TEXT, "fillmode": "overlay", "size": 6},
        hovertemplate=f"{safe(domain)}<br>from %{{x:.3f}}<br>%{{y}} rows<extra></extra>",
    )


def _rows(run: Runs, step: int | None) -> tuple[int | None, pd.DataFrame | None]:
    """The step shown and its ledger rows; None where there are none."""
    ledger = only(run).ledger
    recorded = ledger.steps()
    shown = recorded[1] if step is None and recorded else step
    rows = ledger.step(shown) if shown is not None else None
    return shown, None if rows is None or rows.empty else rows


def _nothing(step: int | None) -> str:
    return "no samples recorded yet" if step is None else f"step {step:,} is not in the ledger"


def _domains(run: Runs, rows: pd.DataFrame) -> list[str]:
    recorded = recorded_domains(grouped(run))
    return recorded + sorted(set(rows["domain"]) - set(recorded))


def _wrapped(text: str) -> str:
    return "<br>".join(safe(part) for part in textwrap.wrap(text, HOVER_COLUMNS))


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


def mixture(runs: Runs) -> go.Figure:
    """The mixture that the mixer asked for, stacked to 1 over the steps.

    Several labels get a panel each, drawn from the first run of each.
    """
    groups = grouped(runs)
    domains = recorded_domains(groups)
    title = "Requested mixture"
    if not domains:
        return say_nothing_yet(blank(title, x="step", y="probability"))
    if len(groups) == 1:
        figure = blank(title, x="step", y="probability")
        drawn = [(Panel(figure), only(runs))]
    else:
        figure, panels = small_multiples(title, list(groups), y="probability", legend=True)
        drawn = [(panel, own[0]) for panel, own in zip(panels, groups.values(), strict=True)]
    for number, (panel, run) in enumerate(drawn):
        for index, domain in enumerate(domains):
            x_S, p_S = shares(run, "mixture", domain)
            kept = np.unique(np.linspace(0, len(x_S) - 1, min(len(x_S), 1000)).astype(int))
            panel.add(_band(x_S[kept], p_S[kept], domain, style(index), in_legend=number == 0))
    figure.update_yaxes(range=[0, 1])
    figure.update_layout(legend={"traceorder": "reversed"}, showlegend=True)
    mark_events(figure, groups, [panel for panel, _ in drawn])
    return figure


def _band(
    x_S: np.ndarray, p_S: np.ndarray, domain: str, look: Style, *, in_legend: bool
) -> go.Scatter:
    return go.Scatter(
        x=x_S,
        y=p_S,
        name=safe(domain),
        legendgroup=domain,
        showlegend=in_legend,
        mode="lines",
        stackgroup="mixture",
        line={"color": look.colour, "width": 1},
        fillcolor=look.faded(0.55),
        fillpattern={"shape": look.pattern, "fgcolor": TEXT, "fillmode": "overlay", "size": 6},
        hovertemplate=f"{safe(domain)}<br>step %{{x:,}}<br>probability %{{y:.3f}}<extra></extra>",
    )

"""What a learning mixer did over a run: its path on the simplex, rewards, energies, losses.

    policy_path({"proxy": proxy, "target": target})
    rewards(run); energies(run); learning(run); entropy({"acodm": run}); gram(run)
    energy_walk(replay.energy_walk(run))

Read from the `mixer` and `signals` fields of a run's step events.  Shapes: S steps, K domains.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from workbench.core import entropy_nats
from workbench.plots.curves import recorded_domains, small_multiples
from workbench.plots.draw import Panel, mark_events
from workbench.plots.series import (
    Line,
    Recorded,
    Runs,
    across,
    grouped,
    only,
    per_step,
    smooth,
    thin,
)
from workbench.plots.theme import RULE, TEXT, blank, safe, say_nothing_yet, style
from workbench.tracking.events import symmetric

SMOOTHING_STEPS = 10
WITHOUT_SPREAD = 1e3
"""Signal-to-noise from here on is that of one or two observations, which have no spread yet."""
POLE_COLOURS = [[0.0, "#D55E00"], [0.5, "#F7F7F7"], [1.0, "#0072B2"]]
"""Disagreement to agreement; told apart in every kind of colour vision."""


def policy_path(runs: Runs) -> go.Figure:
    """The mixture's way over the simplex, seen from above: a corner is one domain alone.

    Three domains fill a triangle; more stand on the corners of a regular polygon, on which several
    mixtures can share a point.  Smoothed over `SMOOTHING_STEPS`; a square marks the start.
    """
    groups = grouped(runs)
    domains = recorded_domains(groups)
    figure = blank("Path of the mixture", height=460)
    if not domains:
        return say_nothing_yet(figure)
    corner_K2 = corners(len(domains))
    draw_simplex(figure, domains, corner_K2)
    for index, (label, group) in enumerate(groups.items()):
        for number, run in enumerate(group):
            mixture_SK, step_S = smooth_mixtures(run, domains)
            if len(step_S):
                point_S2 = mixture_SK @ corner_K2
                _draw_path(figure, label, index, step_S, mixture_SK, point_S2, domains, number == 0)
    figure.update_xaxes(visible=False, range=[-1.45, 1.45])
    figure.update_yaxes(visible=False, range=[-1.25, 1.25], scaleanchor="x")
    figure.update_layout(showlegend=len(groups) > 1)
    return figure


def scores(traces: Mapping[str, Any]) -> go.Figure:
    """Distance still to go in the synthetic environment over steps; label -> `replay.Trace`."""
    figure = blank("Distance to the optimum", x="step", y="score")
    panel = Panel(figure)
    for index, (label, trace) in enumerate(traces.items()):
        step_S = np.arange(1, len(trace.score_N) + 1, dtype=float)
        line = Line(step_S, trace.score_N, trace.score_N, trace.score_N, 1)
        panel.line(line, label=label, style=style(index), unit="to go", digits=4)
    figure.update_yaxes(type="log")
    figure.update_layout(showlegend=True)
    return figure


def rewards(run: Runs) -> go.Figure:
    """Mean reward of each domain over the last steps, and its signal-to-noise, one panel each."""
    own = only(run)
    fields = {"reward_average": "mean reward z", "signal_to_noise": "signal / noise"}
    if not any("reward_average" in event.get("mixer", {}) for event in own.events("step")):
        return _no_learner("Reward of each domain")
    figure, panels = small_multiples(
        "Reward of each domain", list(fields.values()), y="", legend=True
    )
    for number, (field, unit) in enumerate(fields.items()):
        for index, domain in enumerate(recorded_domains({"": [own]})):
            line = across([own], lambda run, f=field, d=domain: per_step(run, _said_of(f, d)))
            if line:
                panels[number].line(
                    line, label=domain, style=style(index), unit=unit, in_legend=number == 0
                )
    figure.update_yaxes(type="log", row=panels[1].row, col=panels[1].col)
    where: Any = {"row": panels[1].row, "col": panels[1].col}
    figure.add_hline(y=1, line={"color": RULE, "dash": "dash"}, **where)
    mark_events(figure, {"": [own]}, panels)
    return figure


def energies(run: Runs) -> go.Figure:
    """Self and interaction energy of the mixture: they add up to |sum of a_i g_i|²."""
    fields = {
        "self_energy": "self: sum of a² |g|²",
        "interaction_energy": "interaction: sum of a a ⟨g, g⟩ over pairs",
    }
    return _learner_lines(run, "Energy of the mixed gradient", fields, "squared gradient norm")


def energy_walk(walk: Any) -> go.Figure:
    """Interaction on the way from the uniform mixture to each domain; `replay.EnergyWalk`.

    Left, the interaction (solid) and the linear part that the reward stands for (dashed); right,
    that reward beside the gain of gradient descent, which counts the domain's own norm too.
    """
    figure, panels = small_multiples(
        "Interaction of the gradients",
        ["uniform to one domain", "gain of a domain"],
        y="",
        legend=True,
    )
    for index, domain in enumerate(walk.domains):
        for energy_KS, kind, dash in (
            (walk.interaction_KS, "interaction", "solid"),
            (walk.linear_KS, "its linear part", "dash"),
        ):
            panels[0].add(
                go.Scatter(
                    x=walk.share_S,
                    y=energy_KS[index],
                    name=safe(domain),
                    legendgroup=domain,
                    showlegend=dash == "solid",
                    mode="lines",
                    line={"color": style(index).colour, "dash": dash, "width": 2},
                    hovertemplate=f"{safe(domain)}, {kind}<br>%{{x:.2f}} of the way<br>%{{y:.3g}}"
                    "<extra></extra>",
                )
            )
    for gain_K, kind, look in (
        (walk.interaction_K, "W: agreement with the others", style(0)),
        (walk.descent_K, "W + H: with its own norm", style(1)),
    ):
        panels[1].add(
            go.Scatter(
                x=[safe(domain) for domain in walk.domains],
                y=gain_K,
                name=kind,
                mode="markers",
                marker={"color": look.colour, "symbol": look.symbol, "size": 10},
                hovertemplate=f"%{{x}}<br>{kind} %{{y:.3g}}<extra></extra>",
            )
        )
    figure.update_xaxes(title_text="way to one domain alone", row=1, col=1)
    figure.update_xaxes(title_text="", row=1, col=2)
    return figure


def learning(run: Runs) -> go.Figure:
    """Losses of the critic and of the actor."""
    fields = {"critic_loss": "critic: squared error", "actor_loss": "actor: −value − entropy bonus"}
    return _learner_lines(run, "Learning of the agent", fields, "loss")


def entropy(runs: Runs) -> go.Figure:
    """Entropy of the mixture in nats; the dashed line is that of the uniform one, ln K."""
    groups = grouped(runs)
    figure = blank("Entropy of the mixture", x="step", y="entropy (nats)")
    domains = recorded_domains(groups)
    if not domains:
        return say_nothing_yet(figure)
    panel = Panel(figure)
    for index, (label, group) in enumerate(groups.items()):
        line = across(group, lambda run: per_step(run, _entropy), smoothing_steps=SMOOTHING_STEPS)
        if line:
            panel.line(line, label=label, style=style(index), unit="nats")
    figure.add_hline(y=math.log(len(domains)), line={"color": RULE, "dash": "dash"})
    figure.update_yaxes(rangemode="tozero")
    figure.update_layout(showlegend=len(groups) > 1)
    mark_events(figure, groups)
    return figure


def gram(run: Runs, *, first: float = 0.5, last: float = 1.0) -> go.Figure:
    """Cosines between the domains' gradients, averaged between two fractions of the run."""
    own = only(run)
    domains = recorded_domains({"": [own]})
    figure = blank("Agreement of the domains' gradients (cosine)", height=420)
    grams = [event["signals"]["gram"] for event in own.events("step") if _has_gram(event)]
    if not grams:
        return _no_learner("Agreement of the domains' gradients (cosine)")
    window = grams[int(first * len(grams)) : max(int(last * len(grams)), 1)] or grams[-1:]
    cosine_KK = np.nanmean([_cosines(entry, len(domains)) for entry in window], axis=0)
    names = [safe(domain) for domain in domains]
    figure.add_heatmap(
        x=names,
        y=names,
        z=cosine_KK,
        zmin=-1,
        zmax=1,
        colorscale=POLE_COLOURS,
        texttemplate="%{z:.2f}",
        colorbar={"title": {"text": "cosine"}},
        hovertemplate="%{y} and %{x}<br>cosine %{z:.3f}<extra></extra>",
    )
    figure.update_yaxes(autorange="reversed")
    return figure


def _learner_lines(run: Runs, title: str, fields: dict[str, str], y: str) -> go.Figure:
    own = only(run)
    figure = blank(title, x="step", y=y)
    panel, drawn = Panel(figure), False
    for index, (field, label) in enumerate(fields.items()):
        line = across(
            [own], lambda run, f=field: per_step(run, _said(f)), smoothing_steps=SMOOTHING_STEPS
        )
        if line:
            drawn = True
            panel.line(line, label=label, style=style(index), unit="", digits=4)
    if not drawn:
        return _no_learner(title)
    mark_events(figure, {"": [own]})
    figure.update_layout(showlegend=True)
    return figure


def _no_learner(title: str) -> go.Figure:
    return say_nothing_yet(blank(title), "the run's mixer recorded nothing of this")


def corners(domains: int) -> np.ndarray:
    """Corners of a regular polygon, the first on top, (K, 2)."""
    angle_K = np.pi / 2 - 2 * np.pi * np.arange(domains) / domains
    return np.stack([np.cos(angle_K), np.sin(angle_K)], axis=1)


def draw_simplex(figure: go.Figure, domains: Sequence[str], corner_K2: np.ndarray) -> None:
    """The outline with the domains' names at its corners, on the first axes."""
    closed = np.concatenate([corner_K2, corner_K2[:1]])
    figure.add_scatter(
        x=closed[:, 0],
        y=closed[:, 1],
        mode="lines",
        line={"color": RULE, "width": 1},
        showlegend=False,
        hoverinfo="skip",
    )
    for domain, (x, y) in zip(domains, corner_K2, strict=True):
        figure.add_annotation(
            x=1.08 * x,
            y=1.08 * y,
            text=safe(domain),
            showarrow=False,
            xanchor="center" if abs(x) < 0.2 else "left" if x > 0 else "right",
            font={"color": TEXT, "size": 11},
        )


def _draw_path(
    figure: go.Figure,
    label: str,
    index: int,
    step_S: np.ndarray,
    mixture_SK: np.ndarray,
    point_S2: np.ndarray,
    domains: Sequence[str],
    in_legend: bool,
) -> None:
    look = style(index)
    kept = thin(step_S, point_S2[:, 0])
    told = [
        f"step {int(step_S[i]):,}<br>"
        + "<br>".join(f"{safe(d)} {p:.3f}" for d, p in zip(domains, mixture_SK[i], strict=True))
        for i in kept
    ]
    common = {"legendgroup": label, "hoverinfo": "text"}
    figure.add_scatter(
        x=point_S2[kept, 0],
        y=point_S2[kept, 1],
        text=told,
        name=safe(label),
        mode="lines",
        line=look.line(width=1.5),
        showlegend=in_legend,
        **common,
    )
    for place, symbol in ((kept[0], "square"), (kept[-1], "circle")):
        figure.add_scatter(
            x=point_S2[[place], 0],
            y=point_S2[[place], 1],
            text=[told[list(kept).index(place)]],
            mode="markers",
            marker={"color": look.colour, "symbol": symbol, "size": 11},
            showlegend=False,
            **common,
        )


def smooth_mixtures(run: Recorded, domains: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Requested mixtures smoothed over `SMOOTHING_STEPS`, (S, K), and their steps, (S,)."""
    columns = [
        per_step(run, lambda event, d=domain: event["mixture"].get(d, 0.0)) for domain in domains
    ]
    smoothed = [smooth(values, SMOOTHING_STEPS) for _, values in columns]
    return np.stack(smoothed, axis=1), columns[0][0]


def _said(field: str) -> Callable[[dict[str, Any]], float | None]:
    return lambda event: event.get("mixer", {}).get(field)


def _said_of(field: str, domain: str) -> Callable[[dict[str, Any]], float | None]:
    def value(event: dict[str, Any]) -> float | None:
        said = event.get("mixer", {}).get(field, {}).get(domain)
        unknown = field == "signal_to_noise" and said is not None and said >= WITHOUT_SPREAD
        return None if unknown else said

    return value


def _entropy(event: dict[str, Any]) -> float:
    return entropy_nats(np.array(list(event["mixture"].values())))


def _has_gram(event: dict[str, Any]) -> bool:
    return None not in event.get("signals", {}).get("gram", [None])


def _cosines(entry: Sequence[float], domains: int) -> np.ndarray:
    """Cosines from the upper triangle of inner products; NaN for a domain without rows."""
    gram_KK = symmetric(entry, domains)
    norm_K = np.sqrt(np.diag(gram_KK))
    scale_KK = np.outer(norm_K, norm_K)
    return np.divide(gram_KK, scale_KK, out=np.full_like(gram_KK, np.nan), where=scale_KK > 0)

"""Forks of a run: where they left it, and how far they came to differ.

fork_tree(run)                                   # the whole family of a run
paired_difference(run, {"exp3": fork})           # fork minus parent, step by step

Shapes: S steps, E evaluations.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go

from workbench.core import ConfigError
from workbench.plots.curves import small_multiples
from workbench.plots.draw import Panel
from workbench.plots.series import SMOOTHING_STEPS, Line, Recorded, Runs, grouped, smooth
from workbench.plots.theme import RULE, blank, safe, say_nothing_yet, style
from workbench.tracking import RunFolder
from workbench.tracking.family import Member, family, origin

_ROW_PX = 46
MOST_DOMAINS = 11
"""Panels beside that of the mean."""


def fork_tree(run: Recorded) -> go.Figure:
    """Every run of a family as a line over its own steps, leaving its parent where it was forked.

    The first run is at the top; beside each name stands its last held-out loss.
    """
    members = family(_folder(run))
    names = {member.path.name: _named(member) for member in members}
    figure = blank("Forks of a run", x="step", height=130 + _ROW_PX * len(members))
    for i, member in enumerate(members):
        _branch(figure, member, names, i)
    order = list(names.values())[::-1]
    figure.update_yaxes(categoryorder="array", categoryarray=order, showgrid=False)
    figure.update_yaxes(range=[-0.5, len(members) - 0.5])
    figure.update_layout(showlegend=False)
    return figure


def paired_difference(parent: Recorded, forks: Runs) -> go.Figure:
    """Loss of each fork minus its parent's: of training, smoothed, and held out by domain.

    Both read the same rows while their mixtures agree, so what is left is what was changed.  Below
    0 the fork is better.

    Raises:
        ConfigError: several runs of one label: a fork has one parent; or a run of another family.
    """
    groups = grouped(forks)
    for label, own in groups.items():
        if len(own) > 1:
            raise ConfigError(
                f"'{label}' has {len(own)} runs", remedy="give one fork a label, each with its own"
            )
    known = {member.path.resolve() for member in family(_folder(parent))}
    for label, (own, *_) in groups.items():
        if _folder(own).path.resolve() not in known:
            raise ConfigError(
                f"'{label}' ({own.path.name}) is no fork of {parent.path.name}: what they differ "
                "in is not what a fork changed",
                remedy="give runs of one family, see fork_tree; compare others by `batch.compare`",
            )
    starts = {label: _start(own[0]) for label, own in groups.items()}
    held = {label: _held_out(parent, own[0], starts[label]) for label, own in groups.items()}
    domains = list(dict.fromkeys(d for own in held.values() for d in own if d))[:MOST_DOMAINS]
    title, y = "Fork minus parent", "nats per token"
    if not any(own.events("step") for (own, *_) in groups.values()):
        return say_nothing_yet(blank(title, x="step", y=y))
    figure, panels = small_multiples(
        title,
        ["training loss, smoothed", "held-out, mean over domains", *domains],
        y=y,
        legend=True,
    )
    figure.update_layout(title={"text": f"{title}: below 0 the fork is better"})
    for index, (label, own) in enumerate(groups.items()):
        step_S, nats_S = _training(parent, own[0], starts[label])
        _line(panels[0], label, index, step_S, nats_S, in_legend=True)
        for panel, domain in zip(panels[1:], ["", *domains], strict=True):
            if domain in held[label]:
                _line(panel, label, index, *held[label][domain], markers=True)
    for panel in panels:
        where = {} if panel.row is None else {"row": panel.row, "col": panel.col}
        figure.add_hline(y=0, line={"color": RULE, "width": 1.5}, layer="below", **where)
    return figure


def _branch(figure: go.Figure, member: Member, names: Mapping[str, str], index: int) -> None:
    own, parent, look = names[member.path.name], names.get(member.parent or ""), style(index)
    start, end = member.step or 0, _steps(member)
    x, y = [start, end], [own, own]
    if parent is not None and member.step is not None:
        # From its parent's line down to its own, then along its steps.
        x, y = [start, *x], [parent, *y]
    told = f"{own}<br>{member.run.status()} after {end} steps<br>{safe(member.said)}"
    figure.add_trace(
        go.Scatter(
            x=x,
            y=y,
            mode="lines+markers",
            line=look.line(),
            marker={**look.marker(), "size": [0] * (len(x) - 1) + [10]},
            hovertemplate=told + "<extra></extra>",
            name=own,
        )
    )


def _steps(member: Member) -> int:
    steps = member.run.events("step")
    return steps[-1]["step"] + 1 if steps else 0


def _named(member: Member) -> str:
    held_out = member.run.events("held_out")
    nats = f"{held_out[-1]['mean_nats']:.4f} nats" if held_out else "not evaluated yet"
    return f"{'· ' * member.depth}{safe(member.path.name)}: {nats}"


def _line(
    panel: Panel,
    label: str,
    index: int,
    x_S: np.ndarray,
    y_S: np.ndarray,
    *,
    markers: bool = False,
    in_legend: bool = False,
) -> None:
    if len(x_S):
        panel.line(
            Line(x_S, y_S, y_S, y_S, 1),
            label=label,
            style=style(index),
            unit="nats per token",
            digits=4,
            markers=markers,
            in_legend=in_legend,
        )


def _start(fork: Recorded) -> int:
    return origin(_folder(fork)).get("step", 0)


def _training(parent: Recorded, fork: Recorded, start: int) -> tuple[np.ndarray, np.ndarray]:
    loss = [{e["step"]: e["loss"] for e in run.events("step")} for run in (parent, fork)]
    step_S = np.array(sorted(s for s in loss[0].keys() & loss[1].keys() if s >= start), dtype=int)
    nats_S = np.array([loss[1][s] - loss[0][s] for s in step_S], dtype=float)
    return step_S, smooth(nats_S, SMOOTHING_STEPS)


def _held_out(
    parent: Recorded, fork: Recorded, start: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Domain, "" for the mean, to steps (E,) and differences (E,)."""
    before, after = (
        {event["step"]: event for event in run.events("held_out")} for run in (parent, fork)
    )
    steps = sorted(s for s in before.keys() & after.keys() if s >= start)
    names = list(after[steps[0]]["losses"]) if steps else []
    found = {"": [after[s]["mean_nats"] - before[s]["mean_nats"] for s in steps]}
    found |= {
        name: [after[s]["losses"][name] - before[s]["losses"][name] for s in steps]
        for name in names
    }
    return {name: (np.array(steps), np.array(nats_E)) for name, nats_E in found.items()}


def _folder(run: Recorded) -> RunFolder:
    return run if isinstance(run, RunFolder) else RunFolder.open(run.path)

"""How much each domain counts, and which policy makes it so.

interplay(run)          # one panel a domain: pool, sampling, weights, and what comes of them
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go

from workbench.plots.curves import small_multiples
from workbench.plots.draw import mark_events
from workbench.plots.series import SMOOTHING_STEPS, Line, Runs, only, smooth
from workbench.plots.theme import blank, say_nothing_yet, style

Event = Mapping[str, Any]
WEIGHTED = "× mean sample weight (reweighter)"
FACTORS: dict[str, Callable[[Event, str], float]] = {
    "share of the pool (selector)": lambda e, name: e["pool_share"][name],
    "sampling probability (mixer)": lambda e, name: e["effective_mixture"][name],
    WEIGHTED: lambda e, name: e["effective_share"].get(name, np.nan),
}


def interplay(run: Runs) -> go.Figure:
    """Over steps: share of the pool on offer, of a batch, and, smoothed, of the sample weight.

    Where the last two part, the reweighter moves the domain; where the first two do, the mixer.
    """
    one, title = only(run), "How much a domain counts"
    events = [event for event in one.events("step") if "pool_share" in event]
    if not events:
        return say_nothing_yet(blank(title, x="step", y="share"))
    domains = list(events[0]["mixture"])
    figure, panels = small_multiples(title, domains, y="share", legend=True)
    step_S = np.array([event["step"] for event in events])
    for panel, domain in zip(panels, domains, strict=True):
        for index, (label, value) in enumerate(FACTORS.items()):
            share_S = np.array([value(event, domain) for event in events], dtype=float)
            seen_S = np.isfinite(share_S)
            # Weights follow the rows of a batch; the other two are set, and jump where they do.
            steps = SMOOTHING_STEPS if label == WEIGHTED else 0
            smooth_S = smooth(share_S[seen_S], steps)
            if len(smooth_S):
                panel.line(
                    Line(step_S[seen_S], smooth_S, smooth_S, smooth_S, 1),
                    label=label,
                    style=style(index),
                    unit="of what counts",
                    in_legend=domain == domains[0],
                )
    mark_events(figure, {one.path.name: [one]}, panels)
    return figure

"""How much each domain counts, and which policy makes it so.

interplay(run)          # one panel a domain: pool, sampling, weights, and what comes of them
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from workbench.plots.curves import small_multiples
from workbench.plots.draw import mark_events
from workbench.plots.series import SMOOTHING_STEPS, Line, Runs, only, smooth
from workbench.plots.theme import blank, say_nothing_yet, style

LABELS = (
    "share of the pool (selector)",
    "sampling probability (mixer)",
    "× mean sample weight (reweighter)",
)
BREAKS = ("selected", "set")


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
    breaks = [event["step"] for event in one.events() if event["kind"] in BREAKS]
    for panel, domain in zip(panels, domains, strict=True):
        for index, (label, share_S) in enumerate(
            zip(LABELS, _factors(events, domain, np.searchsorted(step_S, breaks)), strict=True)
        ):
            seen_S = np.isfinite(share_S)
            if seen_S.any():
                shown_S = share_S[seen_S]
                panel.line(
                    Line(step_S[seen_S], shown_S, shown_S, shown_S, 1),
                    label=label,
                    style=style(index),
                    unit="of what counts",
                    in_legend=domain == domains[0],
                )
    mark_events(figure, {one.path.name: [one]}, panels)
    return figure


def _factors(
    events: Sequence[Mapping[str, Any]], domain: str, breaks: Sequence[int] | np.ndarray
) -> tuple[np.ndarray, ...]:
    """Shares of the pool and of a batch, and the product with the weight, (S,) each.

    Weights follow the rows of a batch and are smoothed, but not over `breaks` (indices of events);
    the other two are set, and jump where they do.
    """
    pool_S, share_S, weight_S = (
        np.array([event[field].get(domain, np.nan) for event in events], dtype=float)
        for field in ("pool_share", "effective_mixture", "sample_weight")
    )
    parts = np.split(weight_S, np.unique(breaks))
    smooth_S = np.concatenate([smooth(part_S, SMOOTHING_STEPS) for part_S in parts])
    return pool_S, share_S, share_S * smooth_S

"""The pool of a selector and the rounds of its bandit as the browser draws them.

    curves = ChoiceCurves(folder)
    curves.refresh()
    pool, buffers = drawn_pool(choice)
    round_at(curves, step, number=3, clusters=40)

Shapes: N rows of the pool, C clusters, R rounds.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from workbench.plots.choices import Choice, arm_history
from workbench.plots.clusters import centres, influence_limit
from workbench.plots.samples import places
from workbench.plots.theme import style
from workbench.widgets.curves import RunCurves


class ChoiceCurves(RunCurves):
    """`RunCurves` that also keeps what a selector told while it chose."""

    def _clear(self) -> None:
        super()._clear()
        self._rounds: dict[int, list[dict[str, Any]]] = {}
        self._mapped: set[int] = set()
        self._chosen: list[int] = []

    @property
    def choices(self) -> list[int]:
        """Steps of choices with something to show, ascending; the last may be in the making."""
        return sorted({*self._mapped, *self._chosen})

    def is_made(self, step: int) -> bool:
        """Whether the choice before a step is complete."""
        return step in self._chosen

    def rounds(self, step: int) -> list[dict[str, Any]]:
        """Events of the rounds of a choice so far."""
        return self._rounds.get(step, [])

    def _take(self, event: dict[str, Any]) -> None:
        super()._take(event)
        kind, step = event["kind"], event["step"]
        if kind == "selecting":
            if event["stage"] == "map":
                self._mapped.add(step)
                self._rounds[step] = []
            elif event["stage"] == "pull":
                rounds = self._rounds.setdefault(step, [])
                del rounds[event["round"] :]
                rounds.append(event)
        elif kind == "selected":
            self._chosen.append(step)


def drawn_pool(choice: Choice) -> tuple[dict[str, Any], list[memoryview]]:
    """Everything of a pool that no round changes, and its rows as buffers.

    Buffers, each of N: x, y, influence (float32), cluster, round in which the row was scored
    (int32, -1 for none), domain (uint16), accepted (uint8).
    """
    rows = choice.samples
    if rows is None:
        return {"rows": 0}, []
    names = sorted(set(rows["domain"]))
    clusters = int(rows["cluster"].to_numpy().max()) + 1
    columns = [
        rows["x"].to_numpy(np.float32),
        rows["y"].to_numpy(np.float32),
        rows["influence"].to_numpy(np.float32),
        rows["cluster"].to_numpy(np.int32),
        _scored_round(choice),
        places(rows["domain"], names).astype(np.uint16),
        rows["accepted"].to_numpy(bool).astype(np.uint8),
    ]
    pool = {
        "rows": len(rows),
        "accepted": int(columns[-1].sum()),
        "limit": influence_limit(rows["influence"].to_numpy(float)),
        "domains": [_domain(choice, k, name) for k, name in enumerate(names)],
        "arms": _arms(choice, clusters),
    }
    return pool, [np.ascontiguousarray(column).data.cast("B") for column in columns]


def _domain(choice: Choice, k: int, name: str) -> dict[str, Any]:
    """Look of a domain, and where its name stands: in the middle of its largest cluster."""
    assert choice.samples is not None
    mine = choice.samples.loc[choice.samples["domain"] == name]
    place = centres(mine).iloc[0]
    return {
        "name": name,
        "colour": style(k).colour,
        "marker": style(k).symbol,
        "at": [round(float(place["x"]), 5), round(float(place["y"]), 5)],
    }


def _scored_round(choice: Choice) -> np.ndarray:
    assert choice.samples is not None
    round_N = np.full(len(choice.samples), -1, dtype=np.int32)
    if choice.pulls is not None and len(choice.pulls):
        ids_N = choice.samples["sample_id"].to_numpy()
        order_N = np.argsort(ids_N)
        place_n = order_N[np.searchsorted(ids_N[order_N], choice.pulls["sample_id"].to_numpy())]
        round_N[place_n] = choice.pulls["round"].to_numpy()
    return round_N


def _arms(choice: Choice, clusters: int) -> dict[str, list]:
    """Columns by cluster, None where nothing is known; without `arms` only rows and place."""
    assert choice.samples is not None
    middle = centres(choice.samples).reindex(range(clusters))
    columns = {"rows": middle["rows"].fillna(0), "x": middle["x"], "y": middle["y"]}
    if choice.arms is not None:
        told = choice.arms.set_index("cluster").reindex(range(clusters))
        columns |= {
            name: told[name]
            for name in ("mean", "low", "high", "pulls", "accepted")
            if name in told
        }
    nothing = [None] * clusters
    return {
        name: known(columns[name]) if name in columns else nothing
        for name in ("rows", "x", "y", "mean", "low", "high", "pulls", "accepted")
    }


def round_at(curves: ChoiceCurves, step: int, number: int, clusters: int) -> dict[str, Any]:
    """Arms pulled in a round of the choice before `step`, and what is known of all up to it.

    `accepted` is None for a run recorded before rounds told it.
    """
    rounds = curves.rounds(step)[: number + 1]
    now = rounds[-1]
    pulls_RC, mean_RC = arm_history(rounds, clusters)
    threshold, accepted = now.get("threshold"), _accepted(rounds, clusters)
    facts = [("Rows accepted", f"{sum(accepted):,}")] if accepted is not None else []
    return {
        "step": number,
        "choice": step,
        "last": number == len(curves.rounds(step)) - 1 and curves.is_made(step),
        "clusters": now["clusters"],
        "rewards": known(now["rewards"]),
        "pulls": pulls_RC[-1].tolist(),
        "means": known(mean_RC[-1]),
        "accepted": accepted,
        "facts": [
            ("Arms pulled", len(now["clusters"])),
            ("Rows scored", f"{now.get('scored', 0):,}"),
            *facts,
            ("Tokens accepted", f"{now['done']:,} of {now['total']:,}"),
            ("Threshold", None if threshold is None else f"{threshold:.4g}"),
        ],
    }


def _accepted(rounds: list[dict[str, Any]], clusters: int) -> list[int] | None:
    """Rows of each cluster accepted up to the last of these rounds."""
    accepted_C = [0] * clusters
    for event in rounds:
        if "accepted" not in event:
            return None
        for cluster, rows in zip(event["clusters"], event["accepted"], strict=True):
            accepted_C[cluster] = rows
    return accepted_C


def known(values: Any) -> list[float | None]:
    """Numbers as JSON: whole ones in full, others in 5 digits, None for what is missing."""
    finite = [None if v is None or not math.isfinite(v) else v for v in values]
    return [v if v is None else int(v) if v == int(v) else float(f"{v:.5g}") for v in finite]

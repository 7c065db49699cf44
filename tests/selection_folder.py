"""A run folder with a made-up choice of a bandit, as the loop and Quad would have written it.

Shapes: N rows of the pool, C clusters.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from workbench.tracking import RunFolder

DOMAINS = ("clean", "noise <b>")
FIRST_ID = 1_000_000_000_000
SCORED = 4
ACCEPTED = 3


def pool(rows: int, clusters: int) -> dict[str, np.ndarray]:
    """Rows in round discs, one a cluster, on a spiral; every third row is of the second domain."""
    rng = np.random.default_rng(0)
    cluster_N = np.sort(np.arange(rows) % clusters).astype(np.int32)
    angle_N = 2.4 * cluster_N
    centre_N2 = np.sqrt(cluster_N + 1)[:, None] * np.stack([np.cos(angle_N), np.sin(angle_N)], 1)
    place_N2 = (centre_N2 + 0.2 * rng.standard_normal((rows, 2))).astype(np.float32)
    return {
        "sample_id": FIRST_ID + np.arange(rows),
        "domain": np.array(DOMAINS, dtype=object)[(np.arange(rows) % 3 == 2).astype(int)],
        "cluster": cluster_N,
        "x": place_N2[:, 0],
        "y": place_N2[:, 1],
    }


def rounds(count: int, clusters: int) -> list[dict[str, Any]]:
    """Events of rounds that pull two arms each, the better (higher) ones more often."""
    rng = np.random.default_rng(1)
    events, accepted_C = [], np.zeros(clusters, dtype=int)
    for number in range(count):
        first = number % clusters if number < clusters else clusters - 1
        chosen = sorted({first, int(rng.integers(clusters // 2, clusters))})
        accepted_C[[c for c in chosen if c >= clusters - clusters // 4]] += ACCEPTED
        events.append(
            {
                "kind": "selecting",
                "stage": "pull",
                "done": 100 * number,
                "total": 100 * count,
                "round": number,
                "clusters": chosen,
                "rewards": [c / clusters - 0.5 for c in chosen],
                "accepted": accepted_C[chosen].tolist(),
                "accepted_tokens": 100 * number,
                "scored": SCORED * 2 * (number + 1),
                "threshold": 0.1,
            }
        )
    return events


def tables(rows: int, clusters: int, events: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What Quad tells of these rounds; accepted are the first rows of the best quarter of arms."""
    samples = pool(rows, clusters)
    influence_N = np.full(rows, np.nan, dtype=np.float32)
    pulls_C = np.zeros(clusters, dtype=int)
    pulled = []
    for event in events:
        for cluster in event["clusters"]:
            own = np.flatnonzero(samples["cluster"] == cluster)
            scored = own[SCORED * pulls_C[cluster] :][:SCORED]
            influence_N[scored] = cluster / clusters - 0.5
            pulled += [(event["round"], cluster, row) for row in scored]
            pulls_C[cluster] += 1
    accepted_N = samples["cluster"] >= clusters - clusters // 4
    mean_C = np.arange(clusters) / clusters - 0.5
    round_n, cluster_n, row_n = (
        np.array(column, dtype=np.int64) for column in zip(*pulled, strict=True)
    )
    return {
        "samples": {**samples, "influence": influence_N, "accepted": accepted_N},
        "arms": {
            "cluster": np.arange(clusters, dtype=np.int32),
            "rows": np.bincount(samples["cluster"], minlength=clusters),
            "mean": mean_C,
            "low": mean_C - 0.1,
            "high": mean_C + 0.2,
            "pulls": pulls_C,
            "scored": np.bincount(cluster_n, minlength=clusters),
            "accepted": np.bincount(samples["cluster"][accepted_N], minlength=clusters),
        },
        "pulls": {
            "round": round_n,
            "cluster": cluster_n,
            "sample_id": samples["sample_id"][row_n],
            "influence": influence_N[row_n],
        },
    }


def write_choice(
    folder: RunFolder, *, step: int = 0, rows: int = 600, clusters: int = 12, count: int = 20
) -> RunFolder:
    """Add a finished choice before `step` to a run folder."""
    events = rounds(count, clusters)
    told = tables(rows, clusters, events)
    with folder.lock():
        folder.write_pool({"samples": pool(rows, clusters)})
        folder.append_many([{**event, "step": step} for event in events])
        folder.write_selection(step, told, {"selector": {"threshold": 0.1}})
        folder.append("selected", step, rows=1, tokens=1, budget_tokens=1, seconds=1.0, domains={})
    return folder


def new_folder(path: Path, config: dict[str, Any]) -> RunFolder:
    folder = RunFolder.create(path, config=config, environment={})
    with folder.lock():
        folder.append("started", 0)
    return folder

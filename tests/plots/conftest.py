"""Run folders with a made-up record, for figures."""

from __future__ import annotations

import numpy as np
import pytest

from tests.selection_folder import new_folder, write_choice
from workbench.tracking import RunFolder

DOMAINS = ("clean", "noise <b> $x$")


def record(folder: RunFolder, steps: int, offset: float = 0.0) -> RunFolder:
    rng = np.random.default_rng(round(offset * 1000))
    shares = dict(zip(DOMAINS, (0.25, 0.75), strict=True))
    events = []
    for step in range(steps):
        loss = 8 - 0.01 * step + offset
        event = {"loss": loss, "weighted_loss": loss, "lr": 1e-3, "grad_norm": 1.0}
        event |= {"tokens": 2048, "seconds": 0.1, "ess_fraction": 0.9, "max_weight": 1.5}
        event |= {"mixture": dict.fromkeys(DOMAINS, 0.5), "weight_share": shares}
        event |= {"sample_share": dict.fromkeys(DOMAINS, 0.5)}
        event |= {"domain_loss": dict.fromkeys(DOMAINS, loss)}
        events.append({"kind": "step", "step": step, **event})
        if step % 20 == 0:
            losses = dict(zip(DOMAINS, (loss, loss + 1), strict=True))
            events.append(
                {"kind": "held_out", "step": step, "losses": losses, "mean_nats": loss + 0.5}
            )
    columns = {
        "step": np.repeat(np.arange(steps), 4),
        "sample_id": np.arange(4 * steps),
        "domain": np.tile(np.array(DOMAINS), 2 * steps),
        "probability": np.full(4 * steps, 0.5),
        "loss": rng.normal(8, 1, 4 * steps),
        "weight": np.ones(4 * steps),
    }
    with folder.lock():
        folder.append("started", 0)
        folder.append_many(events)
        folder.write_ledger(columns, 0, steps - 1)
    return folder


@pytest.fixture
def make(tmp_path):
    def create(name: str, steps: int = 100, offset: float = 0.0) -> RunFolder:
        folder = RunFolder.create(tmp_path / name, config={}, environment={})
        return record(folder, steps, offset) if steps else folder

    return create


@pytest.fixture
def choosing_folder(tmp_path):
    """choosing_folder(rows=…): a run whose selector pulled arms."""

    def create(*, rows: int = 300, clusters: int = 12, rounds: int = 20) -> RunFolder:
        path = tmp_path / f"choice_{rows}_{clusters}_{rounds}"
        if path.exists():
            return RunFolder.open(path)
        folder = new_folder(path, {})
        return write_choice(folder, rows=rows, clusters=clusters, count=rounds)

    return create

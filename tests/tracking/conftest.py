"""A run folder with a made-up record, and the fields of a step event."""

from __future__ import annotations

import numpy as np
import pytest

from workbench.tracking import RunFolder

DOMAINS = ("clean", "noise")


def step_fields(step: int) -> dict:
    shares = {"clean": 0.25, "noise": 0.75}
    return {
        "loss": 8.0 - 0.01 * step,
        "weighted_loss": 7.5 - 0.01 * step,
        "lr": 1e-3,
        "grad_norm": 1.0,
        "tokens": 2048,
        "seconds": 0.1,
        "ess_fraction": 0.9,
        "max_weight": 1.5,
        "mixture": dict.fromkeys(DOMAINS, 0.5),
        "weight_share": shares,
        "sample_share": shares,
        "domain_loss": {"clean": 7.0, "noise": 9.0},
    }


def ledger_columns(first_step: int, last_step: int, rows: int = 4) -> dict[str, np.ndarray]:
    """`rows` rows a step; row i of step s is sample 100·s + i with weight 1 + i / 10."""
    step = np.repeat(np.arange(first_step, last_step + 1), rows)
    row = np.tile(np.arange(rows), last_step + 1 - first_step)
    return {
        "step": step,
        "sample_id": step * 100 + row,
        "domain": np.array(DOMAINS)[row % 2],
        "probability": np.full(len(step), 0.5),
        "loss": 8.0 - 0.01 * step + row,
        "weight": 1 + row / 10,
    }


@pytest.fixture
def fields():
    return step_fields


@pytest.fixture
def columns():
    return ledger_columns


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", config={"seed": 3}, environment={"device": "cpu"})


@pytest.fixture
def recorded(folder) -> RunFolder:
    """60 steps, ledger parts of 20, checkpoints at 20, 40 and 60, held-out losses every 10."""
    with folder.lock():
        folder.append("started", 0)
        for step in range(60):
            folder.append("step", step, **step_fields(step))
            if step % 10 == 0:
                folder.append("held_out", step, losses={"clean": 7.0}, mean_nats=7.0)
            if step == 45:
                folder.append("set", step, changes={"temperature": 0.4})
            if (step + 1) % 20 == 0:
                folder.write_ledger(ledger_columns(step - 19, step), step - 19, step)
                with folder.aside(folder.checkpoint_path(step + 1)) as place:
                    (place / "state.bin").write_bytes(bytes([step]))
                folder.append("checkpoint", step + 1)
        folder.append("finished", 60)
        folder.write_summary({"loss": 1.0})
    return folder

"""Run folders with a made-up record, written as the loop would."""

from __future__ import annotations

import numpy as np
import pytest

from workbench.tracking import RunFolder

DOMAINS = ("clean", "noise")


def step_event(step: int, **fields) -> dict:
    share = dict.fromkeys(DOMAINS, 0.5)
    return {
        "kind": "step",
        "step": step,
        "loss": 6.0 - 0.01 * step + 0.1 * np.sin(step),
        "weighted_loss": 6.0,
        "lr": 1e-3,
        "grad_norm": 1.0,
        "tokens": 256,
        "seconds": 0.1,
        "ess_fraction": 0.9,
        "max_weight": 1.5,
        "mixture": share,
        "weight_share": share,
        "sample_share": share,
        "domain_loss": share,
        **fields,
    }


@pytest.fixture
def step():
    return step_event


@pytest.fixture
def make_folder(tmp_path, nano_config):
    """make_folder(name, steps): a finished run of that many steps."""

    def make(name: str = "run", steps: int = 100, *, end: str | None = "finished") -> RunFolder:
        config = nano_config.change(name=name, total_steps=steps, reweighter="linupper")
        folder = RunFolder.create(tmp_path / name, config=config.to_dict(), environment={})
        with folder.lock():
            folder.append("started", 0, time=1000.0)
            losses = dict.fromkeys(DOMAINS, 6.0)
            folder.append("held_out", 0, losses=losses, mean_nats=6.0, seconds=1.0, time=1001.0)
            folder.append_many([step_event(i, time=1001.0 + 0.1 * i) for i in range(steps)])
            losses = {"clean": 4.0, "noise": 5.0}
            folder.append("held_out", steps, losses=losses, mean_nats=4.5, time=1050.0)
            if end:
                folder.append(end, steps, time=1060.0)
        return folder

    return make

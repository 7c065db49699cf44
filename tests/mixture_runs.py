"""Finished run folders of known mixtures whose losses follow a known law, without training."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from workbench.config import Policy, RunConfig
from workbench.tracking import RunFolder

DOMAINS = ("code", "prose", "noise")
GAIN = {"code": 0.5, "prose": 0.3, "noise": 0.1}
NOISE_NATS = 0.02
STEPS = 4


def true_nats(mixture: dict[str, float]) -> dict[str, float]:
    """Each domain's loss falls with the logarithm of its own share."""
    return {name: 3.0 - GAIN[name] * np.log(mixture[name] + 0.05) for name in DOMAINS}


def write_run(
    folder: Path,
    name: str,
    mixture: dict[str, float],
    *,
    seed: int = 0,
    nats: dict[str, float] | None = None,
    end: str | None = "finished",
    started: float | None = None,
    record: str = "effective_mixture",
    content_hash: str = "abc123",
    live: dict | None = None,
    **changes,
) -> RunFolder:
    """A run as the loop leaves it; its losses are the law's with a little noise unless given."""
    noise = np.random.default_rng([seed, len(name), *name.encode()]).normal(size=len(DOMAINS))
    measured = nats or {
        k: v + NOISE_NATS * float(e)
        for (k, v), e in zip(true_nats(mixture).items(), noise, strict=True)
    }
    config = RunConfig(
        corpus="planted", name=name, seed=seed, mixer=Policy("static", mixture=mixture)
    ).change(**{"total_steps": STEPS, **changes})
    run = RunFolder.create(
        folder / name, config=config.to_dict(), environment={"content_hash": content_hash}
    )
    began = time.time() if started is None else started
    share = dict.fromkeys(DOMAINS, 1 / len(DOMAINS))
    step = {"loss": 4.0, "weighted_loss": 4.0, "lr": 1e-3, "grad_norm": 1.0, "tokens": 128}
    step |= {"seconds": 0.1, "ess_fraction": 1.0, "max_weight": 1.0, "mixture": share}
    step |= {"weight_share": share, "sample_share": share, "domain_loss": measured, record: mixture}
    with run.lock():
        run.append("started", 0, time=began)
        run.append_many([{"kind": "step", "step": i, **step} for i in range(STEPS)])
        if live:
            run.append("set", 2, changes=live)
        mean = sum(measured.values()) / len(measured)
        run.append("held_out", config.training.total_steps, losses=measured, mean_nats=mean)
        if end:
            run.append(end, STEPS)
    return run


def write_trials(folder: Path, count: int = 14, **options) -> list[RunFolder]:
    """Runs at random mixtures, named `mixture_0` and so on."""
    shares = np.random.default_rng(0).dirichlet(np.ones(len(DOMAINS)), count)
    return [
        write_run(folder, f"mixture_{i}", dict(zip(DOMAINS, row.tolist(), strict=True)), **options)
        for i, row in enumerate(shares)
    ]

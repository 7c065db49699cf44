"""Run folders as training leaves them, without training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from workbench.config import RunConfig
from workbench.tracking import RunFolder

DOMAINS = ("clean", "noise")


@pytest.fixture
def write_run(tmp_path) -> Callable[..., RunFolder]:
    """write_run(name, seed=…, final={domain: nats}, live={step: changes}, …) -> RunFolder."""

    def write(
        name: str,
        *,
        seed: int = 0,
        final: dict[str, float] | None = None,
        steps: int = 4,
        content_hash: str = "abc123",
        prepared: str | None = None,
        live: dict[int, dict] | None = None,
        end: str | None = "finished",
        folder: Path = tmp_path,
        **changes,
    ) -> RunFolder:
        config = RunConfig(corpus="planted", name=name, seed=seed).change(**changes)
        losses = final or dict.fromkeys(DOMAINS, 3.0)
        run = RunFolder.create(
            folder / name,
            config=config.change(total_steps=steps).to_dict(),
            environment={
                "python": "3.11.7",
                "packages": {"torch": "2.13.0"},
                "git_commit": "0123456789ab",
                "device": "CPU (AVX512)",
                "content_hash": content_hash,
                "seed": seed,
                **({"prepared": prepared} if prepared else {}),
            },
        )
        with run.lock():
            run.append("started", 0)
            run.append_many([step_event(step, losses) for step in range(steps)])
            for step, change in (live or {}).items():
                run.append("set", step, changes=change)
            mean = sum(losses.values()) / len(losses)
            run.append("held_out", steps, losses=losses, mean_nats=mean)
            if end == "failed":
                run.append(end, steps, problem="loss of <b>row 3</b> is NaN", remedy="lower it")
            elif end:
                run.append(end, steps)
        return run

    return write


def step_event(step: int, losses: dict[str, float]) -> dict:
    share = dict.fromkeys(losses, 1 / len(losses))
    return {
        "kind": "step",
        "step": step,
        "loss": 4.0 - 0.1 * step,
        "weighted_loss": 4.0 - 0.1 * step,
        "lr": 1e-3,
        "grad_norm": 1.0,
        "tokens": 128,
        "seconds": 0.1,
        "ess_fraction": 0.9,
        "max_weight": 1.5,
        "mixture": share,
        "weight_share": share,
        "sample_share": share,
        "domain_loss": {name: 4.0 - 0.1 * step for name in losses},
    }

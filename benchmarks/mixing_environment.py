"""Which policies find the best mixture, where it is known: the synthetic environment, 4 seeds.

    python -m benchmarks.mixing_environment --seeds 4

Steps until the score falls below 0.1, the final score, the noise domain's share in the middle of
the run, and the smallest share of a clean one.  Then the transfer: an agent trained at width 64,
frozen, drives width 256, against an agent that has learned nothing.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import workbench.mixing  # noqa: F401
from benchmarks.measure import record
from workbench.core import MIXERS
from workbench.replay import Environment, Trace, play

STEPS = 3000
LEVEL = 0.1
WIDE, WIDE_LEVEL = 256, 0.4
LEARN = {"warmup_steps": 200}
OPTIMUM = {f"clean_{i}": 1.0 for i in range(4)}
POLICIES: dict[str, tuple[str, dict[str, Any]]] = {
    "optimum": ("static", {"mixture": OPTIMUM}),
    "uniform": ("static", {}),
    "ODM, paper": ("exp3", {"variant": "paper"}),
    "ODM, official": ("exp3", {"variant": "official"}),
    "alignment": ("alignment", {}),
    "frozen random": ("frozen_random", {}),
    "direct": ("direct", LEARN),
    "acodm": ("acodm", LEARN),
    "acodm, discount 0.95": ("acodm", {**LEARN, "discount": 0.95}),
    "official bug": ("acodm", {**LEARN, "actor_step": "critics"}),
    "mean Q": ("acodm", {**LEARN, "critic": "vector", "scalarise": "mean"}),
    "importance sum": ("acodm", {**LEARN, "reward": "importance"}),
    "no entropy": ("acodm", {**LEARN, "entropy": 0.0}),
}


def measured(trace: Trace, level: float) -> dict[str, float | None]:
    steps = trace.steps_to(level)
    return {
        "steps": steps if np.isfinite(steps) else None,
        "final": trace.final_score,
        "noise": trace.share("noise"),
        "least_clean": min(trace.share(name) for name in OPTIMUM),
    }


def environment_rows(seeds: int) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for label, (name, options) in POLICIES.items():
        began = time.perf_counter()
        found = []
        for seed in range(seeds):
            environment = Environment(seed=seed)
            mixer = MIXERS.build(name, environment.task, **options)
            found.append(measured(play(mixer, environment, steps=STEPS), LEVEL))
        rate = seeds * STEPS / (time.perf_counter() - began)
        rows[label] = {"seeds": found, "steps_per_second": round(rate)}
        _show(label, found, rate)
    return rows


def transfer(seeds: int) -> dict[str, Any]:
    found: dict[str, list[Any]] = {"uniform": [], "frozen agent": [], "frozen random": []}
    for seed in range(seeds):
        small = Environment(seed=seed)
        proxy: Any = MIXERS.build("acodm", small.task, **LEARN)
        play(proxy, small, steps=STEPS)
        with tempfile.TemporaryDirectory() as folder:
            torch.save(proxy.agent_state(), Path(folder) / "agent.pt")
            kinds = {
                "uniform": ("static", {}),
                "frozen agent": ("acodm", {"agent": folder, "mode": "frozen"}),
                "frozen random": ("frozen_random", {}),
            }
            for label, (name, options) in kinds.items():
                wide = Environment(width=WIDE, seed=100 + seed)
                mixer = MIXERS.build(name, wide.task, **options)
                found[label].append(measured(play(mixer, wide, steps=STEPS), WIDE_LEVEL))
    print(f"\ntransfer to width {WIDE}, score < {WIDE_LEVEL}")
    for label, own in found.items():
        _show(label, own, None)
    return found


def _show(label: str, found: list[dict[str, float | None]], rate: float | None) -> None:
    steps = [row["steps"] for row in found if row["steps"] is not None]
    shown = f"{min(steps):.0f}–{max(steps):.0f}" if steps else "never"
    if 0 < len(steps) < len(found):
        shown += f" ({len(steps)} of {len(found)})"
    final, noise = ([row[what] or 0.0 for row in found] for what in ("final", "noise"))
    speed = f"   {rate:6.0f} steps/s" if rate else ""
    print(
        f"  {label:22} steps {shown:18} final {min(final):.4f}–{max(final):.4f}   "
        f"noise {min(noise):.2f}–{max(noise):.2f}{speed}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    payload = {
        "steps": STEPS,
        "seeds": options.seeds,
        "policies": environment_rows(options.seeds),
        "transfer": transfer(options.seeds),
    }
    command = f"python -m benchmarks.mixing_environment --seeds {options.seeds}"
    print("written:", record("mixing_environment", payload, command=command).name)


if __name__ == "__main__":
    main()

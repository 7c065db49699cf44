"""Which policies find the best mixture, where it is known: the synthetic environment, 4 seeds.

    python -m benchmarks.mixing_environment --seeds 4

Steps until the score falls below 0.1, the final score, the noise domain's share in the middle of
the run (steps 1200 to 1800) and around the time the score falls (750 to 1250), and the smallest
share of a clean one.  Then the transfer: an agent trained at width 64, frozen, drives width 256,
against an agent that has learned nothing.  `--only direct` takes the policies of that name alone.
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
    "direct, rate 3e-4": ("direct", {**LEARN, "learning_rate": 3e-4}),
    "direct, running mean": ("direct", {**LEARN, "reward": "alignment"}),
    "direct, running mean, rate 3e-4": (
        "direct",
        {**LEARN, "reward": "alignment", "learning_rate": 3e-4},
    ),
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
        "noise_early": trace.share("noise", 0.25, 5 / 12),
        "least_clean": min(trace.share(name) for name in OPTIMUM),
    }


def environment_rows(seeds: int, only: str = "") -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for label, (name, options) in POLICIES.items():
        if not label.startswith(only):
            continue
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
    columns = ("final", "noise", "noise_early")
    final, noise, early = ([row[what] or 0.0 for row in found] for what in columns)
    speed = f"   {rate:6.0f} steps/s" if rate else ""
    print(
        f"  {label:32} steps {shown:18} final {min(final):.4f}–{max(final):.4f}, "
        f"mean {np.mean(final):.4f}   noise {min(noise):.3f}–{max(noise):.3f}, "
        f"early {min(early):.3f}–{max(early):.3f}{speed}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--only", default="", help="first letters of the policies to run")
    options = parser.parse_args()
    torch.set_num_threads(1)
    payload = {
        "steps": STEPS,
        "seeds": options.seeds,
        "policies": environment_rows(options.seeds, options.only),
    }
    name = "mixing_environment"
    command = f"python -m benchmarks.{name} --seeds {options.seeds}"
    if options.only:
        name, command = f"{name}_{options.only}", f"{command} --only {options.only}"
    else:
        payload["transfer"] = transfer(options.seeds)
    print("written:", record(name, payload, command=command).name)


if __name__ == "__main__":
    main()

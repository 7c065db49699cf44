"""What every reweighting option costs, against a uniform step, in one run.

    python -m benchmarks.reweighting_cost --size small --rounds 9

Two readings.  `own work` times the reweighter alone (weigh, observe, diagnostics) as a share of a
uniform step: precise, because the noise of the step is not in it.  `whole step` times steps of all
options in turn: it shows extra passes, and no difference smaller than its interval.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from typing import Any

import numpy as np
import torch

from benchmarks.measure import compare, record
from benchmarks.training import config_of, load
from workbench.config import Policy
from workbench.training.checks import build_reweighter
from workbench.training.state import TrainState, build_state
from workbench.training.step import train_step

OPTIONS = {
    "linupper": Policy("linupper"),
    "linupper, rank": Policy("linupper", normalise="rank"),
    "linupper, quantile": Policy("linupper", normalise="quantile"),
    "linupper, max_weight": Policy("linupper", max_weight=1.5),
    "linupper, target_ess": Policy("linupper", target_ess=0.8),
    "linupper, shuffled": Policy("linupper", control="shuffled"),
    "linupper, norm_matched": Policy("linupper", control="norm_matched"),
    "quadratic": Policy("quadratic"),
    "extremes": Policy("extremes"),
}
OWN_ROUNDS = 300


def state_of(size: str, cache_dir: str) -> TrainState:
    config, corpus = load(size, cache_dir)
    return build_state(config, corpus)


def own_seconds(policy: Policy, rows: int) -> float:
    """Median time of a reweighter's part of one step."""
    reweighter = build_reweighter(policy)
    loss_B = 2 + 3 * torch.rand(rows, generator=torch.Generator().manual_seed(0))
    valid_B = torch.ones(rows, dtype=torch.bool)
    seconds = []
    for step in range(OWN_ROUNDS):
        began = time.perf_counter()
        reweighter.weigh(loss_B, valid_B, step)
        reweighter.observe(loss_B, valid_B, step)
        reweighter.diagnostics(step)
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds))


def measure(size: str, rounds: int, cache_dir: str) -> dict[str, Any]:
    state = state_of(size, cache_dir)
    batch = state.sampler.draw(0)
    policies = {"uniform": Policy("uniform"), **OPTIONS}

    def step_of(policy: Policy):
        reweighter = build_reweighter(policy)

        def step() -> None:
            state.reweighter = reweighter
            train_step(state, batch)

        return step

    whole = compare(
        {name: step_of(policy) for name, policy in policies.items()},
        baseline="uniform",
        rounds=rounds,
    )
    step_seconds = whole["uniform"].median_seconds
    rows = config_of(size).training.batch_rows
    own = {name: own_seconds(policy, rows) / step_seconds for name, policy in policies.items()}
    print(f"\n{size}: own work as a share of a uniform step, and the whole step against it")
    for name in policies:
        print(f"  {name:24} {own[name]:8.3%}   {whole[name]}")
    return {"own_work_share": own, "whole_step": whole}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=["tiny", "small"], default="small")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache_dir:
        results = {options.size: measure(options.size, options.rounds, cache_dir)}
    command = (
        f"python -m benchmarks.reweighting_cost --size {options.size} --rounds {options.rounds}"
    )
    print("written:", record("reweighting_cost", results, command=command).name)


if __name__ == "__main__":
    main()

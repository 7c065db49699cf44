"""What every mixer costs, against a step with a fixed mixture, in one run.

    python -m benchmarks.mixing_cost --size small --rounds 9

Two readings.  `own work` times the mixer alone (propose, observe, diagnostics; for a learner its
updates) as a share of a fixed mixture's step; `whole step` times steps of all mixers in turn, with
the signals each asks for, and shows no difference smaller than its interval.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import compare, record
from benchmarks.training import load
from workbench.config import Policy
from workbench.core import StepOutcome
from workbench.training import train
from workbench.training.device import keep_freed_memory
from workbench.training.state import TrainState, build_state
from workbench.training.step import train_step

WARMUP_STEPS = 2
OWN_ROUNDS = 60


def policies(reference: Path) -> dict[str, Policy]:
    learns = {"warmup_steps": WARMUP_STEPS}
    return {
        "static": Policy("static"),
        "exp3": Policy("exp3"),
        "alignment": Policy("alignment"),
        "doge": Policy("doge"),
        "pike": Policy("pike"),
        "doremi": Policy("doremi", reference=str(reference)),
        "frozen_random": Policy("frozen_random"),
        "direct": Policy("direct", **learns),
        "acodm": Policy("acodm", **learns),
        "acodm, projected": Policy("acodm", projection_width=32, **learns),
        "acodm, every 5 steps": Policy("acodm", every_steps=5, **learns),
    }


class Contender:
    """Policies with the model that all share; a call is a step, the mixer's work included."""

    def __init__(self, state: TrainState, **policies: Policy):
        self._state = state
        state.change(state.config.change(**policies), carry=False)
        self._mixer, self._signals = state.mixer, state.signals
        self._reweighter = state.reweighter
        self._outcome: StepOutcome | None = None
        self._step = 0

    def __call__(self) -> None:
        state = self._state
        state.mixer, state.signals = self._mixer, self._signals
        state.reweighter = self._reweighter
        state.sampler.set_mixture(self._mixer.propose(self._step))
        self._outcome = train_step(state, state.sampler.draw(self._step)).outcome
        self._mixer.observe(self._outcome)
        self._mixer.diagnostics()
        self._step += 1

    def own_seconds(self) -> float:
        """Median time of the mixer's part of a step, on the last step's signals."""
        assert self._outcome is not None
        seconds = []
        for _ in range(OWN_ROUNDS):
            began = time.perf_counter()
            self._mixer.propose(self._step)
            self._mixer.observe(self._outcome)
            self._mixer.diagnostics()
            seconds.append(time.perf_counter() - began)
            self._step += 1
        return float(np.median(seconds))


def measure(size: str, rounds: int, folder: Path) -> dict[str, Any]:
    config, corpus = load(size, str(folder / "cache"))
    short = config.change(total_steps=2, name="reference")
    reference = train(short, folder, cache_dir=folder / "cache").path
    state = build_state(config, corpus)
    contenders: dict[str, Callable[[], None]] = {
        name: Contender(state, mixer=policy) for name, policy in policies(reference).items()
    }
    # Learners fill their first batch before anything is timed.
    whole = compare(contenders, baseline="static", rounds=rounds, warmup_rounds=rounds)
    step_seconds = whole["static"].median_seconds
    own = {name: each.own_seconds() / step_seconds for name, each in contenders.items()}
    print(f"\n{size}: own work as a share of a fixed mixture's step, and the whole step against it")
    for name in contenders:
        print(f"  {name:22} {own[name]:8.3%}   {whole[name]}")
    return {"own_work_share": own, "whole_step": whole}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=["tiny", "small"], default="small")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    keep_freed_memory()  # as every run of ours does
    with tempfile.TemporaryDirectory() as folder:
        results = {options.size: measure(options.size, options.rounds, Path(folder))}
    command = f"python -m benchmarks.mixing_cost --size {options.size} --rounds {options.rounds}"
    print("written:", record("mixing_cost", results, command=command).name)


if __name__ == "__main__":
    main()

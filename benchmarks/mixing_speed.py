"""How many steps a second a mixer takes in the synthetic environment, by the processor's clock.

    python -m benchmarks.mixing_speed

The best stretch of 100 steps out of 1500, and the median one, after the warm-up: the best is what
the code costs, the rest is what else the machine does.
"""

from __future__ import annotations

import time

import numpy as np
import torch

import workbench.mixing  # noqa: F401
from benchmarks.measure import record
from workbench.core import MIXERS
from workbench.replay import Environment

MIXER_NAMES = ("static", "exp3", "alignment", "frozen_random", "direct", "acodm")
STRETCH_STEPS, STRETCHES = 100, 15


def steps_per_second(name: str) -> dict[str, int]:
    environment = Environment(seed=0)
    mixer = MIXERS.build(name, environment.task)
    rates = []
    # The first two stretches are the warm-up of the mixers that learn.
    for stretch in range(STRETCHES + 2):
        began = time.process_time()
        for step in range(stretch * STRETCH_STEPS, (stretch + 1) * STRETCH_STEPS):
            mixture = mixer.propose(step)
            mixer.observe(environment.step(step, mixture, mixer.needs))
        rates.append(STRETCH_STEPS / (time.process_time() - began))
    return {"best": round(max(rates[2:])), "median": round(float(np.median(rates[2:])))}


def main() -> None:
    torch.set_num_threads(1)
    found = {name: steps_per_second(name) for name in MIXER_NAMES}
    for name, rates in found.items():
        print(f"  {name:14} {rates['best']:6} steps a second at best, {rates['median']:6} median")
    path = record("mixing_speed", found, command="python -m benchmarks.mixing_speed")
    print("written:", path.name)


if __name__ == "__main__":
    main()

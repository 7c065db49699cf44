"""What policies add to a step, in time and in peak memory, in one run.

    python -m benchmarks.policy_cost                   # 124 M on a GPU; `small` without

LinUpper, AC-ODM with exact and with projected gradients, and LinUpper with AC-ODM, against uniform
weights and a fixed mixture.  Every contender takes whole steps of the same model in turn; `own
work` is what the mixer does outside the step, as a share of it.  Goals: LinUpper at most 0.5 %,
AC-ODM 0.4 % of time and 2 % of memory.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.measure import append, compare, peak_device_mib, this_device
from benchmarks.mixing_cost import WARMUP_STEPS, Contender
from benchmarks.training import SIZES, load
from workbench.config import Policy
from workbench.training.device import keep_freed_memory
from workbench.training.state import build_state

BASELINE = "neither"
ACODM = Policy("acodm", warmup_steps=WARMUP_STEPS)
PROJECTED = Policy("acodm", warmup_steps=WARMUP_STEPS, projection_width=32)
LINUPPER = Policy("linupper")
CONTENDERS: dict[str, Mapping[str, Policy]] = {
    BASELINE: {"mixer": Policy("static"), "reweighter": Policy("uniform")},
    "linupper": {"mixer": Policy("static"), "reweighter": LINUPPER},
    "acodm": {"mixer": ACODM, "reweighter": Policy("uniform")},
    "acodm, projected": {"mixer": PROJECTED, "reweighter": Policy("uniform")},
    "both": {"mixer": ACODM, "reweighter": LINUPPER},
    "both, projected": {"mixer": PROJECTED, "reweighter": LINUPPER},
}


def measure(size: str, rounds: int, warmup_rounds: int, folder: Path) -> dict[str, Any]:
    config, corpus = load(size, str(folder))
    state = build_state(config, corpus)
    contenders = {name: Contender(state, **policies) for name, policies in CONTENDERS.items()}
    times = compare(
        contenders, baseline=BASELINE, rounds=rounds, warmup_rounds=max(warmup_rounds, 2)
    )
    peak = {name: peak_device_mib(step) for name, step in contenders.items()}
    step_seconds = times[BASELINE].median_seconds
    own = {name: each.own_seconds() / step_seconds for name, each in contenders.items()}
    training = config.training
    print(f"\n{size} on {training.device}, {training.batch_rows} × {corpus.context_tokens} tokens")
    for name in contenders:
        memory = f"{peak[name]:8.1f} MiB, {peak[name] / peak[BASELINE]:.3f} ×"
        print(f"  {name:18} {times[name]!s:38} peak {memory}   own work {own[name]:.3%}")
    return {
        "whole_step": times,
        "peak_mib": peak,
        "peak_ratio": {name: mib / peak[BASELINE] for name, mib in peak.items()},
        "own_work_share": own,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=list(SIZES), default=None)
    parser.add_argument("--rounds", type=int, default=None, help="60 on a GPU, 9 without")
    parser.add_argument("--warmup-rounds", type=int, default=None, help="as many as rounds")
    options = parser.parse_args()
    on_gpu = this_device() == "cuda"
    size = options.size or ("gpt2-124m" if on_gpu else "small")
    rounds = options.rounds or (60 if on_gpu else 9)
    warmup_rounds = rounds if options.warmup_rounds is None else options.warmup_rounds
    keep_freed_memory()  # as every run of ours does
    with tempfile.TemporaryDirectory() as folder:
        results = {size: measure(size, rounds, warmup_rounds, Path(folder))}
    command = f"python -m benchmarks.policy_cost --size {size} --rounds {rounds}"
    print("written:", append("policy_cost", results, command=command).name)


if __name__ == "__main__":
    main()

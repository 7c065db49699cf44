"""Does choosing the mixture online help?  `tiny` on real text with one domain of noise, over seeds.

    python -m benchmarks.mixing --seeds 5 --steps 160

Every mixer keeps the same floor and sees the same rows, order within a domain and initial weights
per seed.  Reported against the uniform mixture: the final held-out loss without the noise domain,
the steps until the uniform run's final loss is reached, and the share of the batches that went to
noise in the second half.  Runs are kept in --out, so a study that was cut short continues.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from benchmarks.measure import record
from workbench.batch import mixing_scores, train_study
from workbench.config import Policy, RunConfig
from workbench.config.presets import Study, over_seeds
from workbench.evaluation import Verdict, verdict

NOISE = "noise"
BASELINE = "uniform"
PAIRS = (("acodm", "direct"), ("acodm", "alignment"), ("acodm", "frozen_random"))
"""What else is worth a verdict: whether the critic, the actor and learning at all are.  `direct` is
paid what `acodm` is, so that the critic alone sets them apart."""


def policies(steps: int) -> dict[str, Policy]:
    warmup = {"warmup_steps": steps // 10}
    return {
        "uniform": Policy("static"),
        "exp3": Policy("exp3", variant="paper"),
        "alignment": Policy("alignment"),
        "frozen_random": Policy("frozen_random"),
        "direct": Policy("direct", reward="alignment", **warmup),
        "acodm": Policy("acodm", **warmup),
    }


def study_of(*, seeds: int, steps: int) -> Study:
    base = RunConfig(
        corpus={"name": "installed", "noise_mb": 2.0},
        training={
            "total_steps": steps,
            "evaluate_every_steps": max(1, steps // 10),
            "held_out_rows": 24,
            "checkpoint_every_steps": steps,
            "device": "cpu",
        },
    )
    variants = {label: {"mixer": policy} for label, policy in policies(steps).items()}
    return over_seeds(base, variants, seeds=range(seeds))


def verdicts(values: Mapping[str, Mapping[str, dict[int, float]]]) -> dict[str, dict[str, Verdict]]:
    pairs = [(label, BASELINE) for label in values if label != BASELINE] + list(PAIRS)
    found: dict[str, dict[str, Verdict]] = {}
    for label, baseline in pairs:
        units = {"final_nats": "nats per token", "wasted_share": "of the batch"}
        # A run that never gets there has no number of steps to average.
        if all(map(math.isfinite, values[label]["steps_to_baseline"].values())):
            units["steps_to_baseline"] = "steps"
        found[f"{label} against {baseline}"] = {
            what: verdict(
                values[baseline][what],
                values[label][what],
                name=label,
                baseline_name=baseline,
                unit=unit,
            )
            for what, unit in units.items()
            if all(map(math.isfinite, values[baseline][what].values()))
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--out", default="out/benchmark-mixing")
    options = parser.parse_args()
    study = study_of(seeds=options.seeds, steps=options.steps)
    runs = train_study(study, f"{options.out}/{options.steps}", every_seconds=60)
    scores = mixing_scores(runs, BASELINE, without=[NOISE])
    values = {label: asdict(own) for label, own in scores.items()}
    found = verdicts(values)
    for label, own in values.items():
        print(f"{label:16}", *(f"{what} {_shown(seeds)}" for what, seeds in own.items()), sep="  ")
    for own in found.values():
        print(*own.values(), sep="\n")
    payload: dict[str, Any] = {
        "corpus": "installed, with 2 MB of noise",
        "content_hash": runs[BASELINE][0].folder.environment["content_hash"],
        "steps": options.steps,
        "seeds": options.seeds,
        "values": {
            label: {what: [_plain(v) for v in own.values()] for what, own in kinds.items()}
            for label, kinds in values.items()
        },
        "verdicts": {
            pair: {what: asdict(v) for what, v in own.items()} for pair, own in found.items()
        },
    }
    command = f"python -m benchmarks.mixing --seeds {options.seeds} --steps {options.steps}"
    print("written:", record("mixing_text", payload, command=command).name)


def _shown(values: dict[int, float]) -> str:
    return f"{np.mean(list(values.values())):.3f}"


def _plain(value: float) -> float | None:
    """JSON has no infinity; None is a level never reached."""
    return value if math.isfinite(value) else None


if __name__ == "__main__":
    main()

"""Select × mix × reweight: what each does, and what they do to each other, with intervals.

    OMP_NUM_THREADS=1 python -m benchmarks.factorial --seeds 3 --steps 150

{random, quad} × {uniform, acodm} × {uniform, linupper} on generated and on installed text; `random`
chooses as many rows as quad does, at the same step.  Beside it, the same without any choice: the
whole pool.  Equal tokens: all runs take the same steps.  Equal compute: every run without quad
takes as many as the operations of its twin with quad allow, those of choosing included.  Held-out
loss is the mean over domains but the noise.  An effect is the mean over all settings of the others.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from statistics import median
from typing import Any, Literal

from benchmarks.measure import Timing, compare, record
from benchmarks.mixing_cost import Contender
from workbench.batch import at_equal_compute, factorial, train_study
from workbench.batch.comparison import final_held_out
from workbench.config.presets import Study, together
from workbench.data import prepare
from workbench.evaluation import mean_nats
from workbench.training import Run
from workbench.training.device import resolve
from workbench.training.state import build_state
from workbench.training.summary import MEASUREMENT, charged_flops, compute_by_phase

CORPORA: dict[str, dict[str, Any]] = {
    "planted": {"name": "planted", "max_domain_mb": 1.0},
    "installed": {"name": "installed", "max_domain_mb": 1.0, "noise_mb": 0.25},
}
Runs = dict[str, list[Run]]


def study_of(corpus: str, *, seeds: int, steps: int) -> tuple[Study, Study]:
    """All settings with a choice of rows, and those without quad over the whole pool."""

    def made(against: Literal["pool", "random"]) -> Study:
        study = together(
            "demo",
            against=against,
            corpus=CORPORA[corpus] | {"held_out_fraction": 0.2},
            total_steps=steps,
            evaluate_every_steps=steps,
            checkpoint_every_steps=10 * steps,
            held_out_rows=24,
            device="cpu",
        )
        return {
            label: [config.replace(name=f"{corpus}_{config.name}") for config in own[:seeds]]
            for label, own in study.items()
        }

    whole = {label: own for label, own in made("pool").items() if "quad" not in label}
    return made("random"), whole


def what_happened(runs: Runs) -> dict[str, Any]:
    """Per label, seed by seed: losses, steps, seconds, operations, rows chosen of each domain."""
    return {
        label: {
            "held_out_nats": [
                mean_nats(final_held_out(run.folder)["losses"], ["noise"]) for run in own
            ],
            "steps": [len(run.events("step")) for run in own],
            "flops": [charged_flops(run.folder) for run in own],
            "seconds": [charged_seconds(run) for run in own],
            "rows_chosen": [chosen_rows(run) for run in own],
        }
        for label, own in runs.items()
    }


def charged_seconds(run: Run) -> dict[str, float]:
    """Of each phase but evaluation, which is no part of a method."""
    phases = compute_by_phase(run.folder)
    return {name: own["seconds"] for name, own in phases.items() if name != MEASUREMENT}


def chosen_rows(run: Run) -> dict[str, int]:
    """Rows of all choices of a run, by domain."""
    counts: Counter[str] = Counter()
    for event in run.events("selected"):
        counts.update(event["domains"])
    return dict(counts)


def carried(runs: Runs) -> dict[str, float]:
    """Operations of every combination, those of choosing included, over a plain run's."""

    def flops(label: str) -> float:
        return sum(charged_flops(run.folder) for run in runs[label])

    return {label: flops(label) / flops("none") for label in runs}


def seconds_over_none(runs: Runs) -> dict[str, dict[str, float]]:
    """Seconds of a run, those of choosing and of what it read of the cache included.

    Over the median plain run: the median seed, the least and the most.
    """

    def seconds(label: str) -> list[float]:
        return sorted(sum(charged_seconds(run).values()) for run in runs[label])

    plain = median(seconds("none"))
    return {
        label: {"median": median(own) / plain, "least": own[0] / plain, "most": own[-1] / plain}
        for label, own in ((label, seconds(label)) for label in runs)
    }


def step_times(study: Study, rounds: int) -> dict[str, Timing]:
    """A step of each combination against a plain one, in turns on one model.

    A selector does nothing in a step, so that its combinations are those without it.
    """
    labels = {label: own[0] for label, own in study.items() if "quad" not in label}
    plain = labels["none"]
    corpus = prepare(plain.corpus, plain.tokenizer, plain.rows)
    state = build_state(resolve(plain), corpus)
    contenders: dict[str, Callable[[], None]] = {
        label: Contender(state, mixer=config.mixer, reweighter=config.reweighter)
        for label, config in labels.items()
    }
    # Long enough for the agent to learn in every step that is timed.
    return compare(contenders, baseline="none", rounds=rounds, warmup_rounds=2 * rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--corpora", default="planted,installed")
    parser.add_argument("--out", default="out/benchmark-factorial")
    options = parser.parse_args()
    results: dict[str, Any] = {}
    for corpus in options.corpora.split(","):
        study, whole = study_of(corpus, seeds=options.seeds, steps=options.steps)
        runs = train_study(study, options.out, every_seconds=120)
        longer = runs | train_study(
            at_equal_compute(study, runs, "quad"), options.out, every_seconds=120
        )
        over_all = {label: own for label, own in runs.items() if "quad" in label} | train_study(
            whole, options.out, every_seconds=120
        )
        by_budget = {
            "equal tokens": factorial(runs, without=["noise"]),
            "equal compute": factorial(longer, without=["noise"]),
            "equal tokens, whole pool": factorial(over_all, without=["noise"]),
        }
        for budget, verdicts in by_budget.items():
            print(f"{corpus}, {budget}:", *verdicts, sep="\n  ", flush=True)
        results[corpus] = {
            "equal tokens": what_happened(runs),
            "equal compute": what_happened(longer),
            "whole pool": what_happened({label: over_all[label] for label in whole}),
            "effects": {
                budget: [asdict(each) for each in verdicts]
                for budget, verdicts in by_budget.items()
            },
            "operations over none": carried(runs),
            "seconds over none": seconds_over_none(runs),
            "step over none": step_times(whole, options.rounds),
        }
    command = "python -m benchmarks.factorial " + " ".join(
        f"--{name} {value}" for name, value in vars(options).items() if name != "out"
    )
    print("written:", record("factorial", results, command=command).name)


if __name__ == "__main__":
    main()

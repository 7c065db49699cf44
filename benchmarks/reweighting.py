"""Does weighing samples by their loss help?  Held-out loss over seeds, whatever it says.

    python -m benchmarks.reweighting --corpus installed --seeds 5 --steps 120
    python -m benchmarks.reweighting --corpus planted --seeds 5 --steps 120

`tiny`, every variant against uniform on the same seeds: same rows, order and initial weights.  On
`planted`, where redundancy and noise are known, also the mean weight of each domain over thirds of
the run.  Runs are kept in --out, so a study that was cut short continues.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

import numpy as np

from benchmarks.measure import record
from workbench.batch import compare, train_study
from workbench.config import Policy, RunConfig
from workbench.config.presets import Study, over_seeds
from workbench.evaluation import verdict
from workbench.training import Run

CORPORA: dict[str, dict[str, Any]] = {
    "installed": {"corpus": "installed"},
    "planted": {
        "corpus": {"name": "planted", "max_domain_mb": 0.5},
        "tokenizer": {"vocab_size": 1024},
        "rows": {"context_tokens": 64},
    },
}
THIRDS = ("first", "second", "last")


def study_of(corpus: str, *, seeds: int, steps: int) -> Study:
    warmup = {"warmup_steps": steps // 10}
    training = {"total_steps": steps, "evaluate_every_steps": steps, "device": "cpu"}
    policies = {
        "uniform": Policy("uniform"),
        "linupper": Policy("linupper", **warmup),
        "linupper, rank": Policy("linupper", normalise="rank", **warmup),
        "quadratic": Policy("quadratic", **warmup),
        "extremes": Policy("extremes", **warmup),
        "shuffled": Policy("linupper", control="shuffled", **warmup),
        "norm_matched": Policy("linupper", control="norm_matched", **warmup),
    }
    base = RunConfig(**CORPORA[corpus], training=training)
    variants = {label: {"reweighter": policy} for label, policy in policies.items()}
    return over_seeds(base, variants, seeds=range(seeds))


def weights_over_thirds(runs: list[Run], steps: int) -> dict[str, dict[str, Any]]:
    """Mean sample weight of each domain in each third of the run after the warm-up, per seed."""
    first = steps // 10
    query = f"""
        select domain, least(2, (step - {first}) * 3 // {steps - first}) as third,
               avg(weight) as mean_weight
        from ledger where step >= {first} group by domain, third order by domain, third"""
    frames = [run.ledger.sql(query) for run in runs]
    found: dict[str, dict[str, Any]] = {}
    for domain in frames[0].domain.unique():
        rows = np.array([frame[frame.domain == domain].mean_weight for frame in frames])
        found[str(domain)] = dict(zip(THIRDS, rows.mean(axis=0).tolist(), strict=True))
        change = verdict(
            dict(enumerate(rows[:, 0].tolist())),
            dict(enumerate(rows[:, 2].tolist())),
            name=f"mean weight of {domain}, last third",
            baseline_name="first third",
            unit="(mean weight)",
        )
        found[str(domain)]["change"] = {
            "mean": change.mean_difference,
            "low": change.low,
            "high": change.high,
            "bootstrap_low": change.bootstrap_low,
            "bootstrap_high": change.bootstrap_high,
            "seeds_needed": change.seeds_needed,
            "seeds": change.n,
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", choices=CORPORA, default="installed")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--out", default="out/benchmark-reweighting")
    options = parser.parse_args()
    study = study_of(options.corpus, seeds=options.seeds, steps=options.steps)
    folder = f"{options.out}/{options.corpus}-{options.steps}"
    runs = train_study(study, folder, every_seconds=60)
    verdicts = compare(runs, "uniform")
    overall = [v for v in verdicts if v.name in runs]
    print("\nheld-out loss, mean over domains, against uniform:")
    print(*overall, sep="\n")
    first = runs["uniform"][0]
    payload: dict[str, Any] = {
        "corpus": options.corpus,
        "content_hash": first.folder.environment["content_hash"],
        "steps": options.steps,
        "seeds": options.seeds,
        "held_out_mean_nats": {
            label: [(run.summary() or {})["held_out_mean_nats"] for run in own]
            for label, own in runs.items()
        },
        "verdicts": {v.name: asdict(v) for v in verdicts},
    }
    if options.corpus == "planted":
        thirds = weights_over_thirds(runs["linupper"], options.steps)
        payload["linupper_weight_by_third"] = thirds
        print("\nmean weight under linupper in thirds of the run, and its change with interval:")
        for domain, values in thirds.items():
            shown = " ".join(f"{values[third]:.3f}" for third in THIRDS)
            change = values["change"]
            print(
                f"  {domain:14} {shown}   {change['mean']:+.3f} "
                f"[{change['low']:+.3f}, {change['high']:+.3f}]"
            )
    command = (
        f"python -m benchmarks.reweighting --corpus {options.corpus} --seeds {options.seeds} "
        f"--steps {options.steps}"
    )
    print("written:", record(f"reweighting_{options.corpus}", payload, command=command).name)


if __name__ == "__main__":
    main()

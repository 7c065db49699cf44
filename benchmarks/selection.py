"""Does choosing rows help?  `tiny` on the fifth of real text that each selector chose, over seeds.

    python -m benchmarks.selection --seeds 3

A judge is trained on the whole pool first; its model judges every choice of its seed.  Then a new
model reads each chosen row about once.  Equal tokens: all train as long.  Equal compute: `random`
also gets the operations that the judge and the choice took, as further rows and steps.  Reported as
paired differences to `random`: held-out loss on the reference domain, and the mean over all domains
but the noise.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import record
from workbench.batch import train_study
from workbench.batch.comparison import final_held_out
from workbench.config import Policy, RunConfig, SelectionConfig
from workbench.config.presets import Study, over_seeds
from workbench.data import prepare
from workbench.evaluation import Verdict, mean_nats, verdict
from workbench.training import Run
from workbench.training.summary import charged_flops, compute_by_phase

REFERENCE = "project_prose"
BASELINE = "random"
EQUAL_COMPUTE = "random, equal compute"
SHARE = 0.2
SELECTORS = {
    "random": Policy("random"),
    "cluster_uniform": Policy("cluster_uniform"),
    "perplexity": Policy("perplexity", band="middle"),
    # What the gate says is recorded; the question is what the choice does.
    "top_influence": Policy("top_influence", trust="warn"),
    "quad": Policy("quad", trust="warn"),
}


def base_config(max_domain_mb: float) -> RunConfig:
    return RunConfig(
        corpus={
            "name": "installed",
            "max_domain_mb": max_domain_mb,
            "noise_mb": max_domain_mb / 4,
            "held_out_fraction": 0.2,
        },
        mixer=Policy("static", mixture="natural"),
        training={"held_out_rows": 24, "device": "cpu", "checkpoint_every_steps": 10_000},
    )


def judges(base: RunConfig, *, seeds: int, steps: int) -> Study:
    training = base.training.replace(total_steps=steps, evaluate_every_steps=steps)
    return over_seeds(base, {"judge": {"training": training}}, seeds=range(seeds))


def choices(base: RunConfig, judged: dict[int, Path], *, rows: int) -> Study:
    """A run for each selector and seed, long enough to read the chosen rows once."""
    steps = int(SHARE * rows) // base.training.batch_rows
    training = base.training.replace(total_steps=steps, evaluate_every_steps=max(1, steps // 4))
    study = over_seeds(
        base,
        {label: {"selector": policy, "training": training} for label, policy in SELECTORS.items()},
        seeds=range(len(judged)),
    )
    return {
        label: [
            config.replace(
                selection=SelectionConfig(
                    share=SHARE,
                    checkpoint=str(judged[config.seed]),
                    reference_domains=(REFERENCE,),
                )
            )
            for config in configs
        ]
        for label, configs in study.items()
    }


def equal_compute(quad: list[Run], base: Study) -> list[RunConfig]:
    """The random runs, longer by the operations of the judge and of the choice of `quad`."""
    configs = []
    for run, config in zip(quad, base[BASELINE], strict=True):
        extra = charged_flops(run.folder) / compute_by_phase(run.folder)["train"]["flops"] - 1
        steps = round(config.training.total_steps * (1 + extra))
        training = config.training.replace(
            total_steps=steps, evaluate_every_steps=max(1, steps // 4)
        )
        selection = config.selection.replace(share=min(1.0, SHARE * (1 + extra)))
        configs.append(
            config.replace(
                name=f"random_equal_compute_seed{config.seed}",
                training=training,
                selection=selection,
            )
        )
    return configs


def held_out(runs: list[Run]) -> dict[str, dict[int, float]]:
    """Per seed, nats per token: the reference domain, and the mean of all but the noise."""
    losses = {run.config.seed: final_held_out(run.folder)["losses"] for run in runs}
    return {
        "reference": {seed: own[REFERENCE] for seed, own in losses.items()},
        "all": {seed: mean_nats(own, ["noise"]) for seed, own in losses.items()},
    }


def verdicts(values: dict[str, dict[str, dict[int, float]]]) -> dict[str, dict[str, Verdict]]:
    pairs = [(label, BASELINE) for label in values if label != BASELINE]
    pairs += [("quad", EQUAL_COMPUTE), ("quad", "top_influence"), ("quad", "cluster_uniform")]
    return {
        f"{label} against {baseline}": {
            what: verdict(
                values[baseline][what], values[label][what], name=label, baseline_name=baseline
            )
            for what in ("reference", "all")
        }
        for label, baseline in pairs
    }


def gate(run: Run) -> str | None:
    """Why the gate does not trust the scores of a choice; empty where it does."""
    return run.events("selected")[-1]["selector"].get("gate", {}).get("failed")


def chosen(runs: list[Run]) -> dict[str, Any]:
    """What was chosen, as means over seeds: share of noise and of the reference domain, seconds."""
    selected = [run.events("selected")[-1] for run in runs]
    return {
        "noise_share": float(np.mean([e["domains"]["noise"] / e["rows"] for e in selected])),
        "reference_share": float(np.mean([e["domains"][REFERENCE] / e["rows"] for e in selected])),
        "gate": [gate(run) for run in runs],
        "select_seconds": float(np.mean([e["seconds"] for e in selected])),
        "train_seconds": float(np.mean([(run.summary() or {})["train_seconds"] for run in runs])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--judge-steps", type=int, default=100)
    parser.add_argument("--max-domain-mb", type=float, default=0.5)
    parser.add_argument("--out", default="out/benchmark-selection")
    options = parser.parse_args()
    base = base_config(options.max_domain_mb)
    judging = judges(base, seeds=options.seeds, steps=options.judge_steps)
    judge = train_study(judging, options.out, every_seconds=60)["judge"]
    rows = int(prepare(base.corpus, base.tokenizer, base.rows).rows_K.sum())
    study = choices(base, {run.config.seed: run.path for run in judge}, rows=rows)
    runs = train_study(study, options.out, every_seconds=60)
    longer = {EQUAL_COMPUTE: equal_compute(runs["quad"], study)}
    runs |= train_study(longer, options.out, every_seconds=60)
    values = {label: held_out(own) for label, own in runs.items()}
    found, made = verdicts(values), {label: chosen(own) for label, own in runs.items()}
    for label, own in made.items():
        shown = [f"{n} {v:.3f}" if isinstance(v, float) else f"{n} {v}" for n, v in own.items()]
        print(f"{label:22}", *shown, sep="  ")
    for own in found.values():
        print(*(f"{what}: {each}" for what, each in own.items()), sep="\n")
    payload: dict[str, Any] = {
        "corpus": f"installed, {options.max_domain_mb} MB a domain, and noise",
        "content_hash": judge[0].folder.environment["content_hash"],
        "reference": REFERENCE,
        "pool_rows": rows,
        "steps": study["quad"][0].training.total_steps,
        "steps_equal_compute": [config.training.total_steps for config in longer[EQUAL_COMPUTE]],
        "values": {
            label: {what: list(own.values()) for what, own in kinds.items()}
            for label, kinds in values.items()
        },
        "chosen": made,
        "verdicts": {
            pair: {what: asdict(each) for what, each in own.items()} for pair, own in found.items()
        },
    }
    command = (
        f"python -m benchmarks.selection --seeds {options.seeds} "
        f"--judge-steps {options.judge_steps} --max-domain-mb {options.max_domain_mb:g}"
    )
    print("written:", record("selection", payload, command=command).name)


if __name__ == "__main__":
    main()

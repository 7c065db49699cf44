"""Whole experiments as functions: what each notebook runs at each profile.

    study = tour("demo", seed=0)       # {"uniform": [RunConfig, …], "linupper": […]}

A study maps a label to one config per seed; configs of a seed share text, start and data order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.config.run import Policy, RunConfig
from workbench.core import ConfigError, unknown_name

Study = dict[str, list[RunConfig]]

CI_MODEL = {
    "num_hidden_layers": 1,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
}

TOUR_PROFILES: dict[str, dict[str, Any]] = {
    "ci": {
        "corpus": {"name": "planted", "max_domain_mb": 0.05},
        "tokenizer": {"vocab_size": 400},
        "rows": {"context_tokens": 32},
        "model": {"name": "tiny", "overrides": CI_MODEL},
        "training": {
            "total_steps": 30,
            "batch_rows": 8,
            "evaluate_every_steps": 10,
            "held_out_rows": 4,
            "threads": 1,
        },
    },
    "demo": {"training": {"total_steps": 90, "evaluate_every_steps": 30}},
    "full": {
        "corpus": {"name": "installed", "max_domain_mb": 8.0},
        "training": {"total_steps": 2000, "evaluate_every_steps": 200, "held_out_rows": 128},
    },
}
TOUR_SEEDS = {"ci": 3, "demo": 3, "full": 5}


def tour(profile: str, *, seed: int = 0) -> Study:
    """Ways to weigh samples on one small model, over seeds `seed`, `seed` + 1, ….

    `uniform` and `linupper`, `quadratic`, and LinUpper's two controls: `shuffled` gives its weights
    to random rows, `norm_matched` takes its direction with the step length of uniform weights.

    Args:
        profile: `ci` (seconds, generated text), `demo` (minutes, text of the installed
            environment) or `full` (longer, more seeds).
    """
    if profile not in TOUR_PROFILES:
        problem, remedy = unknown_name("profile", profile, TOUR_PROFILES)
        raise ConfigError(problem, remedy=remedy)
    base = RunConfig(**TOUR_PROFILES[profile])
    warmup_steps = base.training.total_steps // 10
    policies = {
        "uniform": Policy("uniform"),
        "linupper": Policy("linupper", warmup_steps=warmup_steps),
        "quadratic": Policy("quadratic", warmup_steps=warmup_steps),
        "shuffled": Policy("linupper", warmup_steps=warmup_steps, control="shuffled"),
        "norm_matched": Policy("linupper", warmup_steps=warmup_steps, control="norm_matched"),
    }
    variants = {label: {"reweighter": policy} for label, policy in policies.items()}
    return over_seeds(base, variants, seeds=range(seed, seed + TOUR_SEEDS[profile]))


def over_seeds(
    base: RunConfig, variants: Mapping[str, Mapping[str, Any]], *, seeds: range
) -> Study:
    """A study: `base` with each variant's fields, once per seed, named `label_seed`."""
    return {
        label: [
            base.replace(**{**fields, "name": f"{label}_seed{seed}", "seed": seed})
            for seed in seeds
        ]
        for label, fields in variants.items()
    }

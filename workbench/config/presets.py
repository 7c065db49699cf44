"""Whole experiments as functions: what each notebook runs at each profile.

    study = tour("demo", seed=0)       # {"uniform": [RunConfig, …], "linupper": […]}

A study maps a label to one config per seed; configs of a seed share text, start and data order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from workbench.config import papers
from workbench.config.paper_recipes import RECIPES
from workbench.config.run import Policy, RunConfig, SelectionConfig, TrainingConfig
from workbench.core import ConfigError, unknown_name

Study = dict[str, list[RunConfig]]

CI_MODEL = {
    "num_hidden_layers": 1,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
}

THIN = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 3, "vocab_size": 400}
"""A paper's model at `ci`, with the vocabulary of that profile's tokenizer."""

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
    "demo": {"training": {"total_steps": 60, "evaluate_every_steps": 20}},
    "full": {
        "corpus": {"name": "installed", "max_domain_mb": 8.0},
        "training": {"total_steps": 2000, "evaluate_every_steps": 200, "held_out_rows": 128},
    },
}
QUAD_OPTIONS: dict[str, dict[str, Any]] = {
    "ci": {"clusters": 12, "factor_rows": 32, "scored_share": 0.05, "trust": "warn"},
    "demo": {"clusters": 100, "factor_rows": 64, "scored_share": 0.02, "trust": "warn"},
    "full": {"trust": "warn"},
}
TOUR_SEEDS = {"ci": 3, "demo": 3, "full": 5}


def tour(profile: str, *, seed: int = 0) -> Study:
    """Ways to weigh samples and to mix domains with one small model, over seeds `seed`, ….

    `uniform` and `linupper`, `quadratic`, and LinUpper's two controls: `shuffled` gives its weights
    to random rows, `norm_matched` takes its direction with the step length of uniform weights.
    `acodm` keeps uniform weights and lets the actor-critic set the mixture.  `quad` reads all text
    for a third of the run, then what the bandit chose, in proportion to what it chose.
    `together` is `linupper`, `acodm` and the choice of `quad` in one run.

    Args:
        profile: `ci` (seconds, generated text), `demo` (minutes, text of the installed
            environment) or `full` (longer, more seeds).
    """
    base = _base(profile, TOUR_PROFILES)
    warmup_steps = base.training.total_steps // 10
    policies = {
        "uniform": Policy("uniform"),
        "linupper": Policy("linupper", warmup_steps=warmup_steps),
        "quadratic": Policy("quadratic", warmup_steps=warmup_steps),
        "shuffled": Policy("linupper", warmup_steps=warmup_steps, control="shuffled"),
        "norm_matched": Policy("linupper", warmup_steps=warmup_steps, control="norm_matched"),
    }
    variants = {label: {"reweighter": policy} for label, policy in policies.items()}
    variants["acodm"] = {"mixer": Policy("acodm", **_learning(base))}
    variants["quad"] = _quad(base, profile)
    variants["together"] = {
        **variants["quad"],
        **variants["acodm"],
        **variants["linupper"],
    }
    return over_seeds(base, variants, seeds=range(seed, seed + TOUR_SEEDS[profile]))


POLICY_PROFILES: dict[str, dict[str, Any]] = {
    "ci": TOUR_PROFILES["ci"],
    "demo": {
        "corpus": {"name": "planted"},
        "tokenizer": {"vocab_size": 1024},
        "rows": {"context_tokens": 64},
        "training": {"total_steps": 600, "evaluate_every_steps": 100},
    },
    "full": {
        "corpus": {"name": "installed", "noise_mb": 2.0},
        "training": {"total_steps": 4000, "evaluate_every_steps": 200, "held_out_rows": 128},
    },
}
"""Text with a domain of noise, on which a policy can be seen to waste or to save."""


def policy(profile: str, *, seed: int = 0) -> dict[str, RunConfig]:
    """One AC-ODM run to watch, `proxy`, and `uniform` beside it.

    Args:
        profile: as in `tour`.
    """
    base = _base(profile, POLICY_PROFILES)
    return {
        "uniform": base.replace(name="uniform", seed=seed),
        "proxy": base.replace(name="proxy", seed=seed, mixer=Policy("acodm", **_learning(base))),
    }


MIXING_PROFILES: dict[str, dict[str, Any]] = {
    "ci": {
        **TOUR_PROFILES["ci"],
        "training": {
            **TOUR_PROFILES["ci"]["training"],
            "total_steps": 12,
            "evaluate_every_steps": 6,
        },
    },
    "demo": {
        "corpus": {"name": "planted"},
        "tokenizer": {"vocab_size": 1024},
        "rows": {"context_tokens": 64},
        "training": {
            "total_steps": 120,
            "evaluate_every_steps": 12,
            "checkpoint_every_steps": 120,
        },
    },
    "full": {
        "corpus": {"name": "planted", "max_domain_mb": 8.0},
        "tokenizer": {"vocab_size": 1024},
        "training": {"total_steps": 2000, "evaluate_every_steps": 100, "held_out_rows": 128},
    },
}
MIXING_SEEDS = {"ci": 2, "demo": 3, "full": 5}
MIXING_FLOOR = 0.05
"""Of every mixer that is compared, fixed mixtures too: none may win by dropping a domain."""


def mixing(
    profile: str, *, seed: int = 0, mixtures: Mapping[str, str | Path] | None = None
) -> Study:
    """Every online mixer on the same runs, beside fixed mixtures; all with the same floor.

    What is searched for beforehand (`doremi`, `regmix`, the static phase of `doge`) comes in
    `mixtures`.

    Args:
        profile: as in `tour`.
        mixtures: label -> file of a mixture found before, as `batch.find_mixture` writes it.
    """
    base = _base(profile, MIXING_PROFILES)
    layers = {"tracked_layers": _tracked_layers(base)}
    mixers: dict[str, tuple[str, dict[str, Any]]] = {
        "uniform": ("static", {}),
        "natural": ("static", {"mixture": "natural"}),
        **{label: ("static", {"mixture": str(path)}) for label, path in (mixtures or {}).items()},
        "exp3": ("exp3", {"variant": "paper"}),
        "exp3 official": ("exp3", {"variant": "official"}),
        "doge": ("doge", layers),
        "pike": ("pike", layers),
        "alignment": ("alignment", layers),
        "frozen_random": ("frozen_random", layers),
        "direct": ("direct", _learning(base)),
        "acodm": ("acodm", _learning(base)),
    }
    variants = {
        label: {"mixer": Policy(name, **options, floor=MIXING_FLOOR)}
        for label, (name, options) in mixers.items()
    }
    return over_seeds(base, variants, seeds=range(seed, seed + MIXING_SEEDS[profile]))


SELECTION_PROFILES: dict[str, dict[str, Any]] = {
    "ci": {
        **TOUR_PROFILES["ci"],
        "training": {
            **TOUR_PROFILES["ci"]["training"],
            "total_steps": 24,
            "evaluate_every_steps": 12,
        },
    },
    "demo": {
        "corpus": {"name": "planted", "max_domain_mb": 0.3},
        "tokenizer": {"vocab_size": 1024},
        "rows": {"context_tokens": 64},
        "training": {"total_steps": 240, "evaluate_every_steps": 40},
    },
    "full": {
        "corpus": {"name": "installed", "noise_mb": 2.0},
        "training": {"total_steps": 4000, "evaluate_every_steps": 200, "held_out_rows": 128},
    },
}
"""Text with domains that are of no use, so that a choice can be seen to be right or wrong."""
MAP_OPTIONS: dict[str, dict[str, Any]] = {
    "ci": {"clusters": 16, "factor_rows": 32, "control_rows": 8, "projection": "pca"},
    "demo": {"clusters": 60, "projection": "umap"},
    "full": {"projection": "umap"},
}
REFERENCE_DOMAINS = ("clean_prose", "clean_tales")


def selection(profile: str, *, seed: int = 0) -> RunConfig:
    """A run that reads the whole pool for its first half, then a fifth of it that Quad chooses.

    On generated text the reference set is of two clean domains.  A model this young is not yet to
    be trusted, so control rows that pass are warned of and do not end the run.

    Args:
        profile: as in `tour`.
    """
    base = _base(profile, SELECTION_PROFILES)
    planted = base.corpus.name == "planted"
    return base.replace(
        name="quad",
        seed=seed,
        selector=Policy("quad", trust="warn", **MAP_OPTIONS[profile]),
        selection=SelectionConfig(
            share=0.2,
            first_step=base.training.total_steps // 2,
            reference_domains=REFERENCE_DOMAINS if planted else None,
        ),
    )


def pretraining(
    profile: str,
    model: str | None = None,
    corpus: str | Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    settings: Mapping[str, Any] | str | None = None,
    **policies: str | Mapping[str, Any] | Policy | None,
) -> RunConfig:
    """One run to pretrain: a paper's model with its paper's settings, or a small one.

    Args:
        profile: as in `tour`.  `ci` makes every model of a paper one thin layer and trains seconds
            on generated text, so that a large run can be rehearsed.
        model: a paper's, whose settings then come from `papers.pretraining`; any other is trained
            under the profile's settings.
        corpus: in place of the profile's, or the paper's.
        settings: changes by short or dotted name, or their JSON text.
        policies: by slot; None for the plain one.
    Raises:
        ConfigError: an unknown name or value.
    """
    base = _to_pretrain(profile, model, corpus).replace(seed=seed)
    chosen = {slot: policy for slot, policy in policies.items() if policy is not None}
    if isinstance(settings, str):
        try:
            settings = dict(json.loads(settings))
        except (ValueError, TypeError):
            raise ConfigError(
                f"settings = {settings!r} are not JSON", remedy="write '{\"peak_lr\": 0.001}'"
            ) from None
    return base.change(**chosen).change(**(settings or {}))


def _to_pretrain(
    profile: str, model: str | None, corpus: str | Mapping[str, Any] | None
) -> RunConfig:
    base = _base(profile, TOUR_PROFILES)
    if model in RECIPES and profile != "ci":
        return papers.pretraining(model, corpus=corpus)
    if model is not None:
        base = base.replace(model={"name": model, "overrides": THIN if model in RECIPES else {}})
    if corpus is None:
        return base
    given = {"name": corpus} if isinstance(corpus, str) else dict(corpus)
    return base.replace(corpus={"max_domain_mb": base.corpus.max_domain_mb, **given})


AGAINST = ("pool", "random")
TOGETHER_SEEDS = {"ci": 2, "demo": 3, "full": 5}


def together(
    profile: str,
    *,
    seed: int = 0,
    against: Literal["pool", "random"] = "pool",
    corpus: Mapping[str, Any] | None = None,
    **training: Any,
) -> Study:
    """Selection, mixing and weighting: each alone, in pairs, all three, and `none` of them.

    A label names what is on: `quad` chooses rows after a quarter of the run, `acodm` sets the
    mixture, in place of a uniform one, and `linupper` weighs samples, in place of equal weights.
    Every evaluation has a checkpoint, so that a fork at one repeats no step.

    Args:
        profile: as in `tour`.
        against: what runs without `quad` read: the whole `pool` in random order, or, from the same
            step on, as many rows as quad chooses, taken at `random`.
        corpus, training: fields in place of the profile's.
    Raises:
        ConfigError: no such profile or field, or `against` is neither.
    """
    if against not in AGAINST:
        problem, remedy = unknown_name("choice to compare with", against, AGAINST)
        raise ConfigError(problem, remedy=remedy)
    base = _base(profile, TOUR_PROFILES)
    base = base.replace(training=base.training.replace(**training))
    base = base.replace(training=base.training.replace(**_checkpoints(base.training) | training))
    base = base.replace(corpus=dict(corpus)) if corpus is not None else base
    steps = base.training.total_steps
    quad = _quad(base, profile)
    slots: dict[str, dict[str, Any]] = {
        "quad": {
            "selector": quad["selector"],
            "selection": quad["selection"].replace(first_step=steps // 4),
        },
        "acodm": {"mixer": Policy("acodm", **_learning(base))},
        "linupper": {"reweighter": Policy("linupper", warmup_steps=steps // 10)},
    }
    cells = [cell for size in range(len(slots) + 1) for cell in combinations(slots, size)]
    variants = {
        " + ".join(cell) or "none": {k: v for name in cell for k, v in slots[name].items()}
        for cell in cells
    }
    seeds = range(seed, seed + TOGETHER_SEEDS[profile])
    study = over_seeds(base, variants, seeds=seeds)
    if against == "pool":
        return study
    at_random = {"selector": Policy("random"), "selection": slots["quad"]["selection"]}
    for label in (label for label in study if "quad" not in label):
        study[label] = [c.replace(name=f"{c.name}_random", **at_random) for c in study[label]]
    return study


def _checkpoints(training: TrainingConfig) -> dict[str, int]:
    """All are kept: one at every evaluation and one of the choice."""
    every = training.evaluate_every_steps
    kept = max(training.keep_checkpoints, 1 + training.total_steps // every)
    return {"checkpoint_every_steps": every, "keep_checkpoints": kept}


def _quad(base: RunConfig, profile: str) -> dict[str, Any]:
    """Rows for the last two thirds of a run, each about twice as many as will be read."""
    first_step = base.training.total_steps // 3
    rows = 2 * (base.training.total_steps - first_step) * base.training.batch_rows
    return {
        "mixer": Policy("static", mixture="natural"),
        "selector": Policy("quad", **QUAD_OPTIONS[profile]),
        "selection": SelectionConfig(
            first_step=first_step, budget_tokens=rows * base.rows.context_tokens
        ),
    }


def _learning(base: RunConfig) -> dict[str, int]:
    """Options of a mixer that learns: a warm-up of a tenth, batches that a short run can fill."""
    steps = base.training.total_steps
    return {
        "warmup_steps": steps // 10,
        "batch_size": min(32, steps // 4),
        "tracked_layers": _tracked_layers(base),
    }


def _tracked_layers(base: RunConfig) -> int:
    return min(3, base.model.overrides.get("num_hidden_layers", 3))


def _base(profile: str, profiles: Mapping[str, Mapping[str, Any]]) -> RunConfig:
    if profile not in profiles:
        problem, remedy = unknown_name("profile", profile, profiles)
        raise ConfigError(problem, remedy=remedy)
    return RunConfig(**profiles[profile])


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

"""Experiments of papers, complete with their hyper-parameters; text and tokenizer by name.

    study = papers.acodm("pythia-1b", corpus="pile/*.jsonl")
    train(study["acodm"].change(micro_batch_rows=16), "out")
    config = papers.pretraining("llama-1.4b")      # no policy chosen yet

What a paper leaves open is chosen in `paper_recipes`, which says so, or keeps this project's
defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.config.paper_recipes import RECIPES, Recipe
from workbench.config.run import (
    CorpusConfig,
    ModelConfig,
    Policy,
    RunConfig,
    SelectionConfig,
    TokenizerConfig,
)
from workbench.core import ConfigError, unknown_name

ACODM_MODELS = ("pythia-410m", "pythia-1b", "llama-0.9b")
ACODM_MIXER_WARMUP_STEPS = 834
ACODM_PROJECTION_WIDTH = 128
"""Ranks exchange a 128 × 128 sketch of each domain's gradient of a layer, in place of the gradient;
a squared norm of one has a relative standard error of at most 0.18.  Chosen here."""
REWEIGHTING_MODELS = ("gpt2-124m", "gpt2-209m", "gpt2-294m", "llama-1.4b", "llama-7b")
REWEIGHTING_WARMUP_STEPS = 1000
REWEIGHTING_STRATEGIES = ("linupper", "quadratic", "extremes")
QUAD_MODELS = ("quad-1.3b", "llama-7b")
QUAD_TOKENS = 30_000_000_000
QUAD_OPTIONS: dict[str, Any] = {
    "variant": "paper",
    "clusters": 10_000,
    "alpha": 1e-4,
    "tau": 0.0020,
    "arms_per_round": 50,
    "samples_per_pull": 10,
    "neighbour_distance": 0.2,
}
"""The paper's number of clusters; constants of the official code, whose τ is of its own scale."""

Corpus = str | Mapping[str, Any] | CorpusConfig


def pretraining(
    model: str,
    *,
    corpus: Corpus | None = None,
    tokenizer: str | TokenizerConfig | None = None,
) -> RunConfig:
    """How a paper trains its model: rows, batch, schedule, optimiser; all text, no policy.

    Args:
        model: of the paper's presets.
        corpus: all of its text is taken when only a name is given; the recipe's when None.
        tokenizer: the one of the model's vocabulary when None, fetched by its name.
    Raises:
        ConfigError: another model.
    """
    if model not in RECIPES:
        problem, remedy = unknown_name("model of a paper", model, RECIPES)
        raise ConfigError(problem, remedy=remedy)
    return _base(model, RECIPES[model], corpus, tokenizer)


def acodm(
    model: str,
    *,
    corpus: Corpus | None = None,
    tokenizer: str | TokenizerConfig | None = None,
    agent: str | None = None,
) -> dict[str, RunConfig]:
    """Ma et al. 2026 (arXiv 2505.23878): 41 667 steps of 1152 × 1024 tokens.

    Args:
        model: `pythia-1b`, or `pythia-410m`, the proxy, both on The Pile's 22 domains; or
            `llama-0.9b` on SlimPajama's seven.
        corpus, tokenizer: as in `pretraining`.
        agent: folder of the finished `acodm` run of the proxy; adds `acodm_proxy`, which it drives.
    Returns:
        `static` (the corpus' own weights), `odm` and `acodm`, one config each.
    Raises:
        ConfigError: another model, or options that do not fit.
    """
    base = _of_experiment(model, ACODM_MODELS, corpus, tokenizer)
    warmup = {"warmup_steps": ACODM_MIXER_WARMUP_STEPS}
    mixers = {
        "static": Policy("static", mixture="pile" if "pythia" in model else "natural"),
        "odm": Policy("exp3", variant="paper", **warmup),
        "acodm": Policy(
            "acodm", network="paper", projection_width=ACODM_PROJECTION_WIDTH, **warmup
        ),
    }
    if agent is not None:
        mixers["acodm_proxy"] = Policy("acodm", network="paper", mode="frozen", agent=agent)
    return {label: base.replace(name=label, mixer=mixer) for label, mixer in mixers.items()}


def reweighting(
    model: str,
    *,
    corpus: Corpus | None = None,
    tokenizer: str | TokenizerConfig | None = None,
) -> dict[str, RunConfig]:
    """Sow et al. 2025 (arXiv 2502.06733) on SlimPajama's seven domains.

    Args:
        model: `gpt2-124m`, `gpt2-209m`, `gpt2-294m` (SlimPajama-6B), `llama-1.4b` or `llama-7b`.
        corpus, tokenizer: as in `pretraining`.
    Returns:
        `uniform` and the paper's strategies under the corpus' own mixture; and `uniform` and
        `linupper` under the mixtures of DoGE and DoReMi, named `doge_uniform` and so on.
    Raises:
        ConfigError: another model.
    """
    base = _of_experiment(model, REWEIGHTING_MODELS, corpus, tokenizer)
    options = {
        # The smallest model's weights are the gentlest.
        "temperature": 1.0 if model == "gpt2-124m" else 0.4,
        "warmup_steps": REWEIGHTING_WARMUP_STEPS,
        # Of the official code, in place of this project's relative one.
        "floor": 1e-6,
    }
    weighers = {"uniform": Policy("uniform")}
    weighers.update({name: Policy(name, **options) for name in REWEIGHTING_STRATEGIES})
    study = {label: base.replace(name=label, reweighter=own) for label, own in weighers.items()}
    for mixture in ("doge", "doremi"):
        mixer = Policy("static", mixture=f"slimpajama-{mixture}")
        for label in ("uniform", "linupper"):
            name = f"{mixture}_{label}"
            study[name] = study[label].replace(name=name, mixer=mixer)
    return study


def quad(
    model: str,
    *,
    corpus: Corpus | None = None,
    tokenizer: str | TokenizerConfig | None = None,
    checkpoint: str | None = None,
    reference: str | None = None,
) -> dict[str, RunConfig]:
    """Zhang et al. 2025 (arXiv 2409.16986): 30 B tokens of SlimPajama-627B, chosen, then trained.

    Args:
        model: `quad-1.3b`, or `llama-7b`, whose schedule here is that of the 1.3 B model.
        corpus, tokenizer: as in `pretraining`.
        checkpoint: folder of a finished run whose model judges; this run's own start when None,
            of which no influence can be trusted.
        reference: text of the reference set (the paper: LAMBADA, FLAN, OpenWebMath); held-out rows
            when None.
    Returns:
        `random`, `perplexity` (its middle) and `quad`, one config each.
    Raises:
        ConfigError: another model.
    """
    if model not in QUAD_MODELS:
        problem, remedy = unknown_name("model of the experiment", model, QUAD_MODELS)
        raise ConfigError(problem, remedy=remedy)
    base = _base(model, RECIPES["quad-1.3b"], corpus, tokenizer)
    selection = SelectionConfig(
        budget_tokens=QUAD_TOKENS, checkpoint=checkpoint, reference=reference
    )
    selectors = {
        "random": Policy("random"),
        "perplexity": Policy("perplexity", band="middle"),
        "quad": Policy("quad", **QUAD_OPTIONS),
    }
    return {
        label: base.replace(name=label, selector=selector, selection=selection)
        for label, selector in selectors.items()
    }


def _of_experiment(
    model: str,
    models: tuple[str, ...],
    corpus: Corpus | None,
    tokenizer: str | TokenizerConfig | None,
) -> RunConfig:
    if model not in models:
        problem, remedy = unknown_name("model of the experiment", model, models)
        raise ConfigError(problem, remedy=remedy)
    return pretraining(model, corpus=corpus, tokenizer=tokenizer)


def _base(
    model: str, recipe: Recipe, corpus: Corpus | None, tokenizer: str | TokenizerConfig | None
) -> RunConfig:
    tokenizer = RECIPES[model].tokenizer if tokenizer is None else tokenizer
    if isinstance(tokenizer, str):
        tokenizer = TokenizerConfig(name=tokenizer)
    return RunConfig(
        name=model,
        corpus=_all_of(recipe.corpus if corpus is None else corpus),
        tokenizer=tokenizer,
        rows=recipe.rows,
        model=ModelConfig(name=model),
        optimizer=recipe.optimizer,
        training=recipe.training,
        # Documents as the corpus has them: a uniform mixture would be a choice.
        mixer=Policy("static", mixture="natural"),
    )


def _all_of(corpus: Corpus) -> CorpusConfig:
    if isinstance(corpus, CorpusConfig):
        return corpus
    given = {"name": corpus} if isinstance(corpus, str) else dict(corpus)
    return CorpusConfig(**{"max_domain_mb": None, "max_document_kb": None, **given})

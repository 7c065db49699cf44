"""Experiments of papers, complete with their hyper-parameters; corpus and tokenizer are the user's.

    study = papers.acodm("pythia-1b", corpus="pile/*.jsonl", tokenizer="pythia")
    train(study["acodm"].change(micro_batch_rows=16), "out")

What a paper leaves open keeps this project's defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workbench.config.run import (
    CorpusConfig,
    ModelConfig,
    OptimizerConfig,
    Policy,
    RowsConfig,
    RunConfig,
    TokenizerConfig,
    TrainingConfig,
)
from workbench.core import ConfigError, unknown_name

PYTHIA_VOCAB = 50_304
"""Entries of Pythia's embedding: its tokenizer's, rounded up."""
ACODM_STEPS = 41_667
ACODM_MIXER_WARMUP_STEPS = 834


@dataclass(frozen=True)
class _Pythia:
    layers: int
    width: int
    heads: int
    peak_lr: float

    def model(self) -> ModelConfig:
        overrides: dict[str, Any] = {
            "vocab_size": PYTHIA_VOCAB,
            "num_hidden_layers": self.layers,
            "hidden_size": self.width,
            "intermediate_size": 4 * self.width,
            "num_attention_heads": self.heads,
            "tie_word_embeddings": False,
        }
        return ModelConfig(name="gpt_neox", overrides=overrides)


PYTHIA = {
    "pythia-410m": _Pythia(layers=24, width=1024, heads=16, peak_lr=3e-4),
    "pythia-1b": _Pythia(layers=16, width=2048, heads=8, peak_lr=2.5e-4),
}


def acodm(
    model: str,
    *,
    corpus: str | Mapping[str, Any] | CorpusConfig,
    tokenizer: str | TokenizerConfig,
    agent: str | None = None,
) -> dict[str, RunConfig]:
    """Ma et al. 2026 (arXiv 2505.23878) on The Pile's 22 domains: 41 667 steps of 1152 × 1024.

    Args:
        model: `pythia-1b`, or `pythia-410m`, the proxy.
        corpus: The Pile with its 22 domains, all of their text taken when only a name is given.
        tokenizer: Pythia's, by name or folder.
        agent: folder of the finished `acodm` run of the proxy; adds `acodm_proxy`, which it drives.
    Returns:
        `static` (The Pile's own weights), `odm` and `acodm`, one config each.
    Raises:
        ConfigError: another model, or options that do not fit.
    """
    if model not in PYTHIA:
        problem, remedy = unknown_name("model of the experiment", model, PYTHIA)
        raise ConfigError(problem, remedy=remedy)
    warmup = {"warmup_steps": ACODM_MIXER_WARMUP_STEPS}
    mixers = {
        "static": Policy("static", mixture="pile"),
        "odm": Policy("exp3", variant="paper", **warmup),
        "acodm": Policy("acodm", network="paper", **warmup),
    }
    if agent is not None:
        mixers["acodm_proxy"] = Policy("acodm", network="paper", mode="frozen", agent=agent)
    base = _acodm_base(PYTHIA[model], _all_of(corpus), tokenizer)
    return {label: base.replace(name=label, mixer=mixer) for label, mixer in mixers.items()}


def _acodm_base(
    shape: _Pythia, corpus: CorpusConfig, tokenizer: str | TokenizerConfig
) -> RunConfig:
    if isinstance(tokenizer, str):
        tokenizer = TokenizerConfig(name=tokenizer)
    return RunConfig(
        corpus=corpus,
        tokenizer=tokenizer,
        rows=RowsConfig(context_tokens=1024),
        model=shape.model(),
        optimizer=OptimizerConfig(
            peak_lr=shape.peak_lr,
            final_lr=shape.peak_lr / 10,
            warmup_steps=round(0.01 * ACODM_STEPS),
            weight_decay=0.1,
            betas=(0.9, 0.95),
            clip_norm=1.0,
        ),
        training=TrainingConfig(
            total_steps=ACODM_STEPS,
            batch_rows=1152,
            # The paper's table is of step 41 500.
            evaluate_every_steps=500,
            checkpoint_every_steps=500,
            record_every_steps=50,
        ),
    )


def _all_of(corpus: str | Mapping[str, Any] | CorpusConfig) -> CorpusConfig:
    if isinstance(corpus, CorpusConfig):
        return corpus
    given = {"name": corpus} if isinstance(corpus, str) else dict(corpus)
    return CorpusConfig(**{"max_domain_mb": None, "max_document_kb": None, **given})

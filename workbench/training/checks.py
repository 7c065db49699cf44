"""What can be known to fail before a step is taken, or before a change is accepted.

check_policies(config)              # names and options, before any long work
check_fits(config, corpus)          # against the rows and the batch, before a run or a change
"""

from __future__ import annotations

import workbench.mixing
import workbench.reweighting
import workbench.selection  # noqa: F401  (imported for what they register)
from workbench.config import POLICY_SLOTS, Policy, RunConfig
from workbench.core import (
    MIXERS,
    REWEIGHTERS,
    ConfigError,
    Mixer,
    MixingTask,
    Reweighter,
    Scope,
    stream_seed,
)
from workbench.data import MixtureSampler, PreparedCorpus
from workbench.training.ranks import Ranks
from workbench.training.selecting import check_selection
from workbench.training.signals import check_needs
from workbench.training.spread import check_world

FEW_ROWS = 4
"""Micro-batches this small give weights further from the intended ones than uniform ones are."""


def check_policies(config: RunConfig) -> None:
    """Raise ConfigError for an unknown policy or option, before any long work."""
    for slot, registry in POLICY_SLOTS.items():
        policy: Policy | None = getattr(config, slot)
        if policy is not None:
            registry.check(policy.name, policy.options)
    build_reweighter(config.reweighter)


def build_reweighter(policy: Policy) -> Reweighter:
    return REWEIGHTERS.build(policy.name, **policy.options)


def build_mixer(config: RunConfig, corpus: PreparedCorpus) -> Mixer:
    policy, training = config.mixer, config.training
    task = MixingTask(
        corpus.domains,
        corpus.rows_K,
        batch_rows=training.batch_rows,
        total_steps=training.total_steps,
        seed=stream_seed(config.seed, "mixer"),
    )
    mixer: Mixer = MIXERS.build(policy.name, task, **policy.options)
    check_needs(mixer)
    return mixer


def check_fits(config: RunConfig, corpus: PreparedCorpus) -> list[str]:
    """Build the policies once to see that they fit the rows and the batch; what to warn of.

    Raises:
        WorkbenchError: unknown policy or option, a domain the corpus lacks or with too few rows
            for a batch, a scope that cannot do what the options ask for.
    """
    check_policies(config)
    if config.selector is not None:
        check_selection(config, corpus)
    check_world(config.training, Ranks.here().world)
    sampler = MixtureSampler(corpus, batch_rows=config.training.batch_rows, seed=config.seed)
    sampler.set_mixture(build_mixer(config, corpus).propose(0))
    return check_scope(config, build_reweighter(config.reweighter))


def check_scope(config: RunConfig, reweighter: Reweighter) -> list[str]:
    """What should be known about micro-batches and a reweighter before they are used.

    Raises:
        ConfigError: the scope cannot do what the reweighter's options ask for.
    """
    rows = config.training.micro_batch_rows
    if rows is None or rows >= config.training.batch_rows:
        return []
    if reweighter.scope is Scope.STREAM and not getattr(reweighter, "streams", False):
        raise ConfigError(
            f"reweighter '{config.reweighter.name}' needs all losses of a step at once "
            "with these options, which scope='stream' does not have",
            remedy="set scope='step', or micro_batch_rows=None",
        )
    weighs = config.reweighter.name != "uniform"
    if weighs and reweighter.scope is Scope.MICRO and rows <= FEW_ROWS:
        return [
            f"weights are normalised within micro-batches of {rows} rows, which takes them "
            "further from the intended ones than uniform weights are"
        ]
    return []

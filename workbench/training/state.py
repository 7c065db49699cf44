"""Everything a run needs to continue, in one object.

state = build_state(config, corpus)
state.load_state_dict(saved)          # continues to the bit
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

import workbench.mixing
import workbench.reweighting  # noqa: F401  (imported for what they register)
from workbench.config import POLICY_SLOTS, Policy, RunConfig
from workbench.core import (
    MIXERS,
    REWEIGHTERS,
    Domains,
    Mixer,
    PolicyError,
    RandomStreams,
    Reweighter,
    Signal,
    stream_seed,
)
from workbench.data import MixtureSampler, PreparedCorpus
from workbench.models import Decoder, build_model
from workbench.training.optimizer import apply_settings, build_optimizer

PROVIDED_SIGNALS: frozenset[Signal] = frozenset()
"""Signals this loop can compute for a mixer."""


@dataclass
class TrainState:
    """A run at a step boundary.

    State fields: step, config (with the changes made so far), model, optimizer, sampler, mixer,
    reweighter, streams.  `corpus` is read-only and identified by its content hash.
    """

    config: RunConfig
    corpus: PreparedCorpus
    model: Decoder
    optimizer: torch.optim.AdamW
    sampler: MixtureSampler
    mixer: Mixer
    reweighter: Reweighter
    streams: RandomStreams
    step: int = 0

    def change(self, config: RunConfig) -> None:
        """Continue under a changed config; policies keep their state where they stay the same."""
        if config.mixer != self.config.mixer:
            self.mixer = _carry(self.mixer, build_mixer(config.mixer, self.corpus), config, "mixer")
        if config.reweighter != self.config.reweighter:
            new = build_reweighter(config.reweighter)
            self.reweighter = _carry(self.reweighter, new, config, "reweighter")
        apply_settings(self.optimizer, config.optimizer)
        self.config = config

    def finite(self) -> bool:
        """Whether every parameter is finite; reads the device, so not for the hot loop."""
        checks = [p.isfinite().all() for p in self.model.parameters()]
        return bool(torch.stack(checks).all())

    def state_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "config": self.config.to_dict(),
            "content_hash": self.corpus.content_hash,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "sampler": self.sampler.state_dict(),
            "mixer": {"policy": self.config.mixer.name, "state": self.mixer.state_dict()},
            "reweighter": {
                "policy": self.config.reweighter.name,
                "state": self.reweighter.state_dict(),
            },
            "streams": self.streams.state_dict(),
            "torch_rng": torch.get_rng_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.change(RunConfig(**state["config"]))
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.sampler.load_state_dict(state["sampler"])
        self.mixer.load_state_dict(state["mixer"]["state"])
        self.reweighter.load_state_dict(state["reweighter"]["state"])
        self.streams.load_state_dict(state["streams"])
        torch.set_rng_state(state["torch_rng"])


def _carry(old: Any, new: Any, config: RunConfig, slot: str) -> Any:
    if type(old) is type(new):
        new.load_state_dict(old.state_dict())
    return new


def check_policies(config: RunConfig) -> None:
    """Raise ConfigError for an unknown policy or option, before any long work."""
    for slot, registry in POLICY_SLOTS.items():
        policy: Policy | None = getattr(config, slot)
        if policy is not None:
            registry.check(policy.name, policy.options)
    build_reweighter(config.reweighter)


def build_reweighter(policy: Policy) -> Reweighter:
    return REWEIGHTERS.build(policy.name, **policy.options)


def build_mixer(policy: Policy, corpus: PreparedCorpus) -> Mixer:
    domains = Domains(corpus.domains, corpus.rows_K)
    mixer: Mixer = MIXERS.build(policy.name, domains, **policy.options)
    missing = mixer.needs - PROVIDED_SIGNALS
    if missing:
        raise PolicyError(
            f"mixer '{policy.name}' needs {', '.join(sorted(missing))}, which this loop does not "
            "compute",
            remedy="choose another mixer",
        )
    return mixer


def build_state(config: RunConfig, corpus: PreparedCorpus) -> TrainState:
    """A run at step 0: seeded model, fresh optimiser, policies, sampler."""
    model = build_model(
        config.model,
        vocab_size=corpus.vocab_size,
        context_tokens=corpus.context_tokens,
        seed=stream_seed(config.seed, "model"),
    ).to(config.training.device)
    mixer = build_mixer(config.mixer, corpus)
    sampler = MixtureSampler(corpus, batch_rows=config.training.batch_rows, seed=config.seed)
    # Checked here so that a domain too small for a batch is an error before the first step.
    sampler.set_mixture(mixer.propose(0))
    return TrainState(
        config=config,
        corpus=corpus,
        model=model,
        optimizer=build_optimizer(model, config.optimizer),
        sampler=sampler,
        mixer=mixer,
        reweighter=build_reweighter(config.reweighter),
        streams=RandomStreams(config.seed),
    )

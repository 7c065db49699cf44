"""Everything a run needs to continue, in one object.

state = build_state(config, corpus)
state.load_state_dict(saved)          # continues to the bit
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from workbench.config import RunConfig
from workbench.core import (
    Mixer,
    PolicyError,
    RandomStreams,
    ReferenceMixer,
    Reweighter,
    SupplyMixer,
    stream_seed,
)
from workbench.data import MixtureSampler, PreparedCorpus
from workbench.models import Decoder, build_model
from workbench.models.build import build_shape
from workbench.models.parallel import Context, recompute_activations
from workbench.training.checks import build_mixer, build_reweighter
from workbench.training.excess import ExcessLoss
from workbench.training.optimizer import apply_settings, build_optimizer
from workbench.training.selecting import Choice, Selecting, build_selecting
from workbench.training.shards import load_shards, load_whole
from workbench.training.signals import Signals
from workbench.training.spread import Spread, in_shards, spread_out


@dataclass
class TrainState:
    """A run at a step boundary.

    State fields: step, config (with the changes made so far), model, optimizer, sampler, mixer,
    reweighter, streams, selecting.  `corpus` is read-only and identified by its content hash.
    """

    config: RunConfig
    corpus: PreparedCorpus
    model: Decoder
    optimizer: torch.optim.AdamW
    sampler: MixtureSampler
    mixer: Mixer
    reweighter: Reweighter
    streams: RandomStreams
    signals: Signals
    spread: Spread
    selecting: Selecting | None = None
    step: int = 0

    def change(self, config: RunConfig, *, carry: bool = True) -> None:
        """Continue under a changed config; policies keep their state where they stay the same.

        A selector that changes in any way starts anew, from the whole corpus.

        Args:
            carry: False where the policies' states are loaded next.
        Raises:
            WorkbenchError: a policy does not fit the model or what was learned; nothing changed.
        """
        mixer, signals, reweighter = self.mixer, self.signals, self.reweighter
        selecting = self.selecting
        if (config.selector, config.selection) != (self.config.selector, self.config.selection):
            selecting = build_selecting(config, self.corpus)
        if config.mixer != self.config.mixer:
            mixer = build_mixer(config, self.corpus)
            self._tell_supply(mixer)
            signals = build_signals(config, self.corpus, self.model, mixer)
            if carry:
                _carry(self.mixer, mixer, config.mixer.name)
        if config.reweighter != self.config.reweighter:
            reweighter = build_reweighter(config.reweighter)
            if carry:
                _carry(self.reweighter, reweighter, config.reweighter.name)
        if selecting is not self.selecting:
            # Rows of another selector's choice, or of none: all are on offer until this one chose.
            self.sampler.restrict(None)
            self.selecting = selecting
        self.mixer, self.signals, self.reweighter = mixer, signals, reweighter
        apply_settings(self.optimizer, config.optimizer)
        self.config = config

    def offer(self, choice: Choice) -> None:
        """From now on draw from the chosen rows alone."""
        self.sampler.restrict(
            choice.sample_id_n, once=self.config.selection.every_steps is not None
        )
        self._tell_supply(self.mixer)

    def _tell_supply(self, mixer: Mixer) -> None:
        if isinstance(mixer, SupplyMixer) and self.selecting and self.selecting.choice:
            mixer.supplied(self.sampler.rows_K)

    @property
    def draws(self) -> bool:
        """Whether a forward pass draws random numbers, which is to say: has dropout."""
        settings = self.model.config.to_dict().items()
        return any("drop" in name and isinstance(p, float) and p > 0 for name, p in settings)

    def finite(self) -> bool:
        """Whether every parameter is finite; reads the device, so not for the hot loop."""
        return bool(self.spread.finite())

    def state_dict(self) -> dict[str, Any]:
        """All of it, without the model and the optimiser where they lie in shards."""
        weights: dict[str, Any] = {}
        if self.spread.group is None:
            weights["model"] = self.model.state_dict()
            weights["optimizer"] = self.optimizer.state_dict()
        return {
            **weights,
            "step": self.step,
            "config": self.config.to_dict(),
            "content_hash": self.corpus.content_hash,
            "sampler": self.sampler.state_dict(),
            "mixer": {"policy": self.config.mixer.name, "state": self.mixer.state_dict()},
            "reweighter": {
                "policy": self.config.reweighter.name,
                "state": self.reweighter.state_dict(),
            },
            "streams": self.streams.state_dict(),
            "selecting": None if self.selecting is None else self.selecting.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.change(RunConfig(**state["config"]), carry=False)
        self.step = state["step"]
        self._load_weights(state)
        if self.selecting is not None:
            self.selecting.load_state_dict(state["selecting"])
            if self.selecting.choice is not None:
                self.offer(self.selecting.choice)
        self.sampler.load_state_dict(state["sampler"])
        self.mixer.load_state_dict(state["mixer"]["state"])
        self.reweighter.load_state_dict(state["reweighter"]["state"])
        self.streams.load_state_dict(state["streams"])

    def _load_weights(self, state: dict[str, Any]) -> None:
        """From a whole state, or from the folder of shards that it names; into either layout."""
        if "shards" in state:
            load_shards(self.model, self.optimizer, Path(state["shards"]))
        elif self.spread.group is not None:
            load_whole(self.model, self.optimizer, state["model"], state["optimizer"])
        else:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])


def _carry(old: Any, new: Any, name: str) -> None:
    """Hand what a policy remembers to its successor, where that is of the same kind."""
    if type(old) is not type(new):
        return
    try:
        new.load_state_dict(old.state_dict())
    except (KeyError, RuntimeError, ValueError) as error:
        raise PolicyError(
            f"'{name}' cannot take over what it has learned under these options: "
            + str(error).splitlines()[0],
            remedy="keep the options that decide its size, or start a new run",
        ) from None


def build_state(config: RunConfig, corpus: PreparedCorpus) -> TrainState:
    """A run at step 0: seeded model, fresh optimiser, policies, sampler."""
    spread = _build_model(config, corpus, lambda: state.signals.again())
    mixer = build_mixer(config, corpus)
    state = TrainState(
        config=config,
        corpus=corpus,
        model=spread.model,
        spread=spread,
        optimizer=build_optimizer(spread.model, config.optimizer),
        sampler=MixtureSampler(corpus, batch_rows=config.training.batch_rows, seed=config.seed),
        mixer=mixer,
        reweighter=build_reweighter(config.reweighter),
        streams=RandomStreams(config.seed),
        signals=build_signals(config, corpus, spread.model, mixer),
        selecting=build_selecting(config, corpus),
    )
    return state


def _build_model(config: RunConfig, corpus: PreparedCorpus, again: Context) -> Spread:
    """The seeded model, spread over the ranks; `again` as in `recompute_activations`."""
    training = config.training
    sizes = {"vocab_size": corpus.vocab_size, "context_tokens": corpus.context_tokens}
    shape = partial(build_shape, config.model, **sizes)
    whole = partial(build_model, config.model, **sizes, seed=stream_seed(config.seed, "model"))
    model = shape() if in_shards(training) else whole()
    if training.compile:
        model.compile_blocks()
    if training.activation_checkpointing:
        recompute_activations(model, again)
    return spread_out(model, training, shape, whole)


def build_signals(
    config: RunConfig, corpus: PreparedCorpus, model: Decoder, mixer: Mixer
) -> Signals:
    excess = None
    if isinstance(mixer, ReferenceMixer):
        excess = ExcessLoss.of(mixer.reference, corpus, config.training.device)
    seed = stream_seed(config.seed, "projection")
    return Signals(model, mixer, len(corpus.domains), seed, excess)

"""A registered mixer over the domains of a dataset of your own.

    mixer = DomainMixer("exp3", dataset["domain"], batch_rows=16, total_steps=1000)
    for step in range(1000):
        place_B = mixer.draw()                       # rows of the dataset, the mixer's proposal
        ...
        mixer.observe(loss_B, weight_B)              # after the optimiser's step

Or `DataLoader(dataset, batch_sampler=mixer.batches(), num_workers=0)`, and `observe` after each
step.  A mixer that asks for gradients wants the model, and `with mixer.forward(rows)` around each
forward pass.  Shapes: N rows of the dataset, B rows of a step, b of this rank, K domains.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import workbench.mixing  # noqa: F401  (registers them)
from workbench.core import (
    MIXERS,
    ConfigError,
    DataError,
    Mixer,
    MixingTask,
    Mixture,
    PolicyError,
    Signal,
    StepOutcome,
    TrackingMixer,
    WorkbenchError,
    stream_seed,
)
from workbench.data import RowSampler
from workbench.data.prepared import split_ids
from workbench.data.sampler import Drawn
from workbench.integration.ranks import gathered, rank_and_world
from workbench.integration.signals import PROVIDED, WeightSignals


class DomainMixer:
    """State fields: the mixer's, the sampler's, and the next step.

    Every domain is drawn without repetition until all its rows were seen, in an order of its own
    each epoch.  Under `torch.distributed` every rank draws the same step and takes its part.

    Args:
        name: of any registered mixer that asks for no more than `PROVIDED`, with its options.
        domain: of each row of the dataset, names or numbers, (N,).
        batch_rows: rows of one optimiser step, over all micro-batches and ranks.
        total_steps: steps the training will take.
        model: for a mixer that looks at gradients or weights.
    Raises:
        ConfigError: unknown name or option (the nearest is suggested); a batch that cannot be
            divided among the ranks.
        DataError: a domain with fewer rows than a batch.
        PolicyError: the mixer asks for what cannot be given here.
    """

    def __init__(
        self,
        name: str,
        domain: Sequence[Any],
        *,
        batch_rows: int,
        total_steps: int,
        seed: int = 0,
        model: nn.Module | None = None,
        **options: Any,
    ):
        self.name, self.batch_rows = name, batch_rows
        names, domain_N = np.unique(np.asarray(domain).astype(str), return_inverse=True)
        self.domains: tuple[str, ...] = tuple(names.tolist())
        self._place = [np.flatnonzero(domain_N == k) for k in range(len(names))]
        rows_K = np.array([len(places) for places in self._place], dtype=np.int64)
        self._require_rows(rows_K)
        task = MixingTask(
            self.domains, rows_K, batch_rows, total_steps, seed=stream_seed(seed, "mixer")
        )
        self.mixer: Mixer = MIXERS.build(name, task, **options)
        _require_provided(name, self.mixer, task)
        self.sampler = RowSampler(self.domains, rows_K, batch_rows=batch_rows, seed=seed)
        self.steps_per_epoch = max(len(domain_N) // batch_rows, 1)
        self.mixture: Mixture | None = None
        self.step = 0
        self._rank, self._world = rank_and_world()
        self._signals = self._build_signals(model, task)
        self._drawn: Drawn | None = None

    def draw(self) -> np.ndarray:
        """Rows of the next step that this rank trains on, as places in the dataset; int64 (b,).

        Raises:
            PolicyError: the step before was not observed.
        """
        if self._drawn is not None:
            raise PolicyError(
                f"step {self.step - 1} was not observed before step {self.step} is drawn",
                remedy="call observe() after every step, and load data with num_workers=0, which "
                "draws nothing ahead",
            )
        self.mixture = self.mixer.propose(self.step)
        self.sampler.set_mixture(self.mixture)
        self._drawn = self.sampler.draw_ids(self.step)
        if self._signals is not None:
            self._signals.begin(self.mixer.needs, self._drawn.domain_B)
        self.step += 1
        return self._places(self._drawn.sample_id_B)[self._own]

    def batches(self, micro_batch_rows: int | None = None) -> MixedBatches:
        """An epoch of batches after another, for `DataLoader(batch_sampler=…)`.

        Args:
            micro_batch_rows: rows of one batch of this rank; None for its whole part of a step.
        """
        part = self.batch_rows // self._world
        return MixedBatches(self, part if micro_batch_rows is None else micro_batch_rows, part)

    @contextmanager
    def forward(self, rows: int) -> Iterator[None]:
        """Around the forward pass of the step's next `rows` rows.

        Needed where the mixer asks for gradients, else it does nothing.
        """
        if self._signals is None:
            yield
            return
        with self._signals.forward(rows):
            yield

    def observe(
        self,
        loss_b: Tensor,
        weight_b: Tensor | None = None,
        valid_b: Tensor | None = None,
        *,
        gradient_scale: Tensor | float | None = None,
    ) -> None:
        """What the step just taken showed, in the order of its rows.  Reads the device.

        Args:
            loss_b: nats per token of this rank's rows.
            weight_b, valid_b: 1 and valid when None.
            gradient_scale: what the back-propagated loss has to be multiplied with to be the sum
                over rows of weight · loss; the valid rows, when it was their mean.
        Raises:
            PolicyError: nothing was drawn, or not these rows.
        """
        drawn = self._drawn
        if drawn is None:
            raise PolicyError("no step was drawn", remedy="call draw() before observe()")
        loss_B = gathered(loss_b.detach())[0]
        if len(loss_B) != len(drawn.domain_B):
            raise PolicyError(
                f"{len(loss_B)} losses for the {len(drawn.domain_B)} rows of step {self.step - 1}",
                remedy="give one loss per row of the step, micro-batches concatenated",
            )
        weight_B = torch.ones_like(loss_B) if weight_b is None else gathered(weight_b)[0]
        valid_B = torch.ones_like(loss_B).bool() if valid_b is None else gathered(valid_b)[0]
        signals: dict[Signal, Any] = {}
        if self._signals is not None:
            scale = valid_B.sum() if gradient_scale is None else gradient_scale
            signals = self._signals.result(valid_B, scale)
        outcome = StepOutcome(
            step=self.step - 1,
            domain_B=drawn.domain_B,
            sample_id_B=self._places(drawn.sample_id_B),
            loss_B=loss_B,
            weight_B=weight_B,
            valid_B=valid_B,
            signals=signals,
        )
        self.mixer.observe(outcome)
        self._drawn = None

    def diagnostics(self) -> dict[str, Any]:
        """The mixture last proposed, by domain, and what the mixer says of the step observed."""
        mixture = {} if self.mixture is None else self.mixture.as_dict()
        return {"mixture": mixture, **self.mixer.diagnostics()}

    def state_dict(self) -> dict[str, Any]:
        if self._drawn is not None:
            raise PolicyError(
                f"step {self.step - 1} is not observed yet", remedy="save after observe()"
            )
        return {
            "name": self.name,
            "step": self.step,
            "batch_rows": self.batch_rows,
            "mixer": self.mixer.state_dict(),
            "sampler": self.sampler.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken.

        Raises:
            WorkbenchError: it is of another mixer, batch or set of domains.
        """
        for field in ("name", "batch_rows"):
            if state[field] != getattr(self, field):
                raise PolicyError(
                    f"the saved state has {field} = {state[field]!r}, this mixer "
                    f"{getattr(self, field)!r}",
                    remedy="resume with the settings it was saved with",
                )
        self.sampler.load_state_dict(state["sampler"])
        self.mixer.load_state_dict(state["mixer"])
        self.step, self._drawn = state["step"], None

    @property
    def _own(self) -> slice:
        part = self.batch_rows // self._world
        return slice(self._rank * part, (self._rank + 1) * part)

    def _places(self, sample_id_B: np.ndarray) -> np.ndarray:
        domain_B, row_B = split_ids(sample_id_B)
        pairs = zip(domain_B.tolist(), row_B.tolist(), strict=True)
        return np.array([self._place[k][row] for k, row in pairs], dtype=np.int64)

    def _require_rows(self, rows_K: np.ndarray) -> None:
        world = rank_and_world()[1]
        if self.batch_rows % world:
            raise ConfigError(
                f"batch_rows = {self.batch_rows} cannot be divided among {world} ranks",
                remedy=f"give a multiple of {world}",
            )
        for name, rows in zip(self.domains, rows_K.tolist(), strict=True):
            if rows < self.batch_rows:
                raise DataError(
                    f"domain '{name}' has {rows} rows, a step draws {self.batch_rows}",
                    remedy="merge small domains, drop their rows, or lower the batch",
                )

    def _build_signals(self, model: nn.Module | None, task: MixingTask) -> WeightSignals | None:
        if not self.mixer.needs:
            return None
        if not isinstance(self.mixer, TrackingMixer):
            raise PolicyError(
                f"mixer '{self.name}' does not say of which weights it wants the gradients",
                remedy="give it a property `tracking`",
            )
        if model is None:
            raise ConfigError(
                f"mixer '{self.name}' looks at the model's gradients", remedy="add model=…"
            )
        if self._world > 1:
            raise PolicyError(
                f"mixer '{self.name}' looks at gradients, which here are those of one rank",
                remedy="train in one process, use workbench.train, or a mixer of losses: "
                f"{', '.join(_usable(task, frozenset()))}",
            )
        return WeightSignals(model, self.mixer.tracking, len(self.domains), task.seed)


class MixedBatches(torch.utils.data.Sampler[list[int]]):
    """Batches of one epoch each time it is iterated; see `DomainMixer.batches`."""

    def __init__(self, mixer: DomainMixer, rows: int, part: int):
        if rows < 1 or part % rows:
            raise ConfigError(
                f"micro-batches of {rows} rows do not divide a step of {part}",
                remedy="give a divisor of the rows of a step",
            )
        self.mixer, self._rows, self._per_step = mixer, rows, part // rows

    def __len__(self) -> int:
        return self.mixer.steps_per_epoch * self._per_step

    def __iter__(self) -> Iterator[list[int]]:
        done = self.mixer.step % self.mixer.steps_per_epoch
        # A trainer that resumes passes over the batches it has trained on; the state knows them.
        yield from ([] for _ in range(done * self._per_step))
        for _ in range(done, self.mixer.steps_per_epoch):
            place_b = self.mixer.draw().tolist()
            for first in range(0, len(place_b), self._rows):
                yield place_b[first : first + self._rows]


def _require_provided(name: str, mixer: Mixer, task: MixingTask) -> None:
    missing = mixer.needs - PROVIDED
    if missing:
        raise PolicyError(
            f"mixer '{name}' needs {', '.join(sorted(missing))}, which only the loop of "
            "workbench.train computes",
            remedy=f"use workbench.train, or one of: {', '.join(_usable(task, PROVIDED))}",
        )


def _usable(task: MixingTask, provided: frozenset[Signal]) -> list[str]:
    """Mixers that ask for no more than is provided, of those that need no options."""
    found = []
    for name in MIXERS.names():
        try:
            mixer = MIXERS.build(name, task)
        except WorkbenchError:
            continue
        if mixer.needs <= provided:
            found.append(name)
    return found

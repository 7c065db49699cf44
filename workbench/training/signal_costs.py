"""What the signals of a step take, in operations and memory, from shapes alone.

    tracked = Tracked(shapes=((128, 352),), domains=7, width=64)
    signal_flops(mixer.needs, tracked, row_flops=…, rows=32, tokens=256)
    tracked.kept_bytes(rows=8, tokens=256, number_bytes=2, split=True)
    asked_by_mixer(config, footprint, 7).tracked       # of a run that is only planned

Source of the counts: the products that `kernels.domain_gradients` makes.
Shapes: O, I outputs and inputs of a layer, K domains, k projection width, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from workbench.config import RunConfig
from workbench.core import (
    MIXERS,
    SELECTORS,
    MixingTask,
    ReferenceMixer,
    SampleSource,
    SelectionTask,
    Signal,
    TrackingMixer,
)
from workbench.models.footprint import Footprint
from workbench.models.layers import check_tracked
from workbench.training.signals import OF_GRADIENTS, OF_WEIGHTS

FLOAT_BYTES = 4


@dataclass(frozen=True)
class Tracked:
    """Linear maps whose gradients are followed.

    shapes: O and I of each, in either order; width: k, None for the exact form.
    """

    shapes: Sequence[tuple[int, int]]
    domains: int
    width: int | None

    def flops(self, needs: frozenset[Signal], rows: int, tokens: int) -> float:
        """Of one step of so many rows of T tokens, beyond the step itself."""
        return sum(self._flops_of(needs, *shape, rows, tokens) for shape in self.shapes)

    def kept_bytes(self, *, rows: int, tokens: int, number_bytes: int, split: bool) -> float:
        """On the device at the same time.

        Parts by domain; projected, those of sketches, with the projections and the sketched inputs
        that wait for the backward pass.

        Args:
            rows: of a micro-batch; number_bytes: of an activation.
            split: whether a step is cut, so that parts of all layers wait for its end.
        """
        if self.width is None:
            parts = [self.domains * outputs * inputs for outputs, inputs in self.shapes]
            sketching = 0
        else:
            parts = [self.domains * self.width**2 for _ in self.shapes]
            sketching = sum(self.width * (sum(shape) + rows * tokens) for shape in self.shapes)
        return FLOAT_BYTES * (sum(parts) if split else max(parts)) + number_bytes * sketching

    def _flops_of(
        self, needs: frozenset[Signal], outputs: int, inputs: int, rows: int, tokens: int
    ) -> float:
        found, width = 0.0, self.width
        if Signal.DOMAIN_GRADIENTS in needs:
            if width is None:
                # The parts take the place of the weight's gradient; their products are new.
                found += 2 * self.domains**2 * outputs * inputs
            else:
                found += 2 * rows * tokens * width * (outputs + inputs + width)
                found += 2 * self.domains**2 * width**2
        if Signal.ROW_GRADIENTS in needs:
            found += 2 * rows * tokens**2 * (outputs + inputs)
        return found


def signal_flops(
    needs: frozenset[Signal], tracked: Tracked | None, *, row_flops: float, rows: int, tokens: int
) -> float:
    """Operations of what is asked to know of one step, beyond the step itself.

    Args:
        row_flops: of a training step, for one row.
    """
    # The model without dropout, and the reference model.
    found = 2 * row_flops / 3 * rows if Signal.EXCESS_LOSS in needs else 0.0
    return found if tracked is None else found + tracked.flops(needs, rows, tokens)


@dataclass(frozen=True)
class Asked:
    """What a mixer may ask of a step; reference: whether it needs a second model for that."""

    needs: frozenset[Signal] = frozenset()
    tracked: Tracked | None = None
    reference: bool = False


def asked_by_mixer(config: RunConfig, shape: Footprint, domains: int) -> Asked:
    """What the mixer of a run that does not exist yet will ask for.

    Raises:
        ConfigError: unknown mixer or options.
        ModelError: the mixer tracks more layers than the model has.
    """
    MIXERS.check(config.mixer.name, config.mixer.options)
    # It asks for nothing, and its options may name domains, which are not known yet.
    if config.mixer.name == "static":
        return Asked()
    names = tuple(f"domain {number}" for number in range(domains))
    task = MixingTask(
        names,
        np.full(len(names), 10**6),
        batch_rows=config.training.batch_rows,
        total_steps=config.training.total_steps,
    )
    mixer = MIXERS.build(config.mixer.name, task, **config.mixer.options)
    tracked = None
    if isinstance(mixer, TrackingMixer) and mixer.needs & OF_WEIGHTS:
        check_tracked(mixer.tracking.layers, len(shape.down_projections))
    if isinstance(mixer, TrackingMixer) and mixer.needs & OF_GRADIENTS:
        layers = shape.down_projections[-mixer.tracking.layers :]
        tracked = Tracked(layers, domains, mixer.tracking.projection_width)
    return Asked(mixer.needs, tracked, isinstance(mixer, ReferenceMixer))


def selector_runs_a_model(config: RunConfig) -> bool:
    """Whether the selector does; only one that is built knows, as its options decide."""
    assert config.selector is not None
    no_rows_MT = np.empty((0, config.rows.context_tokens + 1), dtype=np.int64)
    task = SelectionTask(source=cast(SampleSource, None), reference_MT=no_rows_MT)
    selector = SELECTORS.build(config.selector.name, task, **config.selector.options)
    return getattr(selector, "judges_with_model", True)

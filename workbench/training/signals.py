"""What a mixer asked to know of a step, collected while the step is taken.

    watch = state.signals.step(state.mixer.needs, domain_b, split=False)
    with watch.rows(part) as order_b: ...         # forward of one micro-batch, rows by domain
    with watch.update(): optimizer.step()
    watch.result(...)                             # reads the device, if anything was asked

A mixer that asks for nothing costs nothing.  Shapes: B rows of the global batch, b rows of this
rank or micro-batch, K domains, L tracked layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from workbench.core import (
    DomainGradients,
    Mixer,
    PolicyError,
    ReferenceMixer,
    Signal,
    TrackedNorms,
    TrackingMixer,
)
from workbench.kernels.domain_gradients import GradientTracker
from workbench.models import Decoder
from workbench.models.layers import depths_of, tracked_layers
from workbench.training.excess import ExcessLoss
from workbench.training.ranks import Ranks
from workbench.training.spread import plain

OF_GRADIENTS = frozenset({Signal.DOMAIN_GRADIENTS, Signal.ROW_GRADIENTS})
OF_WEIGHTS = OF_GRADIENTS | {Signal.TRACKED_NORMS}
PROVIDED: frozenset[Signal] = OF_WEIGHTS | {Signal.EXCESS_LOSS}
"""Signals the loop can compute for a mixer."""


class Signals:
    """Finds the tracked layers of a model for a mixer; holds nothing between steps.

    Raises:
        PolicyError: the mixer needs what this loop does not compute, or does not say which weights.
        ModelError: the model has too few layers for the mixer's slots.
    """

    def __init__(
        self,
        model: nn.Module,
        mixer: Mixer,
        domains: int,
        seed: int,
        excess: ExcessLoss | None = None,
    ):
        self.domains, self.excess = domains, excess
        self.tracker: GradientTracker | None = None
        self.weights: list[Tensor] = []
        self.depth_L: tuple[float, ...] = ()
        check_needs(mixer)
        if not isinstance(mixer, TrackingMixer) or not mixer.needs & OF_WEIGHTS:
            return
        tracking = mixer.tracking
        layers = tracked_layers(model, tracking.layers, tracking.depths)
        self.depth_L = depths_of(model, layers)
        self.tracker = GradientTracker(
            layers,
            domains,
            projection_width=tracking.projection_width,
            seed=seed,
            row_norms=Signal.ROW_GRADIENTS in mixer.needs,
        )
        self.weights = self.tracker.weights

    def step(self, needs: frozenset[Signal], domain_b: np.ndarray, *, split: bool) -> StepSignals:
        """The collector of one step.

        Args:
            domain_b: domains of this rank's rows, in their order.
            split: whether the step is cut into micro-batches or over ranks.
        """
        if needs & OF_GRADIENTS:
            assert self.tracker is not None
            self.tracker.reset(keeps_parts=split)
        return StepSignals(self, needs, domain_b)

    def again(self) -> AbstractContextManager[None]:
        """Around a forward pass that is made a second time while gradients are computed."""
        return nullcontext() if self.tracker is None else self.tracker.again()


def check_needs(mixer: Mixer) -> None:
    """Raise PolicyError unless this loop computes what the mixer may ask for."""
    missing = mixer.needs - PROVIDED
    if missing:
        raise PolicyError(
            f"mixer '{type(mixer).__name__}' needs {', '.join(sorted(missing))}, which this loop "
            "does not compute",
            remedy="choose another mixer",
        )
    if Signal.EXCESS_LOSS in mixer.needs and not isinstance(mixer, ReferenceMixer):
        raise PolicyError(
            f"mixer '{type(mixer).__name__}' asks for the excess loss over no reference",
            remedy="give it a property `reference`",
        )
    if mixer.needs & OF_WEIGHTS and not isinstance(mixer, TrackingMixer):
        raise PolicyError(
            f"mixer '{type(mixer).__name__}' asks for gradients and does not say of which weights",
            remedy="give it a property `tracking`",
        )


class StepSignals:
    """One step's collection; see `Signals.step`."""

    def __init__(self, signals: Signals, needs: frozenset[Signal], domain_b: np.ndarray):
        self._signals, self._needs, self._domain_b = signals, needs, domain_b
        self._tracks = bool(needs & OF_GRADIENTS)
        self._orders: list[Tensor] = []
        self._weights: list[Tensor] = []
        self._factor: Tensor | float = 1.0
        self._excess_B: Tensor | None = None
        self._norms: TrackedNorms | None = None

    @contextmanager
    def rows(self, part: slice) -> Iterator[Tensor | None]:
        """Around the forward pass of a micro-batch: the order its rows should have, if any."""
        tracker = self._signals.tracker
        if not self._tracks or tracker is None or not torch.is_grad_enabled():
            yield None
            return
        domain_b = self._domain_b[part]
        # Rows of a domain side by side make one product of them, without copying activations.
        order_b = np.argsort(domain_b, kind="stable")
        self._orders.append(torch.from_numpy(order_b + part.start))
        with tracker.rows(domain_b[order_b].tolist()):
            yield torch.from_numpy(order_b)

    def weighed(self, weight_b: Tensor) -> None:
        """The weights with which a micro-batch is back-propagated."""
        if self._tracks:
            self._weights.append(weight_b.detach())
            assert self._signals.tracker is not None
            self._signals.tracker.done()

    def scaled(self, factor: Tensor) -> None:
        """The gradient was multiplied by `factor` to be that of the final weights."""
        self._factor = factor

    def compare(
        self,
        model: Decoder,
        tokens_bT: Tensor,
        labels_bT: Tensor,
        rows: int,
        micro_batch_rows: int | None,
    ) -> None:
        """Before the update: the losses beside those of the reference model."""
        if Signal.EXCESS_LOSS in self._needs:
            excess = self._signals.excess
            assert excess is not None
            size = micro_batch_rows or max(1, len(tokens_bT))
            parts = zip(tokens_bT.split(size), labels_bT.split(size), strict=True)
            excess_b = torch.cat([excess.rows(model, *part) for part in parts])
            self._excess_B = Ranks.here().gather(excess_b.float(), rows).cpu()

    @contextmanager
    def update(self) -> Iterator[None]:
        """Around the optimiser's step, when activations are gone and a copy costs no peak."""
        if Signal.TRACKED_NORMS not in self._needs:
            yield
            return
        before = [weight.detach().clone() for weight in self._signals.weights]
        yield
        with torch.no_grad():
            after = torch.stack([plain(w.norm()) for w in self._signals.weights])
            pairs = zip(self._signals.weights, before, strict=True)
            change = torch.stack([plain((now - then).norm()) for now, then in pairs])
        weight_L, change_L = torch.stack([after, change]).double().cpu().numpy()
        self._norms = TrackedNorms(weight_L, change_L, self._signals.depth_L)

    def result(
        self, domain_B: np.ndarray, valid_B: Tensor, ranks: Ranks, valid_count: Tensor
    ) -> dict[Signal, Any]:
        """The values asked for, by signal."""
        found: dict[Signal, Any] = {}
        if self._tracks:
            valid = valid_B.cpu().numpy()
            count_K = np.bincount(domain_B[valid], minlength=self._signals.domains)
            if Signal.DOMAIN_GRADIENTS in self._needs:
                found[Signal.DOMAIN_GRADIENTS] = self._gradients(count_K, ranks, valid_count)
            if Signal.ROW_GRADIENTS in self._needs:
                square_B = self._row_squares(len(domain_B), ranks, valid_count)
                found[Signal.ROW_GRADIENTS] = _domain_mean(square_B, domain_B, valid, count_K)
        if self._excess_B is not None:
            found[Signal.EXCESS_LOSS] = self._excess_B
        if self._norms is not None:
            found[Signal.TRACKED_NORMS] = self._norms
        return found

    def _gradients(self, count_K: np.ndarray, ranks: Ranks, valid_count: Tensor) -> DomainGradients:
        tracker = self._signals.tracker
        assert tracker is not None
        gram_KK = tracker.gram(ranks.total if ranks.world > 1 else None)
        # The losses were divided by the valid rows of the step, a domain's mean is over its own.
        gram_KK = (gram_KK * (self._factor * valid_count) ** 2).cpu().numpy()
        rows_K = np.maximum(count_K, 1)
        return DomainGradients(gram_KK / np.outer(rows_K, rows_K), count_K, tracker.sampling_error)

    def _row_squares(self, rows: int, ranks: Ranks, valid_count: Tensor) -> np.ndarray:
        """Squared norm of the gradient of each row's own loss, (B,); NaN for a row of weight 0."""
        tracker = self._signals.tracker
        assert tracker is not None
        weight_b = torch.cat(self._weights)
        square_b = torch.empty_like(weight_b)
        order_b = torch.cat(self._orders).to(weight_b.device)
        square_b[order_b] = tracker.row_squares().to(square_b)
        own_b = square_b * (valid_count / weight_b) ** 2
        return ranks.gather(own_b, rows).double().cpu().numpy()


def _domain_mean(
    square_B: np.ndarray, domain_B: np.ndarray, valid_B: np.ndarray, count_K: np.ndarray
) -> np.ndarray:
    """Mean over the valid rows of a domain that had weight; 0 for a domain without any."""
    known_B = valid_B & np.isfinite(square_B)
    sum_K = np.bincount(domain_B[known_B], weights=square_B[known_B], minlength=len(count_K))
    return sum_K / np.maximum(np.bincount(domain_B[known_B], minlength=len(count_K)), 1)

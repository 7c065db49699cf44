"""What a mixer asks to know of the model in a step of a loop that is not ours.

    signals.begin(mixer.needs, domain_B)
    with signals.forward(rows): outputs = model(...)      # each micro-batch, in order
    signals.result(valid_B, scale)                        # after the optimiser's step

Shapes: B rows of a step, K domains, L tracked layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from workbench.core import DomainGradients, PolicyError, Signal, TrackedNorms, Tracking
from workbench.kernels.domain_gradients import GradientTracker
from workbench.models.layers import depths_of, tracked_layers

PROVIDED = frozenset({Signal.DOMAIN_GRADIENTS, Signal.TRACKED_NORMS})
"""Signals a mixer can be given outside the loop of `workbench.train`."""


class WeightSignals:
    """Gradients and norms of the weights that a mixer tracks, in one process.

    Raises:
        ModelError: the model has no such layers, or too few.
    """

    def __init__(self, model: nn.Module, tracking: Tracking, domains: int, seed: int):
        layers = tracked_layers(model, tracking.layers, tracking.depths)
        self._depth_L = depths_of(model, layers)
        self._tracker = GradientTracker(
            layers, domains, projection_width=tracking.projection_width, seed=seed
        )
        self._domains = domains
        self._needs: frozenset[Signal] = frozenset()
        self._domain_B = np.empty(0, dtype=np.int64)
        self._seen = 0
        self._before: list[Tensor] = []

    def begin(self, needs: frozenset[Signal], domain_B: np.ndarray) -> None:
        """Start a step of rows of these domains."""
        self._needs, self._domain_B, self._seen = needs, domain_B, 0
        self._tracker.reset(keeps_parts=True)
        if Signal.TRACKED_NORMS in needs:
            self._before = [weight.detach().clone() for weight in self._tracker.weights]

    @contextmanager
    def forward(self, rows: int) -> Iterator[None]:
        """Around the forward pass of the next rows; a pass without gradients is not counted."""
        if Signal.DOMAIN_GRADIENTS not in self._needs or not torch.is_grad_enabled():
            yield
            return
        domain_b = self._domain_B[self._seen : self._seen + rows]
        self._seen += rows
        with self._tracker.rows(domain_b.tolist()):
            yield

    def result(self, valid_B: Tensor, scale: Tensor | float) -> dict[Signal, Any]:
        """The values asked for, by signal.

        Args:
            scale: see `DomainMixer.observe`.
        Raises:
            PolicyError: not all rows went through `forward`.
        """
        found: dict[Signal, Any] = {}
        if Signal.DOMAIN_GRADIENTS in self._needs:
            self._require_seen()
            count_K = np.bincount(self._domain_B[valid_B.cpu().numpy()], minlength=self._domains)
            rows_K = np.maximum(count_K, 1)
            gram_KK = (self._tracker.gram() * scale**2).cpu().numpy() / np.outer(rows_K, rows_K)
            found[Signal.DOMAIN_GRADIENTS] = DomainGradients(
                gram_KK, count_K, self._tracker.sampling_error
            )
        if Signal.TRACKED_NORMS in self._needs:
            found[Signal.TRACKED_NORMS] = self._norms()
        return found

    def _norms(self) -> TrackedNorms:
        pairs = list(zip(self._tracker.weights, self._before, strict=True))
        self._before = []
        with torch.no_grad():
            weight = torch.stack([now.norm() for now, _ in pairs])
            change = torch.stack([(now - then).norm() for now, then in pairs])
        weight_L, change_L = torch.stack([weight, change]).double().cpu().numpy()
        return TrackedNorms(weight_L, change_L, self._depth_L)

    def _require_seen(self) -> None:
        if self._seen != len(self._domain_B):
            raise PolicyError(
                f"{self._seen} of {len(self._domain_B)} rows went through the mixer's forward(), "
                "so their gradients are not known",
                remedy="write `with mixer.forward(len(rows)):` around each forward pass of a step",
            )

"""Reweighters of the loop: uniform weights, and weights from each sample's own loss.

    REWEIGHTERS.build("linupper", temperature=0.4, warmup_steps=100)

Shapes: B rows of the global batch, b rows of a micro-batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from workbench.core import (
    REWEIGHTERS,
    ConfigError,
    PolicyError,
    Scope,
    stream_seed,
    unknown_name,
)
from workbench.reweighting.normalisers import BOUNDS, within
from workbench.reweighting.schedule import Temperature
from workbench.reweighting.strategies import find_strategy, on_strategy
from workbench.reweighting.weights import check_options, weights_and_temperature

Control = Literal["norm_matched", "shuffled"]
CONTROLS = ("norm_matched", "shuffled")
BOUNDS_DECAY = 0.9
"""Memory of the running loss range, per optimiser step."""
_PEAK_POINTS = 65


@REWEIGHTERS.register("uniform")
class Uniform:
    """Every valid row weighs 1: the baseline, which never looks at a loss.

    No state fields.
    """

    scope = Scope.MICRO
    norm_matched = False

    def weigh(self, loss_B: Tensor, valid_B: Tensor, step: int) -> Tensor:
        _check_rows(loss_B, valid_B)
        return valid_B.float()

    def observe(self, loss_B: Tensor, valid_B: Tensor, step: int) -> None:
        pass

    def diagnostics(self, step: int) -> Mapping[str, float | Tensor]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class LossBased:
    """Weights from the losses of the current step, after a uniform warm-up.

    State fields: the running loss bounds that `stream` normalises with.

    Args:
        strategy: f, by name.
        temperature, start_temperature, warmup_steps, anneal_steps: see `schedule.Temperature`.
        delta, normalise, floor, max_weight, target_ess: see `sample_weights`.
        scope: over which rows weights are normalised when a step is split into micro-batches.
            `stream` divides by the exact sum over the step and takes the loss range from the
            steps before; `step` is exact throughout and costs one more forward pass; `micro`
            normalises within each micro-batch, as the official code does.
        control: `norm_matched` rescales each step's gradient to the norm that uniform weights
            give (one more forward and backward pass); `shuffled` gives every weight to a random
            row.  Both ask whether the weights matter for the reason they are said to.
    """

    def __init__(
        self,
        strategy: str,
        *,
        temperature: float = 0.4,
        start_temperature: float | None = None,
        warmup_steps: int = 0,
        anneal_steps: int = 0,
        delta: float = 1.0,
        normalise: str = "range",
        floor: float | None = None,
        max_weight: float | None = None,
        target_ess: float | None = None,
        scope: str = "stream",
        control: Control | None = None,
    ):
        find_strategy(strategy)
        check_options(normalise=normalise, max_weight=max_weight, target_ess=target_ess)
        self.schedule = Temperature(temperature, start_temperature, warmup_steps, anneal_steps)
        for name, value in (("delta", delta), ("floor", floor)):
            if value is not None and not value > 0:
                raise ConfigError(f"{name} = {value} must be above 0", remedy=f"leave {name} out")
        _check_choice("scope", scope, [s.value for s in Scope])
        if control is not None:
            _check_choice("control", control, CONTROLS)
        self.strategy = strategy
        self.delta = delta
        self.normalise = normalise
        self.floor = floor
        self.max_weight = max_weight
        self.target_ess = target_ess
        self.scope = Scope(scope)
        self.control = control
        self._bounds: Tensor | None = None
        self._temperature: float | Tensor | None = None

    @property
    def norm_matched(self) -> bool:
        """Whether the loop rescales the gradient to the norm of uniform weights."""
        return self.control == "norm_matched"

    @property
    def streams(self) -> bool:
        """Whether a row's weight can be had, up to a common factor, before the others' losses."""
        whole_step = self.max_weight is not None or self.target_ess is not None
        return self.normalise in BOUNDS and not whole_step and self.control != "shuffled"

    def weigh(self, loss_B: Tensor, valid_B: Tensor, step: int) -> Tensor:
        _check_rows(loss_B, valid_B)
        temperature = self.schedule.at(step)
        if temperature is None:
            return valid_B.float()
        weight_B, self._temperature = weights_and_temperature(
            loss_B,
            strategy=self.strategy,
            temperature=temperature,
            delta=self.delta,
            normalise=self.normalise,
            floor=self.floor,
            max_weight=self.max_weight,
            target_ess=self.target_ess,
            valid_B=valid_B,
        )
        weight_B = weight_B.float()
        return shuffled(weight_B, valid_B, step) if self.control == "shuffled" else weight_B

    def weigh_ahead(self, loss_b: Tensor, valid_b: Tensor, step: int) -> Tensor:
        """exp((f(h) - max f) / r) with the range of the steps before; (b,), not normalised.

        Uniform during warm-up and while there is no step before.
        """
        temperature = self.schedule.at(step)
        if temperature is None or self._bounds is None:
            return valid_b.float()
        loss_b = loss_b.detach().float()
        counts_b = valid_b & torch.isfinite(loss_b)
        bounds = (self._bounds[0].to(loss_b.device), self._bounds[1].to(loss_b.device))
        h_b = within(loss_b, counts_b, bounds, delta=self.delta, floor=self.floor)
        f = find_strategy(self.strategy)
        grid = torch.linspace(-self.delta, self.delta, _PEAK_POINTS, device=loss_b.device)
        peak = f(grid, delta=self.delta).amax()
        exponent_b = (f(h_b, delta=self.delta) - peak) / temperature
        return torch.where(counts_b, exponent_b.exp(), 0.0)

    def observe(self, loss_B: Tensor, valid_B: Tensor, step: int) -> None:
        """Move the running loss range towards this step's."""
        if self.normalise not in BOUNDS or self.scope is not Scope.STREAM:
            return
        loss_B = loss_B.detach().float()
        now = torch.stack(BOUNDS[self.normalise](loss_B, valid_B & torch.isfinite(loss_B)))
        if self._bounds is None:
            self._bounds = now
        else:
            # A restored state lies on the host until it meets the losses' device here.
            before = self._bounds.to(now.device)
            moved = BOUNDS_DECAY * before + (1 - BOUNDS_DECAY) * now
            self._bounds = torch.where(torch.isfinite(moved), moved, before)

    def diagnostics(self, step: int) -> Mapping[str, float | Tensor]:
        """The temperature of the step just weighed; none while the weights are uniform."""
        scheduled = self.schedule.at(step)
        found = self._temperature if self.target_ess is not None else scheduled
        return {} if scheduled is None or found is None else {"temperature": found}

    def state_dict(self) -> dict[str, Any]:
        return {"bounds": self._bounds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._bounds = state["bounds"]


def shuffled(weight_B: Tensor, valid_B: Tensor, step: int) -> Tensor:
    """The same weights, given to the valid rows in a random order that depends on the step."""
    generator = torch.Generator().manual_seed(stream_seed(0, "shuffled weights", step))
    key_B = torch.rand(len(weight_B), generator=generator).to(weight_B.device)
    place_B = torch.arange(len(weight_B), device=weight_B.device, dtype=key_B.dtype)
    from_B = torch.where(valid_B, place_B, torch.inf).argsort()
    to_B = torch.where(valid_B, key_B, torch.inf).argsort()
    return torch.zeros_like(weight_B).scatter(0, to_B, weight_B[from_B])


def _check_choice(what: str, value: str, options: Any) -> None:
    if value not in set(options):
        problem, remedy = unknown_name(what, str(value), options)
        raise ConfigError(problem, remedy=remedy)


def _check_rows(loss_B: Tensor, valid_B: Tensor) -> None:
    if loss_B.shape != valid_B.shape or loss_B.ndim != 1:
        raise PolicyError(
            f"losses {tuple(loss_B.shape)} and validity {tuple(valid_B.shape)} do not match",
            remedy="give one loss and one flag per row",
        )


on_strategy(lambda name: REWEIGHTERS.register(name)(partial(LossBased, name)))

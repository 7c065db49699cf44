"""Reweighters of the loop: uniform weights, and weights from each sample's own loss.

    REWEIGHTERS.build("linupper", temperature=0.4, warmup_steps=100)

Shapes: B rows of the global batch.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from workbench.core import REWEIGHTERS, ConfigError, PolicyError, Scope, unknown_name
from workbench.reweighting.strategies import STRATEGIES, find_strategy
from workbench.reweighting.weights import sample_weights


@REWEIGHTERS.register("uniform")
class Uniform:
    """Every valid row weighs 1: the baseline, which never looks at a loss.

    No state fields.
    """

    scope = Scope.MICRO

    def weigh(self, loss_B: Tensor, valid_B: Tensor, step: int) -> Tensor:
        _check_rows(loss_B, valid_B)
        return valid_B.float()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class LossBased:
    """Weights from the losses of the current step, after a uniform warm-up.

    No state fields: the weights are a function of the losses and the step.

    Args:
        strategy: f, by name.
        temperature: r > 0; small values concentrate the weight.
        delta: half-width of the normalised loss range.
        floor: smallest loss range in nats; None for 1e-3 of the mean loss.
        warmup_steps: steps at the start of the run that keep uniform weights.
        scope: `step` normalises over all rows of the optimiser step, which costs one more forward
            pass when the step is split into micro-batches; `micro` normalises within each.
    """

    def __init__(
        self,
        strategy: str,
        *,
        temperature: float = 0.4,
        delta: float = 1.0,
        floor: float | None = None,
        warmup_steps: int = 0,
        scope: str = "step",
    ):
        find_strategy(strategy)
        for name, value in (("temperature", temperature), ("delta", delta)):
            if not value > 0:
                raise ConfigError(f"{name} = {value} must be above 0", remedy=f"try {name}=1.0")
        if floor is not None and not floor > 0:
            raise ConfigError(
                f"floor = {floor} must be above 0", remedy="try floor=1e-6, or leave it out"
            )
        if warmup_steps < 0:
            raise ConfigError(f"warmup_steps = {warmup_steps} is negative", remedy="use 0 or more")
        if scope not in set(Scope):
            problem, remedy = unknown_name("scope", str(scope), [s.value for s in Scope])
            raise ConfigError(problem, remedy=remedy)
        self.strategy = strategy
        self.temperature = temperature
        self.delta = delta
        self.floor = floor
        self.warmup_steps = warmup_steps
        self.scope = Scope(scope)

    def weigh(self, loss_B: Tensor, valid_B: Tensor, step: int) -> Tensor:
        _check_rows(loss_B, valid_B)
        if step < self.warmup_steps:
            return valid_B.float()
        return sample_weights(
            loss_B,
            strategy=self.strategy,
            temperature=self.temperature,
            delta=self.delta,
            floor=self.floor,
            valid_B=valid_B,
        )

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def _check_rows(loss_B: Tensor, valid_B: Tensor) -> None:
    if loss_B.shape != valid_B.shape or loss_B.ndim != 1:
        raise PolicyError(
            f"losses {tuple(loss_B.shape)} and validity {tuple(valid_B.shape)} do not match",
            remedy="give one loss and one flag per row",
        )


for _name in STRATEGIES:
    REWEIGHTERS.register(_name)(partial(LossBased, _name))

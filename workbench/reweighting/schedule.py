"""The temperature over steps: uniform warm-up, then a switch or a geometric anneal.

schedule = Temperature(end=0.4, start=4.0, warmup_steps=100, anneal_steps=200)
schedule.at(150)          # None during warm-up, which means uniform weights
"""

from __future__ import annotations

from dataclasses import dataclass

from workbench.core import ConfigError


@dataclass(frozen=True)
class Temperature:
    """r(step): uniform for `warmup_steps`, then from `start` to `end` over `anneal_steps`.

    Args:
        end: r > 0 after the anneal.
        start: r > 0 at its beginning; `end` when None.
        anneal_steps: 0 is the hard switch of the official code.
    """

    end: float
    start: float | None = None
    warmup_steps: int = 0
    anneal_steps: int = 0

    def __post_init__(self):
        for name, value in (("temperature", self.end), ("start_temperature", self.start)):
            if value is not None and not value > 0:
                raise ConfigError(f"{name} = {value} must be above 0", remedy=f"try {name}=1.0")
        for name in ("warmup_steps", "anneal_steps"):
            if getattr(self, name) < 0:
                value = getattr(self, name)
                raise ConfigError(f"{name} = {value} is negative", remedy="use 0 or more")

    def at(self, step: int) -> float | None:
        """r at a step, None while the weights are uniform."""
        after = step - self.warmup_steps
        if after < 0:
            return None
        if self.start is None or after >= self.anneal_steps:
            return self.end
        return self.start * (self.end / self.start) ** (after / self.anneal_steps)

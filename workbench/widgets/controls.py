"""What can change while a run trains, generated from its RunConfig.

controls = live_controls(config)           # fields to show, with their present values
run.set(**changes_asked({"temperature": "0.4"}, controls))
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from workbench.config import RunConfig
from workbench.core import REWEIGHTERS, ConfigError


@dataclass(frozen=True)
class Control:
    """One field of the panel.

    name: what `run.set` calls it; value: the present one; options: the choices, or None for a
    number; help: one line for the tooltip.
    """

    name: str
    label: str
    value: str | float
    help: str
    options: tuple[str, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def live_controls(config: RunConfig) -> list[Control]:
    """Controls for the settings in force: the policy, its temperature if it has one, the rate."""
    policy = config.reweighter
    names = tuple(REWEIGHTERS.names())
    controls = [
        Control(
            "reweighter",
            "Reweighter",
            policy.name,
            "How the loss of a sample becomes its weight; a new one starts with its own defaults",
            names if policy.name in names else (policy.name, *names),
        )
    ]
    options = REWEIGHTERS.options(policy.name) if policy.name in names else {}
    options = {**options, **policy.options}
    if isinstance(options.get("temperature"), (int, float)):
        controls.append(
            Control(
                "reweighter.temperature",
                "Temperature",
                float(options["temperature"]),
                "Above 0; the smaller, the more the weight gathers on few samples",
            )
        )
    controls.append(
        Control(
            "peak_lr",
            "Peak learning rate",
            config.optimizer.peak_lr,
            "Above 0; the schedule is scaled to it from the next step on",
        )
    )
    return controls


def changes_asked(asked: dict[str, Any], controls: list[Control]) -> dict[str, Any]:
    """What `run.set` takes, from the text of the fields.

    Raises:
        ConfigError: a field that takes a number holds something else.
    """
    numbers = {control.name: control for control in controls if control.options is None}
    return {
        name: _number(numbers[name].label, value) if name in numbers else value
        for name, value in asked.items()
    }


def _number(label: str, text: Any) -> float:
    try:
        return float(str(text).strip())
    except ValueError:
        raise ConfigError(
            f"{label}: {str(text)!r} is not a number", remedy="write one such as 0.4 or 2e-3"
        ) from None

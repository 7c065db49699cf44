"""Events of a run as flat numbers and lines of text, the same for every sink.

scalars({"kind": "step", "loss": 3.2, "mixture": {"code": 0.5}, …})
# {"step/loss": 3.2, "step/mixture/code": 0.5}
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

MEASURED = ("step", "held_out", "selected")
"""Kinds whose numbers are drawn over steps."""
NOT_VALUES = frozenset({"kind", "step", "time"})
TOLD = ("set", "warning", "failed", "paused", "unpaused", "stopped", "finished", "resumed")
"""Kinds that are passed on as text."""


def scalars(event: Mapping[str, Any]) -> dict[str, float]:
    """Numbers of an event by path, its kind first; empty for kinds that are not measured."""
    if event["kind"] not in MEASURED:
        return {}
    values = {name: value for name, value in event.items() if name not in NOT_VALUES}
    return {
        f"{event['kind']}/{name}": float(value)
        for name, value in flat(values)
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def text(event: Mapping[str, Any]) -> str | None:
    """A line for an event that is told, None for others."""
    if event["kind"] not in TOLD:
        return None
    if event["kind"] == "warning":
        return str(event["message"])
    values = {name: value for name, value in event.items() if name not in NOT_VALUES}
    return json.dumps(values, default=str) if values else str(event["kind"])


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested mappings, named by their path with slashes; lists are left as they are."""
    for name, value in values.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from flat(value, f"{path}/")
        else:
            yield path, value

"""A run in a few numbers, derived from its events.

folder.write_summary(summarise(folder, "finished"))
"""

from __future__ import annotations

from typing import Any

from workbench.tracking import RunFolder


def summarise(folder: RunFolder, outcome: str) -> dict[str, Any]:
    """The run in a few numbers, derived from its events."""
    steps, held_out = folder.events("step"), folder.events("held_out")
    busy_seconds = sum(event["seconds"] for event in steps)
    tokens = sum(event["tokens"] for event in steps)
    last = held_out[-1] if held_out else {}
    return {
        "outcome": outcome,
        "steps": len(steps),
        "tokens": tokens,
        "train_seconds": busy_seconds,
        "select_seconds": sum(event["seconds"] for event in folder.events("selected")),
        "evaluate_seconds": sum(event.get("seconds", 0.0) for event in held_out),
        "tokens_per_second": tokens / busy_seconds if busy_seconds else None,
        "final_loss": steps[-1]["loss"] if steps else None,
        "epochs": steps[-1]["epochs"] if steps else None,
        "held_out": last.get("losses"),
        "held_out_mean_nats": last.get("mean_nats"),
    }

"""A run in a few numbers, derived from its events.

folder.write_summary(summarise(folder, "finished"))
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from workbench.tracking import RunFolder
from workbench.training.earlier import needed_by, settings_of

MEASUREMENT = "evaluate"
"""The phase that is no part of a method, so nobody pays for it."""


def summarise(folder: RunFolder, outcome: str) -> dict[str, Any]:
    """Steps, tokens, losses and what was computed, by phase."""
    steps, held_out = folder.events("step"), folder.events("held_out")
    busy_seconds = _sum(steps, "seconds")
    tokens = int(_sum(steps, "tokens"))
    last = held_out[-1] if held_out else {}
    return {
        "outcome": outcome,
        "steps": len(steps),
        "tokens": tokens,
        "train_seconds": busy_seconds,
        "select_seconds": _sum(folder.events("selected"), "seconds"),
        "evaluate_seconds": _sum(held_out, "seconds"),
        "tokens_per_second": tokens / busy_seconds if busy_seconds else None,
        "compute": compute_by_phase(folder),
        "not_charged": list(needed_by(*settings_of(folder)).missing),
        "final_loss": steps[-1]["loss"] if steps else None,
        "epochs": steps[-1]["epochs"] if steps else None,
        "held_out": last.get("losses"),
        "held_out_mean_nats": last.get("mean_nats"),
    }


def compute_by_phase(folder: RunFolder) -> dict[str, dict[str, float]]:
    """Seconds and floating-point operations of each phase.

    Phases are those of `training.cost`, and `earlier`, where there are any, the runs whose model,
    agent or mixture this one uses, each once.  `cached`, where there is any, is what vectors,
    factors and scores that this run only read had cost an earlier one, of the same judge or text:
    it saved that, but the method needs it.  A step is measured as a whole: what of its seconds is
    `train` and what `probe` follows their operations.  Those of a policy are of its networks;
    arithmetic on a few numbers a domain is not counted, its seconds are.
    """
    phases = _own_phases(folder)
    if earlier := needed_by(*settings_of(folder)).runs:
        paid = [own for run in earlier for own in _charged(_own_phases(run))]
        phases["earlier"] = {"seconds": _sum(paid, "seconds"), "flops": _sum(paid, "flops")}
    return phases


def charged_flops(folder: RunFolder) -> float:
    """Operations of a run and of the runs before it that it needs, without measurements."""
    return _sum(_charged(compute_by_phase(folder)), "flops")


def own_flops(folders: Iterable[RunFolder]) -> float:
    """Operations of the runs alone, without measurements and without runs before them."""
    return _sum((own for run in folders for own in _charged(_own_phases(run))), "flops")


def _charged(phases: Mapping[str, dict[str, float]]) -> list[dict[str, float]]:
    return [own for phase, own in phases.items() if phase != MEASUREMENT]


def _own_phases(folder: RunFolder) -> dict[str, dict[str, float]]:
    steps, chosen = folder.events("step"), folder.events("selected")
    train_flops, probe_flops = _sum(steps, "flops"), _sum(steps, "probe_flops")
    policy_seconds = _sum(steps, "policy_seconds")
    step_seconds = _sum(steps, "seconds") - policy_seconds
    probed = probe_flops / (train_flops + probe_flops) if probe_flops else 0.0
    held_out = folder.events("held_out")
    phases = {
        "train": (step_seconds * (1 - probed), train_flops),
        "probe": (step_seconds * probed, probe_flops),
        "influence": (_sum(chosen, "seconds"), _sum(chosen, "flops")),
        "policy": (policy_seconds, _sum(steps, "policy_flops")),
        "evaluate": (_sum(held_out, "seconds"), _sum(held_out, "flops")),
    }
    cached = [event["cached"] for event in chosen if event.get("cached", {}).get("seconds")]
    if cached:
        phases["cached"] = (_sum(cached, "seconds"), _sum(cached, "flops"))
    return {name: {"seconds": seconds, "flops": flops} for name, (seconds, flops) in phases.items()}


def _sum(events: Iterable[Mapping[str, Any]], field: str) -> float:
    return float(sum(event.get(field, 0.0) for event in events))

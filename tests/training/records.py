"""What a resume or a fork must reproduce: everything a run recorded but the time of day."""

from __future__ import annotations

import torch

LEDGER = "select * from ledger order by step, sample_id, loss"


def record(run):
    """Per-step events without wall-clock, and the ledger."""
    clock = {"time", "seconds", "policy_seconds"}
    events = [
        {key: value for key, value in event.items() if key not in clock}
        for kind in ("step", "held_out")
        for event in run.events(kind)
    ]
    return events, run.ledger.sql(LEDGER)


def assert_same_record(run, other):
    (events, ledger), (other_events, other_ledger) = record(run), record(other)
    assert events == other_events
    assert ledger.equals(other_ledger)
    ours, theirs = (
        torch.load(r.folder.checkpoint_path(r.folder.checkpoints()[-1]) / "state.pt")
        for r in (run, other)
    )
    for name, tensor in ours["model"].items():
        assert torch.equal(tensor, theirs["model"][name]), name

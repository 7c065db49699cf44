"""What of a run may change while it trains, or in a fork of it.

changed = check_change(config, {"mixer": "exp3"}, corpus)      # or why not
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.config import POLICY_SLOTS, Part, RunConfig
from workbench.core import ConfigError
from workbench.data import PreparedCorpus
from workbench.training import checkpoint
from workbench.training.checks import check_fits

LIVE_PARTS = ("selector", "selection", "mixer", "reweighter", "optimizer")
LIVE_TRAINING_FIELDS = (
    "total_steps",
    "record_every_steps",
    "ledger_every_steps",
    "checkpoint_every_steps",
    "keep_checkpoints",
    "evaluate_every_steps",
)


def plain_changes(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Changes as JSON types: a policy may be given as an object."""
    return {
        name: value.model_dump(mode="json") if isinstance(value, Part) else value
        for name, value in changes.items()
    }


def changed_policies(before: RunConfig, after: RunConfig) -> set[str]:
    """Slots whose policy is another; the selector's also where it chooses at other times or by
    another reference."""
    slots = {slot for slot in POLICY_SLOTS if getattr(before, slot) != getattr(after, slot)}
    return slots | ({"selector"} if before.selection != after.selection else set())


def check_change(config: RunConfig, changes: dict[str, Any], corpus: PreparedCorpus) -> RunConfig:
    """The config with `changes`, all of which a running loop can take over.

    Raises:
        WorkbenchError: unknown name or value, a setting that only a new run can have, or policies
            that do not fit the rows and the batch.
    """
    changed = config.change(**changes)
    live = {f"training.{name}" for name in LIVE_TRAINING_FIELDS}
    for difference in checkpoint.differences(config.to_dict(), changed.to_dict()):
        name = difference.split(":")[0]
        if name.split(".")[0] in LIVE_PARTS or name in live:
            continue
        raise ConfigError(
            f"'{name}' cannot change during a run",
            remedy=f"start a new run; changeable: {', '.join((*LIVE_PARTS, *sorted(live)))}",
        )
    check_fits(changed, corpus)
    return changed

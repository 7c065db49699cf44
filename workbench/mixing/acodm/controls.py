"""Controls of the mixer `acodm`: the actor without a critic, and without learning.

Policy("direct", warmup_steps=200)
Policy("frozen_random")
"""

from __future__ import annotations

from typing import Literal

from workbench.core import MIXERS, Count, MixingTask, NotNegative, Positive, Share, Whole
from workbench.mixing.acodm.mixer import AcOdm
from workbench.mixing.floor import DEFAULT_FLOOR


@MIXERS.register("direct")
def direct(
    task: MixingTask,
    *,
    reward: Literal["step", "alignment"] = "step",
    warmup_steps: Whole = 100,
    entropy: NotNegative = 0.1,
    exploration: NotNegative = 0.3,
    batch_size: Count = 32,
    updates_per_step: Count = 1,
    learning_rate: Positive = 1e-3,
    every_steps: Count = 1,
    tracked_layers: Count = 3,
    projection_width: Count | None = None,
    floor: Share = DEFAULT_FLOOR,
    guaranteed_rows: Whole = 0,
) -> AcOdm:
    """Control: the actor climbs a . z of the replayed steps itself, without a critic.

    Args:
        reward: z of each step, or its running mean (`alignment`), which is what `acodm` is paid.
    """
    return AcOdm(
        task,
        critic="none",
        reward=reward,
        warmup_steps=warmup_steps,
        entropy=entropy,
        exploration=exploration,
        batch_size=batch_size,
        updates_per_step=updates_per_step,
        learning_rate=learning_rate,
        every_steps=every_steps,
        tracked_layers=tracked_layers,
        projection_width=projection_width,
        floor=floor,
        guaranteed_rows=guaranteed_rows,
    )


@MIXERS.register("frozen_random")
def frozen_random(
    task: MixingTask,
    *,
    tracked_layers: Count = 3,
    floor: Share = DEFAULT_FLOOR,
    guaranteed_rows: Whole = 0,
) -> AcOdm:
    """Control: an actor as it was initialised, never updated, and no gradients taken."""
    return AcOdm(
        task,
        mode="untrained",
        tracked_layers=tracked_layers,
        floor=floor,
        guaranteed_rows=guaranteed_rows,
    )

"""An agent trained on a narrow environment, frozen, drives a wider one; one untrained does not."""

import pytest
import torch

from workbench.core import MIXERS
from workbench.replay import Environment, play

SEEDS = range(4)
LEVEL = 0.4
"""Score of the wide environment at which steps are compared."""


def steps_of_wide(name, seed, **options):
    wide = Environment(width=256, seed=100 + seed)
    return play(MIXERS.build(name, wide.task, **options), wide, steps=3000).steps_to(LEVEL)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_what_was_learned_at_width_64_drives_width_256(seed, tmp_path):
    torch.set_num_threads(1)
    narrow = Environment(seed=seed)
    proxy = MIXERS.build("acodm", narrow.task, warmup_steps=200)
    play(proxy, narrow, steps=3000)
    torch.save(proxy.agent_state(), tmp_path / "agent.pt")
    fast = 0.93 * steps_of_wide("static", seed)
    assert steps_of_wide("acodm", seed, mode="frozen", agent=str(tmp_path)) <= fast
    assert steps_of_wide("frozen_random", seed) > fast

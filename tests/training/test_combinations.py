"""Any selector, mixer and reweighter together: killed anywhere, a run continues to the bit."""

import os

import numpy as np
import pytest

from tests.training.records import assert_same_record
from workbench.config import Policy
from workbench.core import MIXERS, REWEIGHTERS, SELECTORS
from workbench.training import resume, train
from workbench.training.loop import Loop

DRAWN = int(os.environ.get("WORKBENCH_COMBINATIONS", "8"))
SEED = int(os.environ.get("WORKBENCH_COMBINATIONS_SEED", "20261121"))
"""Another one draws others; the names of the tests say which."""
NEEDS_A_FILE = {"regmix", "doremi"}
"""Mixers that follow another run's result; test_signals and test_regmix have them."""
OPTIONS = {
    "quad": {"clusters": 6, "trust": "off", "factor_rows": 16},
    "top_influence": {"trust": "off", "factor_rows": 16},
    "cluster_uniform": {"clusters": 6},
}
ONLINE = {"every_steps": 6, "first_step": 2, "reference_rows": 12}
OFFLINE = {"share": 0.3, "first_step": 4, "reference_rows": 12}
AT_ONCE = {"share": 0.3, "reference_rows": 12}


def built(registry, name):
    """A policy that fits a model of one block and a few dozen rows."""
    one_block = {"tracked_layers": 1} if "tracked_layers" in registry.options(name) else {}
    return Policy(name, **OPTIONS.get(name, {}), **one_block)


def drawn_combinations():
    """Every name of every slot in turn, in an order of its own: few draws meet all of them."""
    rng = np.random.default_rng(SEED)
    slots = [
        [None, *SELECTORS.names()],
        [name for name in MIXERS.names() if name not in NEEDS_A_FILE],
        REWEIGHTERS.names(),
    ]
    columns = [
        np.concatenate([rng.permutation(np.array(names, dtype=object)) for _ in range(DRAWN)])
        for names in slots
    ]
    for i in range(DRAWN):
        yield pytest.param(
            *(column[i] for column in columns),
            [OFFLINE, ONLINE, AT_ONCE][i % 3],
            int(rng.integers(1, 18)),
            id="-".join(str(column[i]) for column in columns),
        )


@pytest.mark.parametrize(
    ("selector", "mixer", "reweighter", "selection", "killed_at"), drawn_combinations()
)
def test_a_killed_run_and_a_fork_continue_to_the_bit(
    nano_config, cache_dir, tmp_path, monkeypatch, selector, mixer, reweighter, selection, killed_at
):
    config = nano_config.change(
        total_steps=18, checkpoint_every_steps=6, keep_checkpoints=9
    ).replace(
        selector=selector and built(SELECTORS, selector),
        mixer=built(MIXERS, mixer),
        selection={} if selector is None else selection,
        reweighter=reweighter,
    )
    straight = train(config, tmp_path / "straight", cache_dir=cache_dir)
    real = Loop._step

    def dying(self):
        if self.state.step == killed_at:
            raise KeyboardInterrupt
        real(self)

    monkeypatch.setattr(Loop, "_step", dying)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "killed", cache_dir=cache_dir)
    monkeypatch.setattr(Loop, "_step", real)
    assert_same_record(resume(tmp_path / "killed" / config.name, cache_dir=cache_dir), straight)
    assert_same_record(straight.fork(killed_at, background=False), straight)

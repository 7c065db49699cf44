"""How much a domain counts is drawn as it was, before and after what changed it."""

from types import ModuleType

import numpy as np
import pytest

from workbench import plots
from workbench.training import train


def test_every_figure_can_be_asked_for_twice():
    for name in plots.__all__ * 2:
        assert not isinstance(getattr(plots, name), ModuleType), name


def test_a_choice_draws_no_weighing_where_no_sample_was_weighed(nano_config, cache_dir, tmp_path):
    config = nano_config.change(selector="random", first_step=20, mixer={"name": "static"})
    config = config.change(mixture="natural", budget_tokens=16 * config.rows.context_tokens)
    run = train(config, tmp_path, cache_dir=cache_dir)
    named = [trace for trace in plots.interplay(run).data if trace.name]
    jumps = 0
    for _, sampled, weighed in zip(*[iter(named)] * 3, strict=True):
        by_step = dict(zip(sampled.x, sampled.y, strict=True))
        np.testing.assert_allclose(weighed.y, [by_step[step] for step in weighed.x])
        jumps += np.ptp(sampled.y) > 0.01
    assert jumps


def test_what_weights_do_is_not_smoothed_over_a_change(nano_config, cache_dir, tmp_path):
    base = train(
        nano_config.change(reweighter="linupper", keep_checkpoints=9), tmp_path, cache_dir=cache_dir
    )
    late = base.fork(30, reweighter="uniform", background=False)
    named = [trace for trace in plots.interplay(late).data if trace.name]
    for _, sampled, weighed in zip(*[iter(named)] * 3, strict=True):
        by_step = dict(zip(sampled.x, sampled.y, strict=True))
        ratio = {s: y / by_step[s] for s, y in zip(weighed.x, weighed.y, strict=True)}
        assert all(value == pytest.approx(1) for step, value in ratio.items() if step >= 30)
        assert any(abs(value - 1) > 0.01 for step, value in ratio.items() if step < 30)

"""Figures of forks and of what counts: lines where they belong, and words where nothing is yet."""

import numpy as np
import pytest

from workbench import plots
from workbench.core import ConfigError
from workbench.tracking.family import family
from workbench.training import train


@pytest.fixture(scope="module")
def runs(nano_config, cache_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    config = nano_config.change(name="base", reweighter="linupper", keep_checkpoints=9)
    base = train(config, folder, cache_dir=cache_dir)
    child = base.fork(20, mixer="exp3", background=False)
    late = base.fork(30, reweighter="uniform", background=False)
    grandchild = child.fork(30, peak_lr=1e-4, background=False)
    again = base.fork(30, background=False)
    return {"base": base, "child": child, "late": late, "grandchild": grandchild, "again": again}


@pytest.mark.parametrize("asked", ["base", "child", "grandchild"])
def test_a_family_is_told_from_any_of_its_members(runs, asked):
    found = [(m.path.name, m.depth, m.step) for m in family(runs[asked].folder)]
    assert found == [
        ("base", 0, None),
        ("base-20-exp3", 1, 20),
        ("base-20-exp3-30-peak_lr=0.0001", 2, 30),
        ("base-30-again", 1, 30),
        ("base-30-uniform", 1, 30),
    ]


def test_the_tree_leaves_each_parent_at_the_step_of_the_fork(runs):
    figure = plots.fork_tree(runs["base"])
    base, child, grandchild, *_ = figure.data
    assert list(base.x) == [0, 40] and base.y[0].startswith("base: ")
    assert list(child.x) == [20, 20, 40] and child.y[0] == base.y[0] != child.y[1]
    assert grandchild.y[0] == child.y[1] and list(grandchild.x) == [30, 30, 40]
    plots.png(figure)


def test_a_difference_is_fork_minus_parent_from_the_step_on(runs):
    figure = plots.paired_difference(runs["base"], {"late": runs["late"], "again": runs["again"]})
    late, again = (
        [trace for trace in figure.data if trace.legendgroup == label]
        for label in ("late", "again")
    )
    held_out = late[1]
    expected = [
        after["mean_nats"] - before["mean_nats"]
        for before, after in zip(
            runs["base"].events("held_out"), runs["late"].events("held_out"), strict=True
        )
        if before["step"] >= 30
    ]
    np.testing.assert_allclose(held_out.y, expected)
    assert list(held_out.x) == [30, 40] and held_out.y[0] == 0 != held_out.y[-1]
    assert all(np.all(np.asarray(trace.y) == 0) for trace in again)
    assert len(late) == 2 + len(runs["base"].events("held_out")[0]["losses"])
    plots.png(figure)


def test_several_runs_of_a_label_are_refused(runs):
    with pytest.raises(ConfigError, match="has 2 runs"):
        plots.paired_difference(runs["base"], {"late": [runs["late"], runs["again"]]})


def test_a_run_of_another_family_is_refused(runs, nano_config, cache_dir):
    folder = runs["base"].path.parent
    other = train(nano_config.change(name="other", total_steps=2), folder, cache_dir=cache_dir)
    with pytest.raises(ConfigError, match=r"'other' .* is no fork of base"):
        plots.paired_difference(runs["base"], {"late": runs["late"], "other": other})


def test_what_counts_shows_the_three_factors_of_each_domain(runs):
    figure = plots.interplay(runs["late"])
    last = runs["late"].events("step")[-1]
    named = [trace for trace in figure.data if trace.name]
    assert len(named) == 3 * len(last["mixture"])
    assert named[0].y[-1] == pytest.approx(
        last["pool_share"][next(iter(last["mixture"]))], rel=1e-3
    )
    plots.png(figure)

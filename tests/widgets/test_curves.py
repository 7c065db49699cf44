"""Reading a run bit by bit gives what reading it at once gives."""

from __future__ import annotations

import numpy as np
import pytest

from workbench.plots.series import SMOOTHING_STEPS, smooth
from workbench.widgets.curves import Mark, RunCurves, told_stage


def test_a_run_read_bit_by_bit_equals_the_run_read_at_once(make_folder, step):
    folder = make_folder(steps=3, end=None)
    growing = RunCurves(folder)
    for first in range(3, 1500, 7):
        folder.append_many([step(i) for i in range(first, first + 7)])
        assert growing.refresh()
    whole = RunCurves(folder)
    whole.refresh()
    assert not growing.refresh()
    for name in ("step", "loss", "tokens"):
        np.testing.assert_array_equal(growing.column(name), whole.column(name))
    np.testing.assert_allclose(growing.column("smooth"), whole.column("smooth"), atol=1e-7)


def test_the_smoothed_loss_is_that_of_the_figures(make_folder):
    curves = RunCurves(make_folder(steps=700))
    curves.refresh()
    expected = smooth(curves.column("loss"), SMOOTHING_STEPS)
    np.testing.assert_allclose(curves.column("smooth"), expected, rtol=1e-7)


def test_a_rewound_run_is_read_anew(make_folder):
    folder = make_folder(steps=50, end=None)
    folder.checkpoint_path(20).mkdir(parents=True)
    curves = RunCurves(folder)
    curves.refresh()
    folder.rewind(20)
    folder.append("resumed", 20)
    curves.refresh()
    assert curves.column("step").tolist() == list(range(20))
    assert curves.held_out["clean"][0].tolist() == [0]


def test_elapsed_time_leaves_pauses_and_interruptions_out(make_folder):
    folder = make_folder(end=None)
    for kind, time in (
        ("paused", 1100.0),
        ("unpaused", 1200.0),
        ("held_out", 1210.0),
        ("resumed", 2000.0),
        ("stopped", 2005.0),
    ):
        extra = {"losses": {"clean": 4.0}, "mean_nats": 4.0} if kind == "held_out" else {}
        folder.append(kind, 100, time=time, **extra)
    curves = RunCurves(folder)
    curves.refresh()
    # 1000–1100, 1200–1210 (killed, last sign of life), 2000–2005.
    assert curves.elapsed_seconds(running=False) == pytest.approx(115.0)


def test_a_change_is_marked_and_its_setting_in_force(make_folder):
    folder = make_folder(end=None)
    folder.append("set", 40, changes={"reweighter.temperature": 1.5})
    curves = RunCurves(folder)
    curves.refresh()
    assert curves.marks == [Mark(40, "temperature 1.5")]
    assert curves.config.reweighter.options["temperature"] == 1.5


def test_rate_and_time_left_follow_the_recent_steps(make_folder):
    folder = make_folder(steps=40)
    curves = RunCurves(folder)
    curves.refresh()
    assert curves.tokens_per_second == pytest.approx(2560)
    assert curves.left_seconds == 0
    folder.append("set", 40, changes={"total_steps": 140})
    curves.refresh()
    # 0.1 s a step, and one second of evaluation spread over the 40 steps done.
    assert curves.left_seconds == pytest.approx(100 * (0.1 + 1 / 40))


def test_what_a_selector_does_is_known_until_anything_else_happens(make_folder):
    run = make_folder(steps=3, end=None)
    run.append("selecting", 3, stage="factors", done=3, total=16)
    curves = RunCurves(run)
    curves.refresh()
    assert told_stage(curves.stage) == "Fitting factors: 3 of 16"
    chosen = {"rows": 20, "tokens": 640, "budget_tokens": 650, "seconds": 1.0, "domains": {"a": 20}}
    run.append("selected", 3, **chosen)
    curves.refresh()
    assert told_stage(curves.stage) == "" and curves.marks[-1].text == "selected 20 rows"

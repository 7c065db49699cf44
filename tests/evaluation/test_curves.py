"""Held-out curves and the step at which one reaches a level."""

import math

import pytest

from workbench.core import DataError
from workbench.evaluation import held_out_curve, steps_to_reach


def events(*levels: float):
    return [
        {"kind": "held_out", "step": 10 * i, "losses": {"a": level, "b": level + 1, "noise": 99}}
        for i, level in enumerate(levels)
    ]


def test_a_curve_is_the_mean_over_the_domains_that_are_left():
    curve = held_out_curve([{"kind": "step", "step": 3}, *events(5, 3)], without=["noise"])
    assert curve.step_N.tolist() == [0, 10] and curve.nats_N.tolist() == [5.5, 3.5]
    assert curve.final_nats == 3.5


def test_steps_are_interpolated_between_evaluations():
    curve = held_out_curve(events(5, 3, 2, 2.5), without=["noise"])
    assert steps_to_reach(curve, 5.5) == 0 and steps_to_reach(curve, 3.5) == 10
    assert steps_to_reach(curve, 4.0) == pytest.approx(7.5)
    assert steps_to_reach(curve, 2.75) == pytest.approx(17.5)
    assert steps_to_reach(curve, 2.0) == math.inf


def test_a_run_without_the_losses_is_refused():
    with pytest.raises(DataError, match="no held-out loss yet"):
        held_out_curve([])
    with pytest.raises(DataError, match="no domain is left"):
        held_out_curve(events(3), without=["a", "b", "noise"])

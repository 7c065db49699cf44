"""Figures of runs side by side show what they are given, live and as a still."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

from workbench.plots import costs, domain_verdicts, held_out_by_seconds, png


@dataclass(frozen=True)
class Judged:
    mean_difference: float
    low: float
    high: float
    outcome: str
    name: str = "a"
    baseline_name: str = "uniform"
    n: int = 3
    unit: str = "nats per token"
    seeds_needed: int | None = 4
    bootstrap_low: float = -0.29
    bootstrap_high: float = -0.11
    noise_floor: float = 0.0


BETTER = Judged(-0.2, -0.3, -0.1, "better")
WORSE = Judged(0.1, 0.05, 0.15, "worse")
NOISE = Judged(0.01, -0.1, 0.12, "within noise")
ONE_SEED = Judged(0.02, -math.inf, math.inf, "undecided", n=1)


def test_each_field_tells_its_difference_and_whether_it_is_sure():
    given = {"a": {"x": BETTER, "<b>": NOISE}, "b": {"x": WORSE}, "c": {"<b>": ONE_SEED}}
    figure = domain_verdicts(given)
    [trace] = figure.data
    assert [list(row) for row in trace.text] == [
        ["▲ −0.200", "+0.010"],
        ["▼ +0.100", "–"],
        ["–", "+0.020"],
    ]
    assert list(trace.x) == ["x", "&lt;b&gt;"] and list(trace.y) == ["a", "b", "c"]
    assert (trace.zmin, trace.zmax) == (-0.2, 0.2)
    assert "no interval from one seed" in trace.customdata[2][1]
    assert "baseline uniform" in figure.layout.title.text


def test_a_hover_tells_what_a_verdict_rests_on():
    [trace] = domain_verdicts({"a": {"x": replace(BETTER, noise_floor=0.05)}}).data
    told = trace.customdata[0][0]
    assert told.split("<br>") == [
        "better",
        "interval -0.3000 to -0.1000",
        "bootstrap -0.2900 to -0.1100",
        "repeats alone differ by 0.0500",
        "3 seeds, 4 needed",
    ]
    assert "repeats" not in domain_verdicts({"a": {"x": BETTER}}).data[0].customdata[0][0]


def test_costs_stack_phases_and_leave_out_sums_and_phases_without_time():
    rows = [
        {"setting": "a", "train_seconds": 4.0, "select_seconds": 0.0, "cost_seconds": 4.0},
        {"setting": "b", "train_seconds": 2.0, "select_seconds": 0.0, "cost_seconds": 2.0},
    ]
    figure = costs(rows)
    assert [(trace.name, list(trace.x)) for trace in figure.data] == [("train", [2.0, 4.0])]
    rows[0]["select_seconds"] = 1.0
    assert [trace.name for trace in costs(rows).data] == ["train", "select"]


def test_costs_are_drawn_in_operations_where_they_were_counted():
    row = {"setting": "a", "train_seconds": 4.0, "train_flops": 2e9, "influence_flops": 3e9}
    figure = costs([row | {"cost_flops": 5e9}], by="flops")
    assert [(trace.name, list(trace.x)) for trace in figure.data] == [
        *(("train", [2e9]), ("influence", [3e9])),
    ]
    assert "operations" in figure.layout.xaxis.title.text
    uncounted = costs([{"setting": "a", "train_seconds": 4.0}], by="flops")
    assert uncounted.layout.annotations[0].text == "no flops were counted"


def test_the_mean_over_time_runs_where_all_runs_have_values():
    first = (np.array([0.0, 4.0]), np.array([8.0, 4.0]))
    second = (np.array([1.0, 5.0]), np.array([6.0, 4.0]))
    figure = held_out_by_seconds({"a": [first, second]})
    line = next(trace for trace in figure.data if trace.fill is None)
    assert (line.x[0], line.x[-1]) == (1.0, 4.0)
    assert line.y[0] == pytest.approx((7.0 + 6.0) / 2)
    assert line.y[-1] == pytest.approx((4.0 + 4.5) / 2)
    assert "%{x:.2f} s" in line.hovertemplate and "step" not in line.hovertemplate


@pytest.mark.parametrize("empty", [domain_verdicts({}), costs([]), held_out_by_seconds({"a": []})])
def test_without_data_the_figure_says_so(empty):
    assert not empty.data and empty.layout.annotations[0].text


def test_stills_are_drawn_of_all_of_them():
    curve = (np.array([0.0, 4.0]), np.array([8.0, 4.0]))
    rows = [{"setting": "a", "train_seconds": 4.0, "select_seconds": 1.0}]
    fields = {"a": {"x": BETTER, "y": NOISE, "z": NOISE}, "b": {"y": WORSE}}
    for figure in (domain_verdicts(fields), costs(rows), held_out_by_seconds({"a": [curve]})):
        assert png(figure).startswith(b"\x89PNG")

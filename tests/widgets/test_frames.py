"""What is sent to the browser is small, complete and plain JSON."""

from __future__ import annotations

import json

import pytest

from workbench.widgets.curves import RunCurves
from workbench.widgets.frames import LINE_POINTS, MEAN, charts, head, throughput


@pytest.fixture
def curves(make_folder):
    def read(*arguments, **options) -> RunCurves:
        found = RunCurves(make_folder(*arguments, **options))
        found.refresh()
        return found

    return read


def test_a_long_run_is_sent_with_few_points_that_keep_its_extremes(curves, step):
    long = curves(steps=5000, end=None)
    long.folder.append_many([step(5000, loss=99.0), *[step(i) for i in range(5001, 9000)]])
    long.refresh()
    training, _ = charts({"run": long})
    for line in training["lines"]:
        assert len(line["x"]) == len(line["y"]) <= LINE_POINTS
        assert line["x"][0] == 0 and line["x"][-1] == 8999
    assert max(training["lines"][0]["y"]) == 99.0
    assert len(throughput(long)) <= 120
    assert len(json.dumps(charts({"run": long}))) < 60_000


def test_a_loss_that_is_not_finite_is_a_gap(curves, step):
    run = curves(steps=5, end=None)
    run.folder.append_many([step(5, loss=float("nan")), step(6)])
    run.refresh()
    training, _ = charts({"run": run})
    assert training["lines"][0]["y"][5] is None
    json.dumps(training, allow_nan=False)


def test_each_domain_of_one_run_has_a_line_that_differs_in_more_than_colour(curves):
    _, held_out = charts({"run": curves()})
    first, second = held_out["lines"]
    assert (first["name"], second["name"]) == ("clean", "noise")
    for cue in ("colour", "dash", "marker"):
        assert first[cue] != second[cue]


def test_several_runs_are_compared_domain_by_domain_and_on_the_mean(curves):
    _, held_out = charts({"a": curves("a"), "b": curves("b")})
    shown = {(line["name"], line["group"]) for line in held_out["lines"]}
    assert shown == {(run, group) for run in "ab" for group in (MEAN, "clean", "noise")}
    mean = next(line for line in held_out["lines"] if line["group"] == MEAN)
    assert mean["y"] == [6.0, 4.5]


def test_a_run_without_steps_has_a_head_and_empty_charts(make_folder):
    run = RunCurves(make_folder(steps=1, end=None))
    training, held_out = charts({"run": run})
    assert training["lines"] == held_out["lines"] == []
    numbers = head("run", run, "running", index=0, live=True)
    assert numbers["step"] == 0 and numbers["loss"] is None and numbers["left_seconds"] is None

"""Figures of influence: what is drawn is what was computed, at every stop of the slider."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import rankdata

from workbench import plots

MAPS = ("model.model.layers.0.self_attn.q_proj", "model.model.layers.1.mlp.up_proj")
DAMPINGS = np.array([0.01, 0.1, 10.0])


def found():
    rng = np.random.default_rng(0)
    exact_GN = rng.normal(size=(3, 20))
    noise = {"identity": 1.0, "ekfac": 0.1}
    score = {name: exact_GN + size * rng.normal(size=(3, 20)) for name, size in noise.items()}
    agreement = {"identity": np.array([0.2, 0.5, 0.9]), "ekfac": np.array([0.9, 0.95, 1.0])}
    return SimpleNamespace(
        damping_G=DAMPINGS,
        maps=MAPS,
        cosine={"identity": np.full((3, 2), 0.25), "ekfac": np.array([[0.5, 0.6]] * 3)},
        score={**score, "exact": exact_GN},
        agreement=lambda name: agreement[name],
        at=lambda damping: int(np.abs(DAMPINGS - damping).argmin()),
    )


def checkpoint(shift: float):
    clean_n = np.linspace(0, 1, 5)
    groups = {"clean": clean_n, "uniform noise <b>": clean_n + shift}
    return SimpleNamespace(
        score={"ekfac": groups, "one-step oracle": groups},
        clean_share=lambda scorer, control: 0.25,
    )


def estimate(value: float):
    return SimpleNamespace(value=value, low=value - 0.1, high=value + 0.2, subsets=9, queries=4)


def named(figure, name: str):
    return [trace for trace in figure.data if trace.name == name]


def test_cosines_stand_at_their_map_and_preconditioner():
    figure = plots.inverse_cosines(found(), damping=0.1)
    (ekfac,) = named(figure, "EK-FAC")
    assert list(ekfac.x) == [0.5, 0.6] and list(ekfac.y) == ["0 q_proj", "1 up_proj"]
    assert figure.layout.yaxis.categoryarray == ("1 up_proj", "0 q_proj")
    assert figure.layout.title.text.endswith("damping 0.1")


def test_scatter_has_ranks_by_exact_score_across_and_by_the_estimate_up():
    data = found()
    figure = plots.score_scatter(data, damping=10)
    (cloud,) = named(figure, "EK-FAC")
    exact_N, own_N = data.score["exact"][2], data.score["ekfac"][2]
    assert np.argmax(cloud.x) == exact_N.argmax() and np.argmin(cloud.x) == exact_N.argmin()
    np.testing.assert_array_equal(cloud.x, (rankdata(exact_N) - 1) / 19)
    np.testing.assert_array_equal(cloud.y, (rankdata(own_N) - 1) / 19)
    titles = [note.text for note in figure.layout.annotations]
    assert titles == ["identity: rank correlation 0.900", "EK-FAC: rank correlation 1.000"]


def test_the_slider_stops_at_every_damping_with_its_own_scores():
    data = found()
    figure = plots.damping_slider(data)
    (slider,) = figure.layout.sliders
    assert [step.label for step in slider.steps] == ["0.01", "0.1", "10"] and slider.active == 1
    assert [frame.name for frame in figure.frames] == ["0.01", "0.1", "10"]
    for place, frame in enumerate(figure.frames):
        mark, identity, ekfac = frame.data
        assert list(mark.x) == [DAMPINGS[place]] * 2
        np.testing.assert_array_equal(identity.x, ekfac.x)
        own_N = data.score["ekfac"][place]
        np.testing.assert_array_equal(ekfac.y, (rankdata(own_N) - 1) / 19)
        moved = [figure.data[index] for index in frame.traces]
        assert [trace.name for trace in moved] == [None, "identity", "EK-FAC"]
    curve = next(
        trace for trace in figure.data if trace.name == "EK-FAC" and trace.showlegend is None
    )
    assert list(curve.y) == [0.9, 0.95, 1.0] and figure.layout.xaxis.type == "log"


def test_every_rank_of_every_stop_lies_within_the_axes():
    figure = plots.damping_slider(found())
    low, high = figure.layout.yaxis2.range
    values = np.concatenate([one.y for frame in figure.frames for one in frame.data[1:]])
    assert low < values.min() and values.max() < high
    assert figure.layout.xaxis2.range == figure.layout.yaxis2.range


def test_lds_shows_estimates_with_their_intervals():
    figure = plots.lds({"identity": estimate(0.1), "ekfac": estimate(0.3)})
    (ekfac,) = named(figure, "EK-FAC")
    assert ekfac.x == (0.3,)
    assert ekfac.error_x.array == pytest.approx((0.2,))
    assert ekfac.error_x.arrayminus == pytest.approx((0.1,))
    assert "9 subsets, 4 queries" in figure.layout.title.text
    assert [shape.x0 for shape in figure.layout.shapes] == [0]


def test_controls_have_a_panel_for_each_checkpoint_and_scorer():
    figure = plots.control_scores({"healthy": checkpoint(-1), "sure <i>": checkpoint(1)})
    titles = [note.text for note in figure.layout.annotations]
    assert titles[2:] == ["sure &lt;i&gt;: EK-FAC", "sure &lt;i&gt;: one-step oracle"]
    medians = [t for t in named(figure, "uniform noise &lt;b&gt;") if t.marker.symbol == "diamond"]
    assert len(medians) == 4
    assert medians[0].x[0] < 0 < medians[-1].x[0]
    assert "clean above in 25%" in medians[0].hovertemplate


def test_every_figure_has_a_still_twin():
    data = found()
    for figure in (
        plots.inverse_cosines(data),
        plots.score_scatter(data),
        plots.damping_slider(data),
        plots.lds({"identity": estimate(0.1), "random": estimate(0.0)}),
        plots.control_scores({"healthy": checkpoint(-1)}),
    ):
        assert plots.png(figure).startswith(b"\x89PNG")

"""What the figures show: the recorded numbers, named axes with units, marks, and empty runs."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from workbench import plots
from workbench.core import RunError

CURVES = ("loss", "held_out", "throughput", "ess", "weight_share")
SINGLE = ("weights", "implied_mixture", "mixture")


def verdict(name: str, difference: float, half: float, outcome: str, n: int = 3):
    return SimpleNamespace(
        name=name,
        baseline_name="uniform",
        mean_difference=difference,
        low=difference - half,
        high=difference + half,
        n=n,
        outcome=outcome,
        unit="nats per token",
        seeds_needed=None if n == 1 else 5,
        bootstrap_low=difference - half / 2,
        bootstrap_high=difference + half / 2,
        noise_floor=0.03,
    )


def overview_row(domain: str, exact: int) -> dict:
    row = {"domain": domain, "documents": 200, "megabytes": 1.5, "tokens": 500_000}
    row |= {"train_rows": 4000, "held_out_rows": 300, "exact_duplicates": exact}
    return row | {"near_duplicates": 20}


def named(figure, name: str):
    return [trace for trace in figure.data if str(trace.name).startswith(name)]


def texts(figure) -> list[str]:
    return [note.text for note in figure.layout.annotations]


@pytest.mark.parametrize("name", CURVES)
def test_a_curve_takes_one_run_labelled_runs_and_seeds(make, name):
    a, b, c = make("a"), make("b", offset=0.1), make("c", offset=0.2)
    draw = getattr(plots, name)
    alone, labelled = draw(a), draw({"first": a, "second": b})
    seeds = draw({"first": [a, b], "second": c})
    assert len(named(alone, "a")) >= 1
    assert named(labelled, "first") and named(labelled, "second")
    assert any("mean of 2, band: min to max" in str(trace.name) for trace in seeds.data)


@pytest.mark.parametrize("name", CURVES + SINGLE)
def test_a_run_without_steps_gives_a_labelled_empty_figure(make, name):
    figure = getattr(plots, name)(make("new", steps=0))
    assert not figure.data and any("recorded yet" in text for text in texts(figure))
    assert plots.png(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize("name", CURVES + SINGLE)
def test_axes_are_titled_and_the_paper_is_transparent(make, name):
    figure = getattr(plots, name)(make("a"))
    layout = figure.to_dict()["layout"]
    for side in ("xaxis", "yaxis"):
        axes = [value for key, value in layout.items() if key.startswith(side)]
        assert any(axis["title"].get("text") for axis in axes), side
    assert layout["title"]["text"] and layout["uirevision"]
    assert layout["paper_bgcolor"] == layout["plot_bgcolor"] == "rgba(0,0,0,0)"


def test_the_loss_of_seeds_is_their_mean_with_the_range_as_band(make):
    runs = [make("a"), make("b", offset=0.3), make("c", offset=0.6)]
    figure = plots.loss({"uniform": runs})
    band, line = figure.data
    assert band.fill == "toself" and band.showlegend is False
    middle = 50
    assert line.x[middle] == middle
    assert line.y[middle] == pytest.approx(8 - 0.01 * middle + 0.3, abs=1e-3)
    assert line.customdata[middle] == pytest.approx(line.y[middle] + np.array([-0.3, 0.3]))


def test_seeds_are_compared_over_the_steps_that_all_have(make):
    figure = plots.held_out({"x": [make("a", steps=100), make("b", steps=50)]})
    assert named(figure, "x")[-1].x.tolist() == [0, 20, 40]
    unborn = plots.held_out({"x": [make("c", steps=100), make("d", steps=0)]})
    assert named(unborn, "x")[-1].x.tolist() == [0, 20, 40, 60, 80]


def test_smoothing_does_not_delay_a_slope(make):
    line = plots.loss(make("a", steps=200)).data[-1]
    middle = slice(80, 120)
    assert np.allclose(line.y[middle], 8 - 0.01 * line.x[middle], atol=5e-3)


def test_held_out_has_a_panel_for_the_mean_and_each_domain(make):
    run = make("a")
    assert texts(plots.held_out(run)) == ["mean of domains", "clean", "noise &lt;b&gt; $x$"]
    one = plots.held_out(run, domains=["clean"])
    assert texts(one) == ["mean of domains", "clean"]
    assert one.data[1].y[0] == 8.0


def test_throughput_is_tokens_per_second(make):
    assert plots.throughput(make("a")).data[0].y[10] == pytest.approx(20480)


def test_changes_and_failures_are_marked_and_close_ones_share_a_label(make):
    run = make("a")
    run.append("paused", 30)
    run.append("unpaused", 30)
    run.append("set", 31, changes={"reweighter.temperature": 0.4})
    run.append("failed", 90, problem="p", remedy="r")
    for figure in (plots.loss(run), plots.mixture(run), plots.held_out(run)):
        assert {"paused, temperature = 0.4", "failed"} <= set(texts(figure))
        assert {shape.x0 for shape in figure.layout.shapes} == {30, 90}
    assert "x: failed" in texts(plots.loss({"x": run, "y": make("b")}))


def test_weights_shows_the_rows_of_the_step_by_domain(make):
    run = make("a")
    figure = plots.weights(run, step=7)
    assert [trace.name for trace in figure.data] == ["clean", "noise &lt;b&gt; $x$"]
    shown = sorted(int(i) for trace in figure.data for i in trace.customdata)
    assert shown == [28, 29, 30, 31] and "step 7" in figure.layout.title.text
    assert "step 99" in plots.weights(run).layout.title.text
    assert texts(plots.weights(run, step=500)) == ["step 500 is not in the ledger"]


def test_a_figure_of_one_run_refuses_several(make):
    with pytest.raises(RunError, match="one run, not 2"):
        plots.mixture({"x": [make("a"), make("b")]})


def test_mixtures_of_several_labels_stand_side_by_side(make):
    figure = plots.mixture({"first": [make("a"), make("b")], "second": make("c")})
    assert {"first", "second"} <= set(texts(figure))
    assert [trace.xaxis for trace in figure.data] == ["x", "x", "x2", "x2"]
    assert [trace.showlegend for trace in figure.data] == [True, True, False, False]
    assert plots.png(figure).startswith(b"\x89PNG")


def test_implied_mixture_draws_weight_and_sample_share(make):
    figure = plots.implied_mixture(make("a"))
    entry, weight, sample = (t for t in figure.data if t.name == "clean")
    assert entry.showlegend is None and entry.marker.symbol == weight.marker.symbol
    assert weight.y[50] == pytest.approx(0.25) and sample.y[50] == pytest.approx(0.5)
    assert weight.line.dash != sample.line.dash


def test_verdicts_tell_outcomes_by_shape_as_well_as_colour():
    figure = plots.verdicts(
        [
            verdict("a", -0.04, 0.02, "better"),
            verdict("b", 0.01, 0.02, "within noise"),
            verdict("c", 0.05, 0.02, "worse"),
            verdict("d", 0.05, math.inf, "undecided", n=1),
        ]
    )
    assert [t.name for t in figure.data] == ["better", "worse", "within noise", "undecided"]
    assert len({t.marker.symbol for t in figure.data}) == 4
    better = figure.data[0]
    assert better.x == (-0.04,) and better.error_x.array == pytest.approx((0.02,))
    assert "nats per token" in figure.layout.xaxis.title.text
    told = better.customdata[0][0]
    assert "bootstrap -0.0500 to -0.0300" in told and "repeats alone differ by 0.0300" in told
    assert told.endswith("3 seeds, 5 needed")
    assert list(figure.layout.yaxis.categoryarray)[-1] == "a against uniform"
    assert plots.png(figure).startswith(b"\x89PNG")
    assert texts(plots.verdicts([])) == ["nothing compared yet"]


def test_corpus_shows_sizes_and_shares_of_duplicates():
    figure = plots.corpus([overview_row("prose", 10), overview_row("code", 0)])
    size, exact, near = figure.data
    assert size.y == ("code", "prose") and size.x == (1.5, 1.5)
    assert exact.x == (0.0, 0.05) and near.x == (0.1, 0.1)
    assert plots.png(figure).startswith(b"\x89PNG")
    assert texts(plots.corpus([])) == ["no domains"]


def test_a_nan_loss_is_a_gap_and_not_an_error(make):
    run = make("a", steps=40)
    fields = {k: v for k, v in run.events("step")[0].items() if k not in ("step", "loss")}
    run.append("step", 40, loss=math.nan, **{k: v for k, v in fields.items() if k != "kind"})
    figure = plots.loss(run)
    assert math.isnan(figure.data[-1].y[-1]) and plots.png(figure)


def test_no_two_lines_share_colour_and_dash(make):
    run = make("a", steps=3)
    figure = plots.ess({str(i): run for i in range(12)})
    assert len({(t.line.color, t.line.dash) for t in figure.data}) == 12

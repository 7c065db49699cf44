"""Figures of the theory: what is drawn is what was computed, also on logarithmic axes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from workbench import plots
from workbench.plots.theory import LOSS_FLOOR


def path(decay: float, covariance: float, steps: int = 40):
    """A made-up path: the test loss falls by `decay` a step, C_t is constant."""
    count = np.arange(1, steps + 1)
    return SimpleNamespace(
        theta_SD=np.linspace([0.0, 0.0], [1.0, 0.5 * decay], steps + 1),
        test_loss_S=decay ** np.arange(steps + 1.0),
        covariance_S=np.full(steps, covariance),
        average_excess_S=0.2 / count,
        bound_S=1 / count - covariance,
    )


def plane():
    angle = np.linspace(0, 2 * np.pi, 9)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    optimum_D = np.array([1.0, 0.5])
    return SimpleNamespace(
        optimum_D=optimum_D,
        losses=lambda theta_D: np.full(3, 0.5 * ((theta_D - optimum_D) ** 2).sum()),
        level_set=lambda height: optimum_D + np.sqrt(2 * height) * circle,
    )


@pytest.fixture
def paths():
    return {"uniform": path(0.9, 0.0), "linupper <b>": path(0.8, 0.01)}


def lines(figure, name: str):
    return [trace for trace in figure.data if trace.name == name]


def test_the_bound_is_drawn_for_each_path_beside_that_of_uniform(paths):
    figure = plots.theory_bound(paths)
    measured, bound = lines(figure, "measured"), lines(figure, "bound")
    assert len(measured) == len(bound) == 2 and len(lines(figure, "bound of uniform")) == 1
    assert np.allclose(measured[1].y, 0.2)
    assert bound[1].y[-1] == pytest.approx(1 - 0.01 * 40)
    assert sum(trace.showlegend for trace in figure.data) == 3


def test_covariance_accumulates(paths):
    figure = plots.theory_covariance(paths)
    (weighted,) = lines(figure, "linupper &lt;b&gt;")
    assert weighted.y == pytest.approx(0.01 * np.arange(1, 41))


def test_paths_lie_on_closed_contours_around_the_optimum(paths):
    figure = plots.theory_paths(plane(), paths)
    contours, first, second, star = figure.data
    assert np.isnan(contours.x).sum() == 7
    assert (
        np.array_equal(first.x, paths["uniform"].theta_SD[:, 0]) and second.mode[-7:] == "markers"
    )
    assert (star.x[0], star.y[0]) == (1.0, 0.5)
    low, high = figure.layout.xaxis.range
    assert low < 0 and high > 1


def test_controls_have_a_panel_each_and_stop_at_the_floor_of_rounding(paths):
    results = {
        "plain": {"uniform": [path(0.9, 0), path(0.8, 0)]},
        "fast": {"uniform": [path(0.1, 0)]},
    }
    figure = plots.theory_controls(results)
    assert [note.text for note in figure.layout.annotations] == ["plain", "fast"]
    band, mean, _, fast = figure.data
    assert band.fill == "toself" and mean.y[1] == pytest.approx(0.85)
    assert fast.y[-1] < LOSS_FLOOR <= fast.y[-2]
    assert figure.layout.xaxis2.range == (0, len(fast.y) - 1)
    assert figure.layout.yaxis2.type == "log"


def test_sliders_show_test_loss_and_covariance_from_the_start(paths):
    figure = plots.theory_sliders(paths)
    loss, total = figure.data[:2]
    assert np.array_equal(loss.y, paths["uniform"].test_loss_S) and len(total.y) == len(loss.y)
    assert figure.data[3].y[0] == 0 and figure.data[3].y[-1] == pytest.approx(0.4)


def test_every_figure_has_a_still_twin(paths):
    results = {"plain": {"uniform": [path(0.9, 0)]}}
    for figure in (
        plots.theory_bound(paths),
        plots.theory_covariance(paths),
        plots.theory_paths(plane(), paths),
        plots.theory_controls(results),
        plots.theory_sliders(paths),
    ):
        assert plots.png(figure).startswith(b"\x89PNG")


def test_the_still_twin_labels_logarithmic_axes_in_plain_text(monkeypatch, paths):
    from matplotlib.figure import Figure

    seen = {}

    def keep(self, *args, **options):
        axes = self.axes[0]
        ticks = [*axes.yaxis.get_major_ticks(), *axes.yaxis.get_minor_ticks()]
        self.canvas.draw()
        seen["scale"], seen["limits"] = axes.get_yscale(), axes.get_ylim()
        seen["labels"] = {tick.label1.get_text() for tick in ticks}

    monkeypatch.setattr(Figure, "savefig", keep)
    figure = plots.theory_sliders(paths)
    figure.update_yaxes(range=[-3, 0], row=1, col=1)
    plots.png(figure)
    assert seen["scale"] == "log" and seen["limits"] == pytest.approx((1e-3, 1))
    assert {"10⁻³", "10⁻²", "10⁰"} <= seen["labels"] and not any("$" in x for x in seen["labels"])

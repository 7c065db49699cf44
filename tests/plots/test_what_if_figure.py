"""The what-if figure: differences to the fitted runs' mean, intervals, and guesses told apart."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from workbench import plots

FITTED = SimpleNamespace(
    losses=("a <b>", "b"), measured_ND=np.array([[3.0, 5.0], [4.0, 5.5], [5.0, 6.0]])
)


def prediction(outside: float = 0.0):
    return SimpleNamespace(
        nats={"a <b>": 4.5, "b": 5.0},
        low={"a <b>": 4.25, "b": 4.75},
        high={"a <b>": 5.0, "b": 5.25},
        level=0.9,
        outside=outside,
    )


def test_losses_are_drawn_against_the_mean_of_the_fitted_runs():
    seen, predicted = plots.predicted_losses(FITTED, prediction()).data
    assert seen.x == pytest.approx([-1, 0, 1, -0.5, 0, 0.5])
    assert predicted.x == pytest.approx([0.5, -0.5])
    assert predicted.error_x.array == pytest.approx([0.5, 0.25])
    assert predicted.error_x.arrayminus == pytest.approx([0.25, 0.25])
    assert predicted.y[0] == "a &lt;b&gt;: 4.500 (4.250 to 5.000)"
    assert "90% interval" in predicted.name and set(seen.y) == set(predicted.y)


def test_a_guess_has_a_name_and_a_look_of_its_own():
    inside = plots.predicted_losses(FITTED, prediction()).data[1]
    guess = plots.predicted_losses(FITTED, prediction(outside=0.2)).data[1]
    assert "outside" in guess.name and "outside" not in inside.name
    assert guess.marker.color != inside.marker.color
    assert guess.marker.symbol != inside.marker.symbol


def test_it_has_a_still_twin():
    for outside in (0.0, 0.2):
        figure = plots.predicted_losses(FITTED, prediction(outside))
        assert plots.png(figure).startswith(b"\x89PNG")

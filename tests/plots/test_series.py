"""Smoothing and thinning against their definitions."""

from __future__ import annotations

import numpy as np

from workbench.plots.series import smooth, thin


def test_smoothing_is_the_two_sided_exponential_mean():
    y = np.random.default_rng(0).normal(size=60)
    y[[7, 8, 30]] = np.nan
    distance = np.abs(np.arange(60)[:, None] - np.arange(60))
    kernel = np.exp(-distance / 5) * np.isfinite(y)
    expected = kernel @ np.nan_to_num(y) / kernel.sum(axis=1)
    expected[np.isnan(y)] = np.nan
    np.testing.assert_allclose(smooth(y, 5), expected)
    assert smooth(y, 0) is y


def test_thinning_keeps_ends_and_extremes():
    y = np.random.default_rng(1).normal(size=50_000)
    y[12_345], y[40_001] = 99.0, -99.0
    y[200:400] = np.nan
    kept = thin(np.arange(len(y)), y)
    assert len(kept) <= 2000 and {0, len(y) - 1, 12_345, 40_001} <= set(kept.tolist())
    assert (np.diff(kept) > 0).all()
    assert np.isnan(y[kept]).any(), "a gap must stay a gap"
    assert thin(np.arange(5), y[:5]).tolist() == [0, 1, 2, 3, 4]


def test_a_long_run_is_drawn_with_few_points(make):
    from workbench import plots

    figure = plots.loss({"a": [make("a", steps=3000), make("b", steps=3000, offset=0.1)]})
    band, line = figure.data
    assert len(line.x) <= 2000 and len(band.x) <= 4000

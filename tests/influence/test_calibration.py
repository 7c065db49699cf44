"""The step of a difference follows rounding and curvature; the probe is spread over the rows."""

import numpy as np
import pytest

from workbench.influence.calibration import Agreement, best_step, probe_indices

RNG = np.random.default_rng(0)
EXACT, CURVATURE, NOISE = RNG.normal(size=(3, 64))


@pytest.mark.parametrize("curvature", [1e3, 1e1, 1e-1])
def test_the_step_lies_where_rounding_and_curvature_meet(curvature):
    rounding = 1e-6
    found = best_step(lambda h: EXACT + CURVATURE * curvature * h + NOISE * rounding / h, EXACT)
    meet = np.clip(np.sqrt(rounding / curvature), 1e-4, 1e-1)
    assert meet / 4 <= found.relative_step <= meet * 4
    assert found.rows == 64


def test_close_enough_leaves_room_for_the_size_of_the_probe():
    assert Agreement(0.9995, 64).close_enough("float32")
    assert not Agreement(0.9992, 64).close_enough("float32")
    assert Agreement(0.986, 64).close_enough("bfloat16")
    assert not Agreement(0.98, 64).close_enough("bfloat16")


@pytest.mark.parametrize(("rows", "probed"), [(1, 1), (10, 10), (64, 64), (1000, 64)])
def test_probe_rows_are_spread_over_all(rows, probed):
    found = probe_indices(rows)
    assert len(found) == probed and found[0] == 0 and found[-1] == rows - 1

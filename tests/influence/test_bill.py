"""What is read of a cache is owed, once, at what it cost; what a run computed itself is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.influence import toy
from tests.influence.test_scores import Source, drawn_direction
from workbench.influence import fit_factors, scorer
from workbench.influence.bill import Bill, computed, measured, read
from workbench.models.linear_maps import linear_maps
from workbench.models.operations import counted
from workbench.selection.row_values import row_values

EACH = np.array([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]])


def test_results_of_others_are_owed_once_and_own_ones_never():
    bill = Bill()
    with bill.open():
        computed("a", np.array([0]))
        read("a", np.arange(3), EACH)
        read("b", np.array([0]), EACH[:1])
    owed = bill.take()
    assert (owed.seconds, owed.flops) == (7.0, 70.0)
    again = Bill()
    again.load_state_dict(bill.state_dict())
    with again.open():
        read("a", np.arange(3), EACH)
        read("b", np.arange(3), EACH)
    assert again.take().flops == 60.0 and again.take().flops == 0
    read("a", np.arange(3), EACH)
    assert bill.take().flops == 0


def test_blocks_inside_one_that_counts_are_counted_in_both():
    x = torch.randn(8, 8)
    with counted() as outer:
        x @ x
        with counted() as inner:
            x @ x
        x @ x
    assert (inner.total, outer.total) == (2 * 8**3, 6 * 8**3)


def test_outside_of_a_block_that_counts_the_clock_alone_runs():
    with measured() as spent:
        torch.randn(8, 8) @ torch.randn(8, 8)
    assert spent.flops == 0 < spent.seconds


@pytest.fixture
def model():
    return toy.decoder(dtype=torch.float32)


def owed_by(work):
    bill = Bill()
    with counted(), bill.open(), measured() as spent:
        result = work()
    return result, bill.take(), spent


def test_scores_of_another_run_are_owed_row_by_row(model, tmp_path):
    direction = drawn_direction(model)

    def score(rows):
        return scorer(model, Source(), direction, cache_dir=tmp_path)(np.arange(rows))

    expected, own, paid = owed_by(lambda: score(4))
    assert own.flops == own.seconds == 0 < paid.flops
    _, owed, spent = owed_by(lambda: score(2))
    assert owed.flops == pytest.approx(paid.flops / 2) and spent.flops == 0
    assert 0 < owed.seconds < paid.seconds
    found, owed, spent = owed_by(lambda: score(6))
    assert owed.flops == pytest.approx(paid.flops) and spent.flops > 0
    np.testing.assert_array_equal(found[:4], expected)


def test_factors_of_another_run_are_owed_whole_and_unfinished_ones_by_file(model, tmp_path):
    batches = [toy.random_rows(2, seed=seed) for seed in range(2)]
    maps, plans = linear_maps(model), []

    def fit(**options):
        return fit_factors(model, batches, maps, folder=tmp_path, **options)

    fit_factors(model, batches, maps, progress=plans.append)
    # A look at the model comes before every fit, and is not kept.
    limit = {"limit_mib": 0.85 * plans[0]["peak_mib"]}

    def stop(event):
        stop.groups.add(event.get("first_map"))
        if len(stop.groups) > 2:
            raise KeyboardInterrupt

    stop.groups = set()
    with counted(), pytest.raises(KeyboardInterrupt):
        fit(progress=stop, **limit)
    _, first, rest = owed_by(lambda: fit(**limit))
    _, owed, spent = owed_by(fit)
    assert spent.flops == 0 < first.flops < owed.flops <= first.flops + rest.flops
    bill = Bill()
    with bill.open():
        fit()
        fit()
    assert bill.take().flops == owed.flops


def test_vectors_of_another_run_are_owed_row_by_row(tmp_path):
    weight = torch.randn(4, 4)

    def vectors(ids):
        return (torch.ones(len(ids), 4) @ weight).numpy()

    def embed(*ids):
        return row_values(vectors, np.array(ids), folder=tmp_path / "vectors")

    _, own, paid = owed_by(lambda: embed(0, 1))
    assert own.flops == 0 and paid.flops == 2 * 2 * 16
    _, owed, spent = owed_by(lambda: embed(1, 7))
    assert (owed.flops, spent.flops) == (2 * 16, 2 * 16)
    assert owed_by(lambda: embed(0, 1, 7))[1].flops == 3 * 2 * 16


def test_files_of_an_older_workbench_cost_nothing(tmp_path, model):
    direction = drawn_direction(model)
    scorer(model, Source(), direction, cache_dir=tmp_path)(np.arange(3))
    (part,) = tmp_path.rglob("part_*.npz")
    with np.load(part) as columns:
        kept = {name: columns[name] for name in ("sample_id", "score")}
    np.savez(part, **kept)
    work = scorer(model, Source(), direction, cache_dir=tmp_path)
    _, owed, spent = owed_by(lambda: work(np.arange(3)))
    assert owed.seconds == owed.flops == spent.flops == 0

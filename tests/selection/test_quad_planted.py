"""The planted pool in small: what the benchmark measures at full size has to hold here as well."""

import numpy as np
import pytest
import torch

from benchmarks.quad_planted import (
    KINDS,
    PlantedPool,
    gradient_norms,
    study,
    trained,
)
from workbench.models.linear_maps import linear_maps, token_loss


@pytest.fixture(scope="module")
def source():
    return PlantedPool(seed=0, topics=4, rows=60, copies=60, words=12)


@pytest.fixture(scope="module")
def model(source):
    return trained(source, steps=200, layers=1)


@pytest.fixture(scope="module")
def found(source, model):
    return study(source, model, reference_rows=64)


def test_the_planted_rows_are_what_they_are_called(source):
    pool = source.pool()
    rows_NT, kind_N = source.tokens(pool.sample_id_N), source.kind(pool.sample_id_N)
    assert np.bincount(kind_N).tolist() == [240] * 4
    topic_N = (pool.sample_id_N >> 40) // len(KINDS)
    own = rows_NT // source.words == topic_N[:, None]
    assert own[kind_N != KINDS.index("noise")].all() and not own[kind_N == 3].all()
    assert len(np.unique(rows_NT[kind_N == KINDS.index("duplicated")], axis=0)) == source.topics
    reference = {row.tobytes() for row in source.reference(64)}
    assert not reference & {row.tobytes() for row in rows_NT}


def test_curvature_separates_clean_rows_from_all_others(found):
    assert found["ekfac"]["auc"]["rest"] >= 0.99
    assert found["ekfac"]["auc"]["rest"] > found["identity"]["auc"]["rest"]
    assert found["ekfac"]["auc"]["rest"] > found["identity_cosine"]["auc"]["rest"] + 0.05


def test_quad_accepts_clean_rows_of_every_topic_and_scores_few(found):
    accepted = found["ekfac"]["accepted"]
    assert accepted["clean"] >= 0.75
    assert accepted["shuffled_or_noise"] <= 0.05
    assert accepted["clean_clusters"] == 4
    assert accepted["clean"] > found["identity_cosine"]["accepted"]["clean"]
    assert found["ekfac"]["scored_share"] < 0.3
    assert found["ekfac"]["gate_failed"] == ""


def test_norms_of_gradients_equal_those_of_gradients_that_are_made(source, model):
    rows_nT = source.tokens(source.pool().sample_id_N[::240])
    maps = linear_maps(model)
    slow_n = []
    for row in torch.from_numpy(rows_nT):
        loss = token_loss(model, maps, row[None]).sum()
        gradients = torch.autograd.grad(loss, [found.weight for found in maps])
        slow_n.append(sum(g.square().sum() for g in gradients).sqrt().item())
    np.testing.assert_allclose(gradient_norms(model, rows_nT, 3), slow_n, rtol=1e-4)

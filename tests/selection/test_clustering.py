"""Clusters: planted groups are found by both backends, ids are stable, no cluster is empty."""

import sys

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from workbench.core import ConfigError, DataError
from workbench.selection import ClusteredPool, Clusters, cluster
from workbench.selection.clustering import default_clusters


def planted(groups: int = 6, rows: int = 600, width: int = 16, noise: float = 0.1):
    """Unit vectors around `groups` random directions, and the group of each."""
    rng = np.random.default_rng(3)
    group_N = rng.integers(0, groups, rows)
    point_ND = rng.normal(size=(groups, width))[group_N] + noise * rng.normal(size=(rows, width))
    return (point_ND / np.linalg.norm(point_ND, axis=1, keepdims=True)).astype(np.float32), group_N


@pytest.mark.parametrize("backend", ["minibatch", "faiss"])
def test_planted_groups_are_found(backend):
    pytest.importorskip("faiss" if backend == "faiss" else "sklearn")
    embedding_ND, group_N = planted()
    # k-means may split a group, so a few clusters more than groups and no group mixed.
    clusters = cluster(embedding_ND, clusters=9, backend=backend)
    assert all(len(np.unique(group_N[rows])) == 1 for rows in clusters.members())
    assert clusters.label_N.dtype == np.int32 and clusters.rows_C.sum() == 600
    assert np.linalg.norm(clusters.centre_CD, axis=1) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("backend", ["minibatch", "faiss"])
def test_every_row_is_with_its_nearest_centre_and_knows_how_far(backend):
    pytest.importorskip("faiss" if backend == "faiss" else "sklearn")
    embedding_ND, _ = planted(noise=0.8)
    clusters = cluster(embedding_ND, clusters=10, backend=backend)
    cosine = embedding_ND @ clusters.centre_CD.T
    assert np.array_equal(cosine.argmax(axis=1), clusters.label_N)
    assert clusters.distance_N == pytest.approx(1 - cosine.max(axis=1), abs=1e-5)


def test_ids_are_those_of_the_first_rows_and_the_same_every_time():
    embedding_ND, _ = planted(noise=0.5)
    first, second = (cluster(embedding_ND, clusters=12, seed=1) for _ in range(2))
    assert np.array_equal(first.label_N, second.label_N)
    _, places = np.unique(first.label_N, return_index=True)
    assert (np.diff(places) > 0).all() and first.label_N[0] == 0
    assert (
        adjusted_rand_score(first.label_N, cluster(embedding_ND, clusters=12, seed=2).label_N) < 1
    )


def test_clusters_without_rows_are_left_out_and_counted():
    point_ND = np.eye(3, dtype=np.float32)[np.arange(90) % 3]
    clusters = cluster(point_ND, clusters=20)
    assert len(clusters) == 3 and clusters.asked == 20
    assert clusters.rows_C.tolist() == [30, 30, 30]
    assert clusters.label_N[:4].tolist() == [0, 1, 2, 0]


def test_rows_without_direction_do_no_harm():
    embedding_ND, _ = planted()
    embedding_ND[5] = 0
    clusters = cluster(embedding_ND, clusters=8)
    assert clusters.distance_N[5] == pytest.approx(1)
    assert np.isfinite(clusters.centre_CD).all()


def test_neighbours_are_the_near_centres_with_falling_weights():
    angle_C = np.deg2rad([0, 30, 60, 170])
    centre_CD = np.stack([np.cos(angle_C), np.sin(angle_C)], axis=1).astype(np.float32)
    clusters = Clusters(np.arange(4, dtype=np.int32), centre_CD, np.zeros(4, np.float32), 4)
    d0 = 1 - np.cos(np.deg2rad(45))
    near = clusters.neighbours(d0)
    assert [ids.tolist() for ids, _ in near] == [[1], [0, 2], [1], []]
    expected = 1 - (1 - np.cos(np.deg2rad(30))) / d0
    assert near[1][1] == pytest.approx([expected, expected], abs=1e-5)
    with pytest.raises(ConfigError, match="neighbour distance = 0"):
        clusters.neighbours(0)


def test_what_cannot_be_clustered_is_refused(monkeypatch):
    embedding_ND, _ = planted(rows=5)
    with pytest.raises(DataError, match=r"6 clusters of 5 rows — set clusters to at most 5"):
        cluster(embedding_ND, clusters=6)
    with pytest.raises(ConfigError, match="clusters = 0"):
        cluster(embedding_ND, clusters=0)
    with pytest.raises(ConfigError, match="did you mean 'minibatch'"):
        cluster(embedding_ND, clusters=2, backend="minibatches")
    with pytest.raises(DataError, match="not finite"):
        cluster(embedding_ND * np.nan, clusters=2)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ConfigError, match=r"faiss-cpu — pip install 'workbench\[cluster\]'"):
        cluster(embedding_ND, clusters=2, backend="faiss")


def test_default_number_of_clusters_is_the_square_root_of_the_rows():
    assert [default_clusters(rows) for rows in (1, 99, 10_000)] == [1, 9, 100]


def test_topics_of_a_pool_become_clusters_that_later_pools_keep(topics):
    pool = topics.pool()
    clustered = ClusteredPool(topics.task(), clusters=8, embedder={"name": "tfidf", "width": 8})
    clustered.see(pool)
    label_N = clustered.labels(pool)
    for number in range(label_N.max() + 1):
        assert len(np.unique(pool.domain_N[label_N == number])) == 1
    read = topics.asked_texts
    later = type(pool)(pool.sample_id_N[::-2], pool.domain_N[::-2], pool.tokens_N[::-2])
    assert clustered.see(later).label_N is clustered.see(pool).label_N
    assert np.array_equal(clustered.labels(later), label_N[::-2])
    assert np.array_equal(clustered.map(later), clustered.map(pool)[::-2])
    assert topics.asked_texts == read


def test_rows_without_a_direction_are_one_cluster():
    found = cluster(np.zeros((10, 4), dtype=np.float32), clusters=3)
    assert len(found) == 1 and found.label_N.tolist() == [0] * 10
    assert np.isfinite(found.centre_CD).all() and found.neighbours(0.5)[0][0].tolist() == []

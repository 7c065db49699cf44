"""The map of the rows: PCA keeps distances on a plane, UMAP is fitted once."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist

import workbench.selection.projection as projection
from workbench.core import ConfigError, DataError


def test_points_of_a_plane_keep_their_distances_under_pca():
    rng = np.random.default_rng(0)
    plane_2D = np.linalg.qr(rng.normal(size=(6, 2)))[0].T
    point_N2 = rng.normal(size=(50, 2)) * [3, 1]
    place_N2 = projection.project((point_N2 @ plane_2D + 5).astype(np.float32))
    assert place_N2.dtype == np.float32
    assert pdist(place_N2) == pytest.approx(pdist(point_N2), rel=1e-4)
    assert place_N2[:, 0].std() > place_N2[:, 1].std()
    assert place_N2.mean(axis=0) == pytest.approx(0, abs=1e-5)


def test_pca_of_one_column_or_one_row_is_a_place_on_the_plane():
    assert projection.project(np.arange(4.0)[:, None])[:, 1].tolist() == [0, 0, 0, 0]
    assert projection.project(np.ones((1, 5))).shape == (1, 2)


def test_umap_is_fitted_once_for_the_same_data_and_seed(tmp_path, monkeypatch):
    fitted = []

    def fit(embedding_ND, seed):
        fitted.append(seed)
        return np.full((len(embedding_ND), 2), seed, dtype=np.float32)

    monkeypatch.setattr(projection, "_umap", fit)
    embedding_ND = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    for data, seed in ((embedding_ND, 0), (embedding_ND, 0), (embedding_ND, 1), (-embedding_ND, 0)):
        place_N2 = projection.project(data, method="umap", cache_dir=tmp_path, seed=seed)
        assert (place_N2 == seed).all()
    assert fitted == [0, 1, 0]


def test_what_cannot_be_projected_is_refused():
    with pytest.raises(ConfigError, match="did you mean 'umap'"):
        projection.project(np.ones((9, 4)), method="umapp")
    with pytest.raises(DataError, match="'umap' of 3 rows"):
        projection.project(np.ones((3, 4)), method="umap")
    with pytest.raises(DataError, match="give a pool with rows"):
        projection.project(np.ones((0, 4)))


@pytest.mark.slow
def test_umap_separates_planted_groups_and_repeats_itself():
    rng = np.random.default_rng(0)
    group_N = np.arange(120) % 3
    data = (10 * np.eye(3, 8)[group_N] + rng.normal(size=(120, 8))).astype(np.float32)
    first, second = (projection.project(data, method="umap", seed=1) for _ in range(2))
    assert np.array_equal(first, second)
    centre = np.stack([first[group_N == g].mean(axis=0) for g in range(3)])
    nearest = ((first[:, None] - centre) ** 2).sum(axis=2).argmin(axis=1)
    assert (nearest == group_N).mean() > 0.95

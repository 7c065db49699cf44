"""Rows on a plane: PCA at once, UMAP once and kept.

    place_N2 = project(embedding_ND, method="umap", cache_dir=cache, seed=0)

UMAP costs seconds to compile and more to fit, so it is fitted with exact neighbours and from the
PCA, and kept by data, parameters and versions.  Shapes: N rows, D width.
"""

from __future__ import annotations

import hashlib
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from workbench.core import ConfigError, DataError, stream_seed, unknown_name
from workbench.influence import bill
from workbench.selection.row_values import cache_folder, read_arrays, write_arrays

NEIGHBOURS = 15
EPOCHS = 200
MIN_DISTANCE = 0.1
METHODS = ("pca", "umap")
_CHUNK_ROWS = 4096


def project(
    embedding_ND: np.ndarray, *, method: str = "pca", cache_dir: Path | None = None, seed: int = 0
) -> np.ndarray:
    """A place on the plane for every row, float32 (N, 2).

    `pca`: the two directions of largest variance, signs fixed.  `umap`: McInnes et al. 2018
    (arXiv 1802.03426), 15 exact cosine neighbours, 200 epochs from the PCA; one thread, so that
    it is the same for the same seed.

    Raises:
        ConfigError: unknown method, or umap-learn is missing.
        DataError: no rows; fewer than 4 for `umap`.
    """
    require_method(method)
    if len(embedding_ND) < (4 if method == "umap" else 1):
        raise DataError(
            f"projection '{method}' of {len(embedding_ND)} rows",
            remedy="use 'pca'" if len(embedding_ND) else "give a pool with rows",
        )
    if method == "pca":
        return _pca(embedding_ND)
    folder = cache_folder(cache_dir, "map", _digest(embedding_ND), _umap_settings(seed))
    kept = folder and read_arrays(folder / "map.npz")
    if folder and kept:
        bill.read(folder.name, np.zeros(1), kept.get("cost", np.zeros((1, 2))))
        return kept["place"]
    with bill.measured() as spent:
        place_N2 = _umap(embedding_ND, seed)
    if folder:
        bill.computed(folder.name, np.zeros(1))
        write_arrays(folder / "map.npz", place=place_N2, cost=spent.share(1))
    return place_N2


def require_method(method: str) -> None:
    """ConfigError for what is not one of `METHODS`."""
    if method not in METHODS:
        problem, remedy = unknown_name("projection", method, METHODS)
        raise ConfigError(problem, remedy=remedy)


def _pca(embedding_ND: np.ndarray) -> np.ndarray:
    width = embedding_ND.shape[1]
    mean_D = embedding_ND.mean(axis=0, dtype=np.float64)
    covariance_DD = np.zeros((width, width))
    for first in range(0, len(embedding_ND), _CHUNK_ROWS):
        part = embedding_ND[first : first + _CHUNK_ROWS] - mean_D
        covariance_DD += part.T @ part
    axis_D2 = np.zeros((width, 2))
    axis_D2[:, : min(2, width)] = np.linalg.eigh(covariance_DD)[1][:, ::-1][:, :2]
    # An eigenvector's sign is arbitrary: make its largest entry positive.
    largest = np.abs(axis_D2).argmax(axis=0)
    axis_D2 *= np.where(axis_D2[largest, [0, 1]] < 0, -1, 1)
    return (embedding_ND @ axis_D2 - mean_D @ axis_D2).astype(np.float32)


def _umap(embedding_ND: np.ndarray, seed: int) -> np.ndarray:
    try:
        import umap
    except ImportError:
        raise ConfigError(
            "projection 'umap' needs the package umap-learn",
            remedy="pip install umap-learn, or use 'pca'",
        ) from None
    from sklearn.neighbors import NearestNeighbors

    neighbours = min(NEIGHBOURS, len(embedding_ND) - 1)
    exact = NearestNeighbors(n_neighbors=neighbours, metric="cosine", algorithm="brute")
    distance, index = exact.fit(embedding_ND).kneighbors(embedding_ND)
    start_N2 = _pca(embedding_ND)
    # UMAP expects a start within ±10, and its default start is scaled so.
    start_N2 = start_N2 * (10 / max(float(np.abs(start_N2).max()), 1e-12))
    reducer: Any = umap.UMAP(
        n_neighbors=neighbours,
        min_dist=MIN_DISTANCE,
        metric="cosine",
        n_epochs=EPOCHS,
        init=start_N2,  # pyright: ignore[reportArgumentType]
        precomputed_knn=(index, distance),
        force_approximation_algorithm=True,
        random_state=stream_seed(seed, "umap") % 2**32,
        n_jobs=1,
    )
    with warnings.catch_warnings():
        # It will never place new rows, and one thread is what makes it repeatable.
        warnings.simplefilter("ignore", UserWarning)
        return np.asarray(reducer.fit_transform(embedding_ND), dtype=np.float32)


def _umap_settings(seed: int) -> dict[str, Any]:
    versions = {name: version(name) for name in ("umap-learn", "scikit-learn", "numpy")}
    return {
        "seed": seed,
        "neighbours": NEIGHBOURS,
        "epochs": EPOCHS,
        "min_distance": MIN_DISTANCE,
        **versions,
    }


def _digest(embedding_ND: np.ndarray) -> str:
    data = np.ascontiguousarray(embedding_ND, dtype=np.float32)
    return hashlib.blake2b(data.tobytes(), digest_size=16).hexdigest() + str(data.shape)

"""Rows as vectors of unit length: TF-IDF, the run's own model, or any sentence encoder.

    embedding_ND = embed(task, pool.sample_id_N, model)                       # tfidf
    embedding_ND = embed(task, pool.sample_id_N, embedder="sentence", encoder=folder)

Vectors are made block by block and kept under `task.cache_dir` by corpus, settings and, for an
embedder that is fitted, the rows it is fitted on.
Shapes: N rows, B rows of a block, T tokens, D width of the vectors, F features.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from workbench.core import (
    ConfigError,
    NumericsError,
    RandomStreams,
    Registry,
    SelectionTask,
    stream_seed,
)
from workbench.selection.row_values import cache_folder, ids_digest, row_values

EMBEDDERS = Registry("embedder", supplied=("task", "model"))


class Embedder(Protocol):
    """Vectors of rows.  Built as `factory(task: SelectionTask, model, **options)`.

    fit_rows: rows it is fitted on at most; 0 when it is not fitted.  A factory with
    `runs_a_model = False` counts words or the like, and runs no model over the rows.
    """

    @property
    def fit_rows(self) -> int: ...

    def settings(self) -> dict[str, Any]:
        """What the vectors depend on besides the corpus and the rows fitted on; plain types."""
        ...

    def fit(self, sample_id_B: np.ndarray) -> None:
        """Learn from a sample of the rows; called before the first vectors, if any are missing."""
        ...

    def vectors(self, sample_id_B: np.ndarray) -> np.ndarray:
        """(B, D), of any length."""
        ...


def embed(
    task: SelectionTask,
    sample_id_N: np.ndarray,
    model: Any = None,
    *,
    embedder: str = "tfidf",
    **options: Any,
) -> np.ndarray:
    """Unit vectors of rows, float32 (N, D); zeros for a row in which the embedder sees nothing.

    The same for the same task, rows and options, whatever is kept from earlier.

    Args:
        model: the run's `models.Decoder`, left as it is; only `hidden` asks for it.
        embedder: a name of `EMBEDDERS`; `options` are its own.
    Raises:
        ConfigError: unknown embedder or option, a package or model that is missing.
        DataError: no rows.  NumericsError: a vector that is not finite.
    """
    maker: Embedder = EMBEDDERS.build(embedder, task, model, **options)
    fitted_on = _fit_sample(task, sample_id_N, maker.fit_rows)
    settings = {"embedder": embedder, **maker.settings(), "fitted_on": ids_digest(fitted_on)}

    @cache
    def fit() -> None:
        maker.fit(fitted_on)

    def unit_vectors(sample_id_B: np.ndarray) -> np.ndarray:
        fit()
        return _unit(maker.vectors(sample_id_B), embedder)

    folder = cache_folder(
        task.cache_dir, f"embedding-{embedder}", task.source.content_hash, settings
    )
    return row_values(
        unit_vectors, sample_id_N, folder=folder, progress=task.progress, stage="embedding"
    )


def _fit_sample(task: SelectionTask, sample_id_N: np.ndarray, rows: int) -> np.ndarray:
    if len(sample_id_N) <= rows:
        return np.sort(sample_id_N)
    rng = RandomStreams(task.seed).at("embedding sample")
    return np.sort(rng.choice(np.sort(sample_id_N), size=rows, replace=False))


def _unit(vector_BD: np.ndarray, embedder: str) -> np.ndarray:
    vector_BD = np.asarray(vector_BD, dtype=np.float32)
    if not np.isfinite(vector_BD).all():
        raise NumericsError(
            f"embedder '{embedder}' gives vectors that are not finite",
            remedy="choose another embedder, or a model whose losses are finite",
        )
    length_B = np.linalg.norm(vector_BD, axis=1, keepdims=True)
    return vector_BD / np.where(length_B > 0, length_B, 1)


@EMBEDDERS.register("tfidf")
class Tfidf:
    """Hashed words and pairs of words, TF-IDF, truncated SVD; fitted on a sample of rows.

    Needs no download and no model.  Memory does not grow with the pool: a block of text at a
    time, and `features` × `width` numbers of the fit.

    Args:
        width: D, fewer when the sample has fewer rows.
        features: F, buckets of the hashed words.
        fit_rows: rows of the sample that document frequencies and the SVD come from.
    """

    runs_a_model = False

    def __init__(
        self,
        task: SelectionTask,
        model: Any = None,
        *,
        width: int = 64,
        features: int = 1 << 16,
        fit_rows: int = 20_000,
    ):
        if width < 1 or features <= width or fit_rows < 2:
            raise ConfigError(
                f"tfidf cannot use width = {width}, features = {features}, fit_rows = {fit_rows}",
                remedy="set 1 <= width < features and fit_rows >= 2",
            )
        self.fit_rows = fit_rows
        self._task, self._width, self._features = task, width, features
        self._weigher: Any = None
        self._components: Any = None

    def settings(self) -> dict[str, Any]:
        return {"width": self._width, "features": self._features, "seed": self._task.seed}

    def fit(self, sample_id_B: np.ndarray) -> None:
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfTransformer

        count_BF = self._counts(sample_id_B)
        self._weigher = TfidfTransformer(sublinear_tf=True).fit(count_BF)
        width = min(self._width, len(sample_id_B))
        seed = stream_seed(self._task.seed, "tfidf") % 2**32
        weighed_BF = self._weigher.transform(count_BF)
        # Rows that are all alike have no variance to explain, which scikit-learn divides by.
        with np.errstate(invalid="ignore"):
            self._components = TruncatedSVD(width, random_state=seed).fit(weighed_BF)

    def vectors(self, sample_id_B: np.ndarray) -> np.ndarray:
        return self._components.transform(self._weigher.transform(self._counts(sample_id_B)))

    def _counts(self, sample_id_B: np.ndarray) -> Any:
        from sklearn.feature_extraction.text import HashingVectorizer

        hashing = HashingVectorizer(
            n_features=self._features,
            ngram_range=(1, 2),
            token_pattern=r"(?u)\w+|[^\w\s]",
            alternate_sign=False,
            norm=None,  # pyright: ignore[reportArgumentType]
        )
        return hashing.transform(self._task.source.text(int(each)) for each in sample_id_B)


@EMBEDDERS.register("hidden")
class Hidden:
    """Mean over a row's tokens of the model's last hidden states, less their mean over a sample.

    Hidden states share a large common part, which would make all rows look alike.

    Args:
        model: `models.Decoder`; evaluated without dropout and left in the mode it was in.
        fit_rows: rows of the sample that the common part comes from.
    """

    def __init__(self, task: SelectionTask, model: Any = None, *, fit_rows: int = 1024):
        if model is None:
            raise ConfigError(
                "embedder 'hidden' has no model", remedy="give the run's model, or use 'tfidf'"
            )
        if fit_rows < 2:
            raise ConfigError(f"hidden cannot use fit_rows = {fit_rows}", remedy="set at least 2")
        self.fit_rows = fit_rows
        self._task, self._model = task, model
        self._common_D: Any = 0.0

    def settings(self) -> dict[str, Any]:
        """The model by the bytes of its parameters: a step of training makes other vectors."""
        digest = hashlib.blake2b(digest_size=16)
        for name, parameter in self._model.named_parameters():
            digest.update(name.encode())
            digest.update(parameter.detach().float().cpu().numpy().tobytes())
        return {"model": digest.hexdigest(), "seed": self._task.seed}

    def fit(self, sample_id_B: np.ndarray) -> None:
        self._common_D = self._means(sample_id_B).mean(axis=0)

    def vectors(self, sample_id_B: np.ndarray) -> np.ndarray:
        return self._means(sample_id_B) - self._common_D

    def _means(self, sample_id_B: np.ndarray) -> np.ndarray:
        import torch

        was_training = self._model.training
        self._model.eval()
        parts = []
        try:
            with torch.inference_mode():
                for first in range(0, len(sample_id_B), self._task.batch_rows):
                    ids = sample_id_B[first : first + self._task.batch_rows]
                    tokens_BT = torch.as_tensor(self._task.source.tokens(ids)[:, :-1])
                    hidden_BTD = self._model.hidden(tokens_BT.to(self._task.device))
                    parts.append(hidden_BTD.float().mean(dim=1).cpu().numpy())
        finally:
            self._model.train(was_training)
        return np.concatenate(parts)


@EMBEDDERS.register("sentence")
class Sentence:
    """Any encoder of `sentence-transformers`, by name or folder.

    Args:
        encoder: a model's name, or the folder it was saved in.
    """

    fit_rows = 0

    def __init__(self, task: SelectionTask, model: Any = None, *, encoder: str):
        if find_spec("sentence_transformers") is None:
            raise ConfigError(
                "embedder 'sentence' needs the package sentence-transformers",
                remedy="pip install 'workbench[sentence]', or use the embedder 'tfidf'",
            )
        self._task, self._name = task, encoder
        self._encoder: Any = None

    def settings(self) -> dict[str, Any]:
        """A saved encoder by the bytes of its files: one trained on has the same folder."""
        return {"encoder": self._name, "files": _files_digest(Path(self._name))}

    def fit(self, sample_id_B: np.ndarray) -> None:
        from sentence_transformers import SentenceTransformer  # pyright: ignore

        try:
            self._encoder = SentenceTransformer(self._name, device=self._task.device)
        except Exception as error:  # the hub, the disk and torch raise errors of many kinds
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ConfigError(
                f"sentence encoder '{self._name}' cannot be loaded: {reason}",
                remedy="give the folder of a saved model, or check name and network",
            ) from None

    def vectors(self, sample_id_B: np.ndarray) -> np.ndarray:
        texts = [self._task.source.text(int(each)) for each in sample_id_B]
        return self._encoder.encode(
            texts,
            batch_size=self._task.batch_rows,
            convert_to_numpy=True,
            show_progress_bar=False,
        )


def _files_digest(folder: Path) -> str | None:
    """Hash of the names and bytes of a folder's files; None where there is no such folder."""
    if not folder.is_dir():
        return None
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size} ".encode())
        with path.open("rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
    return digest.hexdigest()

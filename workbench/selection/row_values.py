"""One value per row, computed block by block of ids and kept, so that nothing is done twice.

    embedding_ND = row_values(embed_rows, sample_id_N, folder=cache / key, progress=progress)

What each row cost is kept beside it, so that a run which only reads it owes that, see
`influence.bill`.  A block holds the rows whose ids agree in all but the last bits, so a pool that
shrinks between two choices still finds its rows.
Shapes: N rows asked for, B rows of a block, D width.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from workbench.core import DataError, Progress, silent
from workbench.influence import bill

BLOCK_BITS = 12
"""4096 ids a block: a file of 1 MiB for vectors of width 64, a few seconds of work."""


def row_values(
    compute: Callable[[np.ndarray], np.ndarray],
    sample_id_N: np.ndarray,
    *,
    folder: Path | None = None,
    progress: Progress = silent,
    stage: str = "rows",
) -> np.ndarray:
    """Values of rows by id, shape (N, …); each block is written aside, then renamed.

    Args:
        compute: values of some rows, int64 ids (B,) -> (B, …); a value depends on its row alone.
        folder: of this computation on these rows and no other, see `cache_folder`; None keeps
            nothing.
    Raises:
        DataError: no rows, or a kept block that cannot be read.
    """
    if len(sample_id_N) == 0:
        raise DataError(f"no rows for the stage '{stage}'", remedy="give a pool with rows")
    block_N = sample_id_N >> BLOCK_BITS
    order_N = np.argsort(block_N, kind="stable")
    edges = np.flatnonzero(np.diff(block_N[order_N])) + 1
    value_N: np.ndarray | None = None
    done = 0
    for places in np.split(order_N, edges):
        path = folder and folder / f"{block_N[places[0]]}.npz"
        block = _block(compute, sample_id_N[places], path)
        if value_N is None:
            value_N = np.empty((len(sample_id_N), *block.shape[1:]), dtype=block.dtype)
        value_N[places] = block
        done += len(places)
        progress({"stage": stage, "done": done, "total": len(sample_id_N)})
    assert value_N is not None
    return value_N


def cache_folder(
    cache_dir: Path | None, name: str, content_hash: str, settings: Mapping[str, Any]
) -> Path | None:
    """The folder of a computation: its name, the corpus and everything the values depend on."""
    if cache_dir is None:
        return None
    text = json.dumps([content_hash, settings], sort_keys=True)
    return Path(cache_dir) / f"{name}-{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}"


def ids_digest(sample_id_N: np.ndarray) -> str:
    """Hash of a set of ids, whatever their order."""
    ids = np.sort(np.asarray(sample_id_N, dtype=np.int64))
    return hashlib.blake2b(ids.tobytes(), digest_size=16).hexdigest()


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """An .npz file that is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with aside.open("wb") as file:
        np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
    os.replace(aside, path)


def read_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays of a file of `write_arrays`; None when there is no such file.

    Raises:
        DataError: the file is damaged.
    """
    try:
        with np.load(path) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is damaged: {error}", remedy="delete it and run again") from None


def _block(
    compute: Callable[[np.ndarray], np.ndarray], sample_id_B: np.ndarray, path: Path | None
) -> np.ndarray:
    kept = read_arrays(path) if path else None
    known = kept["sample_id"] if kept else np.empty(0, dtype=np.int64)
    cost = kept.get("cost", np.zeros((len(known), 2))) if kept else np.empty((0, 2))
    missing = np.setdiff1d(sample_id_B, known)
    if path:
        found = np.isin(known, sample_id_B)
        bill.read(path.parent.name, known[found], cost[found])
    if len(missing):
        with bill.measured() as spent:
            values = compute(missing)
        known = np.concatenate([known, missing])
        values = np.concatenate([kept["value"], values]) if kept else values
        cost = np.concatenate([cost, spent.share(len(missing))])
        kept = {"sample_id": known, "value": values, "cost": cost}
        if path:
            bill.computed(path.parent.name, missing)
            write_arrays(path, **kept)
    assert kept is not None
    order = np.argsort(known)
    return kept["value"][order[np.searchsorted(known, sample_id_B, sorter=order)]]

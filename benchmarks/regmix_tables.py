"""How well a surrogate ranks runs it has not seen, on the public tables of RegMix.

    python -m benchmarks.regmix_tables FOLDER --method lightgbm

Liu et al. 2025 (arXiv 2407.01492) publish mixtures over the domains of the Pile and the losses that
models of 1 M, 60 M and 1 B parameters reached on them.  FOLDER is the `data` folder of their
repository; no table is part of this one.  A surrogate is fitted on the 1 M training runs, and the
Spearman correlation of predicted and measured loss is printed for each set of held-out runs.
Shapes: N runs, K domains, D losses.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.core import DataError, WorkbenchError
from workbench.mixing.surrogate import regression

if TYPE_CHECKING:
    import pandas as pd

TRAIN = ("train_mixture_1m.csv", "train_pile_loss_1m.csv")
HELD_OUT = {
    "1M": ("test_mixture_1m.csv", "test_pile_loss_1m.csv"),
    "60M": ("test_mixture_60m.csv", "test_pile_loss_60m.csv"),
    "1B": ("test_mixture_1B.csv", "test_pile_loss_1B.csv"),
}
SAME_MIXTURES = {"test_mixture_1m.csv": "test_mixture_60m.csv"}
"""The held-out mixtures of 1 M are those of 60 M, and copies of the folder can lack the first."""
MIXTURE_PREFIX, LOSS_PREFIXES, LOSS_SUFFIX = (
    "train_the_pile_",
    ("metric/", "the_pile_"),
    "_val_loss",
)


@dataclass(frozen=True)
class Ranking:
    """Spearman correlation of predicted and measured loss over `runs` held-out runs, by loss."""

    size: str
    runs: int
    spearman: dict[str, float]

    @property
    def mean(self) -> float:
        return float(np.mean(list(self.spearman.values())))


def rank_correlations(folder: str | Path, *, method: str = "ridge") -> list[Ranking]:
    """Fit the 1 M training runs, rank the held-out runs of each size that the folder has.

    Args:
        folder: of the tables; pairs of 1 M, 60 M and 1 B that are missing are left out.
        method: `ridge` or `lightgbm`.
    Raises:
        DataError: no training tables, no held-out ones, or columns that do not belong together.
        ConfigError: unknown method, or LightGBM is not installed.
    """
    mixtures, losses = _tables(Path(folder), *TRAIN)
    predict = regression(method)(mixtures.to_numpy(float), losses.to_numpy(float))
    rankings = []
    for size, names in HELD_OUT.items():
        if not (Path(folder) / names[1]).exists():
            continue
        asked, measured = _tables(Path(folder), *names)
        if list(asked) != list(mixtures) or not set(measured) <= set(losses):
            raise DataError(
                f"{names[0]} and {names[1]} have other domains than {TRAIN[0]} and {TRAIN[1]}",
                remedy="give the tables of one release",
            )
        predicted_ND = predict(asked.to_numpy(float))
        spearman = {
            name: _spearman(predicted_ND[:, list(losses).index(name)], measured[name].to_numpy())
            for name in measured
        }
        rankings.append(Ranking(size, len(asked), spearman))
    if not rankings:
        raise DataError(
            f"{folder} has no held-out losses",
            remedy=f"add {' or '.join(loss for _, loss in HELD_OUT.values())}",
        )
    return rankings


def _spearman(predicted_N: np.ndarray, measured_N: np.ndarray) -> float:
    from scipy.stats import spearmanr

    found: Any = spearmanr(predicted_N, measured_N)
    return float(found.statistic)


def _tables(folder: Path, mixture: str, loss: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Mixtures and losses of the same runs, (N, K) and (N, D), columns by domain."""
    if not (folder / mixture).exists():
        mixture = SAME_MIXTURES.get(mixture, mixture)
    mixtures, losses = _read(folder / mixture), _read(folder / loss)
    mixtures = mixtures.filter(regex=f"^{MIXTURE_PREFIX}")
    mixtures.columns = [str(name).removeprefix(MIXTURE_PREFIX) for name in mixtures.columns]
    losses.columns = [_domain(str(name)) for name in losses.columns]
    runs = mixtures.index.intersection(losses.index)
    if not len(runs) or not len(mixtures.columns) or not len(losses.columns):
        raise DataError(
            f"{folder / mixture} and {folder / loss} have no run in common",
            remedy=f"their columns are index, {MIXTURE_PREFIX}… and metric/the_pile_…{LOSS_SUFFIX}",
        )
    return mixtures.loc[runs], losses.loc[runs]


def _read(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        return pd.read_csv(path).set_index("index")
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"cannot read {path}: {type(error).__name__}: {error}",
            remedy="give the `data` folder of the RegMix repository",
        ) from None


def _domain(column: str) -> str:
    for prefix in LOSS_PREFIXES:
        column = column.removeprefix(prefix)
    return column.removesuffix(LOSS_SUFFIX)


def told(rankings: Sequence[Ranking]) -> str:
    """A line per size: mean over the losses, and each loss."""
    return "\n".join(
        f"{ranking.size}: {ranking.runs} held-out runs, Spearman {ranking.mean:.4f} in the mean; "
        + ", ".join(f"{name} {value:.4f}" for name, value in ranking.spearman.items())
        for ranking in rankings
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--method", default="ridge", help="ridge or lightgbm")
    options = parser.parse_args(arguments)
    try:
        print(told(rank_correlations(options.folder, method=options.method)))
    except WorkbenchError as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

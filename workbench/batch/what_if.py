"""What another mixture would have led to, from a surrogate fitted on finished runs.

    what_if = fit_runs(find_runs("runs"))
    prediction = what_if.predict({"code": 0.5, "prose": 0.5})
    print(prediction)                         # losses with intervals, and whether it is a guess
    print(what_if.best())                     # the mixture with the lowest predicted mean loss

Shapes: N runs, K domains, D predicted losses: of the evaluated domains, and their mean.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.batch.comparison import (
    check_comparable,
    final_held_out,
    group_runs,
    live_changes,
)
from workbench.batch.settings import BOOKKEEPING, flatten
from workbench.core import ConfigError, RunError, unknown_name
from workbench.tracking import RunFolder, find_runs

if TYPE_CHECKING:
    from workbench.batch.comparison import Runs
    from workbench.mixing.surrogate import Surrogate

LEVEL = 0.9
MEAN = "mean of domains"
# What a run is called, how it mixes, what prepares its rows, and how often it writes do not change
# what is predicted.
_FREE = ("name", "seed", "mixer.", "corpus.workers", "training.device", "training.threads")


@dataclass(frozen=True)
class Prediction:
    """Losses of a mixture that was not trained, in nats per token, with their intervals.

    nats, low, high: by evaluated domain, and of `mean of domains`; a new run falls inside with
    probability `level`, if its mixture is like the fitted ones.  outside: share of the rows that
    would have to change domain to be inside the sampled mixtures, 0 there; nearest: where to.
    """

    mixture: dict[str, float]
    nats: dict[str, float]
    low: dict[str, float]
    high: dict[str, float]
    level: float
    outside: float
    nearest: dict[str, float]

    @property
    def warning(self) -> str:
        """What is wrong with trusting the intervals here; empty inside the sampled mixtures."""
        if not self.outside:
            return ""
        moves = {name: share - self.nearest[name] for name, share in self.mixture.items()}
        told = ", ".join(
            f"{name} {self.nearest[name]:.1%} (asked {self.mixture[name]:.1%})"
            for name in sorted(moves, key=lambda name: -abs(moves[name]))[:3]
            if abs(moves[name]) >= 0.0005
        )
        return (
            f"Outside the sampled mixtures by {self.outside:.1%} of the rows; the nearest among "
            f"them has {told}. Here the prediction is a guess, and its interval promises nothing."
        )

    def __str__(self) -> str:
        lines = [
            f"{name}: {nats:.4f} nats per token, {self.level:.0%} interval "
            f"{self.low[name]:.4f} to {self.high[name]:.4f}"
            for name, nats in self.nats.items()
        ]
        return "\n".join([*lines, self.warning or "Inside the sampled mixtures."])


@dataclass(frozen=True)
class WhatIf:
    """A surrogate over runs that differ in their mixture alone.

    domains: of the mixture, in the corpus' order; runs: paths; mixture_NK: average effective
    mixtures; measured_ND: final held-out losses in nats per token, columns named by `losses`;
    without: domains that do not count in the mean; conditions: settings and text that all runs
    share, and that a run to be predicted must have; config: of the first run.
    """

    domains: tuple[str, ...]
    losses: tuple[str, ...]
    runs: tuple[Path, ...]
    mixture_NK: np.ndarray
    measured_ND: np.ndarray
    surrogate: Surrogate
    level: float
    without: tuple[str, ...]
    conditions: dict[str, Any]
    config: dict[str, Any]

    def __repr__(self) -> str:
        return (
            f"WhatIf({len(self.runs)} runs of {self.surrogate.mixtures} mixtures of "
            f"{len(self.domains)} domains, {self.surrogate.settings['method']}; {self.trust})"
        )

    @property
    def trust(self) -> str:
        """How well the mean loss of a mixture is predicted when it is left out, in words."""
        explained = float(self.surrogate.explained_D[-1])
        if explained > 0:
            return (
                f"left out in turn, the fitted mixtures have {explained:.0%} of the variance of "
                "their mean loss predicted"
            )
        return (
            "left out in turn, the fitted mixtures are predicted no better than by their mean: "
            "what is predicted is chance"
        )

    @property
    def settings(self) -> dict[str, Any]:
        """How the surrogate was fitted, and how much of each loss it explains."""
        explained = zip(self.losses, self.surrogate.explained_D.tolist(), strict=True)
        return {**self.surrogate.settings, "explained": dict(explained)}

    def predict(self, mixture: Mapping[str, float]) -> Prediction:
        """Losses at a mixture: domain -> share; missing domains get 0, the rest is scaled to 1.

        Raises:
            ConfigError: an unknown domain, a negative share, or nothing above 0.
        """
        from workbench.mixing.hull import outside_hull

        mixture_K = self._shares(mixture)
        nats_1D = self.surrogate.predict(mixture_K[None])
        low_1D, high_1D = self.surrogate.interval(mixture_K[None], level=self.level)
        outside = outside_hull(mixture_K, self.mixture_NK)
        return Prediction(
            mixture=self._by(self.domains, mixture_K),
            nats=self._by(self.losses, nats_1D[0]),
            low=self._by(self.losses, low_1D[0]),
            high=self._by(self.losses, high_1D[0]),
            level=self.level,
            outside=0.0 if outside.inside else outside.share,
            nearest=self._by(self.domains, outside.nearest_K),
        )

    def best(self) -> Prediction:
        """The lowest predicted mean loss inside the sampled mixtures, with its interval.

        The lowest of many predictions is more often too low than too high: its interval does not
        know that it was chosen.
        """
        from workbench.mixing.hull import lowest_inside

        best_K = lowest_inside(
            lambda mixture_MK: self.surrogate.predict(mixture_MK)[:, -1], self.mixture_NK
        )
        return self.predict(self._by(self.domains, best_K))

    def _shares(self, mixture: Mapping[str, float]) -> np.ndarray:
        for name in mixture:
            if name not in self.domains:
                problem, remedy = unknown_name("domain", str(name), self.domains)
                raise ConfigError(problem, remedy=remedy)
        share_K = np.array([float(mixture.get(name, 0.0)) for name in self.domains])
        if not np.isfinite(share_K).all() or (share_K < 0).any() or not share_K.sum() > 0:
            raise ConfigError(
                f"the mixture {dict(mixture)} has no shares to scale to 1",
                remedy="give numbers from 0 up, at least one of them above 0",
            )
        return share_K / share_K.sum()

    @staticmethod
    def _by(names: Iterable[str], values: np.ndarray) -> dict[str, float]:
        return dict(zip(names, values.tolist(), strict=True))


def fit_runs(
    runs: Runs | str | Path,
    *,
    method: str = "ridge",
    level: float = LEVEL,
    without: Collection[str] = (),
) -> WhatIf:
    """Fit final held-out losses of finished runs on their average effective mixture.

    Args:
        runs: run folders as in `compare`, or a folder that holds them.
        method: `ridge` or `lightgbm`.
        level: of the intervals.
        without: evaluated domains that do not count in the mean, such as one known to be noise.
    Raises:
        RunError: no such folder, a run is not finished, or it differs from the first in more than
            its mixture.
        ConfigError: fewer different mixtures than the intervals need, or what `method` lacks.
    """
    from workbench.mixing.surrogate import fewest_mixtures, fit_surrogate

    groups = group_runs(found(runs))
    folders = [run for own in groups.values() for run in own]
    label_N = [label for label, own in groups.items() for _ in own]
    if len(groups) < fewest_mixtures(level):
        raise ConfigError(
            f"{len(folders)} runs of {len(groups)} mixtures are too few: an interval of "
            f"{level:.0%} needs {fewest_mixtures(level)} different mixtures",
            remedy="train more, such as `workbench mixture --method regmix`, or lower the level",
        )
    for run in folders:
        _check_same(folders[0], run)
    domains, mixture_NK = _mixtures(folders)
    losses, measured_ND = _measured(folders, without)
    return WhatIf(
        domains=domains,
        losses=losses,
        runs=tuple(run.path for run in folders),
        mixture_NK=mixture_NK,
        measured_ND=measured_ND,
        surrogate=fit_surrogate(mixture_NK, measured_ND, method=method, group_N=label_N),
        level=level,
        without=tuple(without),
        conditions=conditions(folders[0]),
        config=folders[0].config,
    )


def found(runs: Runs | str | Path) -> Runs:
    """Runs as given, or those at and below a folder.

    Raises:
        RunError: there is no such folder.
    """
    if not isinstance(runs, (str, Path)):
        return runs
    if not Path(runs).is_dir():
        raise RunError(f"there is no folder {runs}", remedy="correct the path, or train runs there")
    return find_runs(runs)


def conditions(run: RunFolder) -> dict[str, Any]:
    """Settings and text that decide a run's losses, all but its mixture and seed."""
    settings = {
        name: value
        for name, value in flatten(run.config).items()
        if not name.startswith(_FREE) and name not in BOOKKEEPING
    }
    return {**settings, "content_hash": run.environment.get("content_hash")}


def average_mixture(run: RunFolder) -> dict[str, float]:
    """Mean over the steps of the shares that a run's batches were drawn with, by domain.

    Raises:
        RunError: the record has no steps, or none with effective mixtures.
    """
    shares = [event.get("effective_mixture", {}) for event in run.events("step")]
    if not shares or {} in shares:
        raise RunError(
            f"{run.path} does not record the mixture its batches were drawn with",
            remedy="train it again with this version",
        )
    return {name: float(np.mean([share[name] for share in shares])) for name in shares[0]}


def differing_condition(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """The first setting in which two runs' conditions differ, with both values; None if equal."""
    for name in dict.fromkeys([*one, *other]):
        if one.get(name) != other.get(name):
            return f"{name}: {one.get(name)} and {other.get(name)}"
    return None


def _check_same(first: RunFolder, run: RunFolder) -> None:
    check_comparable(first, run)
    if differs := differing_condition(conditions(first), conditions(run)):
        raise RunError(
            f"{first.path} and {run.path} differ in {differs}, not in their mixture alone",
            remedy="give runs that differ in the mixer alone",
        )
    if changes := live_changes(run):
        raise RunError(
            f"{run.path} was changed while it trained: {'; '.join(changes)}",
            remedy="leave it out",
        )


def _mixtures(runs: list[RunFolder]) -> tuple[tuple[str, ...], np.ndarray]:
    mixtures = [average_mixture(run) for run in runs]
    domains = tuple(mixtures[0])
    return domains, np.array([[mixture[name] for name in domains] for mixture in mixtures])


def _measured(
    runs: list[RunFolder], without: Collection[str]
) -> tuple[tuple[str, ...], np.ndarray]:
    measured = [measured_losses(run, without) for run in runs]
    losses = tuple(measured[0])
    return losses, np.array([[nats[name] for name in losses] for nats in measured])


def measured_losses(run: RunFolder, without: Collection[str] = ()) -> dict[str, float]:
    """Final held-out loss by domain, and `mean of domains`, in nats per token.

    Raises:
        RunError: the run is not finished, or was never evaluated.
        DataError: every domain is left out.
    """
    from workbench.evaluation import mean_nats

    losses = final_held_out(run)["losses"]
    return {**losses, MEAN: mean_nats(losses, without)}

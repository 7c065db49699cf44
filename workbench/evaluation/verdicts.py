"""A comparison over seeds, in one sentence: better, worse, or within noise.

    v = verdict({0: 5.31, 1: 5.28}, {0: 5.28, 1: 5.27}, name="linupper", baseline_name="uniform")
    print(v)        # linupper against uniform is within noise: −0.020 nats per token (95 % …)

Two runs with the same seed share data order and initial weights, so their difference is compared,
not their values: most of the spread between seeds cancels.

The interval is the paired t interval.  At the usual 3 to 5 seeds it is the honest one: it pays
for the unknown spread (the factor is 4.3 at 3 seeds, against 1.96), and is exact when the
differences are normal.  A bootstrap has only the same 3 to 5 differences to draw from; it covers
far less than it says (`tests/evaluation` shows both).  It is given beside the other, for readers
who expect it, and decides nothing.

Runs of one seed repeated with nothing changed differ by the noise of the machine alone, such as
sums in another order on a GPU.  Given as several values of a seed, they set the noise floor: a
smaller difference is within noise, however it is spread.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from workbench.core import ConfigError, DataError, NumericsError

if TYPE_CHECKING:
    import pandas as pd

Outcome = Literal["better", "worse", "within noise", "undecided"]

POWER = 0.8
RESAMPLES = 9_999
"""Of the bootstrap, always the same ones."""
MOST_SEEDS = 10_000
"""Past this the effect is of no practical size, and `seeds_needed` is None."""
RESOLUTION = 1e-6
"""Differences below this part of the values are rounding of float32, whatever their spread."""


@dataclass(frozen=True)
class Verdict:
    """What a paired comparison says.

    mean_difference, low, high: treatment − baseline and its interval, in `unit`; one pair leaves
    the interval at ±∞ and the outcome "undecided".  n: pairs.  seeds_needed: pairs with which an
    effect of the observed size and spread would be found with 80 % power; None if undecided, if
    there is no effect, or if it takes more than `MOST_SEEDS`.  bootstrap_low, bootstrap_high: the
    percentile bootstrap's interval of the same confidence.  noise_floor: mean difference, in
    `unit`, that repeats of the same runs would show; 0 where nothing was repeated.
    """

    name: str
    baseline_name: str
    mean_difference: float
    low: float
    high: float
    n: int
    outcome: Outcome
    unit: str
    confidence: float
    seeds_needed: int | None
    bootstrap_low: float = -math.inf
    bootstrap_high: float = math.inf
    noise_floor: float = 0.0

    def __str__(self) -> str:
        decimals = self._decimals()
        seeds = f"{self.n} seed" + ("s" if self.n > 1 else "")
        difference = f"{_signed(self.mean_difference, decimals)} {self.unit}"
        if self.outcome == "undecided":
            return (
                f"{self.name} against {self.baseline_name} is undecided: {difference} "
                f"({seeds}; an interval needs at least 2)"
            )
        relation = (
            f"against {self.baseline_name} is within noise"
            if self.outcome == "within noise"
            else f"is {self.outcome} than {self.baseline_name}"
        )
        interval = f"{_signed(self.low, decimals)} to {_signed(self.high, decimals)}"
        below = 0 < self.noise_floor >= abs(self.mean_difference)
        floor = f", repeats alone differ by {self.noise_floor:.{decimals}f}" if below else ""
        return (
            f"{self.name} {relation}: {difference} "
            f"({100 * self.confidence:g} % interval {interval}, {seeds}{floor})"
        )

    def _decimals(self) -> int:
        """Decimals that show two digits of the interval's half-width; at least 3."""
        half_width = (self.high - self.low) / 2
        scale = half_width if 0 < half_width < math.inf else abs(self.mean_difference)
        return min(max(3, 1 - math.floor(math.log10(scale))), 9) if scale else 3


def verdict(
    baseline: Mapping[int, float | Sequence[float]],
    treatment: Mapping[int, float | Sequence[float]],
    *,
    name: str,
    baseline_name: str,
    unit: str = "nats per token",
    lower_is_better: bool = True,
    confidence: float = 0.95,
    floor: float | None = None,
) -> Verdict:
    """Compare two settings on the seeds they have in common.

    Args:
        baseline, treatment: seed -> value, such as the mean held-out loss, or the values of
            repeats of one and the same run.
        confidence: of the interval; "better" and "worse" mean that it leaves out zero, that some
            difference is above `RESOLUTION`, and the mean difference above the noise floor.
        floor: the noise floor where values are means of runs that were repeated, see
            `noise_floor`; None takes it from the repeats that are given.
    Raises:
        ConfigError: confidence outside (0, 1).
        DataError: no common seed.
        NumericsError: a value that is not finite, naming its seed.
    """
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence = {confidence}", remedy="give a number such as 0.95")
    own, theirs = ({seed: _values(v) for seed, v in each.items()} for each in (treatment, baseline))
    means, base_means = (
        {seed: float(v.mean()) for seed, v in each.items()} for each in (own, theirs)
    )
    difference = _paired_differences(base_means, means, name, baseline_name)
    mean, n = float(difference.mean()), len(difference)
    spread = float(difference.std(ddof=1)) if n > 1 else math.inf
    half_width = _t_factor(n, confidence) * spread / math.sqrt(n) if n > 1 else math.inf
    low, high = mean - half_width, mean + half_width
    if floor is None:
        shared = [seed for seed in theirs if seed in own]
        repeats = [each[seed] for seed in shared for each in (theirs, own)]
        floor = noise_floor(repeats, 1 / max(1, len(shared)), confidence)
    largest = max(abs(value) for value in (*means.values(), *base_means.values()))
    seen = bool(np.abs(difference).max() > RESOLUTION * largest) and abs(mean) > floor
    bootstrap_low, bootstrap_high = _bootstrap(difference, confidence)
    return Verdict(
        name=name,
        baseline_name=baseline_name,
        mean_difference=mean,
        low=low,
        high=high,
        n=n,
        outcome=_outcome(low, high, n, lower_is_better, seen),
        unit=unit,
        confidence=confidence,
        seeds_needed=_seeds_needed(mean, spread, confidence),
        bootstrap_low=bootstrap_low,
        bootstrap_high=bootstrap_high,
        noise_floor=floor,
    )


def noise_floor(
    repeats: Sequence[Sequence[float] | np.ndarray], share: float, confidence: float = 0.95
) -> float:
    """Half-width of the interval of an effect that repeats alone would show; 0 without repeats.

    Args:
        repeats: the values of every run that the effect is made of, each with its repeats.
        share: part, of either sign, with which the mean of each run enters the effect.
    """
    groups = [_values(values) for values in repeats]
    freedom = sum(len(values) - 1 for values in groups)
    if freedom == 0:
        return 0.0
    variance = sum(float(((v - v.mean()) ** 2).sum()) for v in groups) / freedom
    of_effect = variance * share**2 * sum(1 / len(values) for values in groups)
    return _t_factor(freedom + 1, confidence) * math.sqrt(of_effect)


COLUMNS = {
    "setting": "name",
    "baseline": "baseline_name",
    "outcome": "outcome",
    "difference": "mean_difference",
    "low": "low",
    "high": "high",
    "bootstrap low": "bootstrap_low",
    "bootstrap high": "bootstrap_high",
    "noise floor": "noise_floor",
    "unit": "unit",
    "seeds": "n",
    "seeds needed": "seeds_needed",
}
"""Of every table of verdicts: heading -> field of `Verdict`."""


def table(verdicts: Iterable[Verdict]) -> pd.DataFrame:
    """One row a verdict, in the given order.  Each has its own interval: with many rows, some
    leave out zero by chance."""
    import pandas as pd

    rows = [[getattr(v, field) for field in COLUMNS.values()] for v in verdicts]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"seeds needed": "Int64"})


def _paired_differences(
    baseline: Mapping[int, float], treatment: Mapping[int, float], name: str, baseline_name: str
) -> np.ndarray:
    seeds = sorted(set(baseline) & set(treatment))
    if not seeds:
        raise DataError(
            f"{name} (seeds {sorted(treatment)}) and {baseline_name} (seeds {sorted(baseline)}) "
            "share no seed",
            remedy="run both with the same seeds",
        )
    for label, values in ((name, treatment), (baseline_name, baseline)):
        for seed in seeds:
            if not math.isfinite(values[seed]):
                raise NumericsError(
                    f"{label} has the value {values[seed]} at seed {seed}",
                    remedy="look at that run before comparing; do not drop it",
                )
    return np.array([treatment[seed] - baseline[seed] for seed in seeds], dtype=np.float64)


def _values(value: float | Sequence[float] | np.ndarray) -> np.ndarray:
    return np.atleast_1d(np.asarray(value, dtype=np.float64))


def _bootstrap(difference: np.ndarray, confidence: float) -> tuple[float, float]:
    """Percentile interval of the mean; infinite for a single pair."""
    if len(difference) < 2:
        return -math.inf, math.inf
    from scipy import stats

    found = stats.bootstrap(
        (difference,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)


def _outcome(low: float, high: float, n: int, lower_is_better: bool, seen: bool) -> Outcome:
    if n < 2:
        return "undecided"
    if low <= 0 <= high or not seen:
        return "within noise"
    return "better" if (high < 0) == lower_is_better else "worse"


def _t_factor(n: int, confidence: float) -> float:
    from scipy import stats

    return float(stats.t.ppf(0.5 + confidence / 2, n - 1))


def _seeds_needed(mean: float, spread: float, confidence: float) -> int | None:
    """Smallest n whose two-sided paired t test finds the effect, with its sign, with `POWER`."""
    if mean == 0 or not math.isfinite(spread):
        return None
    # Any larger effect takes 2 seeds too, and the noncentral t is undefined far beyond.
    effect = min(abs(mean), 100 * spread) / spread if spread else 100.0
    if _power(effect, MOST_SEEDS, confidence) < POWER:
        return None
    return 2 + bisect_left(range(2, MOST_SEEDS), POWER, key=lambda n: _power(effect, n, confidence))


def _power(effect: float, n: int, confidence: float) -> float:
    """Chance that t passes its upper threshold, t being noncentral with shift effect · √n."""
    from scipy import stats

    return float(stats.nct.sf(_t_factor(n, confidence), n - 1, effect * math.sqrt(n)))


def _signed(value: float, decimals: int) -> str:
    return f"{value:+.{decimals}f}".replace("-", "−")

"""Main effects and interactions of settings that are each on or off.

    values = {("quad",): {0: 5.1, …}, ("quad", "acodm"): {…}, (): {…}, …}     # every combination
    for each in effects(values): print(each)

A main effect is the mean over all combinations of the others: with it on, minus with it off.  An
interaction is half the difference between the effect of one with the other on and with it off, and
so on for more.  Every effect is paired over seeds, with the verdict's own interval; runs that were
repeated set the noise floor of all effects, as they do for two settings.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

import numpy as np

from workbench.core import DataError
from workbench.evaluation.verdicts import Verdict, noise_floor, verdict

Cell = tuple[str, ...]


def effects(
    values: Mapping[Cell, Mapping[int, float | Sequence[float]]],
    *,
    confidence: float = 0.95,
    **options: object,
) -> list[Verdict]:
    """Verdicts on every main effect, then on every interaction, named `a` and `a × b`.

    Args:
        values: what is on -> seed -> value, or the values of repeats of one and the same run, for
            all 2^k combinations of k settings.
        confidence, options: of `verdict`, such as `unit` and `lower_is_better`.
    Raises:
        DataError: a combination is missing, or the combinations share no seed.
    """
    cells = {frozenset(cell): own for cell, own in values.items()}
    factors = list(dict.fromkeys(name for cell in values for name in cell))
    missing = [set(cell) for cell in _subsets(factors) if frozenset(cell) not in cells]
    if missing or not factors:
        raise DataError(
            f"no value for the combination {sorted(missing[0]) if missing else '()'}",
            remedy="give every combination of settings, also that with none of them on",
        )
    seeds = set.intersection(*(set(own) for own in cells.values()))
    if not seeds:
        raise DataError("the combinations share no seed", remedy="run all with the same seeds")
    repeats = [np.atleast_1d(own[seed]) for own in cells.values() for seed in sorted(seeds)]
    # An effect is the mean over seeds of one half of the cells minus the other half.
    floor = noise_floor(repeats, 2 / (len(cells) * len(seeds)), confidence)
    settled: dict = {"confidence": confidence, "floor": floor, **options}
    means = {
        cell: {seed: float(np.mean(own[seed])) for seed in sorted(seeds)}
        for cell, own in cells.items()
    }
    found = []
    for chosen in [cell for cell in _subsets(factors) if cell]:
        sides: dict[bool, list[Mapping[int, float]]] = {True: [], False: []}
        for cell, own in means.items():
            sides[(len(chosen) - len(cell & set(chosen))) % 2 == 0].append(own)
        high, low = (
            {seed: math.fsum(own[seed] for own in side) / len(side) for seed in sorted(seeds)}
            for side in (sides[True], sides[False])
        )
        name = " × ".join(chosen)
        baseline = "without" if len(chosen) == 1 else "no interaction"
        found.append(verdict(low, high, name=name, baseline_name=baseline, **settled))
    return found


def _subsets(names: Iterable[str]) -> Iterable[Cell]:
    """All of them, small ones first."""
    names = tuple(names)
    return [cell for size in range(len(names) + 1) for cell in combinations(names, size)]

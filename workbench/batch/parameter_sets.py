"""Parameter sets to try: a grid, random draws, or a list.

choose_sets(grid={"reweighter": ["uniform", "linupper"], "peak_lr": [1e-3, 2e-3]})   # 4 sets
choose_sets(random={"peak_lr": Range(1e-4, 1e-2, log=True)}, draws=8)
choose_sets(listed="sets.csv")
"""

from __future__ import annotations

import csv
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from workbench.core import ConfigError, RandomStreams
from workbench.tracking import encoding

Parameters: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Range:
    """Numbers to draw from; whole ones, both ends included, when both ends are whole.

    log: draw evenly over orders of magnitude.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or not math.isfinite(self.high - self.low):
            raise ConfigError(
                f"range from {self.low} to {self.high}", remedy="give low < high, both finite"
            )
        if self.log and self.low <= 0:
            raise ConfigError(f"log range from {self.low}", remedy="start above 0")

    @property
    def choices(self) -> float:
        """How many different numbers can be drawn."""
        return self.high - self.low + 1 if self._whole else math.inf

    def at(self, share: float) -> float:
        """The number that lies at `share` of the range, in [0, 1)."""
        low, high = self.low, self.high
        if self._whole:
            low, high = low - 0.5, high + 0.5
        value = low * (high / low) ** share if self.log else low + share * (high - low)
        return min(max(round(value), self.low), self.high) if self._whole else value

    @property
    def _whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)


def choose_sets(
    *,
    grid: Mapping[str, Sequence[Any]] | None = None,
    random: Mapping[str, Sequence[Any] | Range] | None = None,
    draws: int | None = None,
    draw_seed: int = 0,
    listed: Sequence[Mapping[str, Any]] | str | Path | None = None,
) -> list[Parameters]:
    """Parameter sets of a sweep, from exactly one of `grid`, `random` and `listed`.

    Raises:
        ConfigError: more than one is given, or nothing to choose from.
    """
    given = [
        kind
        for kind, value in {"grid": grid, "random": random, "listed": listed}.items()
        if value is not None
    ]
    if len(given) > 1:
        raise ConfigError(
            f"a sweep was given {' and '.join(given)}", remedy="give one of grid, random and listed"
        )
    if random is not None:
        return drawn_sets(random, draws, draw_seed)
    if draws is not None:
        raise ConfigError("draws without random", remedy="name what to draw in random")
    if listed is not None:
        return listed_sets(listed)
    return grid_sets(grid) if grid is not None else [{}]


def grid_sets(grid: Mapping[str, Sequence[Any]]) -> list[Parameters]:
    """Every combination; the last name varies fastest.

    Raises:
        ConfigError: no name, or a name without values.
    """
    if not grid:
        raise ConfigError("the grid is empty", remedy="name a parameter and its values")
    for name, values in grid.items():
        _check_values(name, values)
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def drawn_sets(
    random: Mapping[str, Sequence[Any] | Range], draws: int | None, seed: int
) -> list[Parameters]:
    """`draws` different sets, each value drawn evenly from its list or range.

    Raises:
        ConfigError: nothing to draw from, no number of draws, or fewer different sets than that.
    """
    if not random or draws is None or draws < 1:
        raise ConfigError(
            "nothing to draw" if not random else f"draws = {draws}",
            remedy="name parameters in random, and how many sets to draw in draws",
        )
    choices = 1.0
    for name, values in random.items():
        if not isinstance(values, Range):
            _check_values(name, values)
        choices *= values.choices if isinstance(values, Range) else len(values)
    if draws > choices:
        raise ConfigError(
            f"{draws} draws from {choices:.0f} different sets", remedy="use them all: grid"
        )
    rng = RandomStreams(seed).at("sweep")
    found: dict[str, Parameters] = {}
    while len(found) < draws:
        drawn = {name: _draw(values, rng.random()) for name, values in random.items()}
        found.setdefault(parameters_key(drawn), drawn)
    return list(found.values())


def listed_sets(listed: Sequence[Mapping[str, Any]] | str | Path) -> list[Parameters]:
    """The sets as given, or one a row of a .csv, one an entry of a .yaml or .json file.

    An empty field of a CSV leaves the parameter to the notebook; other fields are JSON where they
    are JSON, else text.

    Raises:
        ConfigError: no sets, or the file is of another kind or holds something else.
    """
    sets = _read_sets(Path(listed)) if isinstance(listed, (str, Path)) else listed
    if isinstance(sets, Mapping) or not all(isinstance(one, Mapping) for one in sets):
        raise ConfigError(
            f"{listed} is not a list of parameter sets",
            remedy='write a list such as [{"peak_lr": 0.001}, {"peak_lr": 0.002}]',
        )
    if not sets:
        raise ConfigError("the list of parameter sets is empty", remedy="give at least one")
    return [dict(one) for one in sets]


def read_value(text: str) -> Any:
    """JSON where it is JSON, else text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def parameters_key(parameters: Parameters) -> str:
    """The same text for the same parameters, in whatever order they stand."""
    return encoding.encode(dict(sorted(parameters.items()))).decode()


def _check_values(name: str, values: Any) -> None:
    if isinstance(values, (str, Mapping)) or not isinstance(values, Sequence):
        raise ConfigError(f"{name} = {values!r} is not a list", remedy=f"write [{values!r}]")
    if not values:
        raise ConfigError(f"{name} has no values", remedy="give at least one, or leave it out")


def _read_sets(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".csv":
            rows = csv.DictReader(text.splitlines())
            return [
                {n: read_value(v) for n, v in row.items() if v not in ("", None)} for row in rows
            ]
        if path.suffix in (".yaml", ".yml"):
            import yaml

            return yaml.safe_load(text) or []
        if path.suffix == ".json":
            return json.loads(text)
    # yaml's errors are no ValueErrors; whatever a parser says, the file is at fault.
    except Exception as error:
        raise ConfigError(
            f"cannot read parameter sets from {path}: {error}", remedy="correct the file"
        ) from None
    raise ConfigError(
        f"{path} is not a file of parameter sets", remedy="give a .csv, .yaml or .json"
    )


def _draw(values: Sequence[Any] | Range, share: float) -> Any:
    return values.at(share) if isinstance(values, Range) else values[int(share * len(values))]

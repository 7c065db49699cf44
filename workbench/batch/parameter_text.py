"""Parameters as they are typed on a command line.

read_grid(["peak_lr=1e-3,2e-3", "reweighter=uniform,linupper"])
read_random(["peak_lr=1e-4:1e-2:log"])          # {"peak_lr": Range(1e-4, 1e-2, log=True)}
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from workbench.batch.parameter_sets import Range, read_value
from workbench.core import ConfigError

_NUMBER = r"([-+]?\d*\.?\d+(?:[eE][-+]?\d+)?)"
_RANGE = re.compile(f"{_NUMBER}:{_NUMBER}(:log)?")


def read_values(texts: Iterable[str], option: str) -> dict[str, Any]:
    """`["a=1", "b=x"]` as {"a": 1, "b": "x"}.

    Raises:
        ConfigError: a text without `=`.
    """
    return {name: read_value(text) for name, text in _named(texts, option)}


def read_grid(texts: Iterable[str]) -> dict[str, list[Any]]:
    """`["a=1,2", "b=[[0, 1], [2]]"]` as {"a": [1, 2], "b": [[0, 1], [2]]}.

    Raises:
        ConfigError: a text without `=`.
    """
    return {name: _read_list(text) for name, text in _named(texts, "--grid")}


def read_random(texts: Iterable[str]) -> dict[str, list[Any] | Range]:
    """As `read_grid`, and `a=1:8` as a range, `a=1e-4:1e-2:log` as one of orders of magnitude.

    Raises:
        ConfigError: a text without `=`, or an empty range.
    """
    return {name: _read_range(text) or _read_list(text) for name, text in _named(texts, "--random")}


def read_seeds(text: str) -> list[int]:
    """`"0,1,2"` as [0, 1, 2].

    Raises:
        ConfigError: something else than whole numbers.
    """
    seeds = _read_list(text)
    if not all(isinstance(seed, int) for seed in seeds):
        raise ConfigError(f"--seeds {text}", remedy="write whole numbers, such as --seeds 0,1,2")
    return seeds


def _named(texts: Iterable[str], option: str) -> Iterator[tuple[str, str]]:
    for whole in texts:
        name, equals, text = whole.partition("=")
        if not equals or not name:
            raise ConfigError(f"{option} {whole} has no value", remedy=f"write {option} name=value")
        yield name.strip(), text


def _read_list(text: str) -> list[Any]:
    whole = read_value(text)
    return whole if isinstance(whole, list) else [read_value(part) for part in text.split(",")]


def _read_range(text: str) -> Range | None:
    match = _RANGE.fullmatch(text)
    return Range(_number(match[1]), _number(match[2]), log=bool(match[3])) if match else None


def _number(text: str) -> float:
    return int(text) if text.lstrip("+-").isdigit() else float(text)

"""What an option of a policy may be, read from its annotation.

    Share = Annotated[float, Within(0, 1)]
    problem_of("discount", 5, Share)         # "discount = 5", "give a number from 0 to 1"

Checked are `Literal`, numbers and their ranges, `bool`, `str`, classes, None, and unions of these.
Any other annotation, such as a mapping, lets everything pass: the policy itself checks it.
"""

from __future__ import annotations

import functools
import math
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Annotated, Any, Literal, Union

from workbench.core.errors import nearest


@dataclass(frozen=True)
class Within:
    """Range of a number; an end itself is out where `open_low` or `open_high` says so."""

    low: float
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def holds(self, value: Any) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        return above and (value < self.high if self.open_high else value <= self.high)

    def __str__(self) -> str:
        low = f"{'above' if self.open_low else 'from'} {self.low:g}"
        if self.high == math.inf:
            return low if self.open_low else f"of at least {self.low:g}"
        return f"{low} to {'below ' if self.open_high else ''}{self.high:g}"


Share = Annotated[float, Within(0, 1)]
PositiveShare = Annotated[float, Within(0, 1, open_low=True)]
ShareBelowOne = Annotated[float, Within(0, 1, open_high=True)]
Positive = Annotated[float, Within(0, open_low=True)]
NotNegative = Annotated[float, Within(0)]
Count = Annotated[int, Within(1)]
Whole = Annotated[int, Within(0)]

WORDS = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "True or False",
    types.NoneType: "None",
}


def option_hints(factory: Callable[..., Any]) -> dict[str, Any]:
    """Annotations of a factory's arguments; none where one of them cannot be resolved."""
    while isinstance(factory, functools.partial):
        factory = factory.func
    callee = factory.__init__ if isinstance(factory, type) else factory
    try:
        return typing.get_type_hints(callee, include_extras=True)
    except NameError:
        return {}


def problem_of(option: str, value: Any, hint: Any) -> tuple[str, str] | None:
    """Problem and remedy of a value that its annotation excludes, or None."""
    if _fits(value, hint):
        return None
    choices = [str(choice) for arm in _arms(hint) for choice in _choices(arm)]
    guess = nearest(value, choices) if isinstance(value, str) else None
    remedy = f"did you mean '{guess}'? " if guess else ""
    return f"{option} = {value!r}", f"{remedy}give {' or '.join(map(_words, _arms(hint)))}"


def _arms(hint: Any) -> tuple[Any, ...]:
    union = typing.get_origin(hint) in (Union, types.UnionType)
    return typing.get_args(hint) if union else (hint,)


def _choices(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) is Literal else ()


def _parts(hint: Any) -> tuple[Any, list[Within]]:
    """A plain annotation and its ranges."""
    if typing.get_origin(hint) is not Annotated:
        return hint, []
    plain, *extras = typing.get_args(hint)
    return plain, [extra for extra in extras if isinstance(extra, Within)]


def _fits(value: Any, hint: Any) -> bool:
    if len(_arms(hint)) > 1:
        return any(_fits(value, arm) for arm in _arms(hint))
    if choices := _choices(hint):
        return value in choices
    plain, ranges = _parts(hint)
    if plain in (int, float):
        kind = Integral if plain is int else Real
        number = isinstance(value, kind) and not isinstance(value, bool) and value == value
        return number and all(span.holds(value) for span in ranges)
    return isinstance(value, plain) if isinstance(plain, type) else True


def _words(hint: Any) -> str:
    if choices := _choices(hint):
        return f"one of {', '.join(map(repr, choices))}"
    plain, ranges = _parts(hint)
    named = WORDS.get(plain) or getattr(plain, "__name__", str(plain))
    return " ".join([named, *map(str, ranges)])

"""One strict registry: policies by name, arguments checked against the signature's annotations.

@REWEIGHTERS.register("linupper")
class LinUpper:
    def __init__(self, *, temperature: float = 0.4): ...

REWEIGHTERS.build("linupper", temperature=1.0)     # an instance
REWEIGHTERS.check("linuper", {})                   # ConfigError: did you mean 'linupper'?
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from workbench.core.errors import ConfigError, unknown_name
from workbench.core.options import option_hints, problem_of


class Registry:
    """Names to factories of one kind of object.

    A factory takes its options as keyword-only arguments.  Arguments that the loop supplies
    (such as the number of domains) are positional, are named in `supplied`, and cannot be set
    from a config.
    """

    def __init__(self, kind: str, *, supplied: tuple[str, ...] = ()):
        self.kind = kind
        self.supplied = supplied
        self._factories: dict[str, Callable[..., Any]] = {}

    def register(self, name: str) -> Callable:
        def add(factory: Callable) -> Callable:
            if name in self._factories:
                raise ConfigError(
                    f"{self.kind} '{name}' is registered twice", remedy="choose another name"
                )
            self._factories[name] = factory
            return factory

        return add

    def names(self) -> list[str]:
        return sorted(self._factories)

    def get(self, name: str) -> Callable[..., Any]:
        """The factory called `name`; ConfigError naming the nearest when there is none."""
        if name not in self._factories:
            problem, remedy = unknown_name(self.kind, name, self._factories)
            raise ConfigError(problem, remedy=remedy)
        return self._factories[name]

    def options(self, name: str) -> dict[str, Any]:
        """Options of `name` with their defaults (`inspect.Parameter.empty` when required)."""
        parameters = inspect.signature(self.get(name)).parameters.values()
        return {
            p.name: p.default
            for p in parameters
            if p.kind is inspect.Parameter.KEYWORD_ONLY and p.name not in self.supplied
        }

    def check(self, name: str, arguments: Mapping[str, Any]) -> None:
        """Raise ConfigError unless `name` exists, takes every argument, and misses none.

        Values are held against the annotations of the factory, see `core.options`.
        """
        options, hints = self.options(name), option_hints(self.get(name))
        for argument, value in arguments.items():
            if argument not in options:
                problem, remedy = unknown_name(f"option of {self.kind}", argument, options)
                raise ConfigError(f"{problem} in '{name}'", remedy=remedy)
            wrong = problem_of(argument, value, hints[argument]) if argument in hints else None
            if wrong:
                raise ConfigError(f"{wrong[0]} in {self.kind} '{name}'", remedy=wrong[1])
        for option, default in options.items():
            if default is inspect.Parameter.empty and option not in arguments:
                raise ConfigError(
                    f"{self.kind} '{name}' needs the option '{option}'", remedy=f"add {option}=…"
                )

    def build(self, name: str, *supplied: Any, **arguments: Any) -> Any:
        """Check, then construct."""
        self.check(name, arguments)
        return self.get(name)(*supplied, **arguments)


REWEIGHTERS = Registry("reweighter")
MIXERS = Registry("mixer", supplied=("task",))
SELECTORS = Registry("selector", supplied=("task",))

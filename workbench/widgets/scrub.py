"""A panel that also shows one step of its run: the newest, or the one that a slider is on.

    class SampleWeights(ScrubPanel): ...     # says which steps there are and what a step shows

The browser's messages carry `step` (None for the newest) and `key`, of the step it shows already.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, TypeVar

from workbench.training import Run
from workbench.widgets.curves import RunCurves
from workbench.widgets.panel import Panel

Curves = TypeVar("Curves", bound=RunCurves)


class ScrubPanel(Panel, ABC, Generic[Curves]):
    """The panel of one run and of one of its steps; `close()` takes it away."""

    part: ClassVar[str]
    """The entry of a frame that holds the step."""

    def __init__(self, run: Run, curves: Curves):
        super().__init__({run.path.name: run}, run.path.name)
        self._run, self._curve = run, curves
        self._curves = {run.path.name: curves}
        self._wanted: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._run.path.name}: {self._run.status()})"

    @abstractmethod
    def _recorded(self) -> tuple[int, int] | None:
        """First and last step that can be shown; None before there is one."""

    @abstractmethod
    def _at(self, step: int) -> dict[str, Any]:
        """What the browser draws of a step."""

    def _key(self, step: int) -> str:
        """Changes when a step shows something else than before."""
        # A resumed run trains steps again, and they come out differently.
        return f"{step}.{self._curve.resumed}"

    def _obey(self, content: dict[str, Any]) -> None:
        self._wanted = content
        # Reading a row is no new request to the run: what went wrong with the last one stays.
        quiet = content["kind"] == "read"
        super()._obey({**content, "kind": "next"} if quiet else content)

    def _frame(self, *, have: int) -> dict[str, Any]:
        frame = super()._frame(have=have)
        recorded = self._recorded()
        frame["recorded"] = recorded
        if recorded:
            first, last = recorded
            wanted = self._wanted.get("step")
            step = last if wanted is None else min(max(int(wanted), first), last)
            key = self._key(step)
            if key != self._wanted.get("key"):
                frame[self.part] = {"key": key, **self._at(step)}
        return frame

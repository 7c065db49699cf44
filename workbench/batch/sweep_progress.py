"""How far a sweep is, live: a bar in a terminal or a browser, lines anywhere else.

with watching() as watch:
    watch(Standing(total=6, finished=2, failed=0), "")
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

SECONDS_BETWEEN_LINES = 10.0
_SHOWN_LETTERS = 60


@dataclass
class Standing:
    """Cells by state, what those at work said last, and the seconds of those that ended."""

    total: int
    finished: int = 0
    failed: int = 0
    running: dict[str, str] = field(default_factory=dict)
    workers: int = 1
    seconds: list[float] = field(default_factory=list)

    @property
    def left(self) -> int:
        """Cells that have not ended, those at work among them."""
        return self.total - self.finished - self.failed

    @property
    def seconds_left(self) -> float | None:
        """From the mean of the cells that ended since the start; None before the first."""
        if not self.seconds:
            return None
        return sum(self.seconds) / len(self.seconds) * self.left / self.workers

    def ended(self, status: str, seconds: float) -> None:
        self.finished += status == "finished"
        self.failed += status == "failed"
        self.seconds.append(seconds)

    def __str__(self) -> str:
        told = f"{self.finished} finished, {self.failed} failed, {self.left} left"
        if self.left and self.seconds_left is not None:
            told += f", {_duration(self.seconds_left)} to go"
        return told


Watch: TypeAlias = Callable[[Standing, str], None]
"""watch(standing, news): called at every change; `news` is a line worth keeping, or empty."""


@contextmanager
def watching(watch: Watch | None = None) -> Iterator[Watch]:
    """The given one, else a bar where somebody can see it, else lines."""
    from rich.console import Console

    from workbench.core.frontend import has_front_end

    console = Console()
    if watch is not None:
        yield watch
    elif console.is_terminal or has_front_end():
        with _bar(console) as shown:
            yield shown
    else:
        yield lines()


def lines(
    say: Callable[[str], None] = print, *, every_seconds: float = SECONDS_BETWEEN_LINES
) -> Watch:
    """News at once, and now and then where the cells at work are."""
    said = time.monotonic()

    def watch(standing: Standing, news: str) -> None:
        nonlocal said
        if news:
            say(f"{news} ({standing})")
        elif time.monotonic() - said >= every_seconds:
            said = time.monotonic()
            say(f"{standing}; {_at_work(standing)}")

    return watch


@contextmanager
def _bar(console) -> Iterator[Watch]:
    from rich import progress

    columns = (
        progress.BarColumn(bar_width=20),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TextColumn("{task.description}", markup=False),
    )
    with progress.Progress(*columns, console=console) as bar:
        task = bar.add_task("")

        def watch(standing: Standing, news: str) -> None:
            if news:
                bar.console.print(news, markup=False, highlight=False, soft_wrap=True)
            bar.update(
                task,
                total=standing.total,
                completed=standing.finished + standing.failed,
                description=f"{standing}  {_at_work(standing)}",
            )

        yield watch


def _at_work(standing: Standing) -> str:
    return "; ".join(f"{name}: {what[:_SHOWN_LETTERS]}" for name, what in standing.running.items())


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

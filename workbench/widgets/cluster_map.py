"""The pool of a selector as a map to move in, live while it chooses or in any recorded run.

    run = wb.start(config, "runs")
    wb.widgets.cluster_map(run)
    wb.widgets.cluster_map(wb.open_run("runs/quad"))

Rows by domain, cluster, influence, pulls or acceptance, with their text; arms with mean, interval,
pulls and accepted rows.  Arms choose points and points arms; the slider replays the rounds.
"""

from __future__ import annotations

from typing import Any

from workbench import plots
from workbench.core.frontend import has_front_end
from workbench.plots.choices import Choice, read_choice, read_pool
from workbench.training import Run
from workbench.widgets.curves import told_stage
from workbench.widgets.panel import wait
from workbench.widgets.pool_frames import ChoiceCurves, drawn_pool, round_at
from workbench.widgets.sample_frames import Readable, Texts, texts_of
from workbench.widgets.scrub import ScrubPanel

MOST_READ = 8


def cluster_map(
    run: Run, *, corpus: Readable | None = None, live: bool | None = None
) -> ClusterMap | ClusterTwin:
    """Watch a selector choose, and move in its pool.

    Args:
        corpus: where the rows' text is read; the prepared corpus the run was started on when None.
            Where that is not on this machine, the view says so and shows everything but text.
        live: a widget (True) or plain figures (False); None finds out.  Without a front end a run
            of this process is waited for.
    Raises:
        WorkbenchError: what a run failed with, where it is waited for.
    """
    texts = texts_of(run, corpus)
    if has_front_end() if live is None else live:
        return ClusterMap(run, texts)
    wait(run.path.name, run)
    return ClusterTwin(run)


class ClusterMap(ScrubPanel[ChoiceCurves]):
    """The widget; displays itself.  `close()` takes it away."""

    part = "round"

    def __init__(self, run: Run, texts: Texts):
        super().__init__(run, ChoiceCurves(run.folder))
        self._texts = texts
        self._shown: tuple[str, Choice | None] = ("", None)

    def _view(self, title: str) -> Any:
        from workbench.widgets.view import ClusterView

        return ClusterView(heading=title)

    def _frame(self, *, have: int) -> dict[str, Any]:
        frame = super()._frame(have=have)
        frame["choices"], frame["choice"] = self._curve.choices, self._choice_step()
        frame["stage"] = told_stage(self._curve.stage)
        key = self._pool_key()
        if key and key != self._wanted.get("pool"):
            pool, buffers = drawn_pool(self._pool())
            frame["pool"], frame["buffers"] = {"key": key, **pool}, buffers
        if "rows" in self._wanted:
            frame["read"] = [self._read(int(row)) for row in self._wanted["rows"][:MOST_READ]]
        return frame

    def _choice_step(self) -> int | None:
        """The choice shown: the one asked for, or the newest."""
        choices, wanted = self._curve.choices, self._wanted.get("choice")
        return wanted if wanted in choices else choices[-1] if choices else None

    def _rounds(self) -> list[dict[str, Any]]:
        step = self._choice_step()
        return [] if step is None else self._curve.rounds(step)

    def _pool_key(self) -> str | None:
        step = self._choice_step()
        if step is None:
            return None
        state = "made" if self._curve.is_made(step) else "at work"
        return f"{step}.{self._curve.resumed}.{state}"

    def _pool(self) -> Choice:
        """The pool of the choice shown, read once."""
        key, step = self._pool_key(), self._choice_step()
        assert key is not None and step is not None
        if self._shown[0] != key:
            read = read_choice if self._curve.is_made(step) else read_pool
            self._shown = (key, read(self._run, step))
        return self._shown[1] or Choice(step, None, None, None, None)

    def _recorded(self) -> tuple[int, int] | None:
        rounds = self._rounds()
        return (0, len(rounds) - 1) if rounds and self._pool().samples is not None else None

    def _key(self, step: int) -> str:
        return f"{step}.{self._pool_key()}"

    def _at(self, step: int) -> dict[str, Any]:
        choice, samples = self._choice_step(), self._pool().samples
        assert choice is not None and samples is not None
        return round_at(self._curve, choice, step, int(samples["cluster"].to_numpy().max()) + 1)

    def _read(self, row: int) -> dict[str, Any]:
        """Text of a row by its place in the pool; ids are wider than numbers of the browser."""
        samples = self._pool().samples
        if samples is None or not 0 <= row < len(samples):
            return {"row": row, "sample": "", "text": None, "origin": None}
        sample = int(samples["sample_id"].iloc[row])
        return {"row": row, "sample": str(sample), **self._texts.read(sample)}


class ClusterTwin:
    """The view where nobody can press a button: maps, arms and the replay as figures."""

    def __init__(self, run: Run):
        self._run = run

    def __repr__(self) -> str:
        choices = len(self._run.folder.selections())
        count = "1 choice" if choices == 1 else f"{choices} choices"
        return f"ClusterTwin({self._run.path.name}: {self._run.status()}, {count})"

    def _ipython_display_(self) -> None:
        print(repr(self))
        for colour in ("domain", "influence"):
            plots.show(plots.cluster_map(self._run, colour))
        plots.show(plots.arms(self._run))

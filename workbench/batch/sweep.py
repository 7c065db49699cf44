"""Sweeps: one notebook under many parameters and seeds, as a queue that survives being killed.

    done = sweep("out/lr", grid={"peak_lr": [1e-3, 2e-3]}, seeds=[0, 1, 2])
    done = sweep("out/lr")                  # goes on where it was cut short
    done.table(); compare(done.runs())

`sweep.json` (the plan), `cells/<cell>/` with the executed notebook, its run folders and, once it
has ended, `result.json`.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from workbench.batch.notebook import Interrupter, execute
from workbench.batch.parameter_sets import Range, choose_sets
from workbench.batch.sweep_plan import (
    Cell,
    Plan,
    code_hash,
    make_plan,
    read_plan,
    write_plan,
)
from workbench.batch.sweep_progress import Standing, Watch, watching
from workbench.core import ConfigError, RunError, WorkbenchError
from workbench.tracking import RunFolder, durable, encoding, find_runs

if TYPE_CHECKING:
    import pandas as pd

TEMPLATE = Path(__file__).parents[2] / "notebooks" / "80_pretrain.ipynb"
"""What is swept when no notebook is named: it trains one run and ends with its report."""
_ORPHAN_SECONDS = 1.5
"""A kernel looks this often, at the longest, whether who started it is still alive."""
_ORPHAN_PATIENCE_SECONDS = 30.0


@dataclass(frozen=True)
class Result:
    """How a cell ended; `problem` and `remedy` are empty for a finished one."""

    status: Literal["finished", "failed"]
    seconds: float
    problem: str = ""
    remedy: str = ""


class Sweep:
    """A sweep on disk: its plan, and how each cell has ended so far."""

    def __init__(self, path: Path, plan: Plan):
        self.path = path
        self.plan = plan

    @classmethod
    def open(cls, path: str | Path) -> Sweep:
        """An existing sweep, to read.

        Raises:
            RunError: the folder holds none.
        """
        return cls(Path(path), read_plan(Path(path) / "sweep.json"))

    def __repr__(self) -> str:
        standing = self.standing()
        return (
            f"Sweep({str(self.path)!r}, {standing.finished} finished, {standing.failed} failed, "
            f"{standing.left} left)"
        )

    def folder(self, cell: Cell) -> Path:
        return self.path / "cells" / cell.name

    def notebook(self, cell: Cell) -> Path:
        """Where the executed copy of a cell is."""
        return self.folder(cell) / self.plan.notebook.name

    def result(self, cell: Cell) -> Result | None:
        """How a cell ended; None while it has not."""
        try:
            return Result(**encoding.decode((self.folder(cell) / "result.json").read_bytes()))
        except FileNotFoundError:
            return None

    def standing(self) -> Standing:
        results = [self.result(cell) for cell in self.plan.cells]
        return Standing(
            total=len(results),
            finished=sum(r is not None and r.status == "finished" for r in results),
            failed=sum(r is not None and r.status == "failed" for r in results),
        )

    def failures(self) -> dict[Path, Result]:
        """Executed notebook -> result, of the cells that failed."""
        found = {self.notebook(cell): self.result(cell) for cell in self.plan.cells}
        return {path: r for path, r in found.items() if r is not None and r.status == "failed"}

    def runs(self) -> list[RunFolder]:
        """Every run of every cell, by path."""
        return find_runs(self.path / "cells")

    def table(self) -> pd.DataFrame:
        """One row a cell: its parameters, status, seconds, and what went wrong."""
        import pandas as pd

        rows = []
        for cell in self.plan.cells:
            result = self.result(cell) or {"status": "left"}
            told = result if isinstance(result, dict) else asdict(result)
            shown = {key: told.get(key) for key in ("status", "seconds", "problem")}
            rows.append({"cell": cell.name, **cell.parameters, **shown})
        return pd.DataFrame(rows)


def sweep(
    out_dir: str | Path,
    *,
    notebook: str | Path | None = None,
    grid: Mapping[str, Sequence[Any]] | None = None,
    random: Mapping[str, Sequence[Any] | Range] | None = None,
    draws: int | None = None,
    draw_seed: int = 0,
    listed: Sequence[Mapping[str, Any]] | str | Path | None = None,
    seeds: Sequence[int] | None = None,
    fixed: Mapping[str, Any] | None = None,
    retry_failed: bool = False,
    workers: int = 1,
    timeout_seconds: int | None = None,
    watch: Watch | None = None,
) -> Sweep:
    """Execute a notebook for every parameter set and seed; a failed cell does not stop the rest.

    A sweep cut short goes on when called again, with the same arguments or with the folder alone:
    ended cells are kept, and the interrupted one is executed again, where its runs resume.

    Args:
        out_dir: folder of the sweep.
        notebook: takes `seed`, `out_dir` and the swept names as parameters; a notebook with a
            parameter `settings` also takes any setting of a `RunConfig`.  `TEMPLATE` when None.
        grid: name -> values; every combination.
        random: name -> values or `Range`; `draws` sets under `draw_seed`.
        listed: parameter sets, or a .csv, .yaml or .json file of them.
        seeds: each set is run under each; 0 alone when None.
        fixed: parameters that all cells share.
        retry_failed: execute failed cells again.
        workers: cells at work at the same time.
        timeout_seconds: the longest that a cell of the notebook may take.
        watch: told how far it is; bars or lines when None.
    Raises:
        ConfigError: what cannot be swept, before anything is executed.
        RunError: the folder is named alone and holds no sweep, it holds another sweep, or another
            process is at work on it.
        KeyboardInterrupt: after an interrupt; runs at work have stopped with a checkpoint.
    """
    path = Path(out_dir)
    chosen = {"grid": grid, "random": random, "draws": draws, "listed": listed}
    asked = any(value is not None for value in (notebook, seeds, fixed, *chosen.values()))
    if workers < 1:
        raise ConfigError(f"workers = {workers}", remedy="give 1 or more")
    plan = None
    if not asked:
        _check_held(path)
    else:
        sets = choose_sets(**chosen, draw_seed=draw_seed)
        template = notebook or TEMPLATE
        seeds = (0,) if seeds is None else tuple(seeds)
        plan = make_plan(template, sets, seeds=seeds, fixed=fixed)
    path.mkdir(parents=True, exist_ok=True)
    with _alone(path):
        held = _settled(path, plan)
        with watching(watch) as watch_it:
            _Queue(held, watch_it, timeout_seconds).work(workers, retry_failed=retry_failed)
    return held


def _check_held(path: Path) -> None:
    if not (path / "sweep.json").is_file():
        raise RunError(
            f"{path} holds no sweep",
            remedy="correct the folder, or say what to sweep, such as a grid or seeds",
        )


def _settled(path: Path, plan: Plan | None) -> Sweep:
    """The sweep of the folder, made if it is new, refused if it is another than `plan`."""
    if not (path / "sweep.json").is_file():
        assert plan is not None
        write_plan(plan, path / "sweep.json")
    held = Sweep.open(path)
    difference = plan.differs_from(held.plan) if plan else ""
    if not plan and code_hash(held.plan.notebook) != held.plan.code_hash:
        difference = f"the code of {held.plan.notebook} has changed since"
    if difference:
        raise RunError(
            f"{path} holds another sweep: {difference}",
            remedy="choose another folder, or go on with the old one by naming its folder alone",
        )
    return held


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Be the only sweep at work in a folder, until the end of this process at the latest.

    Raises:
        RunError: another one is; its process is named.
    """
    descriptor = os.open(path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(descriptor, 20, 0).decode().strip() or "unknown"
            raise RunError(
                f"{path} is being swept by process {owner}",
                remedy="wait until it ends, or choose another folder",
            ) from None
        os.pwrite(descriptor, f"{os.getpid():<20}\n".encode(), 0)
        durable.clear_leftovers(path)
        yield
    finally:
        os.close(descriptor)


class _Queue:
    """The cells that are left, taken in order by one thread a worker."""

    def __init__(self, held: Sweep, watch: Watch, timeout_seconds: int | None):
        self._held = held
        self._watch = watch
        self._timeout_seconds = timeout_seconds
        self._turn = threading.Lock()
        self._standing = held.standing()
        self._interrupters: dict[str, Interrupter] = {}
        self._stopping = False

    def work(self, workers: int, *, retry_failed: bool) -> None:
        left = self._left(retry_failed)
        self._wait_for_orphans(left)
        self._standing = self._held.standing()
        self._standing.workers = workers
        self._tell("")
        with ThreadPoolExecutor(workers, thread_name_prefix="sweep") as pool:
            futures = [pool.submit(self._take, cell) for cell in left]
            try:
                wait(futures)
            except KeyboardInterrupt:
                self._stop(futures)
                raise
        for future in futures:
            future.result()

    def _left(self, retry_failed: bool) -> list[Cell]:
        left = []
        for cell in self._held.plan.cells:
            result = self._held.result(cell)
            if result and result.status == "failed" and retry_failed:
                (self._held.folder(cell) / "result.json").unlink()
                result = None
            if result is None:
                left.append(cell)
        return left

    def _wait_for_orphans(self, left: list[Cell]) -> None:
        """The kernels of a killed sweep live on for a moment, and may still write their runs."""
        begun = [cell for cell in left if self._held.folder(cell).is_dir()]
        if not begun:
            return
        time.sleep(_ORPHAN_SECONDS)
        deadline = time.monotonic() + _ORPHAN_PATIENCE_SECONDS
        while time.monotonic() < deadline and any(map(self._is_written, begun)):
            time.sleep(0.2)

    def _is_written(self, cell: Cell) -> bool:
        runs = find_runs(self._held.folder(cell), unreadable=lambda path, error: None)
        return any(run.status() in ("running", "paused") for run in runs)

    def _take(self, cell: Cell) -> None:
        if self._stopping:
            return
        interrupter = self._interrupters[cell.name] = Interrupter()
        started = time.monotonic()
        self._say(cell, "starting")
        result = self._execute(cell, interrupter)
        with self._turn:
            del self._interrupters[cell.name]
            self._standing.running.pop(cell.name, None)
        if interrupter.pressed:
            return
        self._keep(cell, result, time.monotonic() - started)

    def _execute(self, cell: Cell, interrupter: Interrupter) -> WorkbenchError | None:
        """What went wrong, if anything did."""
        folder = self._held.folder(cell)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            execute(
                self._held.plan.notebook,
                self._held.notebook(cell),
                self._held.plan.arguments(cell, folder.resolve()),
                progress=lambda what, done, total: self._say(cell, what),
                timeout_seconds=self._timeout_seconds,
                interrupter=interrupter,
            )
        except WorkbenchError as error:
            return error
        # One cell must not end the others, whatever papermill meets.
        except Exception as error:
            return RunError(
                f"{self._held.plan.notebook.name}: {type(error).__name__}: {error}",
                remedy=f"the executed part is in {self._held.notebook(cell)}",
            )
        return None

    def _keep(self, cell: Cell, error: WorkbenchError | None, seconds: float) -> None:
        if error is None:
            result = Result("finished", seconds)
            news = f"{cell.name}: finished in {seconds:.0f} s"
        else:
            result = Result("failed", seconds, error.problem, error.remedy)
            news = f"{cell.name}: failed, see {self._held.notebook(cell)}: {error.problem}"
        content = encoding.encode(asdict(result), indent=2)
        durable.write_file(self._held.folder(cell) / "result.json", content)
        with self._turn:
            self._standing.ended(result.status, seconds)
            self._tell(news)

    def _say(self, cell: Cell, what: str) -> None:
        with self._turn:
            self._standing.running[cell.name] = what
            self._tell("")

    def _tell(self, news: str) -> None:
        self._watch(self._standing, news)

    def _stop(self, futures: list[Future[None]]) -> None:
        """Interrupt what is at work and wait for its end; a second interrupt kills it."""
        self._stopping = True
        while not all(future.done() for future in futures):
            for interrupter in list(self._interrupters.values()):
                interrupter.press()
            try:
                wait(futures)
            except KeyboardInterrupt:
                continue

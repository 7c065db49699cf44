"""Start, resume and hold runs.

run = train(config, "runs/a")          # in this thread, until done
run = start(config, "runs/a")          # in the background; the notebook stays free
run.pause(); run.set(temperature=0.4); run.resume(); run.stop(); run.wait()
other = run.fork(100, mixer="exp3")    # shares the first 100 steps
run = resume("runs/a")                 # continues to the bit from the newest checkpoint
run = open_run("runs/a")               # read only
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from workbench.config import RunConfig
from workbench.core import RunError
from workbench.data import PreparedCorpus, prepare
from workbench.tracking import Ledger, RunFolder
from workbench.tracking.mirror import RunMirror
from workbench.training import checkpoint
from workbench.training.changes import check_change
from workbench.training.checks import check_fits, check_policies
from workbench.training.controls import Controls
from workbench.training.device import environment, keep_freed_memory, resolve, threads_of_rank
from workbench.training.fork import fork
from workbench.training.loop import Callback, Loop
from workbench.training.matching import match, matched_before
from workbench.training.ranks import Ranks, abandon, join, take_device
from workbench.training.rows import prepared_again
from workbench.training.spread import check_world
from workbench.training.state import TrainState, build_state

WAIT_POLL_SECONDS = 0.2


class Run:
    """A run folder and, while this process is training it, the thread that does."""

    def __init__(self, folder: RunFolder):
        self.folder = folder
        self._thread: threading.Thread | None = None
        self._controls = Controls()
        self._config: RunConfig | None = None
        self._corpus: PreparedCorpus | None = None
        self._error: BaseException | None = None
        self._announces = True

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {self.status()})"

    @property
    def path(self) -> Path:
        return self.folder.path

    @property
    def config(self) -> RunConfig:
        """The settings in force: those the run started with and the changes made since."""
        config = RunConfig(**self.folder.config)
        # By step, not by time: a change replayed after a crash takes effect at its own step.
        for event in sorted(self.folder.events("set"), key=lambda event: event["step"]):
            config = config.change(**event["changes"])
        return config

    @property
    def ledger(self) -> Ledger:
        return self.folder.ledger

    def events(self, kind: str | None = None) -> list[dict[str, Any]]:
        return self.folder.events(kind)

    def status(self) -> str:
        return self.folder.status()

    def summary(self) -> dict[str, Any] | None:
        return self.folder.summary()

    @property
    def live(self) -> bool:
        """Whether a background thread of this process is training it."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def error(self) -> BaseException | None:
        """What ended the background thread, if it failed."""
        return self._error

    def pause(self) -> None:
        """Hold before the next step; everything recorded so far is written."""
        self._live_controls().pause()

    def resume(self) -> None:
        """Go on after `pause`."""
        self._live_controls().resume()

    def stop(self) -> None:
        """End before the next step with a checkpoint; `workbench.resume(path)` continues it."""
        self._live_controls().stop()

    def set(self, **changes: Any) -> None:
        """Change settings at the next step boundary, as an event of the run.

        `run.set(temperature=0.4)`, `run.set(reweighter="linupper")`, `run.set(peak_lr=1e-4)`.

        Raises:
            ConfigError: unknown name or value, or a setting that only a new run can have.
        """
        controls = self._live_controls()
        assert self._config is not None and self._corpus is not None
        self._config = check_change(self._config, changes, self._corpus)
        controls.change(changes)

    def fork(
        self,
        step: int,
        *,
        name: str | None = None,
        callbacks: Sequence[Callback] | Callable[[Path], Sequence[Callback]] = (),
        cache_dir: str | Path | None = None,
        background: bool = True,
        announce: bool = True,
        **changes: Any,
    ) -> Run:
        """Train a run that shares the steps before `step` with this one, under `changes`.

        `run.fork(100, mixer="exp3")`; with no changes it repeats this run.  This run may still be
        training.  Where there is a checkpoint of `step`, nothing is computed again.  On several
        ranks every one must ask for it; `batch.fork` starts them.

        Args:
            name: of its folder, beside this run's; made of the changes when None.
            callbacks, cache_dir, announce: as in `train`; callbacks also as a function of the path
                of the fork's folder.
        Raises:
            WorkbenchError: a step not reached yet, or a change that does not fit.
        """
        folder = self.folder
        ranks = join(folder.config["training"]["device"])
        corpus = self._corpus or prepared_again(folder, cache_dir)
        path = ranks.leading(lambda: fork(folder, step, changes, corpus, name=name).path)
        return resume(
            path,
            callbacks=callbacks(path) if callable(callbacks) else callbacks,
            cache_dir=cache_dir or corpus.path.parent,
            background=background,
            announce=announce,
        )

    def wait(self, timeout_seconds: float | None = None) -> Run:
        """Until the background thread ends; raises what it raised.

        An interrupt of the waiting cell leaves the run going.
        """
        if self._thread is not None:
            remaining = timeout_seconds
            while self._thread.is_alive() and (remaining is None or remaining > 0):
                self._thread.join(WAIT_POLL_SECONDS)
                remaining = None if remaining is None else remaining - WAIT_POLL_SECONDS
            if self._error is not None:
                raise self._error
        return self

    def _live_controls(self) -> Controls:
        if not self.live:
            raise RunError(
                f"{self.path} is not training in this process (it is {self.status()})",
                remedy=f"continue it with workbench.resume({str(self.path)!r}, background=True)",
            )
        return self._controls

    def _train(self, work: Callable[[Controls], None], *, background: bool) -> Run:
        if not background:
            with self._stopping_at_ctrl_c():
                work(self._controls)
            return self
        self._thread = threading.Thread(
            target=self._guard, args=(work,), name=f"train {self.path.name}", daemon=True
        )
        self._thread.start()
        return self

    @contextmanager
    def _stopping_at_ctrl_c(self) -> Iterator[None]:
        """The first Ctrl-C ends the run at the next step boundary with a checkpoint, then raises.

        A second one interrupts at once; the run then resumes from its last checkpoint.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        pressed = False

        def on_press(number: int, frame: Any) -> None:
            nonlocal pressed
            if pressed:
                raise KeyboardInterrupt
            pressed = True
            self._controls.stop()

        before = signal.signal(signal.SIGINT, on_press)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
        if pressed:
            raise KeyboardInterrupt

    def _guard(self, work: Callable[[Controls], None]) -> None:
        try:
            work(self._controls)
        except BaseException as error:
            self._error = error
            if self._announces:
                # Shows in the notebook under the cell that started the run.
                print(f"run {self.path.name} failed: {error}", file=sys.stderr, flush=True)


def train(
    config: RunConfig,
    out_dir: str | Path,
    *,
    if_exists: Literal["error", "resume"] = "error",
    callbacks: Sequence[Callback] = (),
    cache_dir: str | Path | None = None,
    progress: Callable[[str, int, int | None], None] | None = None,
    background: bool = False,
    announce: bool = True,
) -> Run:
    """Train `config` into the run folder `out_dir`/`config.name`.

    Args:
        if_exists: `resume` continues a folder of the same config, or returns it when it is
            finished, so that a killed notebook can simply be run again.
        callbacks: see `Callback`.
        cache_dir: where prepared corpora are kept; see `data.prepare`.
        progress: told about the preparation of the corpus as (what, done, total).
        announce: print a failure of the background thread at once; False for those who `wait()`.
    Raises:
        WorkbenchError: anything that cannot work, before the first step where possible.
    """
    check_policies(config)
    config = resolve(config)
    ranks = join(config.training.device)
    check_world(config.training, ranks.world)
    path = Path(out_dir) / config.name
    # As one rank sees it: the others may come when it has made the folder.
    exists = ranks.everyone(RunFolder.holds_run(path))[0]
    options: dict[str, Any] = {"callbacks": callbacks, "cache_dir": cache_dir}
    options |= {"progress": progress, "background": background, "announce": announce}
    if exists and if_exists == "resume":
        return _again(path, config, ranks, options)
    if exists:
        RunFolder.create(path, config={}, environment={})
    corpus = prepare(
        config.corpus, config.tokenizer, config.rows, cache_dir=cache_dir, progress=progress
    )
    check_fits(config, corpus)
    state = build_state(config, corpus)
    if config.training.match_run is not None:
        # What follows from the length of the run is built for the length it gets.
        config = match(state)
        check_fits(config, corpus)
        state = build_state(config, corpus)
    if ranks.leads:
        stamp = environment(config, corpus)
        RunFolder.create(path, config=config.to_dict(), environment=stamp)
    ranks.wait()
    run = Run(_opened(path, ranks))
    run._announces = announce
    with ExitStack() as stack:
        stack.enter_context(run.folder.lock())
        begin = partial(run.folder.append, "started", 0)
        return _launch(run, state, begin, [], callbacks, stack.pop_all(), background=background)


def _again(path: Path, config: RunConfig, ranks: Ranks, options: dict[str, Any]) -> Run:
    """The run of this config that is there already, continued unless it is finished."""
    folder = RunFolder.open(path)
    checkpoint.check_same_config(folder, matched_before(config, folder))
    if ranks.everyone(folder.status())[0] == "finished":
        return Run(folder)
    return resume(path, **options)


def start(config: RunConfig, out_dir: str | Path, **options: Any) -> Run:
    """`train` in a background thread; returns once the rows are prepared and the thread runs."""
    return train(config, out_dir, background=True, **options)


def resume(
    path: str | Path,
    *,
    step: int | None = None,
    changes: dict[str, Any] | None = None,
    callbacks: Sequence[Callback] = (),
    cache_dir: str | Path | None = None,
    progress: Callable[[str, int, int | None], None] | None = None,
    background: bool = False,
    announce: bool = True,
) -> Run:
    """Continue a run that was stopped, failed or killed, to the bit on a CPU.

    Args:
        step: which checkpoint; the newest when None, 0 to start over.
        changes: settings to change as it continues, as in `Run.set`.
            With `step` or `changes`, changes made at later steps of the first try are given up,
            and listed as `superseded` in the event `resumed`; otherwise they are made again.
        progress: told about the preparation of the corpus, where it is not there any more.
        announce: as in `train`.
    Raises:
        RunError: another process is writing the run, the checkpoint is corrupt or belongs to
            another config or corpus.
    """
    device = RunFolder.open(path).config["training"]["device"]
    ranks = join(device)
    folder = _opened(path, ranks)
    run = Run(folder)
    run._announces = announce
    if ranks.everyone(folder.status())[0] == "finished" and step is None and not changes:
        return run
    # Taken here, not in the thread, so that a second writer is an error of this call, and before
    # anything is read, because taking it repairs what a killed writer left.
    with ExitStack() as stack:
        stack.enter_context(folder.lock())
        ranks.wait()
        config = resolve(RunConfig(**folder.config))
        check_policies(config)
        check_world(config.training, ranks.world)
        corpus = prepared_again(folder, cache_dir, progress)
        saved = checkpoint.load(folder, content_hash=corpus.content_hash, step=step)
        state = build_state(config, corpus)
        if saved is not None:
            state.load_state_dict(saved)
        later = [event for event in folder.events("set") if event["step"] >= state.step]
        replay = [] if changes or step is not None else later
        if changes:
            check_change(state.config, changes, corpus)
            run._controls.change(changes)

        def begin() -> None:
            folder.rewind(state.step, keep_changes=bool(replay))
            superseded = [] if replay else later
            listed = [{"step": event["step"], "changes": event["changes"]} for event in superseded]
            folder.append("resumed", state.step, superseded=listed)

        return _launch(run, state, begin, replay, callbacks, stack.pop_all(), background=background)


def _opened(path: str | Path, ranks: Ranks) -> RunFolder:
    """The folder for the one rank that writes it, or what the others see of it."""
    return RunFolder.open(path) if ranks.leads else RunMirror.open(path)


def open_run(path: str | Path) -> Run:
    """A run as it is on disk, for figures, ledger queries and comparison."""
    return Run(RunFolder.open(path))


def _launch(
    run: Run,
    state: TrainState,
    begin: Callable[[], None],
    replay: list[dict[str, Any]],
    callbacks: Sequence[Callback],
    locked: ExitStack,
    *,
    background: bool,
) -> Run:
    """Train under the folder's lock, which is let go when training ends."""
    run._corpus = state.corpus
    run._config = state.config
    for changes in (*(event["changes"] for event in replay), *run._controls.waiting()):
        run._config = run._config.change(**changes)

    def work(controls: Controls) -> None:
        with locked:
            keep_freed_memory()
            if threads := state.config.training.threads:
                torch.set_num_threads(threads_of_rank(threads, run.folder.environment))
            take_device(state.config.training.device)
            begin()
            Ranks.here().wait()
            try:
                Loop(state, run.folder, controls, callbacks, replay=replay).run()
            except BaseException:
                abandon()
                raise

    return run._train(work, background=background)

"""What the commands share: settings from options, progress, tables, errors in one line.

    settings = settings_of(config, changes, corpus="planted")
    with bar() as progress: ...

Rooms are imported inside the functions, so that `workbench --help` answers at once.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from workbench.core import WorkbenchError

if TYPE_CHECKING:
    from workbench.batch import Launched
    from workbench.batch.notebook import Progress
    from workbench.config import RunConfig
    from workbench.training import Run
    from workbench.training.loop import Callback

# Without a terminal there is no width to fit, and folded cells are hard to search.
# Under torchrun one rank speaks for all; what goes wrong, each says for itself.
_quiet = os.environ.get("RANK", "0") != "0"
console = Console(width=None if sys.stdout.isatty() else 160, quiet=_quiet)
errors = Console(stderr=True)


class OneLineErrors(TyperGroup):
    """Shows a WorkbenchError as its problem and remedy; `--debug` lets the traceback through.

    Warnings are lines, too, without the place in the code.
    """

    def invoke(self, ctx):
        usual, warnings.formatwarning = warnings.formatwarning, _one_line
        try:
            return super().invoke(ctx)
        except WorkbenchError as error:
            if ctx.params.get("debug"):
                raise
            errors.print(f"[red]error[/red] {escape(error.problem)}", soft_wrap=True)
            if error.remedy:
                errors.print(f"[dim]remedy[/dim] {escape(error.remedy)}", soft_wrap=True)
            raise typer.Exit(1) from None
        finally:
            warnings.formatwarning = usual


def _one_line(message: Warning | str, *_place: object, **_more: object) -> str:
    return f"warning {message}\n"


def settings_of(path: Path | None, changes: list[str] | None, **given: Any) -> RunConfig:
    """Settings from a file, then from named options, then from `--set`."""
    # Loading the policies first lets their option names resolve.
    import workbench.mixing
    import workbench.reweighting  # noqa: F401
    from workbench.config import RunConfig

    config = RunConfig.read(path) if path else RunConfig()
    named = {name: value for name, value in given.items() if value is not None}
    return config.change(**named).change(**values_of(changes))


def sinks_of(names: list[str] | None, path: Path) -> list[Callback]:
    from workbench.tracking import sinks

    return [sinks.build(name, path) for name in names or ()]


def values_of(changes: list[str] | None) -> dict[str, Any]:
    from workbench.batch.parameter_text import read_values

    return read_values(changes or [], "--set")


def bar() -> AbstractContextManager[Progress]:
    from workbench.batch.terminal import progress_bar

    return progress_bar(console)


def follow_run(run: Run, since: float) -> None:
    """Show what a run writes until it ends; Ctrl-C or SIGTERM stops it with a checkpoint."""
    from workbench.batch.terminal import follow, run_row

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        follow(run, console, since=since)
    except KeyboardInterrupt:
        # A rank whose run has failed is told to stop, too.
        if run.live:
            console.print("stopping with a checkpoint …")
            run.stop()
    run.wait()
    row = run_row(run.folder)
    console.print(f"{row['status']} at step {row['step']}, loss {row['loss']} nats", end=", ")
    console.print(f"held-out {row['held_out']} nats", shown(run.path), soft_wrap=True)
    if run.status() == "stopped":
        console.print(f"continue with: workbench resume {run.path}", soft_wrap=True)


def devices_of(path: Path, asked: int | None) -> int:
    """Those asked for, or as many as the run had; this process alone where it is a rank itself."""
    from workbench.batch.launch import devices_of

    if asked is not None or "TORCHELASTIC_RUN_ID" in os.environ:
        return 1 if asked is None else asked
    return devices_of(path.absolute())


def follow_launched(running: Launched) -> None:
    """Say what a run in other processes does until they end; Ctrl-C stops it with a checkpoint."""

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False)

    devices = f"on {running.devices} devices, " if running.devices > 1 else ""
    console.print(f"{devices}in processes of its own, see {running.log_path}", soft_wrap=True)
    try:
        running.wait(say=say)
    except KeyboardInterrupt:
        say("stopping with a checkpoint …")
        running.stop()
        running.wait(say=say)
    console.print(running.status(), shown(running.path), soft_wrap=True)


def print_table(rows: list[dict[str, Any]], *, title: str) -> None:
    from workbench.batch import terminal

    terminal.print_table(console, rows, title=title)


def shown(path: Path) -> str:
    return f"[cyan]{escape(str(path))}[/cyan]"

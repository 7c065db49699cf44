"""What a terminal shows of work that goes on: a bar for any progress, a run that trains.

with progress_bar(Console()) as progress:
    data.prepare(…, progress=progress)
run = training.start(config, "runs")
follow(run, Console())                    # a bar, and a line for what is worth keeping
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.core import RunError

if TYPE_CHECKING:
    from rich.console import Console

    from workbench.batch.notebook import Progress
    from workbench.tracking import RunFolder
    from workbench.training import Run

POLL_SECONDS = 0.2
SECONDS_BETWEEN_LINES = 5.0


@contextmanager
def progress_bar(console: Console) -> Iterator[Progress]:
    """A progress bar as `progress(what, done, total)`; plain lines where there is no terminal."""
    from rich import progress

    if not console.is_terminal:
        yield _line_printer(console)
        return
    columns = (
        progress.SpinnerColumn(),
        progress.BarColumn(bar_width=20),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TextColumn("{task.description}", markup=False),
    )
    with progress.Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, total: bar.update(
            task, description=what, completed=done, total=total
        )


def _line_printer(console: Console) -> Progress:
    """A line for each step of the work, and one now and then while a step prints a lot."""
    last_done, last_time = -1, 0.0

    def tell(what: str, done: int, total: int | None) -> None:
        nonlocal last_done, last_time
        if done != last_done or time.monotonic() > last_time + SECONDS_BETWEEN_LINES:
            last_done, last_time = done, time.monotonic()
            count = f"{done}/{total} " if total else f"{done} " if done else ""
            console.print(count + what, markup=False, highlight=False)

    return tell


def print_notes(console: Console, notes: Sequence[str], source: Path, *, limit: int = 3) -> None:
    """The first notes, and how many more the file `source` has."""
    from rich.markup import escape

    for note in notes[:limit]:
        console.print(f"[dim]note[/dim] {escape(note)}", soft_wrap=True)
    if len(notes) > limit:
        more = f"and {len(notes) - limit} more: [cyan]{escape(str(source))}[/cyan]"
        console.print(f"[dim]note[/dim] {more}", soft_wrap=True)


def print_table(console: Console, rows: Sequence[Mapping[str, Any]], *, title: str) -> None:
    """Rows under the keys of the first; numbers align to the right."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), box=box.SIMPLE_HEAD, pad_edge=False)
    for name in rows[0] if rows else ():
        numeric = all(isinstance(row[name], (int, float)) for row in rows)
        justify = "right" if numeric else "left"
        table.add_column(name.replace("_", " "), justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*(escape(_cell(value)) for value in row.values()))
    console.print(table)


def _cell(value: Any) -> str:
    return "–" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def follow(run: Run, console: Console, *, since: float = 0.0) -> None:
    """Show what a run does until it ends.

    Args:
        since: unix seconds; what a resumed run wrote before is not news.
    """
    from rich import progress

    columns = (
        progress.BarColumn(bar_width=30),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[loss]}"),
        progress.TextColumn("{task.fields[rate]}"),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=run.config.training.total_steps, loss="", rate="")
        _poll(run, since, console, lambda shown: bar.update(task, **shown))


def _poll(run: Run, since: float, console: Console, show: Callable[[dict[str, Any]], Any]) -> None:
    position = 0
    while True:
        live = run.live
        events, position = run.folder.follow(position)
        events = [event for event in events if event["time"] >= since]
        for event in events:
            if text := _line(event):
                console.print(text, highlight=False)
        steps = [event for event in events if event["kind"] == "step"]
        if steps:
            rate = sum(e["tokens"] for e in steps) / max(1e-9, sum(e["seconds"] for e in steps))
            shown = {"loss": f"loss {steps[-1]['loss']:.3f}", "rate": f"{rate:,.0f} tokens/s"}
            show({"completed": steps[-1]["step"] + 1, **shown})
        elif events and events[-1]["kind"] == "selecting":
            show({"rate": selecting_line(events[-1])})
        if not live:
            return
        time.sleep(POLL_SECONDS)


def _line(event: Mapping[str, Any]) -> str:
    """What stays on the screen of an event, if anything does."""
    if event["kind"] == "held_out":
        return f"step {event['step']}: held-out {event['mean_nats']:.3f} nats"
    if event["kind"] == "selected":
        return selected_line(event)
    if event["kind"] == "selecting" and event["stage"] == "plan":
        return f"step {event['step']}: curvature in {event['plan']}"
    return ""


def selecting_line(event: Mapping[str, Any]) -> str:
    """How far a selector at work is: `selecting: factors 3/16`."""
    known = event["total"] is not None
    return f"selecting: {event['stage']}" + (f" {event['done']}/{event['total']}" if known else "")


def selected_line(event: Mapping[str, Any]) -> str:
    """What was chosen, with the domains that gave most."""
    most = sorted(event["domains"].items(), key=lambda item: -item[1])[:3]
    return (
        f"step {event['step']}: selected {event['rows']} of {event['pool_rows']} rows in "
        f"{event['seconds']:.0f} s, most from " + ", ".join(f"{name} {n}" for name, n in most)
    )


def runs_below(paths: Sequence[Path], errors: Console) -> list[RunFolder]:
    """Every run at or below some folders, once; those that cannot be read are told of.

    Raises:
        RunError: there is none.
    """
    from rich.markup import escape

    from workbench.tracking import find_runs

    def left_out(path: Path, error: RunError) -> None:
        errors.print(f"[yellow]left out[/yellow] {escape(f'{path}: {error}')}", soft_wrap=True)

    found = [run for path in paths for run in find_runs(path, unreadable=left_out)]
    if not found:
        raise RunError(
            f"no run in {', '.join(map(str, paths))}", remedy="make one with: workbench train"
        )
    return list({run.path.resolve(): run for run in found}.values())


def run_row(run: RunFolder) -> dict[str, Any]:
    """What the list of runs says about one."""
    from workbench.training import Run

    events, config = run.events(), Run(run).config
    steps = [event for event in events if event["kind"] == "step"]
    held_out = [event for event in events if event["kind"] == "held_out"]
    policies = [p.name for p in (config.selector, config.mixer, config.reweighter) if p]
    return {
        "name": run.config["name"],
        "status": run.status(),
        "step": f"{steps[-1]['step'] + 1 if steps else 0}/{config.training.total_steps}",
        "loss": f"{steps[-1]['loss']:.3f}" if steps else "–",
        "held_out": f"{held_out[-1]['mean_nats']:.3f}" if held_out else "–",
        "policies": " ".join(policies),
        "path": str(run.path),
    }

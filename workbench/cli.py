"""The command line: thin wrappers that show progress and turn errors into one line.

    workbench train --corpus planted --reweighter linupper --set total_steps=100

Rooms are imported inside the commands, so that `workbench --help` answers at once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from workbench.core import WorkbenchError

if TYPE_CHECKING:
    from workbench.batch.notebook import Progress
    from workbench.config import RunConfig
    from workbench.training import Run
    from workbench.training.loop import Callback

# Without a terminal there is no width to fit, and folded cells are hard to search.
# Under torchrun one rank speaks for all; what goes wrong, each says for itself.
_quiet = os.environ.get("RANK", "0") != "0"
console = Console(width=None if sys.stdout.isatty() else 160, quiet=_quiet)
_errors = Console(stderr=True)
# What fits into 80 columns; the notebook and the manifest have the rest.
_OVERVIEW = (
    *("domain", "documents", "megabytes", "tokens", "train_rows", "held_out_rows"),
    *("near_duplicates", "skipped_files"),
)


class _OneLineErrors(TyperGroup):
    """Shows a WorkbenchError as its problem and remedy; `--debug` lets the traceback through."""

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except WorkbenchError as error:
            if ctx.params.get("debug"):
                raise
            _errors.print(f"[red]error[/red] {escape(error.problem)}", soft_wrap=True)
            if error.remedy:
                _errors.print(f"[dim]remedy[/dim] {escape(error.remedy)}", soft_wrap=True)
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=_OneLineErrors,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    help="Data-centric language-model pretraining: select, mix, reweight, and compare honestly.",
)

Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Change a setting; repeat for several."),
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="JSON file of settings, or a run's config.json.")
]
Corpus = Annotated[
    str | None, typer.Option(help="installed, planted, a folder, a file, or a datasets name.")
]

Sinks = Annotated[
    list[str] | None,
    typer.Option("--sink", help="Also write to tensorboard, wandb or mlflow; repeat for several."),
]


@app.callback()
def _main(
    debug: Annotated[bool, typer.Option(help="Show the traceback of an error.")] = False,
) -> None:
    del debug


@app.command(epilog="Example: workbench demo --profile ci --out out/demo")
def demo(
    profile: Annotated[str, typer.Option(help="ci, demo or full.")] = "demo",
    seed: int = 0,
    out: Annotated[Path | None, typer.Option(help="A new folder below out/ if not given.")] = None,
    notebook: Annotated[Path | None, typer.Option(help="Another notebook.")] = None,
) -> None:
    """Run notebooks/00_tour.ipynb; it writes its runs and an HTML report beside its copy."""
    from workbench.batch import execute

    notebook = notebook or Path(__file__).parents[1] / "notebooks" / "00_tour.ipynb"
    out = (out or Path("out") / time.strftime("demo-%Y%m%d-%H%M%S")).absolute()
    parameters = {"profile": profile, "seed": seed, "out_dir": out}
    with _bar() as progress:
        executed = execute(notebook, out / notebook.name, parameters, progress=progress)
    console.print("executed notebook", _shown(executed), soft_wrap=True)
    for page in sorted(out.glob("*.html")):
        console.print("report           ", _shown(page), soft_wrap=True)


@app.command(epilog="Example: workbench prepare --corpus texts/ --set context_tokens=256")
def prepare(corpus: Corpus = None, config: ConfigFile = None, changes: Settings = None) -> None:
    """Turn a corpus into rows, train its tokenizer, and show what is in it."""
    from workbench import data
    from workbench.batch.terminal import print_notes

    settings = _settings(config, changes, corpus=corpus)
    with _bar() as progress:
        prepared = data.prepare(
            settings.corpus, settings.tokenizer, settings.rows, progress=progress
        )
    rows = [{name: row[name] for name in _OVERVIEW} for row in prepared.overview()]
    _print_table(rows, title=f"corpus {prepared.content_hash[:12]}")
    print_notes(console, prepared.notes(), prepared.path / "manifest.json")
    console.print("prepared in", _shown(prepared.path), soft_wrap=True)


@app.command(epilog="Example: workbench train --reweighter linupper --seed 1 --set temperature=0.4")
def train(
    config: ConfigFile = None,
    corpus: Corpus = None,
    model: Annotated[str | None, typer.Option(help="tiny, small, mini-124m, or a folder.")] = None,
    reweighter: Annotated[str | None, typer.Option(help="How much each sample counts.")] = None,
    mixer: Annotated[str | None, typer.Option(help="How much of each domain.")] = None,
    selector: Annotated[str | None, typer.Option(help="Which rows are read at all.")] = None,
    seed: int | None = None,
    name: Annotated[str | None, typer.Option(help="Name of the run and of its folder.")] = None,
    out: Annotated[Path, typer.Option(help="Folder that holds the run's folder.")] = Path("runs"),
    sink: Sinks = None,
    changes: Settings = None,
) -> None:
    """Train a model into a run folder; Ctrl-C stops with a checkpoint."""
    from workbench import training
    from workbench.batch.terminal import print_notes

    policies = {"reweighter": reweighter, "mixer": mixer, "selector": selector}
    settings = _settings(
        config, changes, seed=seed, name=name, corpus=corpus, model=model, **policies
    )
    since, callbacks = time.time(), _sinks(sink, out / settings.name)
    with _bar() as progress:
        run = training.start(settings, out, callbacks=callbacks, progress=progress, announce=False)
    print_notes(console, run.folder.environment["corpus_notes"], run.path / "config.json")
    _follow(run, since)


@app.command(epilog="Example: workbench resume runs/run --set peak_lr=0.0005")
def resume(
    path: Annotated[Path, typer.Argument(help="A run folder.")],
    step: Annotated[int | None, typer.Option(help="Checkpoint to go on from; newest.")] = None,
    sink: Sinks = None,
    changes: Settings = None,
) -> None:
    """Continue a run that was stopped, failed or was killed."""
    from workbench import training

    since, callbacks = time.time(), _sinks(sink, path)
    options: dict[str, Any] = {"background": True, "announce": False, "callbacks": callbacks}
    with _bar() as progress:
        run = training.resume(
            path, step=step, changes=_values(changes), progress=progress, **options
        )
    _follow(run, since)


@app.command(epilog="Example: workbench fork runs/run --step 100 --set mixer=exp3")
def fork(
    path: Annotated[Path, typer.Argument(help="A run folder; it may still be training.")],
    step: Annotated[int, typer.Option(help="First step that is the fork's own.")],
    name: Annotated[str | None, typer.Option(help="Name of the fork's folder.")] = None,
    changes: Settings = None,
) -> None:
    """Train a run that shares its first steps with another and then differs in one thing."""
    from workbench import training

    since = time.time()
    options = {"name": name, "background": True, "announce": False}
    run = training.open_run(path).fork(step, **options, **_values(changes))
    _follow(run, since)


@app.command(epilog="Example: workbench mixture --method doge --corpus installed --out out/doge")
def mixture(
    out: Annotated[Path, typer.Option(help="Folder of the job; call again to go on.")],
    method: Annotated[str, typer.Option(help="doremi, doge or regmix.")] = "doremi",
    runs: Annotated[int, typer.Option(help="Small runs that regmix trains.")] = 16,
    without: Annotated[
        list[str] | None,
        typer.Option(metavar="DOMAIN", help="A domain whose loss regmix does not count; repeat."),
    ] = None,
    corpus: Corpus = None,
    model: Annotated[str | None, typer.Option(help="Of the small runs.")] = None,
    config: ConfigFile = None,
    changes: Settings = None,
) -> None:
    """Look for a mixture with small runs, and write mixture.json for a static run."""
    from workbench import batch

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False)

    settings = _settings(config, changes, corpus=corpus, model=model)
    searched = {"method": method, "runs": runs, "without": without or ()}
    written = batch.find_mixture(settings, out, **searched, say=say)
    console.print("mixture", _shown(written), soft_wrap=True)
    console.print(f"use it with: workbench train --mixer static --set mixture={written}")


@app.command(
    epilog="Example: workbench sweep out/lr --grid peak_lr=1e-3,2e-3 --seeds 0,1,2 --fix profile=ci"
)
def sweep(
    out: Annotated[Path, typer.Argument(help="Folder of the sweep; alone, it goes on.")],
    grid: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=A,B", help="Values to combine; repeat for several names."),
    ] = None,
    random: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=A,B|LOW:HIGH[:log]", help="Values to draw from."),
    ] = None,
    draws: Annotated[int | None, typer.Option(help="Sets to draw.")] = None,
    draw_seed: int = 0,
    listed: Annotated[
        Path | None, typer.Option("--list", help="Sets from a .csv, .yaml or .json file.")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Such as 0,1,2; 0 alone if not given.")] = None,
    fix: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="The same in every cell.")
    ] = None,
    notebook: Annotated[
        Path | None, typer.Option(help="Any with a parameters cell; 82_train_one_run.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Cells at work at the same time.")] = 1,
    retry_failed: Annotated[bool, typer.Option(help="Execute failed cells again.")] = False,
) -> None:
    """Execute a notebook for many parameters and seeds; killed, it goes on when called again."""
    from workbench import batch
    from workbench.batch.parameter_text import read_grid, read_random, read_seeds, read_values

    done = batch.sweep(
        out,
        notebook=notebook,
        grid=read_grid(grid) if grid else None,
        random=read_random(random) if random else None,
        draws=draws,
        draw_seed=draw_seed,
        listed=listed,
        seeds=read_seeds(seeds) if seeds is not None else None,
        fixed=read_values(fix, "--fix") if fix else None,
        workers=workers,
        retry_failed=retry_failed,
    )
    console.print(f"{done.standing()}: {_shown(out)}", soft_wrap=True)
    for path, result in done.failures().items():
        _errors.print(f"[red]failed[/red] {escape(f'{path}: {result.problem}')}", soft_wrap=True)
    if done.failures():
        console.print(f"try them again with: workbench sweep {out} --retry-failed", soft_wrap=True)
        raise typer.Exit(1)


@app.command(epilog="Example: workbench evaluate runs/run --tasks piqa,sciq --limit 200")
def evaluate(
    path: Annotated[Path, typer.Argument(help="A run folder; it may still be training.")],
    tasks: Annotated[
        str | None,
        typer.Option(help="Such as piqa,mmlu_5shot or a YAML file; the papers' without code."),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Documents of each task at most.")] = None,
    step: Annotated[int | None, typer.Option(help="Of the checkpoint; newest.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder with copies of datasets.")] = None,
    execute_code: Annotated[
        bool, typer.Option("--execute-code", help="HumanEval: execute what the model wrote.")
    ] = False,
) -> None:
    """Evaluate a checkpoint on downstream tasks; results go into the run's folder."""
    from workbench import training
    from workbench.tracking import downstream

    options: dict[str, Any] = {"limit": limit, "step": step, "execute_code": execute_code}
    if tasks:
        options["tasks"] = tasks.split(",")
    with _bar() as progress:
        records = training.evaluate_downstream(path, data=data, progress=progress, **options)
    _print_table(downstream.rows(list(records.values())), title=str(path))


@app.command(epilog="Example: workbench runs out")
def runs(folder: Annotated[Path, typer.Argument(help="Where to look.")] = Path("runs")) -> None:
    """List the runs at or below a folder."""
    from workbench.batch.terminal import run_row, runs_below

    _print_table([run_row(run) for run in runs_below([folder], _errors)], title=str(folder))


@app.command(epilog="Example: workbench report runs --out report.html --baseline uniform")
def report(
    paths: Annotated[list[Path], typer.Argument(help="Run folders, or folders of runs.")],
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("report.html"),
    title: str = "Runs compared",
    baseline: Annotated[str | None, typer.Option(help="Label the others are compared to.")] = None,
) -> None:
    """Write one self-contained HTML file: settings, figures, verdicts."""
    from workbench import batch
    from workbench.batch.terminal import runs_below

    runs, options = runs_below(paths, _errors), {"title": title, "baseline": baseline}
    with _bar() as progress:
        written = batch.report(runs, out, progress=progress, **options)
    console.print("report", _shown(written), soft_wrap=True)


@app.command(epilog="Example: workbench doctor --json")
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Versions, device, memory; what is missing and how to get it."""
    from dataclasses import asdict

    from workbench.doctor import examine, works

    with _errors.status("looking at this machine"):
        checks = examine()
    if as_json:
        print(json.dumps({"works": works(checks), "checks": [asdict(c) for c in checks]}, indent=2))
    else:
        _print_table([asdict(check) for check in checks], title="workbench doctor")
    raise typer.Exit(0 if works(checks) else 1)


def _settings(path: Path | None, changes: list[str] | None, **given: Any) -> RunConfig:
    """Settings from a file, then from named options, then from `--set`."""
    # Loading the policies first lets their option names resolve.
    import workbench.mixing
    import workbench.reweighting  # noqa: F401
    from workbench.config import RunConfig

    config = RunConfig.read(path) if path else RunConfig()
    named = {name: value for name, value in given.items() if value is not None}
    return config.change(**named).change(**_values(changes))


def _sinks(names: list[str] | None, path: Path) -> list[Callback]:
    from workbench.tracking import sinks

    return [sinks.build(name, path) for name in names or ()]


def _values(changes: list[str] | None) -> dict[str, Any]:
    from workbench.batch.parameter_text import read_values

    return read_values(changes or [], "--set")


def _bar() -> AbstractContextManager[Progress]:
    from workbench.batch.terminal import progress_bar

    return progress_bar(console)


def _follow(run: Run, since: float) -> None:
    """Show what a run writes until it ends; Ctrl-C or SIGTERM stops it with a checkpoint."""
    from workbench.batch.terminal import follow, run_row

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        follow(run, console, since=since)
    except KeyboardInterrupt:
        console.print("stopping after this step …")
        run.stop()
    run.wait()
    row = run_row(run.folder)
    console.print(f"{row['status']} at step {row['step']}, loss {row['loss']} nats", end=", ")
    console.print(f"held-out {row['held_out']} nats", _shown(run.path), soft_wrap=True)
    if run.status() == "stopped":
        console.print(f"continue with: workbench resume {run.path}", soft_wrap=True)


def _print_table(rows: list[dict[str, Any]], *, title: str) -> None:
    from workbench.batch.terminal import print_table

    print_table(console, rows, title=title)


def _shown(path: Path) -> str:
    return f"[cyan]{escape(str(path))}[/cyan]"


if __name__ == "__main__":
    app()

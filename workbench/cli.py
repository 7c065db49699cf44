"""The command line: thin wrappers that show progress and turn errors into one line.

    workbench train --corpus planted --reweighter linupper --set total_steps=100

Rooms are imported inside the commands, so that `workbench --help` answers at once.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from workbench.console import (
    OneLineErrors,
    bar,
    console,
    devices_of,
    errors,
    follow_launched,
    follow_run,
    print_table,
    settings_of,
    shown,
    sinks_of,
    values_of,
)
from workbench.core import ConfigError

# What fits into 80 columns; the notebook and the manifest have the rest.
_OVERVIEW = (
    *("domain", "documents", "megabytes", "tokens", "train_rows", "held_out_rows"),
    *("near_duplicates", "skipped_files"),
)

app = typer.Typer(
    cls=OneLineErrors,
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
Devices = Annotated[
    int, typer.Option(help="Processes of torchrun, one for each; 1 trains in this one.")
]
SameDevices = Annotated[
    int | None, typer.Option("--devices", help="As in train; as many as the run had, unless given.")
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
    with bar() as progress:
        executed = execute(notebook, out / notebook.name, parameters, progress=progress)
    console.print("executed notebook", shown(executed), soft_wrap=True)
    for page in sorted(out.glob("*.html")):
        console.print("report           ", shown(page), soft_wrap=True)


@app.command(epilog="Example: workbench prepare --corpus texts/ --set context_tokens=256")
def prepare(corpus: Corpus = None, config: ConfigFile = None, changes: Settings = None) -> None:
    """Turn a corpus into rows, train its tokenizer, and show what is in it."""
    from workbench import data
    from workbench.batch.terminal import print_notes

    settings = settings_of(config, changes, corpus=corpus)
    with bar() as progress:
        prepared = data.prepare(
            settings.corpus, settings.tokenizer, settings.rows, progress=progress
        )
    rows = [{name: row[name] for name in _OVERVIEW} for row in prepared.overview()]
    print_table(rows, title=f"corpus {prepared.content_hash[:12]}")
    print_notes(console, prepared.notes(), prepared.path / "manifest.json")
    console.print("prepared in", shown(prepared.path), soft_wrap=True)


@app.command(epilog="Example: workbench train --reweighter linupper --seed 1 --set temperature=0.4")
def train(
    config: ConfigFile = None,
    corpus: Corpus = None,
    model: Annotated[str | None, typer.Option(help="tiny, a paper's, or a folder.")] = None,
    reweighter: Annotated[str | None, typer.Option(help="How much each sample counts.")] = None,
    mixer: Annotated[str | None, typer.Option(help="How much of each domain.")] = None,
    selector: Annotated[str | None, typer.Option(help="Which rows are read at all.")] = None,
    seed: int | None = None,
    name: Annotated[str | None, typer.Option(help="Name of the run and of its folder.")] = None,
    out: Annotated[Path, typer.Option(help="Folder that holds the run's folder.")] = Path("runs"),
    devices: Devices = 1,
    sink: Sinks = None,
    changes: Settings = None,
) -> None:
    """Train a model into a run folder; Ctrl-C stops with a checkpoint."""
    from workbench import batch, training
    from workbench.batch.terminal import print_notes

    policies = {"reweighter": reweighter, "mixer": mixer, "selector": selector}
    settings = settings_of(
        config, changes, seed=seed, name=name, corpus=corpus, model=model, **policies
    )
    if devices != 1:
        _require_no_sinks(sink)
        return follow_launched(batch.launch(settings, out, devices=devices))
    since, callbacks = time.time(), sinks_of(sink, out / settings.name)
    with bar() as progress:
        run = training.start(settings, out, callbacks=callbacks, progress=progress, announce=False)
    print_notes(console, run.folder.environment["corpus_notes"], run.path / "config.json")
    follow_run(run, since)


@app.command(epilog="Example: workbench plan --model llama-1.4b --devices 8 --domains 7")
def plan(
    config: ConfigFile = None,
    corpus: Corpus = None,
    model: Annotated[str | None, typer.Option(help="A paper's, with its paper's settings.")] = None,
    devices: Annotated[int, typer.Option(help="Ranks, each with a device of its own.")] = 1,
    domains: Annotated[
        int | None, typer.Option(help="Of the corpus, where the catalogue does not know.")
    ] = None,
    flops: Annotated[
        float | None, typer.Option(help="Operations a second of one device; measured here.")
    ] = None,
    memory_gib: Annotated[
        float | None, typer.Option(help="Free on each GPU of another machine; needs --flops.")
    ] = None,
    changes: Settings = None,
) -> None:
    """Memory, time and disk that a run needs, from its shape alone; nothing is trained."""
    from workbench.config import presets
    from workbench.training import planner

    base = (
        settings_of(config, None, model=model, corpus=corpus)
        if config
        else presets.pretraining("full", model, corpus)
    )
    settings = base.change(**values_of(changes))
    machine = {"devices": devices, "flops_per_second": flops, "memory_gib": memory_gib}
    found = planner.plan(settings, corpus_domains=domains, **machine)
    print_table(found.rows(), title=f"MiB on each of {devices} × {found.device}")
    console.print(str(found), soft_wrap=True, highlight=False)
    for warning in found.warnings:
        console.print(f"[yellow]warning[/yellow] {escape(warning)}", soft_wrap=True)
    for note in found.notes:
        console.print(f"[dim]note[/dim] {escape(note)}", soft_wrap=True)
    planner.check_fits_device(settings, found)


@app.command(epilog="Example: workbench resume runs/run --set peak_lr=0.0005")
def resume(
    path: Annotated[Path, typer.Argument(help="A run folder.")],
    step: Annotated[int | None, typer.Option(help="Checkpoint to go on from; newest.")] = None,
    devices: SameDevices = None,
    sink: Sinks = None,
    changes: Settings = None,
) -> None:
    """Continue a run that was stopped, failed or was killed."""
    from workbench import batch, training

    devices = devices_of(path, devices)
    if devices != 1:
        _require_no_sinks(sink)
        arguments = [] if step is None else [f"--step={step}"]
        arguments += [f"--set={change}" for change in changes or ()]
        return follow_launched(batch.attach(path, devices=devices, arguments=arguments))
    since, callbacks = time.time(), sinks_of(sink, path)
    options: dict[str, Any] = {"background": True, "announce": False, "callbacks": callbacks}
    with bar() as progress:
        run = training.resume(
            path, step=step, changes=values_of(changes), progress=progress, **options
        )
    follow_run(run, since)


@app.command(epilog="Example: workbench fork runs/run --step 100 --set mixer=exp3")
def fork(
    path: Annotated[Path, typer.Argument(help="A run folder; it may still be training.")],
    step: Annotated[int, typer.Option(help="First step that is the fork's own.")],
    name: Annotated[str | None, typer.Option(help="Name of the fork's folder.")] = None,
    devices: SameDevices = None,
    sink: Sinks = None,
    changes: Settings = None,
) -> None:
    """Train a run that shares its first steps with another and then differs in one thing."""
    from workbench import batch, training

    devices = devices_of(path, devices)
    if devices != 1:
        _require_no_sinks(sink)
        forked = batch.fork(path, step, devices=devices, name=name, **values_of(changes))
        return follow_launched(forked)
    # Built once more for the fork's own folder: a wrong name is refused before there is one.
    sinks_of(sink, path)
    since = time.time()
    options: dict[str, Any] = {"name": name, "background": True, "announce": False}
    options["callbacks"] = lambda made: sinks_of(sink, made)
    run = training.open_run(path).fork(step, **options, **values_of(changes))
    follow_run(run, since)


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

    settings = settings_of(config, changes, corpus=corpus, model=model)
    searched = {"method": method, "runs": runs, "without": without or ()}
    written = batch.find_mixture(settings, out, **searched, say=say)
    console.print("mixture", shown(written), soft_wrap=True)
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
        Path | None, typer.Option(help="Any with a parameters cell; 80_pretrain.")
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
    console.print(f"{done.standing()}: {shown(out)}", soft_wrap=True)
    for path, result in done.failures().items():
        errors.print(f"[red]failed[/red] {escape(f'{path}: {result.problem}')}", soft_wrap=True)
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
    with bar() as progress:
        records = training.evaluate_downstream(path, data=data, progress=progress, **options)
    print_table(downstream.rows(list(records.values())), title=str(path))


@app.command(epilog="Example: workbench runs out")
def runs(folder: Annotated[Path, typer.Argument(help="Where to look.")] = Path("runs")) -> None:
    """List the runs at or below a folder."""
    from workbench.batch.terminal import run_row, runs_below

    print_table([run_row(run) for run in runs_below([folder], errors)], title=str(folder))


@app.command(epilog="Example: workbench report runs --out report.html --baseline uniform")
def report(
    paths: Annotated[list[Path], typer.Argument(help="Run folders, or folders of runs.")],
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("report.html"),
    title: str = "Runs compared",
    baseline: Annotated[str | None, typer.Option(help="Label the others are compared to.")] = None,
    repeated: Annotated[
        bool,
        typer.Option("--repeated", help="Runs of one label and seed are repeats: noise floor."),
    ] = False,
) -> None:
    """Write one self-contained HTML file: settings, figures, verdicts."""
    from workbench import batch
    from workbench.batch.terminal import runs_below

    runs = runs_below(paths, errors)
    options: dict[str, Any] = {"title": title, "baseline": baseline, "repeated": repeated}
    with bar() as progress:
        written = batch.report(runs, out, progress=progress, **options)
    console.print("report", shown(written), soft_wrap=True)


@app.command(epilog="Example: workbench doctor --json")
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Versions, device, memory; what is missing and how to get it."""
    from dataclasses import asdict

    from workbench.doctor import examine, works

    with errors.status("looking at this machine"):
        checks = examine()
    if as_json:
        print(json.dumps({"works": works(checks), "checks": [asdict(c) for c in checks]}, indent=2))
    else:
        print_table([asdict(check) for check in checks], title="workbench doctor")
    raise typer.Exit(0 if works(checks) else 1)


def _require_no_sinks(names: list[str] | None) -> None:
    if names:
        raise ConfigError(
            f"--sink {names[0]} with several devices",
            remedy="leave it out: a sink follows a run that this process trains",
        )


if __name__ == "__main__":
    app()

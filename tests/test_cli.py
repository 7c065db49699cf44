"""The commands, end to end on generated text, and their one-line errors."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import nbformat
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from workbench.cli import app
from workbench.config import RunConfig
from workbench.console import devices_of
from workbench.core import ConfigError, WorkbenchError
from workbench.tracking import RunFolder

COMMANDS = (
    *("demo", "prepare", "train", "plan", "resume", "fork", "mixture", "sweep"),
    *("evaluate", "runs", "report", "doctor"),
)
TINY = (
    *("--corpus", "planted", "--set", "max_domain_mb=0.1", "--set", "vocab_size=400"),
    *("--set", "context_tokens=32", "--set", "batch_rows=4", "--set", "held_out_rows=2"),
    *("--set", "record_every_steps=1", "--set", "threads=1"),
    *("--set", 'model.overrides={"num_hidden_layers":1,"hidden_size":32}'),
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def call(cache, monkeypatch, tmp_path):
    """Run a command in an empty folder with a prepared-corpus cache shared by this module."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, [str(a) for a in arguments])


def plain(text: str) -> str:
    return " ".join(text.split())


def test_help_lists_every_command_and_answers_without_loading_torch():
    program = (
        "import sys; from typer.testing import CliRunner; from workbench.cli import app; "
        "print(CliRunner().invoke(app, ['--help']).output); "
        "print([m for m in ('torch', 'transformers', 'plotly', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip().endswith("[]")
    assert all(command in done.stdout for command in COMMANDS)


def test_the_commands_are_the_ones_promised():
    assert set(get_command(app).commands) == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_has_an_example_that_parses(call, command):
    shown = call(command, "--help")
    assert shown.exit_code == 0
    example = get_command(app).commands[command].epilog.removeprefix("Example: workbench ")
    assert example.split()[0] == command
    get_command(app).commands[command].make_context(command, example.split()[1:])


def test_a_mixture_is_searched_without_the_domains_that_are_named(call, monkeypatch):
    asked = {}

    def found(settings, out, **options):
        asked.update(options)
        return out / "mixture.json"

    monkeypatch.setattr("workbench.batch.find_mixture", found)
    done = call("mixture", "--method", "regmix", "--out", "out", "--without", "noise", *TINY)
    assert done.exit_code == 0, done.output
    assert asked["without"] == ["noise"] and asked["method"] == "regmix"


def test_train_report_and_list(call, tmp_path):
    for name, reweighter in (("u", "uniform"), ("l", "linupper")):
        steps = ("--set", "total_steps=3", "--set", "evaluate_every_steps=3")
        trained = call("train", *TINY, *steps, "--reweighter", reweighter, "--name", name)
        assert trained.exit_code == 0, trained.output
        assert "finished at step 3/3" in plain(trained.output)
    refused = call("fork", "runs/u", "--step", "3", "--devices", "17", "--name", "f")
    assert refused.exit_code == 1 and "some of 17 ranks without a row" in plain(refused.output)
    forked = call("fork", "runs/u", "--step", "3", "--set", "total_steps=5", "--name", "f")
    assert forked.exit_code == 0, forked.output
    assert "finished at step 5/5" in plain(forked.output)
    listed = plain(call("runs").output)
    assert "linupper" in listed and "3/3" in listed
    written = call("report", "runs/u", "runs/l", "--out", "r.html")
    assert written.exit_code == 0, written.output
    assert "linupper against uniform is undecided" in (tmp_path / "r.html").read_text()
    shutil.copytree("runs/u", "runs/again")
    call("report", "runs/u", "runs/again", "runs/l", "--out", "r.html")
    assert "give repeated=True (--repeated)" in plain((tmp_path / "r.html").read_text())
    call("report", "runs/u", "runs/again", "runs/l", "--out", "r.html", "--repeated")
    assert "linupper against uniform is undecided" in (tmp_path / "r.html").read_text()


def test_a_selector_and_its_options_come_from_the_command_line(call):
    options = ("--set", "total_steps=3", "--set", "selector.clusters=4", "--set", "share=0.2")
    done = call("train", *TINY, "--selector", "cluster_uniform", *options, "--name", "chosen")
    assert done.exit_code == 0, done.output
    folder = RunFolder.open(Path("runs/chosen"))
    manifest = folder.selection().manifest
    assert manifest["selector"]["clusters"] == 4
    assert manifest["tokens"] <= manifest["budget_tokens"]
    selected = set(folder.selection().frame("selected").sample_id)
    assert set(folder.ledger.frame().sample_id) <= selected


def test_plan_says_what_a_run_needs_and_refuses_what_does_not_fit(call):
    small = call("plan", "--flops", "1e9", "--set", "device=cpu", "--set", "total_steps=10")
    assert small.exit_code == 0, small.output
    assert "1.3 M parameters on 1 × cpu" in plain(small.output) and "peak" in small.output
    device = ("--set", "device=cpu", "--flops", "4e14")
    large = call("plan", "--model", "llama-7b", "--devices", "4", "--domains", "7", *device)
    assert large.exit_code == 1
    assert "6,738.4 M parameters on 4 × cpu (ddp)" in plain(large.output)
    assert "activation_checkpointing=True" in plain(large.output)
    gpus = ("--devices", "8", "--memory-gib", "80", "--flops", "3e14", "--set", "parallel=fsdp")
    elsewhere = call("plan", "--model", "llama-7b", *gpus, "--set", "micro_batch_rows=1")
    assert elsewhere.exit_code == 0, elsewhere.output
    assert "6,738.4 M parameters on 8 × cuda (fsdp)" in plain(elsewhere.output)


def test_several_devices_are_refused_before_a_process_starts(call, tmp_path):
    refused = call("train", *TINY, "--devices", "5")
    assert refused.exit_code == 1 and "some of 5 ranks without a row" in plain(refused.output)
    refused = call("train", *TINY, "--devices", "2", "--sink", "wandb")
    assert refused.exit_code == 1 and "--sink wandb with several devices" in plain(refused.output)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("command", [("resume", "r"), ("fork", "r", "--step", "0")])
def test_as_many_devices_as_the_run_had_unless_told_or_a_rank(call, tmp_path, monkeypatch, command):
    config = RunConfig(name="r", training={"batch_rows": 8, "device": "cpu"})
    RunFolder.create(tmp_path / "r", config=config.to_dict(), environment={})
    (tmp_path / "r.launch").mkdir()
    record = {"process": 0, "born": "never", "devices": 9, "since": 0.0}
    (tmp_path / "r.launch" / "process.json").write_text(json.dumps(record))
    refused = call(*command)
    assert refused.exit_code == 1 and "some of 9 ranks without a row" in plain(refused.output)
    refused = call(*command, "--devices", "11")
    assert "some of 11 ranks without a row" in plain(refused.output)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert devices_of(tmp_path / "r", None) == 1


def test_prepare_shows_what_the_corpus_holds(call):
    shown = call("prepare", *TINY)
    assert shown.exit_code == 0, shown.output
    assert "noise" in shown.output and "prepared in" in shown.output


def test_ctrl_c_stops_with_a_checkpoint_and_resume_finishes(cache, call, tmp_path):
    steps = ("--set", "total_steps=400", "--name", "long")
    command = [sys.executable, "-m", "workbench.cli", "train", *TINY, *steps]
    environment = {**os.environ, "WORKBENCH_CACHE": str(cache)}
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        # A shell starts background jobs with Ctrl-C ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    folder = tmp_path / "runs" / "long"
    wait_for(lambda: RunFolder.holds_run(folder) and RunFolder.open(folder).events("step"))
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    run = RunFolder.open(folder)
    assert run.status() == "stopped"
    assert run.checkpoints()
    assert "workbench resume runs/long" in plain(output)
    resumed = call("resume", "runs/long")
    assert resumed.exit_code == 0, resumed.output
    assert RunFolder.open(folder).status() == "finished"


def wait_for(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("arguments", "problem", "remedy"),
    [
        (("train", "--reweighter", "linuper"), "unknown reweighter 'linuper'", "mean 'linupper'?"),
        (("train", "--set", "totl_steps=3"), "unknown setting 'totl_steps'", "'total_steps'?"),
        (("train", "--set", "total_steps"), "--set total_steps has no value", "name=value"),
        (("train", "--selector", "quod"), "unknown selector 'quod'", "did you mean 'quad'?"),
        (
            ("train", *TINY, "--selector", "quad", "--set", "selector.clusters=many"),
            *("clusters = 'many'", "give a whole number"),
        ),
        (
            ("train", *TINY, "--selector", "quad", "--set", "first_step=2", "--set", "way=gost"),
            *("unknown way to score 'gost'", "did you mean 'ghost'?"),
        ),
        (("train", "--config", "gone.json"), "cannot read a config", "give a JSON file"),
        (("train", "--corpus", "./gone"), "gone", ""),
        (("resume", "gone"), "gone is not a run", "config.json"),
        (("runs", "gone"), "no run in gone", "workbench train"),
        (("report", "gone"), "no run in gone", "workbench train"),
        (("demo", "--notebook", "gone.ipynb"), "gone.ipynb is not a notebook", "path"),
    ],
)
def test_an_error_is_one_line_with_its_remedy_and_no_traceback(call, arguments, problem, remedy):
    result = call(*arguments)
    assert result.exit_code == 1
    assert problem in plain(result.output)
    assert remedy in plain(result.output)
    assert "Traceback" not in result.output
    assert isinstance(result.exception, SystemExit)


def test_debug_lets_the_traceback_through(call):
    result = call("--debug", "train", "--reweighter", "linuper")
    assert isinstance(result.exception, ConfigError)


def test_doctor_finds_this_environment_working(call):
    shown = call("doctor", "--json")
    assert shown.exit_code == 0, shown.output
    told = json.loads(shown.stdout)
    names = {check["name"] for check in told["checks"]}
    assert told["works"] is True
    expected = {"Python", "torch", "CPU", "memory", "disk", "CUDA device", "kernels", "git"}
    assert expected <= names
    assert all(c["remedy"] for c in told["checks"] if c["state"] != "ok")


def test_doctor_names_a_missing_package_and_how_to_get_it(call, monkeypatch):
    import importlib.metadata

    known = importlib.metadata.version

    def version(name):
        if name == "duckdb":
            raise importlib.metadata.PackageNotFoundError(name)
        return "5.1" if name == "datasets" else known(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    shown = call("doctor", "--json")
    assert shown.exit_code == 1
    told = json.loads(shown.stdout)
    checks = {check["name"]: check for check in told["checks"]}
    assert checks["duckdb"]["state"] == "missing"
    assert checks["duckdb"]["remedy"].startswith("pip install 'duckdb")
    assert (checks["datasets"]["found"], checks["datasets"]["state"]) == ("5.1", "advice")


def test_doctor_says_which_kernels_run_and_why(call, monkeypatch):
    def kernels():
        checks = json.loads(call("doctor", "--json").stdout)["checks"]
        return next(check for check in checks if check["name"] == "kernels")

    monkeypatch.setenv("WORKBENCH_KERNELS", "torch")
    assert kernels()["found"] == "torch, because WORKBENCH_KERNELS asks for it"
    monkeypatch.setenv("WORKBENCH_KERNELS", "tritn")
    assert kernels()["state"] == "advice" and "triton" in kernels()["remedy"]


def test_an_absent_optional_package_is_advice_that_names_its_extras(call, monkeypatch):
    import importlib.metadata

    known = importlib.metadata.version
    optional = {"accelerate", "kronfluence", "faiss-cpu", "lightgbm", "wandb"}

    def version(name):
        if name in optional:
            raise importlib.metadata.PackageNotFoundError(name)
        return known(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    shown = call("doctor", "--json")
    assert shown.exit_code == 0, shown.output
    checks = [c for c in json.loads(shown.stdout)["checks"] if c["name"] in optional]
    assert sorted(c["name"] for c in checks) == sorted(optional)  # each once
    assert {c["state"] for c in checks} == {"advice"}
    [accelerate] = [c for c in checks if c["name"] == "accelerate"]
    assert accelerate["wanted"].endswith("(bench, trainer)")  # what it is for; all are in dev


def test_a_sweep_with_a_failed_cell_names_its_notebook_and_ends_with_1(call, tmp_path):
    parameters = nbformat.v4.new_code_cell(
        'rate = 1.0\nseed = 0\nout_dir = "out"', metadata={"tags": ["parameters"]}
    )
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(
        cells=[parameters, nbformat.v4.new_code_cell("1 / rate")], metadata={"kernelspec": kernel}
    )
    nbformat.write(notebook, tmp_path / "10_try_it.ipynb")
    shared = ("sweep", "out", "--notebook", "10_try_it.ipynb")
    done = call(*shared, "--grid", "rate=0.0,2.0")
    told = plain(done.output)
    assert done.exit_code == 1
    assert "1 finished, 1 failed, 0 left" in told
    assert "failed out/cells/0_rate=0.0_seed0/10_try_it.ipynb" in told
    assert "ZeroDivisionError" in told and "workbench sweep out --retry-failed" in told
    refused = call(*shared, "--grid", "rate=1.0")
    assert refused.exit_code == 1 and "out holds another sweep" in plain(refused.output)
    nothing = call(*shared, "--grid", "rat=1.0")
    assert nothing.exit_code == 1 and "did you mean 'rate'?" in plain(nothing.output)


def test_an_error_from_a_background_run_reaches_the_command_line(call, monkeypatch):
    from workbench import training

    def fail(*_, **__):
        raise WorkbenchError("the [disk] is full", remedy="free some")

    monkeypatch.setattr(training, "start", fail)
    result = call("train")
    assert result.exit_code == 1
    assert "the [disk] is full" in result.output


def test_a_warning_is_a_line_without_its_place_in_the_code(call, monkeypatch):
    from workbench import training

    told = []

    def start(*_, **__):
        told.append(warnings.formatwarning("its share is low", UserWarning, "loop.py", 7, "code"))
        raise WorkbenchError("enough", remedy="stop")

    monkeypatch.setattr(training, "start", start)
    usual = warnings.formatwarning
    call("train")
    assert told == ["warning its share is low\n"] and warnings.formatwarning is usual


def test_a_failure_while_training_is_told_once_with_its_remedy(call, capfd):
    failed = call("train", *TINY, "--set", "peak_lr=1e30", "--set", "clip_norm=1e30")
    shown = failed.output + "".join(capfd.readouterr())
    assert failed.exit_code == 1
    assert plain(shown).count("not finite") == 1 and "remedy" in shown


def test_a_resumed_run_does_not_tell_again_what_it_told_before(call):
    often = ("--set", "evaluate_every_steps=2", "--set", "total_steps=4")
    first = call("train", *TINY, *often)
    assert first.output.count("held-out") == 4, first.output
    second = call("resume", "runs/run", "--set", "total_steps=6")
    assert "step 2: held-out" not in second.output and "step 6: held-out" in second.output


def test_notes_on_the_text_are_shown_and_stay_with_the_run(call, tmp_path):
    for domain in ("tales", "code"):
        (tmp_path / "texts" / domain).mkdir(parents=True)
        for i in range(40):
            (tmp_path / "texts" / domain / f"{i}.txt").write_text(f"{domain} text {i} " * 60)
    (tmp_path / "texts" / "code" / "bad.txt").write_bytes(b"\xff\xfe\x00 text" * 40)
    options = ("--corpus", "texts", *TINY[2:], "--set", "total_steps=2")
    for command in (("prepare", *options[:8]), ("train", *options)):
        shown = call(*command)
        assert shown.exit_code == 0, shown.output
        assert "skipped" in shown.output and "bad.txt" in shown.output
    page = call("report", "runs")
    assert page.exit_code == 0 and "bad.txt" in (tmp_path / "report.html").read_text()


def test_a_broken_run_is_named_and_does_not_hide_the_others(call, tmp_path):
    call("train", *TINY, "--set", "total_steps=2")
    broken = tmp_path / "runs" / "broken"
    shutil.copytree(tmp_path / "runs" / "run", broken)
    (broken / "config.json").write_text("{ torn")
    shown = call("runs")
    assert shown.exit_code == 0 and "finished" in shown.output
    assert "left out" in shown.output and "broken" in plain(shown.output)


def test_a_sink_follows_a_run_and_its_resume(call):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    done = call("train", *TINY, "--set", "total_steps=3", "--sink", "tensorboard")
    assert done.exit_code == 0, done.output
    call("resume", "runs/run", "--set", "total_steps=5", "--sink", "tensorboard")
    board = EventAccumulator("runs/run/tensorboard", {"scalars": 0})
    board.Reload()
    assert [item.step for item in board.Scalars("step/loss")] == list(range(5))
    refused = call("fork", "runs/run", "--step", "3", "--sink", "tensorbord")
    assert refused.exit_code == 1 and len(list(Path("runs").iterdir())) == 1
    forked = call("fork", "runs/run", "--step", "3", "--sink", "tensorboard")
    assert forked.exit_code == 0, forked.output
    board = EventAccumulator("runs/run-3-again/tensorboard", {"scalars": 0})
    board.Reload()
    assert [item.step for item in board.Scalars("step/loss")] == list(range(5))


def test_an_unknown_sink_is_refused_before_any_work(call, tmp_path):
    refused = call("train", *TINY, "--sink", "tensorbord")
    assert refused.exit_code == 1 and "did you mean 'tensorboard'" in plain(refused.output)
    assert not (tmp_path / "runs").exists()

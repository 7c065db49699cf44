"""Sweeps: what is planned, what survives a kill, and what one failed cell does to the others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from workbench.batch import Range, Sweep, sweep
from workbench.batch.parameter_sets import choose_sets
from workbench.batch.parameter_text import read_grid, read_random, read_seeds, read_values
from workbench.batch.sweep_plan import make_plan
from workbench.batch.sweep_progress import Standing, lines
from workbench.core import ConfigError, RunError

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "notebooks" / "80_pretrain.ipynb"
WRITE = "from pathlib import Path\nPath(out_dir, 'value.txt').write_text(f'{rate} {seed}')"
DIVIDE = "1 / rate"


@pytest.fixture
def write_notebook(tmp_path):
    def write(*sources: str, parameters: str = 'rate = 1.0\nseed = 0\nout_dir = "out"') -> Path:
        cells = [nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})]
        cells += [nbformat.v4.new_code_cell(source) for source in sources]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
        path = tmp_path / "10_try_it.ipynb"
        nbformat.write(notebook, path)
        return path

    return write


def statuses(done: Sweep) -> list[str | None]:
    results = [done.result(cell) for cell in done.plan.cells]
    return [result.status if result else None for result in results]


# --- what is planned ---


def test_a_grid_is_every_combination_with_the_last_name_fastest():
    sets = choose_sets(grid={"a": [1, 2], "b": ["x", "y", "z"]})
    assert [(one["a"], one["b"]) for one in sets] == [
        *((1, "x"), (1, "y"), (1, "z")),
        *((2, "x"), (2, "y"), (2, "z")),
    ]


def test_cells_go_seed_by_seed_over_all_sets(write_notebook):
    plan = make_plan(write_notebook(), [{"rate": 1.0}, {"rate": 2.0}], seeds=[4, 7])
    assert [(c.parameters["seed"], c.parameters["rate"]) for c in plan.cells] == [
        *((4, 1.0), (4, 2.0)),
        *((7, 1.0), (7, 2.0)),
    ]
    assert plan.cells[1].name == "1_rate=2.0_seed4"


def test_random_sets_follow_their_seed_and_stay_in_their_ranges():
    random = {"lr": Range(1e-4, 1e-2, log=True), "rows": Range(2, 5), "mixer": ["exp3", "doge"]}
    sets = choose_sets(random=random, draws=200, draw_seed=3)
    assert sets == choose_sets(random=random, draws=200, draw_seed=3)
    assert sets != choose_sets(random=random, draws=200, draw_seed=4)
    assert all(1e-4 <= one["lr"] <= 1e-2 for one in sets)
    assert {one["rows"] for one in sets} == {2, 3, 4, 5}
    assert {one["mixer"] for one in sets} == {"exp3", "doge"}
    # Half of a log range over two decades lies below its geometric middle.
    assert 70 < sum(one["lr"] < 1e-3 for one in sets) < 130


def test_random_sets_are_different_and_all_of_them_can_be_drawn():
    sets = choose_sets(random={"a": [1, 2], "b": Range(1, 3)}, draws=6)
    assert sorted((one["a"], one["b"]) for one in sets) == [
        (a, b) for a in (1, 2) for b in (1, 2, 3)
    ]
    with pytest.raises(ConfigError, match="7 draws from 6 different sets"):
        choose_sets(random={"a": [1, 2], "b": Range(1, 3)}, draws=7)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("sets.csv", "rate,mixer\n0.5,exp3\n2,\n"),
        ("sets.yaml", "- {rate: 0.5, mixer: exp3}\n- {rate: 2}\n"),
        ("sets.json", '[{"rate": 0.5, "mixer": "exp3"}, {"rate": 2}]'),
    ],
)
def test_listed_sets_are_read_from_files(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert choose_sets(listed=tmp_path / name) == [{"rate": 0.5, "mixer": "exp3"}, {"rate": 2}]


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ({"grid": {}}, "the grid is empty"),
        ({"grid": {"rate": []}}, "rate has no values"),
        ({"grid": {"rate": "exp3"}}, "rate = 'exp3' is not a list"),
        ({"random": {}, "draws": 2}, "nothing to draw"),
        ({"random": {"rate": [1]}}, "draws = None"),
        ({"draws": 2}, "draws without random"),
        ({"listed": []}, "the list of parameter sets is empty"),
        ({"listed": {"rate": 1}}, "is not a list of parameter sets"),
        ({"listed": "sets.txt"}, "cannot read parameter sets from sets.txt"),
        ({"grid": {"rate": [1]}, "listed": [{}]}, "given grid and listed"),
    ],
)
def test_what_gives_no_cells_is_an_error(choice, told):
    with pytest.raises(ConfigError, match=told):
        choose_sets(**choice)


@pytest.mark.parametrize("ends", [(2, 1), (1, 1), (0, float("inf"))])
def test_an_empty_or_endless_range_is_an_error(ends):
    with pytest.raises(ConfigError, match="range from"):
        Range(*ends)


def test_sets_are_read_as_they_are_typed():
    assert read_grid(["lr=1e-3,.5", "mixer=exp3,doge", "betas=[[0.9, 0.99]]"]) == {
        "lr": [0.001, ".5"],
        "mixer": ["exp3", "doge"],
        "betas": [[0.9, 0.99]],
    }
    assert read_random(["lr=1e-4:.01:log", "rows=2:8", "mixture=a:b,c"]) == {
        "lr": Range(1e-4, 0.01, log=True),
        "rows": Range(2, 8),
        "mixture": ["a:b", "c"],
    }
    assert read_seeds("0,3") == [0, 3]
    assert read_values(["a=1", "b=x=y"], "--fix") == {"a": 1, "b": "x=y"}
    with pytest.raises(ConfigError, match="--grid lr has no value"):
        read_grid(["lr"])
    with pytest.raises(ConfigError, match="--seeds 0,a"):
        read_seeds("0,a")


# --- what is refused before a cell starts ---


def test_an_unknown_parameter_is_refused_with_the_nearest(write_notebook, tmp_path):
    with pytest.raises(ConfigError, match=r"unknown parameter 'rat' of 10_try_it.*mean 'rate'\?"):
        sweep(tmp_path / "s", notebook=write_notebook(), grid={"rat": [1]})
    assert not (tmp_path / "s").exists()


def test_a_notebook_with_settings_takes_those_of_a_run_and_refuses_others():
    plan = make_plan(TEMPLATE, [{"reweighter": "linupper", "temperature": 0.4, "peak_lr": 1e-3}])
    assert plan.arguments(plan.cells[0], Path("c")) == {
        "reweighter": "linupper",
        "settings": {"temperature": 0.4, "peak_lr": 1e-3, "name": plan.cells[0].name},
        "seed": 0,
        "out_dir": "c",
    }
    with pytest.raises(ConfigError, match=r"unknown setting 'peak_rl'.*mean 'peak_lr'\?"):
        make_plan(TEMPLATE, [{"peak_rl": 1e-3}])
    with pytest.raises(ConfigError, match=r"'linuper'.*mean 'linupper'\?"):
        make_plan(TEMPLATE, [{"reweighter": "linuper"}])
    with pytest.raises(ConfigError, match="peak_lr"):
        make_plan(TEMPLATE, [{"peak_lr": -1.0}])


def test_what_every_cell_is_given_cannot_be_swept(write_notebook):
    with pytest.raises(ConfigError, match="seed cannot be swept"):
        make_plan(write_notebook(), [{"seed": 1}])
    with pytest.raises(ConfigError, match="without seeds"):
        make_plan(write_notebook(), [{}], seeds=[])
    with pytest.raises(ConfigError, match="have the same parameters"):
        make_plan(write_notebook(), [{"rate": 1}, {"rate": 1}])
    with pytest.raises(ConfigError, match="has no parameter out_dir"):
        make_plan(write_notebook(parameters="seed = 0"), [{}])


# --- the queue ---


def test_a_failed_cell_is_reported_with_its_notebook_and_the_rest_is_done(write_notebook, tmp_path):
    news = []
    done = sweep(
        tmp_path / "s",
        notebook=write_notebook(WRITE, DIVIDE),
        grid={"rate": [1.0, 0.0, 2.0]},
        watch=lambda standing, line: news.append((standing.failed, line)) if line else None,
    )
    assert statuses(done) == ["finished", "failed", "finished"]
    [(notebook, result)] = done.failures().items()
    assert notebook == tmp_path / "s" / "cells" / "1_rate=0.0_seed0" / "10_try_it.ipynb"
    assert "ZeroDivisionError" in notebook.read_text()
    assert "cell [4] failed at `1 / rate`: ZeroDivisionError" in result.problem
    assert next(line for failed, line in news if failed).startswith(
        f"1_rate=0.0_seed0: failed, see {notebook}: "
    )
    assert list(done.table()["status"]) == ["finished", "failed", "finished"]


def test_a_failed_cell_is_tried_again_on_request_only(write_notebook, tmp_path):
    flag = tmp_path / "flag"
    notebook = write_notebook(
        f"import pathlib\nassert pathlib.Path({str(flag)!r}).exists(), 'no flag'",
    )
    arguments = {"notebook": notebook, "grid": {"rate": [1.0]}}
    assert statuses(sweep(tmp_path / "s", **arguments)) == ["failed"]
    flag.touch()
    assert statuses(sweep(tmp_path / "s", **arguments)) == ["failed"]
    assert statuses(sweep(tmp_path / "s", retry_failed=True)) == ["finished"]


def test_a_changed_plan_or_notebook_is_refused(write_notebook, tmp_path):
    notebook = write_notebook(WRITE)
    sweep(tmp_path / "s", notebook=notebook, grid={"rate": [1.0]})
    before = (tmp_path / "s" / "sweep.json").read_bytes()
    with pytest.raises(RunError, match=r"another sweep: .*rate = 2.0, 1.0 there"):
        sweep(tmp_path / "s", notebook=notebook, grid={"rate": [2.0]})
    with pytest.raises(RunError, match=r"another sweep: 2 cells, 1 there"):
        sweep(tmp_path / "s", notebook=notebook, grid={"rate": [1.0]}, seeds=[0, 1])
    write_notebook(WRITE, "print('more')")
    for again in ({}, {"notebook": notebook, "grid": {"rate": [1.0]}}):
        with pytest.raises(RunError, match="another sweep: the code of"):
            sweep(tmp_path / "s", **again)
    assert (tmp_path / "s" / "sweep.json").read_bytes() == before


def test_a_folder_alone_that_holds_no_sweep_is_no_order_to_start_one(tmp_path):
    with pytest.raises(RunError, match=r"typo holds no sweep.*grid or seeds"):
        sweep(tmp_path / "typo")
    assert not (tmp_path / "typo").exists()


def test_cells_at_work_at_the_same_time_are_all_done(write_notebook, tmp_path):
    done = sweep(
        tmp_path / "s", notebook=write_notebook(WRITE), seeds=[0, 1], workers=2, watch=lines()
    )
    assert statuses(done) == ["finished"] * 2
    values = [(done.folder(cell) / "value.txt").read_text() for cell in done.plan.cells]
    assert values == ["1.0 0", "1.0 1"]


# --- kills ---


def start_sweep(out: Path, **arguments) -> subprocess.Popen:
    program = (
        "import json, sys; from workbench.batch import sweep; "
        "sweep(sys.argv[1], **json.loads(sys.argv[2]))"
    )
    command = [sys.executable, "-c", program, str(out), json.dumps(arguments)]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        # A shell starts background jobs with Ctrl-C ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def wait_for(condition, *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.05)


def test_a_killed_sweep_goes_on_and_a_second_one_is_refused_meanwhile(write_notebook, tmp_path):
    gate, log = tmp_path / "gate", tmp_path / "log"
    notebook = write_notebook(
        "import pathlib, time\n"
        f"print(rate, file=open({str(log)!r}, 'a'), flush=True)\n"
        f"while rate == 2.0 and not pathlib.Path({str(gate)!r}).exists():\n"
        "    time.sleep(0.05)",
    )
    arguments = {"notebook": str(notebook), "grid": {"rate": [1.0, 2.0, 3.0]}}
    process = start_sweep(tmp_path / "s", **arguments)
    wait_for(lambda: log.exists() and log.read_text().split() == ["1.0", "2.0"])
    with pytest.raises(RunError, match=f"is being swept by process {process.pid}"):
        sweep(tmp_path / "s")
    process.kill()
    process.wait()
    held = Sweep.open(tmp_path / "s")
    assert statuses(held) == ["finished", None, None]
    gate.touch()
    assert statuses(sweep(tmp_path / "s", **arguments)) == ["finished"] * 3
    assert log.read_text().split() == ["1.0", "2.0", "2.0", "3.0"]


TRAIN = """
import workbench as wb
config = wb.presets.tour("ci")["uniform"][0]
config = config.change(total_steps=200, checkpoint_every_steps=20, evaluate_every_steps=200)
wb.train(config, out_dir, if_exists="resume")
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_the_run_of_an_interrupted_cell_resumes(how, write_notebook, tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path.parent / "cache"))
    process = start_sweep(tmp_path / "s", notebook=str(write_notebook(TRAIN)))
    cells = tmp_path / "s" / "cells"
    wait_for(lambda: any(cells.glob("0_seed0/*/checkpoints/step_*[1-9]*")))
    os.kill(process.pid, how)
    process.wait(timeout=30)
    assert statuses(Sweep.open(tmp_path / "s")) == [None]
    done = sweep(tmp_path / "s")
    assert statuses(done) == ["finished"]
    [run] = done.runs()
    [resumed] = run.events("resumed")
    assert resumed["step"] > 0
    assert [event["step"] for event in run.events("step")] == list(range(200))
    assert bool(run.events("stopped")) == (how == signal.SIGINT)


# --- progress ---


def test_the_time_left_follows_from_the_cells_that_ended():
    standing = Standing(total=5, workers=2)
    assert standing.seconds_left is None
    standing.ended("finished", 20.0)
    standing.ended("failed", 40.0)
    assert (standing.finished, standing.failed, standing.left) == (1, 1, 3)
    assert standing.seconds_left == 45.0
    assert str(standing) == "1 finished, 1 failed, 3 left, 45 s to go"


def test_lines_tell_news_at_once_and_the_rest_now_and_then():
    said = []
    watch = lines(said.append, every_seconds=3600)
    standing = Standing(total=2, running={"0_a": "step 3/9"})
    watch(standing, "")
    watch(standing, "0_a: finished in 3 s")
    assert said == ["0_a: finished in 3 s (0 finished, 0 failed, 2 left)"]
    watch = lines(said.append, every_seconds=0)
    watch(standing, "")
    assert said[-1] == "0 finished, 0 failed, 2 left; 0_a: step 3/9"

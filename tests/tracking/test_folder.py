"""A run folder: creation, one writer, status, checkpoints, rewinding."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from workbench.core import RunError
from workbench.tracking import RunFolder, find_runs


def test_config_and_environment_come_back(folder):
    again = RunFolder.open(folder.path)
    assert again.config == {"seed": 3} and again.environment == {"device": "cpu"}


def test_create_refuses_a_folder_that_holds_a_run(folder):
    with pytest.raises(RunError, match="already holds a run"):
        RunFolder.create(folder.path, config={}, environment={})
    assert RunFolder.open(folder.path).config == {"seed": 3}


def test_open_refuses_what_is_no_run(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(RunError, match="is not a run"):
            RunFolder.open(path)


@pytest.mark.parametrize(
    "content", ['{"config": {', "[]", "3", "{}", '{"config": null, "environment": {}}', "\ud800"]
)
def test_a_damaged_config_is_named(folder, content):
    (folder.path / "config.json").write_bytes(content.encode(errors="surrogatepass"))
    with pytest.raises(RunError, match=r"config\.json"):
        RunFolder.open(folder.path)


def test_find_runs_skips_exported_models(recorded, tmp_path):
    (recorded.checkpoint_path(60) / "config.json").write_text("{}")
    other = RunFolder.create(tmp_path / "a" / "b", config={}, environment={})
    assert [run.path for run in find_runs(tmp_path)] == [other.path, recorded.path]


def test_one_broken_run_does_not_hide_the_others(recorded, tmp_path):
    broken = RunFolder.create(tmp_path / "broken", config={}, environment={})
    (broken.path / "config.json").write_text('{"config": {')
    told = []
    found = find_runs(tmp_path, unreadable=lambda path, error: told.append((path, error.problem)))
    assert [run.path for run in found] == [recorded.path]
    [(path, problem)] = told
    assert path == broken.path and "cannot read" in problem
    with pytest.raises(RunError, match="broken"):
        find_runs(tmp_path)


def test_a_second_writer_is_refused_and_told_the_process(folder):
    second = RunFolder.open(folder.path)
    with folder.lock():
        for write in (
            lambda: second.append("paused", 1),
            lambda: second.write_summary({}),
            lambda: second.rewind(0),
            lambda: second.lock().__enter__(),
        ):
            with pytest.raises(RunError, match=f"process {os.getpid()}"):
                write()
    second.append("paused", 1)
    assert [e["kind"] for e in folder.events()] == ["paused"]


def test_status_follows_the_events_and_the_writer(folder):
    reader = RunFolder.open(folder.path)
    assert reader.status() == "interrupted"
    with folder.lock():
        folder.append("started", 0)
        assert reader.status() == folder.status() == "running"
        folder.append("paused", 3)
        assert reader.status() == "paused"
        folder.append("unpaused", 3)
        assert reader.status() == "running"
    assert reader.status() == "interrupted"
    for end in ("stopped", "finished"):
        folder.append(end, 4)
        assert reader.status() == end
    folder.append("failed", 4, problem="p", remedy="r")
    assert reader.status() == "failed"
    with folder.lock():
        folder.append("resumed", 0)
        assert reader.status() == "running"


def test_a_poll_of_the_status_does_not_keep_a_writer_out(folder):
    poll = (
        "import sys; from workbench.tracking import RunFolder\n"
        "f = RunFolder.open(sys.argv[1]); print('up', flush=True)\n"
        "while True: f.status()"
    )
    folder.append("started", 0)
    command = [sys.executable, "-c", poll, str(folder.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as poller:
        assert poller.stdout and poller.stdout.readline()
        for _ in range(30):
            with folder.lock():
                pass
        poller.kill()


def test_summary_is_none_until_written(folder):
    assert folder.summary() is None
    folder.write_summary({"loss": math.inf})
    assert RunFolder.open(folder.path).summary() == {"loss": math.inf}


def test_a_checkpoint_is_whole_or_absent(recorded):
    with pytest.raises(ValueError), recorded.aside(recorded.checkpoint_path(80)) as place:
        (place / "state.bin").write_bytes(b"half")
        assert recorded.checkpoints() == [20, 40, 60]
        raise ValueError
    assert recorded.checkpoints() == [20, 40, 60]
    assert not leftovers(recorded.path)


def test_a_checkpoint_can_be_replaced(recorded):
    with recorded.aside(recorded.checkpoint_path(60)) as place:
        (place / "other.bin").write_bytes(b"new")
    assert [p.name for p in recorded.checkpoint_path(60).iterdir()] == ["other.bin"]
    assert not leftovers(recorded.path)


def test_keep_checkpoints_keeps_the_newest(recorded):
    recorded.keep_checkpoints(2)
    assert recorded.checkpoints() == [40, 60]


def test_leftovers_of_a_crash_are_invisible_and_cleared_by_the_next_writer(recorded):
    checkpoints = recorded.path / "checkpoints"
    (checkpoints / ".aside-step_000000080").mkdir()
    (recorded.path / "ledger" / ".aside-steps_000000060-000000079.parquet").write_bytes(b"PAR1")
    (recorded.path / ".aside-summary.json").write_bytes(b"{")
    # The writer died between the two renames that replace a checkpoint.
    recorded.checkpoint_path(60).rename(checkpoints / ".aside-replaced-step_000000060")
    reader = RunFolder.open(recorded.path)
    assert reader.checkpoints() == [20, 40] and len(reader.ledger.frame()) == 240
    with recorded.lock():
        assert reader.checkpoints() == [20, 40, 60]
    assert not leftovers(recorded.path)


@pytest.mark.parametrize("step", [0, 20, 40, 60])
def test_rewind_ends_the_record_at_the_checkpoint(recorded, step):
    recorded.rewind(step)
    assert [e["step"] for e in recorded.events("step")] == list(range(step))
    assert [e["step"] for e in recorded.events("held_out")] == list(range(0, step, 10))
    assert recorded.checkpoints() == [s for s in (20, 40, 60) if s <= step]
    assert [e["step"] for e in recorded.events("set")] == [45]
    assert sorted(set(recorded.ledger.frame()["step"])) == list(range(step))
    assert recorded.summary() is None


def test_rewind_cuts_a_part_that_straddles_the_step(recorded, columns):
    with recorded.aside(recorded.checkpoint_path(30)) as place:
        (place / "state.bin").write_bytes(b"30")
    recorded.rewind(30)
    frame = recorded.ledger.frame()
    assert frame["sample_id"].tolist() == columns(0, 29)["sample_id"].tolist()
    recorded.write_ledger(columns(30, 59), 30, 59)
    assert recorded.ledger.frame()["sample_id"].tolist() == columns(0, 59)["sample_id"].tolist()


def test_rewind_needs_the_checkpoint_and_touches_nothing_without_it(recorded):
    with pytest.raises(RunError, match="20, 40, 60"):
        recorded.rewind(30)
    assert len(recorded.events("step")) == 60 and recorded.summary() == {"loss": 1.0}


def test_importing_tracking_imports_nothing_heavy():
    code = (
        "import sys, workbench.tracking\n"
        "heavy = {'torch', 'duckdb', 'pandas', 'plotly', 'transformers', 'matplotlib'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def leftovers(path: Path) -> list[Path]:
    return list(path.rglob(".aside-*"))

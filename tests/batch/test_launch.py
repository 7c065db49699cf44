"""Runs in processes of their own: followed, stopped, found again; what is said when they die."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.training.records import record
from workbench.batch import attach, fork, launch
from workbench.batch.launch import Launched, _last_words, _with_threads
from workbench.core import ConfigError, RunError
from workbench.tracking import RunFolder, encoding

PATIENCE_SECONDS = 60


@pytest.fixture
def cached(monkeypatch, cache_dir, nano_corpus):
    """Other processes find the prepared rows of this session."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(cache_dir))
    return nano_corpus


@pytest.fixture
def long(nano_config):
    return nano_config.change(total_steps=3000, record_every_steps=1, evaluate_every_steps=3000)


def until(condition):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def steps(running):
    if not RunFolder.holds_run(running.path):
        return 0
    return len(RunFolder.open(running.path).events("step"))


def test_a_run_in_another_process_is_the_run_of_this_one(cached, nano_config, tmp_path):
    from workbench.training import train

    config, said = nano_config.change(total_steps=10), []
    running = launch(config, tmp_path / "other")
    assert running.status() in ("starting", "running", "finished")
    run = running.wait(say=said.append, every_seconds=0.0)
    assert run.status() == running.status() == "finished"
    assert any("step 10/10" in line for line in said)
    mine = train(config, tmp_path / "mine")
    losses = [[event["loss"] for event in own.events("step")] for own in (run, mine)]
    assert losses[0] == losses[1]
    # Once more: what is finished stays.
    before = (running.path / "events.jsonl").stat().st_mtime_ns
    assert launch(config, tmp_path / "other").wait().status() == "finished"
    assert (running.path / "events.jsonl").stat().st_mtime_ns == before


def test_ranks_are_found_again_stopped_and_gone_on_with_and_one_that_dies_is_named(
    cached, long, tmp_path
):
    running = launch(long, tmp_path, devices=2)
    again = launch(long, tmp_path, devices=2)
    assert again._process == running._process and again.status() == "starting"
    with pytest.raises(RunError, match=r"peak_lr: .* → 0.5"):
        launch(long.change(peak_lr=0.5), tmp_path, devices=2)
    until(lambda: steps(running) > 12 or not running.alive)
    found = attach(running.path)
    assert found.status() == "running" and found._process == running._process
    found.stop()
    assert found.wait(say=lambda line: None).status() == "stopped"
    resumed = attach(running.path)
    until(lambda: resumed.run.events("resumed") or not resumed.alive)
    assert resumed.devices == 2 and resumed.run.events("resumed")[0]["step"] > 10
    writer = int((running.path / ".lock").read_text())
    os.kill(next(rank for rank in ranks_of(resumed) if rank != writer), signal.SIGKILL)
    with pytest.raises(RunError, match="rank 1 died, Signal 9") as died:
        resumed.wait(say=lambda line: None)
    assert f"workbench resume {running.path} --devices 2" in died.value.remedy
    assert running.run.folder.checkpoints()[-1] > 10


def test_stopped_and_gone_on_with_two_ranks_are_to_the_bit_those_that_went_through(
    cached, long, tmp_path
):
    config = long.change(total_steps=150, evaluate_every_steps=150, checkpoint_every_steps=150)
    running = launch(config, tmp_path, devices=2)
    until(lambda: steps(running) > 5 or not running.alive)
    running.stop()
    stopped_at = running.wait(say=lambda line: None).summary()["steps"]
    resumed = attach(running.path).wait(say=lambda line: None)
    assert 5 < stopped_at < 150 and resumed.events("resumed")[0]["step"] == stopped_at
    # From step 0, so that nothing but the config is shared; on as many ranks as its parent.
    forked = fork(running.path, 0, name="through")
    through = forked.wait(say=lambda line: None)
    assert forked.devices == 2 and len(through.events("stopped")) == 0
    assert through.events("held_out")[0]["step"] == 0 and through.status() == "finished"
    (events, ledger), (other_events, other_ledger) = record(resumed), record(through)
    trained = [[e for e in found if "loss" in e] for found in (events, other_events)]
    assert trained[0] == trained[1] and len(trained[0]) == 150
    assert ledger.equals(other_ledger)


def test_a_run_whose_process_is_gone_says_where_it_is_and_how_to_go_on(nano_config, tmp_path):
    folder = RunFolder.create(tmp_path / "own", config=nano_config.to_dict(), environment={})
    with folder.lock():
        folder.append("started", 0)
        folder.append("paused", 11)
    gone = Launched(folder.path, None, "", 1)
    with pytest.raises(RunError, match="interrupted after 0 steps") as died:
        gone.wait(say=lambda line: None)
    assert f"workbench resume {folder.path}" in died.value.remedy
    assert "log.txt" in died.value.remedy


def test_what_a_process_says_before_it_dies_is_the_error(cached, nano_config, tmp_path):
    config = nano_config.change(mixer="static", **{"mixer.mixture": "natural"})
    config = config.change(domains=["no_such_domain"])
    with pytest.raises(RunError, match=r"failed before its first step: .*no_such_domain") as died:
        launch(config, tmp_path).wait(say=lambda line: None)
    assert "log.txt" in died.value.remedy and "correct that" not in died.value.remedy


def test_a_run_that_another_process_trains_is_followed_without_a_record(nano_config, tmp_path):
    folder = RunFolder.create(tmp_path / "own", config=nano_config.to_dict(), environment={})
    with folder.lock():
        folder.append("started", 0)
        found = attach(tmp_path / "own")
        assert found.alive and found.status() == "running"
        found.wait(say=lambda line: None, timeout_seconds=0.1)
        folder.append("finished", 0)
    assert not found.alive and found.wait().status() == "finished"
    with pytest.raises(RunError, match="is not a run"):
        attach(tmp_path / "none")


def test_a_process_of_the_same_number_is_not_the_run(nano_config, tmp_path):
    running = tmp_path / "run.launch"
    running.mkdir()
    record = {"process": os.getpid(), "born": "1", "devices": 2}
    (running / "process.json").write_bytes(encoding.encode(record))
    with pytest.raises(RunError, match="is not a run"):
        attach(tmp_path / "run")


def test_what_cannot_work_is_refused_before_a_process_starts(nano_config, tmp_path):
    refused = {
        "some of 9 ranks": (nano_config, 9),
        "devices = 0": (nano_config, 0),
        "needs .* MiB on each of 1": (nano_config.change(model="llama-7b", vocab_size=400), 1),
        "not a multiple of 3 ranks": (nano_config.change(parallel="fsdp"), 3),
        "'cuda:0' is one device, for 2 ranks": (nano_config.change(device="cuda:0"), 2),
    }
    for message, (config, devices) in refused.items():
        with pytest.raises(ConfigError, match=message):
            launch(config, tmp_path, devices=devices)
    assert not list(tmp_path.iterdir())
    parent = RunFolder.create(tmp_path / "own", config=nano_config.to_dict(), environment={})
    with pytest.raises(ConfigError, match="some of 9 ranks"):
        fork(parent.path, 0, devices=9)
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


@pytest.fixture
def started(monkeypatch):
    """Configs that processes would be started with."""
    configs = []
    module = sys.modules["workbench.batch.launch"]
    monkeypatch.setattr(
        module, "_start", lambda path, command, devices, config: configs.append(config)
    )
    return configs


def test_ranks_on_a_cpu_share_the_threads_of_who_launches_them(
    nano_config, tmp_path, started, monkeypatch
):
    monkeypatch.setattr("torch.get_num_threads", lambda: 6)
    for devices, asked in ((1, None), (2, None), (8, None), (2, 5)):
        launch(nano_config.change(threads=asked, batch_rows=8), tmp_path, devices=devices)
    assert [config.training.threads for config in started] == [6, 3, 1, 5]


def test_ranks_on_gpus_share_the_threads_too(nano_config):
    config = nano_config.change(device="cuda", threads=6)
    shared = [_with_threads(config, asked, 4).training.threads for asked in (None, 6)]
    assert shared == [1, 6]


@pytest.fixture
def stopped(cached, nano_config, tmp_path):
    """A run that was stopped before its first step."""
    from workbench.training.run import train

    class Stop:
        def on_step(self, outcome):
            raise KeyboardInterrupt

        def on_events(self, events): ...

    config = nano_config.change(parallel="fsdp", total_steps=4, checkpoint_every_steps=2)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path, callbacks=[Stop()])
    RunFolder.open(tmp_path / "nano").append("stopped", 0)
    return tmp_path / "nano"


def test_a_resume_that_fails_is_no_success_of_what_was_there(stopped):
    refused = attach(stopped, devices=2, arguments=["--step=77"])
    with pytest.raises(RunError, match=r"stopped after . steps, not gone on with: .*step 77"):
        refused.wait(say=lambda line: None)


def test_a_resume_on_devices_that_do_not_fit_is_refused_before_a_process_starts(stopped):
    with pytest.raises(ConfigError, match="not a multiple of 3 ranks"):
        attach(stopped, devices=3)
    assert not stopped.with_name("nano.launch").exists()


def test_a_changed_length_is_the_one_that_is_said(stopped):
    said = []
    resumed = attach(stopped, arguments=["--set=total_steps=6"])
    run = resumed.wait(say=said.append, every_seconds=0.0)
    assert run.status() == "finished" and len(run.events("step")) == 6
    assert any("step 6/6" in line for line in said), said


def test_what_the_plan_could_not_count_is_a_warning(nano_config, tmp_path, started):
    config = nano_config.change(model="tiny", mixer="acodm", micro_batch_rows=2, corpus="installed")
    with pytest.warns(UserWarning, match="MiB for each domain, counted for one"):
        launch(config.change(domains=None), tmp_path)


def ranks_of(running):
    found = Path(f"/proc/{running._process}/task/{running._process}/children").read_text()
    return [int(process) for process in found.split()]


REPORT = """Root Cause (first observed failure):
[0]:
  rank      : 3 (local_rank: 0)
  traceback : {}
======"""


@pytest.mark.parametrize(
    ("log", "problem", "remedy"),
    [
        ("error no text\nremedy add some\n" + REPORT.format("To enable"), "no text", "add some"),
        ("error a rank ended\n" + REPORT.format("Signal 9"), "rank 3 died, Signal 9", ""),
        ("ValueError: five\nx.ChildFailedError: \n=====", "ValueError: five", ""),
        ("Killed\n=====", "Killed", ""),
        ("", "it printed nothing", ""),
    ],
)
def test_the_last_words_are_those_of_who_failed_first(log, problem, remedy):
    assert _last_words(log.splitlines()) == (problem, remedy)

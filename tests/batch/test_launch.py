"""Runs in processes of their own: followed, stopped, found again; what is said when they die."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from workbench.batch import attach, launch
from workbench.batch.launch import _last_words
from workbench.config import presets
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


def test_a_restarted_kernel_finds_the_run_and_a_dead_one_goes_on(cached, long, tmp_path):
    running = launch(long, tmp_path)
    again = launch(long, tmp_path)
    assert again._process == running._process and again.status() == "starting"
    with pytest.raises(RunError, match=r"peak_lr: .* → 0.5"):
        launch(long.change(peak_lr=0.5), tmp_path)
    until(lambda: steps(running) > 12)
    found = attach(running.path)
    assert found.status() == "running" and found._process == running._process
    os.killpg(running._process, signal.SIGKILL)
    until(lambda: not found.alive)
    with pytest.raises(RunError, match="interrupted after") as died:
        found.wait(say=lambda line: None)
    assert f"workbench resume {running.path}" in died.value.remedy
    assert "log.txt" in died.value.remedy
    resumed = attach(running.path)
    until(lambda: resumed.run.events("resumed"))
    resumed.stop()
    assert resumed.wait(say=lambda line: None).status() == "stopped"
    assert resumed.run.events("resumed")[0]["step"] >= 10


def test_what_a_process_says_before_it_dies_is_the_error(cached, nano_config, tmp_path):
    config = nano_config.change(mixer="static", **{"mixer.mixture": "natural"})
    config = config.change(domains=["no_such_domain"])
    with pytest.raises(RunError, match=r"failed before its first step: .*no_such_domain"):
        launch(config, tmp_path).wait(say=lambda line: None)


def test_no_network_is_said_with_what_works_without(tmp_path):
    config = presets.pretraining("ci", corpus="slimpajama-6b")
    with pytest.raises(RunError, match=r"slimpajama|SlimPajama") as offline:
        launch(config, tmp_path).wait(say=lambda line: None)
    assert "the hub does not answer" in offline.value.problem
    assert "`planted`" in offline.value.remedy


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
    }
    for message, (config, devices) in refused.items():
        with pytest.raises(ConfigError, match=message):
            launch(config, tmp_path, devices=devices)
    assert not list(tmp_path.iterdir())


def test_a_rank_that_dies_ends_the_run_with_its_name_and_leaves_it_to_go_on(cached, long, tmp_path):
    running = launch(long, tmp_path, devices=2)
    until(lambda: steps(running) > 12 or not running.alive)
    writer = int((running.path / ".lock").read_text())
    os.kill(next(rank for rank in ranks_of(running) if rank != writer), signal.SIGKILL)
    with pytest.raises(RunError, match="rank 1 died, Signal 9") as died:
        running.wait(say=lambda line: None)
    assert f"workbench resume {running.path} --devices 2" in died.value.remedy
    assert running.run.folder.checkpoints()[-1] >= 10


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

"""Seconds of steps on a device that works behind the host's back: a queue with a time of its own.

`Queue` stands in for the GPU; what is tested is what makes seconds of its events.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch

from workbench.core import NumericsError
from workbench.tracking import RunFolder
from workbench.training import loop, train
from workbench.training.clock import DeviceMoment, HostMoment, StepClock, moments

STEPS, RECORDED_EVERY = 7, 3


class Queue:
    """A device: work that is put into it ends later than the host goes on."""

    def __init__(self):
        self.now = self.ends = 0.0
        self.readings: list[Event] = []

    def work(self, seconds):
        self.ends = max(self.now, self.ends) + seconds

    def host(self, seconds):
        self.now += seconds

    def wait(self):
        self.now = max(self.now, self.ends)

    def moment(self):
        return DeviceMoment(partial(Event, self), lambda: "the stream")


class Event:
    """Of `torch.cuda.Event` what is used, with its refusal to tell a time that has not come."""

    def __init__(self, queue):
        self.queue = queue

    def record(self, stream):
        assert stream == "the stream"
        self.at = max(self.queue.now, self.queue.ends)

    def synchronize(self):
        self.queue.now = max(self.queue.now, self.at)

    def elapsed_time(self, later):
        if max(self.at, later.at) > self.queue.now:
            raise RuntimeError("the event has not ended")
        self.queue.readings.append(later)
        return 1000 * (later.at - self.at)


@pytest.fixture
def queue():
    return Queue()


def test_a_step_takes_what_the_device_takes_although_the_host_ran_ahead(queue):
    laps = []
    for _ in range(3):
        clock = StepClock(queue.moment)
        queue.host(0.1)
        queue.work(2.0)
        laps.append(clock.stop({"flops": 5.0}))
    assert queue.now == pytest.approx(0.3) and not queue.readings
    first, *others = [lap.read() for lap in laps]
    # The device waited for the first step alone.
    assert first == pytest.approx({"seconds": 2.1, "policy_seconds": 0.0, "flops": 5.0})
    for other in others:
        assert other["seconds"] == pytest.approx(2.0)
    assert queue.now == pytest.approx(6.1)


def test_a_policy_takes_what_the_device_waits_for_it_and_not_what_it_waits_for_the_device(queue):
    clock = StepClock(queue.moment)
    queue.work(3.0)
    with clock.policy():
        queue.host(0.5)
    with clock.policy():
        queue.wait()
        queue.host(0.25)
    assert clock.stop({}).read() == pytest.approx({"seconds": 3.25, "policy_seconds": 0.25})


def test_on_a_cpu_moments_are_the_hosts():
    assert moments("cpu") is HostMoment
    clock = StepClock(HostMoment)
    with clock.policy():
        sum(range(1000))
    took = clock.stop({}).read()
    assert took["seconds"] > took["policy_seconds"] > 0


class Busy:
    """Puts two seconds of work into the queue at every step."""

    def __init__(self, queue):
        self.queue, self.readings = queue, []

    def on_step(self, outcome):
        self.queue.work(2.0)
        self.readings.append(len(self.queue.readings))

    def on_events(self, events):
        pass


@pytest.fixture
def on_queue(monkeypatch, queue):
    monkeypatch.setattr(loop, "moments", lambda device: queue.moment)
    return Busy(queue)


def test_a_run_reads_every_step_once_and_only_where_values_are_read(
    nano_config, cache_dir, tmp_path, on_queue
):
    config = nano_config.change(total_steps=STEPS, record_every_steps=RECORDED_EVERY)
    run = train(config, tmp_path, cache_dir=cache_dir, callbacks=[on_queue])
    steps = run.events("step")
    assert [event["seconds"] for event in steps] == [pytest.approx(2.0)] * STEPS
    assert [event["policy_seconds"] for event in steps] == [0.0] * STEPS
    # Each lap is three distances: the step and two visits of the policy.
    assert on_queue.readings == [0, 0, 0, 9, 9, 9, 18]
    assert len(on_queue.queue.readings) == 3 * STEPS
    tokens = sum(event["tokens"] for event in steps)
    assert run.summary()["tokens_per_second"] == pytest.approx(tokens / (2.0 * STEPS))


def test_a_step_that_failed_is_recorded_with_its_seconds(
    nano_config, cache_dir, tmp_path, on_queue, monkeypatch
):
    original = loop.train_step

    def poisoned(state, batch):
        if state.step == 4:
            with torch.no_grad():
                next(iter(state.model.parameters())).fill_(torch.nan)
            on_queue.queue.work(7.0)
        return original(state, batch)

    monkeypatch.setattr(loop, "train_step", poisoned)
    config = nano_config.change(total_steps=STEPS, record_every_steps=RECORDED_EVERY)
    with pytest.raises(NumericsError, match="step 4"):
        train(config, tmp_path, cache_dir=cache_dir, callbacks=[on_queue])
    (folder,) = [path for path in tmp_path.iterdir() if (path / "config.json").exists()]
    steps = RunFolder.open(folder).events("step")
    assert [event["step"] for event in steps] == [0, 1, 2, 3, 4]
    assert steps[-1]["seconds"] == pytest.approx(7.0)
    # One distance less: the policy did not see what came of the step.
    assert len(on_queue.queue.readings) == 3 * 4 + 2

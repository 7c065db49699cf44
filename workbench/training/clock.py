"""Seconds of a step, on a device that may work behind the host's back.

    clock = StepClock(moments("cuda"))
    with clock.policy(): mixer.propose(step)
    lap = clock.stop(flops)             # hot loop: nothing is read, and nothing waited for
    lap.read()                          # where values are read anyway: seconds, policy_seconds, …

On a CPU a moment is the host's time.  On a GPU it is a mark in the queue of its work, since the
host's time there is that of putting work into the queue: what the host does while the device is
busy takes no seconds, what the device has to wait for does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch


class Moment(Protocol):
    def since(self, earlier: Any) -> float:
        """Seconds since an earlier moment of the same kind; may wait for the device."""
        ...


Moments = Callable[[], Moment]
"""Takes the present moment without waiting."""


class HostMoment:
    """The time of the host."""

    def __init__(self):
        self._at = time.perf_counter()

    def since(self, earlier: HostMoment) -> float:
        return self._at - earlier._at


class DeviceMoment:
    """When a device has done what it was asked to before.

    Args:
        event: makes a `torch.cuda.Event` that takes the time.
        stream: gives the queue in which it is marked.
    """

    def __init__(self, event: Callable[[], Any], stream: Callable[[], Any]):
        self._event = event()
        self._event.record(stream())

    def since(self, earlier: DeviceMoment) -> float:
        self._event.synchronize()
        return earlier._event.elapsed_time(self._event) / 1000


def moments(device: str) -> Moments:
    """How moments are taken on a device."""
    if torch.device(device).type != "cuda":
        return HostMoment
    event = partial(torch.cuda.Event, enable_timing=True)
    return partial(DeviceMoment, event, partial(torch.cuda.current_stream, device))


@dataclass(frozen=True)
class Lap:
    """One step: when it began and ended, when a policy was at work, and its operations."""

    began: Moment
    ended: Moment
    policy: tuple[tuple[Moment, Moment], ...]
    flops: Mapping[str, float]

    def read(self) -> dict[str, float]:
        """`seconds`, `policy_seconds` of them, and the operations; may wait for the device."""
        seconds = self.ended.since(self.began)
        policy_seconds = sum(after.since(before) for before, after in self.policy)
        return {"seconds": seconds, "policy_seconds": policy_seconds, **self.flops}


class StepClock:
    """Runs from when it is made until `stop`."""

    def __init__(self, now: Moments):
        self._now, self._policy = now, []
        self._began = now()

    @contextmanager
    def policy(self) -> Iterator[None]:
        """Around what a policy does."""
        before = self._now()
        yield
        self._policy.append((before, self._now()))

    def stop(self, flops: Mapping[str, float]) -> Lap:
        """What the step took, to be read later."""
        return Lap(self._began, self._now(), tuple(self._policy), flops)

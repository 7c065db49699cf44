"""Peak memory of a piece of code, on the CPU; memory that a device has left; the way there.

    peak_mib(lambda: loss().backward())
    free_mib("cuda:0")
    tokens_BT = sent(tokens_BT, "cuda:0")

The peak reads the allocator's own events, so that temporaries inside an operator count, and counts
what is allocated above the start.  Not the resident set, which depends on the machine and its
history.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def peak_mib(function: Callable[[], object]) -> float:
    """Largest amount of live CPU tensor memory, in MiB above what was live before the call.

    The function must not free memory from before the call: the allocator knows the size of such
    a block only if it was itself allocated inside some measured call.
    """
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        function()
    recorded: Any = profile.profiler
    events = [e for e in recorded.kineto_results.events() if e.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return max(accumulate((event.nbytes() for event in events), initial=0)) / 2**20


MEMINFO = Path("/proc/meminfo")


def free_mib(device: str = "cpu") -> float:
    """Memory that this process may still take on a device, in MiB.

    On a GPU that includes what the allocator has in reserve.  On a host it is what the kernel
    calls available, whatever smaller limit a container sets; infinite where there is no
    `/proc/meminfo`.
    """
    if torch.device(device).type == "cuda":
        reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return (torch.cuda.mem_get_info(device)[0] + reserve) / 2**20
    if not MEMINFO.exists():
        return float("inf")
    entries = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
    return int(entries["MemAvailable"].split()[0]) / 2**10


def sent(x: Tensor, device: torch.device | str) -> Tensor:
    """A tensor of the host on a device, without waiting for what the device has still to do."""
    if x.device.type != "cpu" or torch.device(device).type != "cuda":
        return x.to(device)
    # From memory that the kernel may move, a copy waits whatever it is asked.
    return x.pin_memory().to(device, non_blocking=True)

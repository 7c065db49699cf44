"""Peak memory of a piece of code, to the byte, on the CPU.

    peak_mib(lambda: loss().backward())

Reads the allocator's own events, so that temporaries inside an operator count, and counts what
is allocated above the start.  Not the resident set, which depends on the machine and its history.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any

import torch


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

"""What all benchmarks share: interleaved timing, resident memory, and the record of a result.

    times = compare({"plain": f, "ours": g}, baseline="plain", rounds=15)
    print(times["ours"])                       # 1.003 × [0.998, 1.008], 231 ms
    record("loss_kernel", {"tiny": ...})       # benchmarks/results/loss_kernel.json
    append("scaling", {"rows": ...})           # one more line of benchmarks/results/scaling.jsonl

Contenders take turns within every round, so that what else the machine does falls on all of them;
only ratios taken in one run are worth reading.  What a GPU was asked to do has ended when its time
is taken.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch

from workbench.kernels import peak_mib

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Timing:
    """Median time of a contender, and its ratio to the baseline's with a 95 % interval."""

    median_seconds: float
    ratio: float
    low: float
    high: float
    rounds: int

    def __str__(self) -> str:
        interval = f"[{self.low:.3f}, {self.high:.3f}]"
        return f"{self.ratio:.3f} × {interval}, {1e3 * self.median_seconds:.0f} ms"


def compare(
    contenders: Mapping[str, Callable[[], object]],
    *,
    baseline: str,
    rounds: int = 15,
    warmup_rounds: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time every contender once a round, in an order that rotates from round to round.

    The ratio is that of the medians; its interval comes from resampling whole rounds, which keeps
    together what ran under the same load.

    Args:
        clock: `time.process_time` counts the processor's seconds of this process alone, for
            contenders of one thread on a machine that does other things.
    """
    names = list(contenders)
    seconds = np.empty((rounds, len(names)))
    for i in range(-warmup_rounds, rounds):
        for j in np.roll(np.arange(len(names)), i):
            began = clock()
            contenders[names[j]]()
            finish()
            if i >= 0:
                seconds[i, j] = clock() - began
    drawn = np.random.default_rng(0).integers(0, rounds, (1000, rounds))
    medians, resampled = np.median(seconds, axis=0), np.median(seconds[drawn], axis=1)
    base = names.index(baseline)
    low, high = np.quantile(resampled / resampled[:, [base]], [0.025, 0.975], axis=0)
    return {
        name: Timing(float(medians[j]), float(medians[j] / medians[base]), low[j], high[j], rounds)
        for j, name in enumerate(names)
    }


def this_device() -> str:
    """Where benchmarks compute: the GPU where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def finish() -> None:
    """Wait until the GPU has done what it was asked to; nothing without one."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def peak_device_mib(function: Callable[[], object]) -> float:
    """Largest amount of live tensor memory above what was live before the call, in MiB.

    Of this process' GPU once it is in use, of the host otherwise.
    """
    if not torch.cuda.is_initialized():
        return peak_mib(function)
    finish()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    function()
    finish()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def exponent(size_n: Sequence[float], cost_n: Sequence[float]) -> float:
    """Slope of log cost over log size by least squares: 1 for a cost in proportion to the size."""
    return float(np.polyfit(np.log(size_n), np.log(cost_n), 1)[0])


def peak_resident_mib(command: Sequence[str]) -> float:
    """Largest resident memory of a command run to its end in a process of its own, in MiB.

    Raises:
        subprocess.CalledProcessError: the command failed.
    """
    # Linux hands a forked process its parent's peak, so a small process has to be the parent.
    launcher = (
        "import resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    launched = subprocess.run(
        [sys.executable, "-c", launcher, *command], check=True, stdout=subprocess.PIPE, text=True
    )
    return int(launched.stdout) / 2**10


def machine() -> dict[str, Any]:
    """Class of the machine: what numbers may be compared, nothing that identifies it."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def record(name: str, payload: Mapping[str, Any], *, command: str | None = None) -> Path:
    """Write benchmarks/results/<name>.json: date, machine class, command and the payload.

    Args:
        payload: plain JSON types and `Timing`s.
        command: how to repeat it; `python -m benchmarks.<name>` when None.
    """
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    result = _dated(name, payload, command)
    path.write_text(json.dumps(result, indent=2, ensure_ascii=False, default=_plain) + "\n")
    return path


def append(name: str, payload: Mapping[str, Any], *, command: str) -> Path:
    """Add one line to benchmarks/results/<name>.jsonl, beside those of other days and devices.

    Args:
        payload, command: as in `record`.
    """
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.jsonl"
    line = json.dumps(_dated(name, payload, command), ensure_ascii=False, default=_plain)
    with path.open("a") as file:
        file.write(line + "\n")
    return path


def _dated(name: str, payload: Mapping[str, Any], command: str | None) -> dict[str, Any]:
    return {
        "date": date.today().isoformat(),
        "command": command or f"python -m benchmarks.{name}",
        "machine": machine(),
        **payload,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Timing):
        return {k: round(v, 5) for k, v in asdict(value).items()}
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be recorded")


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()

"""What a device has to give, asked without occupying it: free memory, rate of products.

    found = gauge("cuda", "bfloat16", 8)      # found.free_mib, found.product_rate

A process that asks a GPU keeps half a GiB of it until it ends, and a notebook that only plans and
launches lives as long as its run.  So a GPU that this process does not use yet is asked by a short
process of its own: `python -m workbench.training.gauge cuda bfloat16 8`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass

import torch

from workbench.core import ConfigError
from workbench.kernels.memory import free_mib

_PRODUCT_WIDTH = {"cpu": 1024, "cuda": 8192}
_PRODUCT_SECONDS = 0.2
_PATIENCE_SECONDS = 120


@dataclass(frozen=True)
class Gauge:
    """free_mib: the least of the devices; product_rate: operations a second, None if not asked."""

    free_mib: float
    product_rate: float | None


def gauge(device: str, precision: str | None = None, devices: int = 1) -> Gauge:
    """Ask a device, and those of other ranks where there are several.

    Args:
        precision: of the products to be timed, on the first; they are not when None.
        devices: ranks, of which each has a GPU; a CPU they share.
    Raises:
        ConfigError: the device does not answer.
    """
    on_cuda = torch.device(device).type == "cuda"
    if on_cuda and (devices > 1 or not _in_use(device)):
        return gauge_elsewhere(device, precision, devices)
    return gauge_here(device, precision)


def gauge_here(device: str, precision: str | None = None, devices: int = 1) -> Gauge:
    """In this process, which keeps a context on every GPU it asks; see `gauge`."""
    # A plan may be for more GPUs than there are here: those that are stand for the others.
    here = range(1, min(devices, torch.cuda.device_count()))
    free = min(map(free_mib, [device, *(f"cuda:{rank}" for rank in here)]))
    return Gauge(free, None if precision is None else product_rate(device, precision))


def gauge_elsewhere(device: str, precision: str | None = None, devices: int = 1) -> Gauge:
    """In a process of its own; see `gauge`."""
    command = [sys.executable, "-m", __name__, device, precision or "", str(devices)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=_PATIENCE_SECONDS
        )
    except subprocess.SubprocessError as error:
        last = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1]
        raise ConfigError(
            f"device '{device}' does not answer: {last}",
            remedy="see that nothing else fills it, or use device=cpu",
        ) from None
    # Libraries may print before the answer.
    last = (done.stdout.strip().splitlines() or [""])[-1]
    try:
        return Gauge(**json.loads(last))
    except (ValueError, TypeError):
        raise ConfigError(
            f"device '{device}' does not answer: '{last}' was printed in place of its numbers",
            remedy="see what prints when Python starts, or use device=cpu",
        ) from None


def product_rate(device: str, precision: str) -> float:
    """Operations a second of a large matrix product, measured for a fifth of a second."""
    kind = torch.device(device).type
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    width = _PRODUCT_WIDTH.get(kind, 1024)
    left = torch.ones(width, width, device=device, dtype=dtype)
    out = left @ left
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < _PRODUCT_SECONDS:
        torch.mm(left, left, out=out)
        # Waiting for one number keeps the queue of a GPU as short as the clock believes.
        out[0, 0].item()
        count += 1
    return 2.0 * width**3 * count / (time.perf_counter() - began)


def _in_use(device: str) -> bool:
    """Whether this process holds memory of a GPU already."""
    return torch.cuda.is_initialized() and torch.cuda.memory_reserved(device) > 0


if __name__ == "__main__":
    _, asked, timed, count = sys.argv
    print(json.dumps(asdict(gauge_here(asked, timed or None, int(count)))))

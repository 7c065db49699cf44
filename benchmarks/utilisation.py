"""Model FLOPs utilisation: how much of the device's matrix products a training step reaches.

    python -m benchmarks.utilisation                   # 124 M, 350 M and 1.4 B in bf16 on one GPU
    python -m benchmarks.utilisation --compile no      # `small` in float32 where there is no GPU

Utilisation = operations of forward and backward per token (`Decoder.flops_per_token`: 6 N and all
of attention, recomputation not counted) × tokens per second ÷ the peak measured here, that of the
fastest of some large square products in the same precision.  A size that does not fit is tried
again with activation checkpointing, and says so.  Goals: 40, 45 and 50 %.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from typing import Any

import numpy as np
import torch

from benchmarks.measure import append, finish, peak_device_mib, this_device
from benchmarks.training import load
from workbench.training.device import keep_freed_memory
from workbench.training.state import TrainState, build_state
from workbench.training.step import train_step

ROWS = {"small": 16, "gpt2-124m": 32, "gpt2-350m": 16, "llama-1.4b": 8}
"""Of a micro-batch; a step has as many."""
GOALS = {"gpt2-124m": 0.40, "gpt2-350m": 0.45, "llama-1.4b": 0.50}
PRODUCTS = {"cuda": (4096, 8192, 16384), "cpu": (1024, 2048)}
WARMUP_STEPS = 3


def peak_flops(precision: str, repeats: int = 8) -> float:
    """Operations per second of the fastest square product, the median of its repeats."""
    device, dtype = this_device(), getattr(torch, precision)
    best = 0.0
    for width in PRODUCTS[device]:
        a, b = (torch.randn(width, width, device=device, dtype=dtype) for _ in range(2))
        seconds = []
        for repeat in range(-2, repeats):
            began = time.perf_counter()
            torch.mm(a, b)
            finish()
            if repeat >= 0:
                seconds.append(time.perf_counter() - began)
        best = max(best, 2 * width**3 / float(np.median(seconds)))
    return best


def measure(size: str, steps: int, compiled: bool, cache_dir: str) -> dict[str, Any]:
    """Utilisation of one size, with activation checkpointing where it does not fit without."""
    try:
        return _steps(size, steps, cache_dir, compile=compiled)
    except torch.OutOfMemoryError:
        pass
    # Outside of the handler, which holds the tensors of the failed try.
    torch.cuda.empty_cache()
    return _steps(size, steps, cache_dir, compile=compiled, activation_checkpointing=True)


def _steps(size: str, steps: int, cache_dir: str, **changes: Any) -> dict[str, Any]:
    config, corpus = load(size, cache_dir)
    config = config.change(batch_rows=ROWS[size], **changes)
    state = build_state(config, corpus)
    seconds = []
    for step in range(-WARMUP_STEPS, steps):
        batch = state.sampler.draw(state.step)
        finish()
        began = time.perf_counter()
        train_step(state, batch)
        finish()
        if step >= 0:
            seconds.append(time.perf_counter() - began)
        state.step += 1
    peak_mib = peak_device_mib(lambda: train_step(state, state.sampler.draw(state.step)))
    step_seconds = float(np.median(seconds))
    tokens = ROWS[size] * corpus.context_tokens
    precision = config.training.precision
    reached = state.model.flops_per_token * tokens / step_seconds
    return {
        "parameters": state.model.parameter_count,
        "batch_tokens": tokens,
        "context_tokens": corpus.context_tokens,
        "precision": precision,
        "compiled": _compiled(state),
        "activation_checkpointing": config.training.activation_checkpointing,
        "step_seconds": step_seconds,
        "tokens_per_second": tokens / step_seconds,
        "peak_mib_above_start": peak_mib,
        "flops_per_second": reached,
    }


def _compiled(state: TrainState) -> bool:
    """Whether any part was, rather than whether it was asked for."""
    return any(module._compiled_call_impl is not None for module in state.model.modules())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=list(ROWS), default=None, help="all that fit when left")
    parser.add_argument("--steps", type=int, default=None, help="20 on a GPU, 5 without")
    parser.add_argument("--compile", choices=["yes", "no"], default=None, help="yes on a GPU")
    options = parser.parse_args()
    on_gpu = this_device() == "cuda"
    steps = options.steps or (20 if on_gpu else 5)
    compiled = on_gpu if options.compile is None else options.compile == "yes"
    sizes = [options.size] if options.size else list(GOALS) if on_gpu else ["small"]
    if not on_gpu:
        print("no GPU here: `small` in float32 alone, which says nothing of the goals")
    keep_freed_memory()  # as every run of ours does
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as cache_dir:
        for size in sizes:
            found = measure(size, steps, compiled, cache_dir)
            found["peak_flops_per_second"] = peak_flops(found["precision"])
            found["utilisation"] = found["flops_per_second"] / found["peak_flops_per_second"]
            found["goal"] = GOALS.get(size)
            results[size] = found
            print(
                f"{size:12} {found['utilisation']:6.1%} of {found['peak_flops_per_second']:.3g} "
                f"FLOP/s, {found['tokens_per_second']:.0f} tokens/s, {found['precision']}, "
                f"compiled: {found['compiled']}, recomputing: {found['activation_checkpointing']}",
                flush=True,
            )
    command = f"python -m benchmarks.utilisation --steps {steps}"
    command += f" --size {options.size}" if options.size else ""
    command += f" --compile {'yes' if compiled else 'no'}"
    print("written:", append("utilisation", results, command=command).name)


if __name__ == "__main__":
    main()

"""Time, memory and error of the kernels of the gradient signals, in torch and in Triton.

    python -m benchmarks.kernels [--rounds 20]

Products by domain, factors and scores at the sizes of one layer.  The error is that of bfloat16
inputs against the same inputs in float64; one above `MOST_ERROR` ends the run.  Without a CUDA
device there is nothing to compare: the torch forms run alone, and the reason is recorded.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import append, compare, peak_device_mib, this_device
from workbench.kernels import kernel_report
from workbench.kernels.choice import VARIABLE
from workbench.kernels.domain_gradients import domain_parts, domain_runs
from workbench.kernels.influence_scores import contract
from workbench.kernels.kronecker import token_moments

DOMAINS = 8
MOST_ERROR = 5e-3
"""Relative: bfloat16 has 8 bits, and the torch forms round once more than the Triton ones."""


@dataclass(frozen=True)
class Layer:
    """A linear map and the batch it is given."""

    outputs: int
    inputs: int
    rows: int
    tokens: int


LAYERS = {
    "cpu": {"384 × 1024": Layer(384, 1024, rows=16, tokens=128)},
    "cuda": {
        "768 × 3072": Layer(768, 3072, rows=16, tokens=1024),
        "2048 × 8192": Layer(2048, 8192, rows=8, tokens=2048),
    },
}


def kernels_of(layer: Layer, device: str) -> dict[str, tuple[Callable[[], Tensor], Tensor]]:
    """For each kernel a call of it and its result in float64."""
    torch.manual_seed(0)
    s = torch.randn(layer.rows, layer.tokens, layer.outputs, device=device).bfloat16()
    a = torch.randn(layer.rows, layer.tokens, layer.inputs, device=device).bfloat16()
    matrix = torch.randn(layer.outputs, layer.inputs, device=device).bfloat16()
    runs = domain_runs(sorted(row % DOMAINS for row in range(layer.rows)))
    wide_s, wide_a = s.double(), a.double()
    return {
        "domain gradients": (
            lambda: domain_parts(s, a, runs, DOMAINS),
            domain_parts(wide_s, wide_a, runs, DOMAINS),
        ),
        "factors": (lambda: token_moments(a), token_moments(wide_a)),
        "scores": (
            lambda: contract(s, [matrix], a, torch.float32),
            (wide_s @ matrix.double()).mul_(wide_a).sum(dim=-1),
        ),
    }


def measure(layer: Layer, forms: list[str], rounds: int) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for name, (kernel, truth) in kernels_of(layer, this_device()).items():
        calls = {form: _in_form(form, kernel) for form in forms}
        times = compare(calls, baseline="torch", rounds=rounds, warmup_rounds=3)
        results[name] = {}
        for form, call in calls.items():
            error = float((call().double() - truth).norm() / truth.norm())
            peak = round(peak_device_mib(call), 1)
            results[name][form] = {"time": times[form], "peak_mib": peak, "error": error}
            print(
                f"  {name:18} {form:7} {times[form]!s:38} peak {peak:8.1f} MiB  error {error:.1e}"
            )
            if not error < MOST_ERROR:
                raise SystemExit(f"{name} in {form} is wrong: relative error {error:.1e}")
    return results


def _in_form(form: str, kernel: Callable[[], Tensor]) -> Callable[[], Tensor]:
    def call() -> Tensor:
        os.environ[VARIABLE] = form
        try:
            return kernel()
        finally:
            del os.environ[VARIABLE]

    return call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    device = this_device()
    choice = kernel_report(device)["factors"]
    forms = ["torch", "triton"] if choice.form == "triton" else ["torch"]
    results: dict[str, Any] = {"kernels": {"triton measured": len(forms) > 1, **vars(choice)}}
    if len(forms) == 1:
        print(f"the Triton forms are not measured: {choice.reason}")
    for name, layer in LAYERS[device].items():
        print(f"\n{name}, {layer.rows} rows × {layer.tokens} tokens, bfloat16, {DOMAINS} domains")
        results[name] = measure(layer, forms, options.rounds)
    command = f"python -m benchmarks.kernels --rounds {options.rounds}"
    print("written:", append("kernels", results, command=command).name)


if __name__ == "__main__":
    main()

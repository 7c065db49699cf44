"""What per-domain gradients cost: steps with and without them, in one run.

    python -m benchmarks.domain_gradients --size small --rounds 15

A batch of 16 rows over 8 domains, 3 tracked layers.  `own work` times only what the signal adds:
the products cut by domain against the one product they replace, and the inner products; `whole
step` times steps of all contenders in turn and shows no difference smaller than its interval.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.measure import compare, record
from benchmarks.training import config_of
from workbench.core import MixingTask, Mixture, Signal, StepOutcome, Tracking
from workbench.data import prepare
from workbench.kernels import peak_mib
from workbench.kernels.domain_gradients import GradientTracker
from workbench.training.device import keep_freed_memory
from workbench.training.signals import Signals
from workbench.training.state import TrainState, build_state
from workbench.training.step import train_step

DOMAINS = 8
LAYERS = 3
ROUNDS_OF_OWN_WORK = 60


class Watching:
    """A uniform mixer that asks for gradients and does nothing with them."""

    def __init__(self, task: MixingTask, tracking: Tracking, needs: frozenset[Signal]):
        self.tracking, self.needs, self._names = tracking, needs, task.names

    def propose(self, step: int) -> Mixture:
        return Mixture.uniform(self._names)

    def observe(self, outcome: StepOutcome) -> None:
        pass

    def diagnostics(self) -> dict[str, Any]:
        return {}

    def warnings(self) -> tuple[str, ...]:
        return ()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


CONTENDERS = {
    "without": (None, frozenset[Signal]()),
    "exact": (None, frozenset({Signal.DOMAIN_GRADIENTS})),
    "projected, k = 32": (32, frozenset({Signal.DOMAIN_GRADIENTS})),
    "exact, with norms": (None, frozenset({Signal.DOMAIN_GRADIENTS, Signal.TRACKED_NORMS})),
    "exact, with row norms": (None, frozenset({Signal.DOMAIN_GRADIENTS, Signal.ROW_GRADIENTS})),
}


def measure(size: str, rounds: int, cache_dir: str) -> dict[str, Any]:
    config = config_of(size)
    corpus = prepare(config.corpus, config.tokenizer, config.rows, cache_dir=cache_dir)
    state = build_state(config, corpus)
    batch = state.sampler.draw(0)
    # Eight domains where the corpus has six: the kernel sees the indices alone.
    batch.domain_B[:] = np.arange(len(batch)) % DOMAINS
    task = MixingTask(tuple(map(str, range(DOMAINS))), np.full(DOMAINS, 1))

    def step_of(width: int | None, needs: frozenset[Signal]) -> Callable[[], None]:
        mixer = Watching(task, Tracking(LAYERS, width), needs)
        signals = Signals(state.model, mixer, DOMAINS, seed=0)

        def step() -> None:
            state.mixer, state.signals = mixer, signals
            train_step(state, batch)

        return step

    steps = {name: step_of(*options) for name, options in CONTENDERS.items()}
    whole = compare(steps, baseline="without", rounds=rounds)
    peak = {name: peak_mib(step) for name, step in steps.items()}
    own = own_work(state, len(batch), whole["without"].median_seconds)
    print(f"\n{size}: {len(batch)} rows, {DOMAINS} domains, {LAYERS} layers")
    for name in steps:
        memory = peak[name] / peak["without"]
        print(f"  {name:22} {whole[name]}   peak {peak[name]:7.1f} MiB  {memory:.3f} ×")
    for name, share in own.items():
        print(f"  own work, {name:12} {share:.3%} of a step")
    return {"whole_step": whole, "peak_mib": peak, "own_work_share": own}


def own_work(state: TrainState, rows: int, step_seconds: float) -> dict[str, float]:
    """Forward and backward of the tracked layers alone, tracked minus plain, over a step."""
    layers = [layer for layer in state.model.modules() if isinstance(layer, torch.nn.Linear)]
    layers = [layer for layer in layers if layer.in_features > layer.out_features][:LAYERS]
    domain_b = sorted((np.arange(rows) % DOMAINS).tolist())
    tokens = state.corpus.context_tokens
    inputs = [torch.randn(rows, tokens, layer.in_features) for layer in layers]
    upstream = [torch.randn(rows, tokens, layer.out_features) for layer in layers]
    named = {str(i): layer for i, layer in enumerate(layers)}

    def once(tracker: GradientTracker | None) -> float:
        began = time.perf_counter()
        if tracker is None:
            outputs = [layer(x) for layer, x in zip(layers, inputs, strict=True)]
        else:
            tracker.reset(keeps_parts=False)
            with tracker.rows(domain_b):
                outputs = [layer(x) for layer, x in zip(layers, inputs, strict=True)]
        torch.autograd.backward(outputs, upstream)
        if tracker is not None:
            tracker.gram().cpu()
        for layer in layers:
            layer.weight.grad = None
        return time.perf_counter() - began

    trackers = {
        "exact": GradientTracker(named, DOMAINS),
        "projected": GradientTracker(named, DOMAINS, projection_width=32),
    }
    seconds: dict[str, list[float]] = {name: [] for name in (*trackers, "plain")}
    for _ in range(ROUNDS_OF_OWN_WORK):
        seconds["plain"].append(once(None))
        for name, tracker in trackers.items():
            seconds[name].append(once(tracker))
    plain = float(np.median(seconds["plain"]))
    return {name: (float(np.median(seconds[name])) - plain) / step_seconds for name in trackers}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=["tiny", "small"], default="small")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    keep_freed_memory()  # as every run of ours does
    with tempfile.TemporaryDirectory() as cache_dir:
        results = {options.size: measure(options.size, options.rounds, cache_dir)}
    command = f"python -m benchmarks.domain_gradients --size {options.size}"
    print("written:", record("domain_gradients", results, command=command).name)


if __name__ == "__main__":
    main()

"""How time and memory grow: with N rows, K domains, C clusters and P parameters.

    python -m benchmarks.scaling                       # larger sizes on a GPU; minutes on a CPU
    python -m benchmarks.scaling --only domains

Each cost is measured at growing sizes, everything else fixed, and fitted as a power of the size:
exponent 1 is in proportion, 0 does not grow.  `peak_mib` is above what was there before the call:
tensors where the work is torch's, NumPy's arrays where it is NumPy's.  Clustering and the bandit
run on the processor in every case.
Shapes: N rows, T tokens, D width, V vocabulary, K domains, C clusters.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.clustering import vectors
from benchmarks.measure import append, exponent, finish, peak_device_mib, this_device
from workbench.config import ModelConfig, OptimizerConfig
from workbench.influence.direction import reference_direction
from workbench.influence.preconditioners import preconditioner
from workbench.influence.scores import score_rows
from workbench.kernels.domain_gradients import GradientTracker
from workbench.models import Decoder, build_model
from workbench.models.linear_maps import linear_maps
from workbench.selection import cluster
from workbench.selection.bandit import Bandit
from workbench.training.device import keep_freed_memory
from workbench.training.optimizer import build_optimizer

ON_GPU = this_device() == "cuda"
VOCAB = 4096
CONTEXT_TOKENS = 1024 if ON_GPU else 128
BATCH_ROWS = 16
POOL_ROWS, EMBEDDING_WIDTH, CLUSTERS = 20_000, 64, 100
DOMAIN_ROWS, LAYERS, LAYER_WIDTH = 64, 3, 1024 if ON_GPU else 256
DEPTH = 12 if ON_GPU else 4
WIDTHS = (512, 768, 1024, 1536) if ON_GPU else (64, 128, 192, 256)
ARMS_PER_ROUND, ROWS_PER_PULL = 8, 8

Work = Callable[[], object]


@dataclass(frozen=True)
class Axis:
    """One thing that grows; `prepare` gives the work of a size, ready to be timed."""

    what: str
    size: str
    sizes: Sequence[int]
    prepare: Callable[[int], Work]
    of_numpy: bool = False


def llama(layers: int, width: int) -> Decoder:
    overrides = {
        **{"num_hidden_layers": layers, "hidden_size": width, "intermediate_size": 3 * width},
        "num_attention_heads": max(1, width // 64),
    }
    config = ModelConfig(name="tiny", overrides=overrides)
    return build_model(config, vocab_size=VOCAB, context_tokens=CONTEXT_TOKENS, seed=0).to(
        this_device()
    )


def tokens(rows: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, VOCAB, (rows, CONTEXT_TOKENS + 1))


def scoring(rows: int) -> Work:
    """Influence of N rows on one reference direction, by the exact way with the least memory."""
    model = llama(DEPTH, WIDTHS[1])
    shared: dict[str, Any] = {"batch_rows": BATCH_ROWS, "device": this_device()}
    direction = reference_direction(
        model, tokens(BATCH_ROWS), preconditioner("identity"), linear_maps(model), **shared
    )
    rows_NT = tokens(rows)
    return lambda: score_rows(model, rows_NT, direction, way="ghost", **shared)


def clustering(rows: int) -> Work:
    """N embeddings into 100 clusters."""
    embedding_ND = vectors(rows, EMBEDDING_WIDTH, 3 * CLUSTERS)
    return lambda: cluster(embedding_ND, clusters=CLUSTERS)


def k_means(clusters: int) -> Work:
    """20 000 embeddings into C clusters."""
    embedding_ND = vectors(POOL_ROWS, EMBEDDING_WIDTH, 3 * clusters)
    return lambda: cluster(embedding_ND, clusters=clusters)


def bandit(clusters: int) -> Work:
    """One round over C arms: eight pulls of eight rows and the threshold of acceptance."""
    rng = np.random.default_rng(0)
    rows_C = np.full(clusters, 10**9)
    arms, open_C, tokens_C = Bandit(rows_C), np.ones(clusters, dtype=bool), np.ones(clusters)

    def round_of_pulls() -> None:
        for arm in arms.choose(ARMS_PER_ROUND, open_C):
            arms.observe(int(arm), rng.standard_normal(ROWS_PER_PULL))
        arms.accepts(arms.threshold(0.2, tokens_C))

    return round_of_pulls


def domains(count: int) -> Work:
    """Forward and backward of three tracked layers, and the K × K products of their gradients."""
    device = this_device()
    layers = {
        str(i): nn.Linear(LAYER_WIDTH, LAYER_WIDTH, bias=False, device=device)
        for i in range(LAYERS)
    }
    shape = (DOMAIN_ROWS, CONTEXT_TOKENS, LAYER_WIDTH)
    inputs, upstream = (torch.randn(shape, device=device) for _ in range(2))
    tracker = GradientTracker(layers, count)
    domain_b = sorted((np.arange(DOMAIN_ROWS) % count).tolist())

    def step() -> None:
        tracker.reset(keeps_parts=False)
        with tracker.rows(domain_b):
            outputs = [layer(inputs) for layer in layers.values()]
        torch.autograd.backward(outputs, [upstream] * LAYERS)
        tracker.gram().cpu()
        for layer in layers.values():
            layer.weight.grad = None

    step()
    return step


def parameters(count: int) -> Work:
    """One training step of a decoder of P parameters: forward, backward, update."""
    model = llama(DEPTH, width_of(count))
    optimizer = build_optimizer(model, OptimizerConfig())
    rows = torch.from_numpy(tokens(BATCH_ROWS)).to(this_device())

    def step() -> None:
        model(rows[:, :-1], rows[:, 1:]).mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    assert model.parameter_count == count
    step()  # makes the moments, which every later step has from before
    return step


def count_of(width: int) -> int:
    """Parameters of a decoder of this width: tied embedding, and four and nine squares a layer."""
    return VOCAB * width + DEPTH * (13 * width**2 + 2 * width) + width


def width_of(count: int) -> int:
    return next(width for width in WIDTHS if count_of(width) == count)


def axes() -> dict[str, Axis]:
    counts = [count_of(width) for width in WIDTHS]
    rows = (64, 128, 256, 512) if ON_GPU else (16, 32, 64, 128)
    pool = (5_000, 10_000, 20_000, 40_000)
    return {
        "scoring": Axis("influence scores", "N rows", rows, scoring),
        "clustering": Axis("k-means, 100 clusters", "N rows", pool, clustering, True),
        "k_means": Axis("k-means, 20 000 rows", "C clusters", (50, 100, 200, 400), k_means, True),
        "bandit": Axis("a round of pulls", "C clusters", (1000, 4000, 16000, 64000), bandit, True),
        "domains": Axis("signal of domains", "K domains", (2, 4, 8, 16, 32), domains),
        "parameters": Axis("a training step", "P parameters", counts, parameters),
    }


def measure(axis: Axis, rounds: int) -> dict[str, Any]:
    """Median seconds and peak memory at each size, and the fitted exponents."""
    seconds_n, peak_n = [], []
    for size in axis.sizes:
        work = axis.prepare(size)
        work()  # loads what is loaded once
        taken = []
        for _ in range(rounds):
            finish()
            began = time.perf_counter()
            work()
            finish()
            taken.append(time.perf_counter() - began)
        seconds_n.append(float(np.median(taken)))
        peak_n.append(_peak_numpy_mib(work) if axis.of_numpy else peak_device_mib(work))
    found = {
        "time": exponent(axis.sizes, seconds_n),
        "memory": exponent(axis.sizes, np.maximum(peak_n, 1e-3).tolist()),
    }
    print(f"\n{axis.what}: time ~ {axis.size[0]}^{found['time']:.2f}, ", end="")
    print(f"memory ~ {axis.size[0]}^{found['memory']:.2f}")
    for size, seconds, peak in zip(axis.sizes, seconds_n, peak_n, strict=True):
        print(
            f"  {axis.size[2:]:11} {size:9}  {1e3 * seconds:10.2f} ms  {peak:9.2f} MiB", flush=True
        )
    points = {"size": list(axis.sizes), "seconds": seconds_n, "peak_mib": peak_n}
    return {"what": axis.what, "grows": axis.size, **points, "exponents": found}


def _peak_numpy_mib(work: Work) -> float:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


def main() -> None:
    names = ("scoring", "clustering", "k_means", "bandit", "domains", "parameters")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=names, default=None)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    keep_freed_memory()  # as every run of ours does
    chosen = {name: axis for name, axis in axes().items() if options.only in (None, name)}
    results = {name: measure(axis, options.rounds) for name, axis in chosen.items()}
    command = f"python -m benchmarks.scaling --rounds {options.rounds}"
    command += f" --only {options.only}" if options.only else ""
    print("\nwritten:", append("scaling", results, command=command).name)


if __name__ == "__main__":
    main()

"""Influence scores side by side with kronfluence: agreement, speed, memory, factor time.

    OMP_NUM_THREADS=1 python -m benchmarks.influence         # 4 layers × 256; 8 × 512 on a GPU
    python -m benchmarks.influence --size 8x512 --rows 1024

One decoder on rows of 128 tokens, a little trained; one reference direction; data labels and
relative damping of 0.1 on both sides.  `pipeline` is reference gradient and scores together, as
kronfluence makes them; `ways` are the scores alone, against the floor of forward and
activation-only backward.  Times are seconds of the processor, on a GPU those on the clock.  Needs
the extra `bench`.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.influence_peer import Peer
from benchmarks.measure import Timing, append, compare, peak_device_mib, this_device
from benchmarks.training import config_of
from workbench.data import prepare
from workbench.influence.agreement import spearman
from workbench.influence.direction import Direction, reference_direction
from workbench.influence.factors import Factors, fit_factors
from workbench.influence.preconditioners import preconditioner
from workbench.influence.scores import Scores, row_losses, score_rows
from workbench.models import Decoder, build_model
from workbench.models.linear_maps import LinearMaps, at_rest, linear_maps


@dataclass(frozen=True)
class Size:
    """A decoder and how many rows are scored, scored against the clock, and fitted to."""

    layers: int
    width: int
    inner_width: int
    rows: int
    timed_rows: int
    factor_rows: int

    @property
    def shape(self) -> dict[str, int]:
        return {
            "num_hidden_layers": self.layers,
            "hidden_size": self.width,
            "intermediate_size": self.inner_width,
            "num_attention_heads": self.width // 64,
        }


SIZES = {
    "4x256": Size(4, 256, 704, rows=96, timed_rows=32, factor_rows=32),
    "8x512": Size(8, 512, 1408, rows=512, timed_rows=256, factor_rows=256),
}
BATCH_ROWS = 16
REFERENCE_ROWS = 16
PRECONDITIONERS = ("identity", "kfac", "ekfac")
HALF: dict[str, Any] = {"precision": "bfloat16"}
_HOW: dict[str, Any] = {"batch_rows": BATCH_ROWS, "device": this_device()}


def candidates(size: Size, cache_dir: str) -> tuple[Decoder, np.ndarray, np.ndarray]:
    """A decoder after some training, rows of every domain, and reference rows of one."""
    config = config_of("tiny")
    corpus = prepare(config.corpus, config.tokenizer, config.rows, cache_dir=cache_dir)
    model = build_model(
        config.model.replace(overrides=size.shape),
        vocab_size=corpus.vocab_size,
        context_tokens=corpus.context_tokens,
        seed=0,
    ).to(this_device())
    ids = np.random.default_rng(0).permutation(corpus.pool().sample_id_N)
    train(model, corpus.tokens(ids[-512:]))
    return model, corpus.tokens(ids[: size.rows]), corpus.held_out("clean_prose", REFERENCE_ROWS)


def train(model: Decoder, rows_NT: np.ndarray, steps: int = 20, batch_rows: int = 8) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(steps):
        first = step * batch_rows % len(rows_NT)
        part = torch.from_numpy(rows_NT[first : first + batch_rows]).to(this_device())
        optimizer.zero_grad(set_to_none=True)
        model(part[:, :-1], part[:, 1:]).mean().backward()
        optimizer.step()
    model.zero_grad(set_to_none=True)


class Bench:
    """What all measurements share."""

    def __init__(self, size: Size, folder: Path):
        self.model, self.rows, self.reference = candidates(size, str(folder / "corpus"))
        self.maps: LinearMaps = linear_maps(self.model)
        self.factor_rows = self.rows[: size.factor_rows]
        self.peer = Peer(self.model, self.maps, folder / "peer", batch_rows=BATCH_ROWS)

    def fit(self, kind: str) -> Factors:
        starts = range(0, len(self.factor_rows), BATCH_ROWS)
        batches = [self.factor_rows[first : first + BATCH_ROWS] for first in starts]
        return fit_factors(
            self.model, batches, self.maps, kind=kind, labels="data", device=this_device()
        )

    def direction(self, name: str, factors: Factors | None = None) -> Direction:
        precondition = preconditioner(name, factors)
        return reference_direction(self.model, self.reference, precondition, self.maps, **_HOW)

    def score(self, direction: Direction, **options: Any) -> Scores:
        return score_rows(self.model, self.rows, direction, **_HOW, **options)

    def losses(self, **options: Any) -> np.ndarray:
        return row_losses(self.model, self.rows, **_HOW, **options)

    def part(self, rows: int) -> Bench:
        """The same with its first rows alone."""
        found = copy.copy(self)
        found.rows = self.rows[:rows]
        return found

    def floor(self) -> None:
        """Forward, and a backward pass that stops at the embeddings and makes no other gradient."""
        starts: list[torch.Tensor] = []

        def begin(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
            starts.append(output.detach().requires_grad_())
            return starts[-1]

        hook = self.model.model.get_input_embeddings().register_forward_hook(begin)
        try:
            with at_rest(self.model):
                for part in torch.from_numpy(self.rows).to(this_device()).split(BATCH_ROWS):
                    loss = self.model(part[:, :-1], part[:, 1:]).sum()
                    torch.autograd.grad(loss, starts.pop())
        finally:
            hook.remove()


def agreement(bench: Bench) -> dict[str, float]:
    """Spearman of our scores with kronfluence's under equal settings."""
    found = {}
    for name in PRECONDITIONERS:
        factors = None if name == "identity" else bench.fit(name)
        bench.peer.fit(name, bench.factor_rows)
        ours = bench.score(bench.direction(name, factors)).score_N
        theirs = bench.peer.score(name, bench.reference, bench.rows)
        found[name] = spearman(ours, theirs)
        print(f"  Spearman with kronfluence, {name:9} {found[name]:.5f}", flush=True)
    return found


def accuracy(bench: Bench, direction: Direction) -> dict[str, dict[str, Any]]:
    """Spearman of every approximation with ghost in float32, and the step that was measured."""
    print(f"  {direction.settings['preconditioner']}:")
    exact_N = bench.score(direction, way="ghost").score_N
    known = bench.score(direction, way="difference", loss_N=bench.losses())
    step = known.relative_step
    found = {
        "low rank 64": bench.score(direction, way="low_rank", rank=64),
        "difference, losses known": known,
        "difference, central": bench.score(direction, way="difference", relative_step=step),
        "ghost, bf16": bench.score(direction, way="ghost", **HALF),
        "difference, losses known, bf16": bench.score(
            direction, way="difference", loss_N=bench.losses(**HALF), **HALF
        ),
    }
    result = {}
    for name, scores in found.items():
        result[name] = {"spearman": spearman(scores.score_N, exact_N)}
        result[name] |= {"relative_step": scores.relative_step} if scores.relative_step else {}
        print(f"  with ghost, {name:46} {result[name]}", flush=True)
    return result


def contenders(bench: Bench, factors: Factors) -> dict[str, Callable[[], object]]:
    direction = bench.direction("ekfac", factors)
    known, coarse = bench.losses(), bench.losses(**HALF)

    def differ(**options: Any) -> Callable[[], object]:
        # Any step costs the same; measuring one is paid once, however many rows there are.
        return lambda: bench.score(direction, way="difference", relative_step=1e-2, **options)

    return {
        "kronfluence pipeline": lambda: bench.peer.score("ekfac", bench.reference, bench.rows),
        "ghost pipeline": lambda: bench.score(bench.direction("ekfac", factors), way="ghost"),
        "floor": bench.floor,
        "ghost": lambda: bench.score(direction, way="ghost"),
        "low rank 64, with its SVD": lambda: bench.score(direction, way="low_rank", rank=64),
        "jvp": lambda: bench.score(direction, way="jvp"),
        "difference": differ(),
        "difference, losses known": differ(loss_N=known),
        "ghost, bf16": lambda: bench.score(direction, way="ghost", **HALF),
        "difference, losses known, bf16": differ(loss_N=coarse, **HALF),
    }


def speed(bench: Bench, factors: Factors, rounds: int) -> dict[str, Any]:
    """Time of each contender against kronfluence, rows per second, and memory of one batch."""
    steps = contenders(bench, factors)
    times = compare(
        steps,
        baseline="kronfluence pipeline",
        rounds=rounds,
        warmup_rounds=0,
        clock=_clock(),
    )
    batch = bench.part(BATCH_ROWS)
    memory = {name: peak_device_mib(step) for name, step in contenders(batch, factors).items()}
    for name, timing in times.items():
        rate = len(bench.rows) / timing.median_seconds
        print(f"  {name:32} {rate:7.1f} rows/s  {timing}  peak {memory[name]:7.1f} MiB", flush=True)
    ghost, floor = times["ghost"].median_seconds, times["floor"].median_seconds
    print(f"  ghost against its floor: {ghost / floor:.3f}")
    rates = {name: len(bench.rows) / timing.median_seconds for name, timing in times.items()}
    return {
        "times": times,
        "rows_per_second": rates,
        "peak_mib": memory,
        "ghost_over_floor": ghost / floor,
    }


def _clock() -> Callable[[], float]:
    """The processor's seconds leave out what else the machine does, but know nothing of a GPU."""
    return time.process_time if this_device() == "cpu" else time.perf_counter


def factor_time(bench: Bench, rounds: int) -> dict[str, dict[str, Timing]]:
    found = {}
    for kind in ("kfac", "ekfac"):
        fits: dict[str, Callable[[], object]] = {
            "kronfluence": lambda kind=kind: bench.peer.fit(kind, bench.factor_rows),
            "ours": lambda kind=kind: bench.fit(kind),
        }
        found[kind] = compare(
            fits, baseline="kronfluence", rounds=rounds, warmup_rounds=0, clock=_clock()
        )
        for name, timing in found[kind].items():
            print(f"  factors, {kind:6} {name:12} {timing}", flush=True)
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    default = "4x256" if this_device() == "cpu" else "8x512"
    parser.add_argument("--size", choices=SIZES, default=default)
    for name in ("rows", "timed_rows", "factor_rows"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, help="by the size")
    parser.add_argument("--rounds", type=int, default=3)
    found = parser.parse_args()
    for name in ("rows", "timed_rows", "factor_rows"):
        if getattr(found, name) is None:
            setattr(found, name, getattr(SIZES[found.size], name))
    return found


def main() -> None:
    options = _options()
    size = replace(SIZES[options.size], rows=options.rows, factor_rows=options.factor_rows)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(size, Path(folder))
        print(
            f"{options.size} on {this_device()}: {len(bench.rows)} rows, {len(bench.maps)} maps, "
            f"{bench.maps.share:.0%} tracked",
            flush=True,
        )
        results: dict[str, Any] = dict(vars(options))
        timed = bench.part(options.timed_rows)
        results["spearman_with_kronfluence"] = agreement(timed)
        factors = bench.fit("ekfac")
        results["spearman_with_ghost"] = {
            name: accuracy(bench, bench.direction(name, factors)) for name in ("identity", "ekfac")
        }
        results["speed"] = speed(timed, factors, options.rounds)
        results["factor_time"] = factor_time(bench, options.rounds)
    command = "python -m benchmarks.influence " + " ".join(
        f"--{name.replace('_', '-')} {value}" for name, value in vars(options).items()
    )
    print("written:", append("influence", results, command=command).name)


if __name__ == "__main__":
    main()

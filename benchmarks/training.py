"""Tokens per second of our loop against a bare loop and `transformers.Trainer`.

    python -m benchmarks.training --size tiny --rounds 15

Every contender lives in a process of its own (the allocator setting is per process) and takes
turns with the others, a block of steps at a time.  `Trainer` needs the extra `bench`.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.measure import compare, record
from workbench.config import RunConfig
from workbench.core import StepOutcome
from workbench.data import PreparedCorpus, prepare
from workbench.models import build_model
from workbench.training import train
from workbench.training.device import keep_freed_memory
from workbench.training.optimizer import build_optimizer

SIZES = {
    "tiny": {"vocab_size": 4096, "block_steps": 12},
    "small": {"vocab_size": 8192, "block_steps": 3},
}
FOREVER = 10**7


def config_of(size: str) -> RunConfig:
    never = {f"{what}_every_steps": FOREVER for what in ("evaluate", "checkpoint")}
    return RunConfig(
        name=size,
        corpus={"name": "planted", "max_domain_mb": 1.0},
        tokenizer={"vocab_size": SIZES[size]["vocab_size"]},
        model=size,
        training={"total_steps": FOREVER, "device": "cpu", "precision": "float32", **never},
    )


def load(size: str, cache_dir: str) -> tuple[RunConfig, PreparedCorpus]:
    config = config_of(size)
    return config, prepare(config.corpus, config.tokenizer, config.rows, cache_dir=cache_dir)


class Gate:
    """Lets a loop run one block of steps each time the parent asks for one."""

    def __init__(self, pipe: Connection, block_steps: int):
        self._pipe, self._block_steps, self._steps = pipe, block_steps, 0

    def step_done(self) -> None:
        if self._steps % self._block_steps == 0:
            self._pipe.send("done")
            self._pipe.recv()
        self._steps += 1


def _ours_uniform(gate: Gate, size: str, cache_dir: str) -> None:
    _ours(gate, size, cache_dir, "uniform")


def _ours_linupper(gate: Gate, size: str, cache_dir: str) -> None:
    _ours(gate, size, cache_dir, "linupper")


def _ours(gate: Gate, size: str, cache_dir: str, reweighter: str) -> None:
    class Watch:
        def on_step(self, outcome: StepOutcome) -> None:
            gate.step_done()

        def on_events(self, events: Sequence[dict[str, Any]]) -> None:
            pass

    config = config_of(size).replace(reweighter=reweighter)
    with tempfile.TemporaryDirectory() as folder:
        train(config, folder, cache_dir=cache_dir, callbacks=[Watch()])


def bare(gate: Gate, size: str, cache_dir: str) -> None:
    """The least a training loop can do: rows, mean cross-entropy, clipping, fused AdamW."""
    config, corpus = load(size, cache_dir)
    shape = {"vocab_size": corpus.vocab_size, "context_tokens": corpus.context_tokens}
    model = build_model(config.model, **shape, seed=0)
    optimizer = build_optimizer(model, config.optimizer)
    rows = training_rows(corpus)
    batch_rows = config.training.batch_rows
    for step in itertools.count():
        at = step * batch_rows % (len(rows) - batch_rows)
        tokens_BT, labels_BT = rows[at : at + batch_rows, :-1], rows[at : at + batch_rows, 1:]
        logits_NV = F.linear(model.hidden(tokens_BT), model.head_VD).flatten(0, 1)
        F.cross_entropy(logits_NV, labels_BT.flatten()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        gate.step_done()


def bare_keeping_memory(gate: Gate, size: str, cache_dir: str) -> None:
    keep_freed_memory()
    bare(gate, size, cache_dir)


def trainer(gate: Gate, size: str, cache_dir: str) -> None:
    """`transformers.Trainer` with the same model, batch, optimiser and clipping."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class Watch(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            gate.step_done()

    config, corpus = load(size, cache_dir)
    shape = {"vocab_size": corpus.vocab_size, "context_tokens": corpus.context_tokens}
    rows: Any = [{"input_ids": row[:-1], "labels": row[:-1]} for row in training_rows(corpus)]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=FOREVER,
            per_device_train_batch_size=config.training.batch_rows,
            learning_rate=config.optimizer.peak_lr,
            optim="adamw_torch_fused",
            max_grad_norm=1.0,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_steps=config.training.record_every_steps,
            disable_tqdm=True,
        )
        model = build_model(config.model, **shape, seed=0).model
        Trainer(model=model, args=arguments, train_dataset=rows, callbacks=[Watch()]).train()


def training_rows(corpus: PreparedCorpus) -> torch.Tensor:
    """Rows of all domains, shuffled, int64 (N, T+1)."""
    ids = [(k << 40) + np.arange(n) for k, n in enumerate(corpus.rows_K)]
    order = np.random.default_rng(0).permutation(np.concatenate(ids))[:4096]
    return torch.from_numpy(corpus.tokens(order))


CONTENDERS: dict[str, Callable[[Gate, str, str], None]] = {
    "bare loop": bare,
    "bare loop, freed memory kept": bare_keeping_memory,
    "ours, uniform": _ours_uniform,
    "ours, linupper": _ours_linupper,
    "transformers.Trainer": trainer,
}


def work(contender: str, size: str, cache_dir: str, threads: int, pipe: Connection) -> None:
    torch.set_num_threads(threads)
    CONTENDERS[contender](Gate(pipe, SIZES[size]["block_steps"]), size, cache_dir)


def measure(size: str, rounds: int, cache_dir: str) -> dict[str, Any]:
    load(size, cache_dir)
    context = multiprocessing.get_context("spawn")
    blocks, processes = {}, []
    for name in CONTENDERS:
        pipe, theirs = context.Pipe()
        arguments = (name, size, cache_dir, torch.get_num_threads(), theirs)
        process = context.Process(target=work, args=arguments, daemon=True)
        process.start()
        pipe.recv()
        processes.append(process)

        def block(pipe: Connection = pipe) -> None:
            pipe.send("go")
            pipe.recv()

        blocks[name] = block
    try:
        against_bare = compare(blocks, baseline="bare loop", rounds=rounds, warmup_rounds=2)
    finally:
        for process in processes:
            process.kill()
    return report(size, against_bare)


def report(size: str, times: dict[str, Any]) -> dict[str, Any]:
    config = config_of(size)
    tokens = SIZES[size]["block_steps"] * config.training.batch_rows * config.rows.context_tokens
    rate = {name: tokens / timing.median_seconds for name, timing in times.items()}
    ours_rate = rate["ours, uniform"]
    print(f"\n{size}: time of a block against the bare loop's; tokens/s")
    for name, timing in times.items():
        print(f"  {name:32} {timing}   {rate[name]:8.0f} tokens/s")
    summary = {
        "ours / bare loop, tokens per second": ours_rate / rate["bare loop"],
        "ours / transformers.Trainer, tokens per second": ours_rate / rate["transformers.Trainer"],
        "linupper / uniform, time of a step": ours_rate / rate["ours, linupper"],
    }
    for name, value in summary.items():
        print(f"  {name}: {value:.3f}")
    return {"times": times, "tokens_per_second": rate, **summary}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=[*SIZES, "all"], default="all")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    sizes = list(SIZES) if options.size == "all" else [options.size]
    with tempfile.TemporaryDirectory() as cache_dir:
        results = {size: measure(size, options.rounds, cache_dir) for size in sizes}
    command = f"python -m benchmarks.training --size {options.size} --rounds {options.rounds}"
    print(f"written: {Path(record('training', results, command=command)).name}")


if __name__ == "__main__":
    main()

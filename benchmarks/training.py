"""Tokens per second of our loop against a bare loop and `transformers.Trainer`.

    python -m benchmarks.training                      # 124 M on a GPU; 1.3 M and 10 M without
    python -m benchmarks.training --size small --compile

Every contender lives in a process of its own (the allocator setting is per process) and takes
turns with the others, a block of steps at a time.  `--compile` adds the bare loop and ours with
compiled blocks: always on a GPU, half a minute each on a CPU.  `Trainer` needs the extra `bench`.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.measure import append, compare, finish, this_device
from workbench.config import RunConfig
from workbench.core import StepOutcome
from workbench.data import PreparedCorpus, prepare
from workbench.models import build_model
from workbench.training import train
from workbench.training.device import autocast, keep_freed_memory
from workbench.training.optimizer import build_optimizer


@dataclass(frozen=True)
class Size:
    """A model to measure with; `block_steps` take about a second where it is measured."""

    model: str
    vocab_size: int
    """Entries of the tokenizer that is trained."""
    block_steps: int
    context_tokens: int = 128
    model_vocab_size: int | None = None
    """Entries of the model where they are more than generated text yields."""
    precision: str = "float32"


SIZES = {
    "tiny": Size("tiny", 4096, 12),
    "small": Size("small", 8192, 3),
    "gpt2-124m": Size("gpt2-124m", 4096, 20, 1024, 50_304, "bfloat16"),
    "gpt2-350m": Size("gpt2", 4096, 10, 1024, 50_304, "bfloat16"),
    "llama-1.4b": Size("llama-1.4b", 4096, 4, 2048, 32_000, "bfloat16"),
}
SHAPES = {"gpt2-350m": {"n_layer": 24, "n_head": 16, "n_embd": 1024, "n_positions": 1024}}
FOREVER = 10**7


def default_sizes() -> list[str]:
    """Sizes that this machine measures within minutes."""
    return ["gpt2-124m"] if this_device() == "cuda" else ["tiny", "small"]


def config_of(size: str) -> RunConfig:
    chosen = SIZES[size]
    never = {f"{what}_every_steps": FOREVER for what in ("evaluate", "checkpoint")}
    where = {"device": this_device(), "precision": chosen.precision}
    overrides = dict(SHAPES.get(size, {}))
    if chosen.model_vocab_size is not None:
        overrides["vocab_size"] = chosen.model_vocab_size
    return RunConfig(
        name=size,
        corpus={"name": "planted", "max_domain_mb": 1.0},
        tokenizer={"vocab_size": chosen.vocab_size},
        rows={"context_tokens": chosen.context_tokens},
        model={"name": chosen.model, "overrides": overrides},
        training={"total_steps": FOREVER, **where, **never},
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
            finish()
            self._pipe.send("done")
            self._pipe.recv()
        self._steps += 1


def _ours(gate: Gate, size: str, cache_dir: str, **changes: Any) -> None:
    class Watch:
        def on_step(self, outcome: StepOutcome) -> None:
            gate.step_done()

        def on_events(self, events: Sequence[dict[str, Any]]) -> None:
            pass

    config = config_of(size).change(**changes)
    with tempfile.TemporaryDirectory() as folder:
        train(config, folder, cache_dir=cache_dir, callbacks=[Watch()])


def bare(gate: Gate, size: str, cache_dir: str, *, compiled: bool = False) -> None:
    """The least a training loop can do: rows, mean cross-entropy, clipping, fused AdamW."""
    config, corpus = load(size, cache_dir)
    shape = {"vocab_size": corpus.vocab_size, "context_tokens": corpus.context_tokens}
    training = config.training
    model = build_model(config.model, **shape, seed=0).to(training.device)
    body = torch.compile(model.hidden) if compiled else model.hidden
    optimizer = build_optimizer(model, config.optimizer)
    rows = training_rows(corpus).to(training.device)
    for step in itertools.count():
        at = step * training.batch_rows % (len(rows) - training.batch_rows)
        part = rows[at : at + training.batch_rows]
        with autocast(training.device, training.precision):
            logits_NV = F.linear(body(part[:, :-1]), model.head_VD).flatten(0, 1)
            loss = F.cross_entropy(logits_NV, part[:, 1:].flatten())
        loss.backward()
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
            use_cpu=config.training.device == "cpu",
            bf16=config.training.precision == "bfloat16",
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
    "ours, uniform": _ours,
    "ours, linupper": partial(_ours, reweighter="linupper"),
    "transformers.Trainer": trainer,
}
COMPILED: dict[str, Callable[[Gate, str, str], None]] = {
    "bare loop, compiled": partial(bare, compiled=True),
    "ours, uniform, compiled": partial(_ours, compile=True),
}


def work(contender: str, size: str, cache_dir: str, threads: int, pipe: Connection) -> None:
    torch.set_num_threads(threads)
    {**CONTENDERS, **COMPILED}[contender](Gate(pipe, SIZES[size].block_steps), size, cache_dir)


def measure(size: str, rounds: int, cache_dir: str, *, compiled: bool) -> dict[str, Any]:
    load(size, cache_dir)
    context = multiprocessing.get_context("spawn")
    blocks, processes = {}, []
    for name in [*CONTENDERS, *(COMPILED if compiled else ())]:
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
    tokens = SIZES[size].block_steps * config.training.batch_rows * config.rows.context_tokens
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
    if "ours, uniform, compiled" in rate:
        compiled = rate["ours, uniform, compiled"] / rate["bare loop, compiled"]
        summary["ours / bare loop, both compiled, tokens per second"] = compiled
    for name, value in summary.items():
        print(f"  {name}: {value:.3f}")
    return {"times": times, "tokens_per_second": rate, **summary}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=[*SIZES, "auto"], default="auto")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--compile", action="store_true", help="always on a GPU")
    options = parser.parse_args()
    sizes = default_sizes() if options.size == "auto" else [options.size]
    compiled = options.compile or this_device() == "cuda"
    with tempfile.TemporaryDirectory() as cache_dir:
        results = {
            size: measure(size, options.rounds, cache_dir, compiled=compiled) for size in sizes
        }
    command = f"python -m benchmarks.training --size {options.size} --rounds {options.rounds}"
    command += " --compile" if options.compile else ""
    print(f"written: {append('training', results, command=command).name}")


if __name__ == "__main__":
    main()

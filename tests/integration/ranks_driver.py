"""Computes one step's gradient on forked gloo ranks; every rank stores what it got.

    python ranks_driver.py CONFIG.json CACHE_DIR OUT_DIR WORLD

The parent imports everything once and never computes, so that a fork is cheap and safe.
"""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch
import torch.distributed as dist
import transformers.models.llama.modeling_llama  # noqa: F401  (once here, not in every child)

from workbench.config import Policy, RunConfig, SelectionConfig
from workbench.core import IGNORE_INDEX, SELECTORS, Signal
from workbench.data import PreparedCorpus, prepare
from workbench.models import build_model
from workbench.reweighting import sample_weights
from workbench.training import state as state_module
from workbench.training import train
from workbench.training.accumulate import accumulate
from workbench.training.ranks import Ranks
from workbench.training.state import build_state
from workbench.training.step import train_step

CASES = {
    "even": (8, None, Policy("linupper")),
    "uneven": (7, None, Policy("linupper")),
    "rank normaliser": (8, None, Policy("quadratic", normalise="rank")),
    "micro-batches, exact": (8, 2, Policy("linupper", scope="step")),
    "micro-batches, stream": (8, 1, Policy("linupper", scope="stream")),
    "norm matched": (8, None, Policy("linupper", control="norm_matched")),
    "uniform": (6, 2, Policy("uniform")),
}
VECTORS = {
    2: [2.0, 3.0, 2.4, 5.0, 2.2, 2.9],
    4: [2.0, 3.0, 4.0, 5.0],
}
"""Losses of the specification, in the order of the global batch."""


def gradient(config, corpus, ranks, rows, micro_batch_rows, policy):
    """Gradient, losses and weights of the second look at step 0 (the first sets the range)."""
    training = config.training.replace(batch_rows=rows, micro_batch_rows=micro_batch_rows)
    state = build_state(config.replace(training=training, reweighter=policy), corpus)
    batch = state.sampler.draw(0)
    valid_B = (batch.labels_BT != IGNORE_INDEX).any(1)
    own = ranks.part(rows)
    for _ in range(2):
        state.optimizer.zero_grad(set_to_none=True)
        loss_B, weight_B = accumulate(
            state, batch.tokens_BT[own], batch.labels_BT[own], valid_B, ranks
        )
        state.reweighter.observe(loss_B, valid_B, 0)
    grads = torch.cat([p.grad.flatten() for p in state.model.parameters()])
    return {"gradient": grads, "loss_B": loss_B, "weight_B": weight_B}


SIGNALS = {
    "exact": (8, None, {}),
    "exact, uneven": (7, None, {}),
    "exact, micro-batches": (8, 2, {}),
    "projected": (8, 2, {"projection_width": 4}),
}


def signals(config, corpus, rows, micro_batch_rows, options):
    """Products and row norms that a step gives the mixer."""
    training = config.training.replace(batch_rows=rows, micro_batch_rows=micro_batch_rows)
    mixer, exact = Policy("pike", tracked_layers=1, **options), Policy("linupper", scope="step")
    state = build_state(config.replace(training=training, mixer=mixer, reweighter=exact), corpus)
    state.mixer.propose(0)
    found = train_step(state, state.sampler.draw(0)).outcome.signals
    return {
        "gram": torch.from_numpy(found[Signal.DOMAIN_GRADIENTS].gram_KK),
        "rows": torch.from_numpy(found[Signal.ROW_GRADIENTS]),
    }


def choice(config, corpus, out_dir):
    """What Quad chooses with factors, scores and a bandit shared by all ranks."""
    quad = Policy("quad", clusters=6, trust="off", factor_rows=16)
    selection = SelectionConfig(share=0.02, reference_rows=12)
    state = build_state(config.replace(selector=quad, selection=selection), corpus)
    # A cache of its own, or one world would read what another computed.
    cached = replace(state.selecting.selector.task, cache_dir=out_dir / "selection")
    selector = SELECTORS.build("quad", cached, **quad.options)
    chosen = selector.select(corpus.pool(), int(0.02 * len(corpus.pool()) * 32), state.model)
    order = chosen.sample_id_N.argsort()
    return {
        "sample_id": torch.from_numpy(chosen.sample_id_N[order]),
        "influence": torch.from_numpy(chosen.influence_N[order]),
    }


STARTS = {
    "untied": ("tiny", {"tie_word_embeddings": False}),
    "tied": ("tiny", {"tie_word_embeddings": True}),
    "positions learned, an odd width": (
        "gpt2",
        {"n_layer": 2, "n_head": 3, "n_embd": 33, "n_positions": 32},
    ),
}


def start(config, corpus, name, overrides):
    """Tensors of a model at step 0, and which of its parameters are one."""
    kept = config.model.overrides if name == config.model.name else {}
    model = {"name": name, "overrides": {**kept, **overrides}}
    state = build_state(config.replace(model=model).change(parallel="fsdp"), corpus)
    whole, inner = state.spread.whole(), state.model.model
    return {
        "tensors": {**whole.state_dict(), **dict(whole.named_buffers())},
        "parameters": [name for name, _ in state.model.named_parameters()],
        "optimised": len(state.optimizer.param_groups[0]["params"]),
        "tied": inner.get_output_embeddings().weight is inner.get_input_embeddings().weight,
    }


def starts(config, corpus):
    """Models that are built in shards, and how many of them this rank built whole."""
    with mock.patch.object(state_module, "build_model", wraps=build_model) as built:
        found = {name: start(config, corpus, *case) for name, case in STARTS.items()}
    return {"models": found, "built_whole": built.call_count}


def rows_read(config, out_dir):
    """Rows of the corpus that this rank reads in each step of a run."""
    real = PreparedCorpus.tokens
    with mock.patch.object(PreparedCorpus, "tokens", autospec=True, side_effect=real) as read:
        train(config.change(total_steps=2), out_dir, cache_dir=sys.argv[2])
    return [len(call.args[1]) for call in read.call_args_list]


def vector(ranks):
    """Softmax weights of this rank for the specification's losses."""
    losses = torch.tensor(VECTORS[ranks.world])
    own = ranks.part(len(losses))
    gathered = ranks.gather(losses[own], len(losses))
    weights = sample_weights(gathered, strategy="linupper", temperature=0.4, floor=1e-6)
    return {"loss_b": losses[own], "softmax_b": weights[own] / len(losses)}


def work(rank, world, config, cache_dir, out_dir):
    torch.set_num_threads(1)
    # Two ranks a node: telling parts apart by LOCAL_RANK would give half of them twice.
    os.environ["LOCAL_RANK"], os.environ["LOCAL_WORLD_SIZE"] = str(rank % 2), "2"
    store = dist.FileStore(str(out_dir / "store"), world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
    corpus = prepare(config.corpus, config.tokenizer, config.rows, cache_dir=cache_dir)
    ranks = Ranks.here()
    found = {name: gradient(config, corpus, ranks, *case) for name, case in CASES.items()}
    seen = {name: signals(config, corpus, *case) for name, case in SIGNALS.items()}
    stored = {"cases": found, "vector": vector(ranks), "signals": seen}
    stored["starts"] = starts(config, corpus)
    stored["rows_read"] = rows_read(config, out_dir)
    stored["choice"] = choice(config, corpus, out_dir)
    torch.save(stored, out_dir / f"rank{rank}.pt")
    dist.barrier()


def main():
    config = RunConfig(**json.loads(Path(sys.argv[1]).read_text()))
    cache_dir, out_dir, world = sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
    children = []
    for rank in range(world):
        child = os.fork()
        if child == 0:
            try:
                work(rank, world, config, cache_dir, out_dir)
                os._exit(0)
            except BaseException as error:
                print(f"rank {rank}: {error!r}", file=sys.stderr, flush=True)
                os._exit(1)
        children.append(child)
    failed = [os.waitpid(child, 0)[1] for child in children]
    sys.exit(any(failed))


if __name__ == "__main__":
    main()

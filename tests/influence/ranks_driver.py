"""Fits factors and a reference gradient on forked gloo ranks; every rank stores what it got.

python ranks_driver.py OUT_DIR WORLD
"""

import os
import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import transformers.models.gpt2.modeling_gpt2  # noqa: F401  (once here, not in every child)

from workbench.config import ModelConfig
from workbench.influence.direction import reference_direction
from workbench.influence.factors import fit_factors
from workbench.influence.preconditioners import preconditioner
from workbench.models import build_model
from workbench.models.linear_maps import linear_maps

KINDS = ("adam", "kfac", "ekfac")
GPT2 = {"n_layer": 1, "n_embd": 8, "n_head": 2, "initializer_range": 0.6}
"""Fused qkv, and `Conv1D`."""


def small_rows(rows, seed):
    return np.random.default_rng(seed).integers(0, 12, (rows, 7))


def fitted(folder=None):
    """Squares, Kronecker eigenvalues and directions by kind; five batches, so uneven on ranks."""
    config = ModelConfig(name="gpt2", overrides=GPT2)
    decoder = build_model(config, vocab_size=12, context_tokens=6, seed=0).double()
    maps = linear_maps(decoder)
    batches = [small_rows(3 + i, seed=i) for i in range(5)]
    found = {}
    for kind in KINDS:
        factors = fit_factors(decoder, batches, maps, kind=kind, seed=3, folder=folder)
        direction = reference_direction(
            decoder, small_rows(7, seed=9), preconditioner(kind, factors), maps, batch_rows=2
        )
        found[kind] = direction.matrices
        name = maps.names[0]
        part = factors.of(name)
        found[f"{kind} eigenvalues"] = {
            name: part.kronecker_OI if kind == "kfac" else part.corrected_OI
        }
    return found


def work(rank, world, out_dir):
    torch.set_num_threads(1)
    store = dist.FileStore(str(out_dir / "store"), world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
    torch.save(fitted(), out_dir / f"rank{rank}.pt")
    fitted(out_dir / "factors")
    # The second time they are read, on every rank or on none.
    torch.save(fitted(out_dir / "factors"), out_dir / f"kept{rank}.pt")
    dist.barrier()


def main():
    out_dir, world = Path(sys.argv[1]), int(sys.argv[2])
    children = []
    for rank in range(world):
        child = os.fork()
        if child == 0:
            try:
                work(rank, world, out_dir)
                os._exit(0)
            except BaseException as error:
                print(f"rank {rank}: {error!r}", file=sys.stderr, flush=True)
                os._exit(1)
        children.append(child)
    sys.exit(any([os.waitpid(child, 0)[1] for child in children]))


if __name__ == "__main__":
    main()

"""Trains or resumes runs on forked gloo ranks, one after the other.

    python runs_driver.py JOBS.json CACHE_DIR OUT_DIR WORLD

A job is {"config": …}, {"resume": PATH}, {"fork": PATH, "step": n, "name": …, "refused": message,
if that is what must happen}, or a config with "dies": {"rank": r, "step": n}, at which
that rank ends without a word, "breaks": n, at which all of them raise, or "asks": {"rank": r,
"stop": true, "set": {…}}, which that rank asks of its own copy of the run.  The parent imports
everything once and never computes, so that a fork is cheap and safe.
"""

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import transformers.models.llama.modeling_llama  # noqa: F401  (once here, not in every child)

from workbench.config import RunConfig
from workbench.core import RunError
from workbench.training import open_run, resume, start, train


class Accident:
    """Ends a rank, or all of them, after a step."""

    def __init__(self, rank, *, dies=None, breaks=None):
        self._step = breaks
        self._dies = dies is not None and dies["rank"] == rank
        if self._dies:
            self._step = dies["step"]

    def on_step(self, outcome):
        if outcome.step == self._step:
            if self._dies:
                os._exit(13)
            raise RuntimeError("broken by the test")

    def on_events(self, events): ...


def do(job, rank, out_dir, cache_dir):
    if "resume" in job:
        return resume(job["resume"], cache_dir=cache_dir)
    if "fork" in job:
        return fork(job, cache_dir)
    accident = Accident(rank, dies=job.get("dies"), breaks=job.get("breaks"))
    config = RunConfig(**job["config"])
    if "asks" in job:
        return ask(job["asks"], rank, start(config, out_dir, cache_dir=cache_dir))
    try:
        return train(config, out_dir, cache_dir=cache_dir, callbacks=[accident])
    except RuntimeError as error:
        if "broken by the test" not in str(error):
            raise
        return None


def fork(job, cache_dir):
    options = {"name": job["name"], "cache_dir": cache_dir, "background": False}
    try:
        return open_run(job["fork"]).fork(job["step"], **options)
    except RunError as error:
        assert job["refused"] in str(error)


def ask(asks, rank, run):
    if rank == asks["rank"]:
        run.set(**asks.get("set", {}))
        if asks.get("stop"):
            run.stop()
    return run.wait()


def work(rank, world, jobs, cache_dir, out_dir):
    torch.set_num_threads(1)
    store = dist.FileStore(str(out_dir / "store"), world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
    for job in jobs:
        do(job, rank, out_dir, cache_dir)
        dist.barrier()
    dist.destroy_process_group()


def main():
    jobs = json.loads(Path(sys.argv[1]).read_text())
    cache_dir, out_dir, world = sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
    children = []
    for rank in range(world):
        child = os.fork()
        if child == 0:
            try:
                work(rank, world, jobs, cache_dir, out_dir)
                os._exit(0)
            except BaseException as error:
                print(f"rank {rank}: {error!r}", file=sys.stderr, flush=True)
                os._exit(1)
        children.append(child)
    failed = [os.waitpid(child, 0)[1] for child in children]
    sys.exit(any(failed))


if __name__ == "__main__":
    main()

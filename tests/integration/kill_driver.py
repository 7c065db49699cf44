"""Trains a run in forked children and kills them at random moments; prints what it saw.

    python kill_driver.py CONFIG.json OUT_DIR CACHE_DIR KILLS SEED

The parent imports everything once and never computes, so that a fork is cheap and safe.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import transformers.models.llama.modeling_llama  # noqa: F401  (once here, not in every child)

from workbench.config import RunConfig
from workbench.training import open_run, resume, train


def work(config, out_dir, cache_dir):
    """Start the run, or continue it."""
    if (out_dir / config.name / "config.json").exists():
        resume(out_dir / config.name, cache_dir=cache_dir)
    else:
        train(config, out_dir, cache_dir=cache_dir)


def in_child(*arguments):
    child = os.fork()
    if child == 0:
        try:
            work(*arguments)
            os._exit(0)
        except BaseException as error:
            print(f"child failed: {error!r}", file=sys.stderr, flush=True)
            os._exit(1)
    return child


def main():
    config = RunConfig(**json.loads(Path(sys.argv[1]).read_text()))
    out_dir, cache_dir = Path(sys.argv[2]), Path(sys.argv[3])
    kills, rng = int(sys.argv[4]), random.Random(int(sys.argv[5]))
    seen = []
    while len(seen) < kills:
        child = in_child(config, out_dir, cache_dir)
        path = out_dir / config.name
        before = steps(path)
        while os.waitpid(child, os.WNOHANG) == (0, 0) and steps(path) == before:
            time.sleep(0.002)
        # From here on the child is stepping: the kill lands anywhere in the next few intervals.
        time.sleep(rng.uniform(0, 0.25))
        try:
            os.kill(child, signal.SIGKILL)
            _, code = os.waitpid(child, 0)
        except (ProcessLookupError, ChildProcessError):
            sys.exit("the run ended before it was killed often enough: raise total_steps")
        if not os.WIFSIGNALED(code):
            sys.exit(f"the run ended by itself after {len(seen)} kills: raise total_steps")
        run = open_run(path)
        events, rows = run.events(), len(run.ledger.frame())
        seen.append({"status": run.status(), "events": len(events), "rows": rows})
    print(json.dumps(seen))


def steps(path):
    log = path / "events.jsonl"
    return log.stat().st_size if log.exists() else 0


if __name__ == "__main__":
    main()

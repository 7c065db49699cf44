"""Killed at random moments, and between any two operations of a rewind."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time

from workbench.tracking import RunFolder

STEPS = 300
KILLS = 12

WRITER = """
import sys, numpy as np
from workbench.tracking import RunFolder

path, steps = sys.argv[1], int(sys.argv[2])
fields = dict.fromkeys(
    ["weighted_loss", "lr", "grad_norm", "tokens", "seconds", "ess_fraction", "max_weight"], 1.0
) | dict.fromkeys(["mixture", "weight_share", "sample_share", "domain_loss"], {"a": 1.0})
fresh = not RunFolder.holds_run(path)
make = lambda: RunFolder.create(path, config={}, environment={})
folder = make() if fresh else RunFolder.open(path)
with folder.lock():
    begin = max(folder.checkpoints(), default=0)
    folder.rewind(begin)
    folder.append("started" if fresh else "resumed", begin)
    for step in range(begin, steps):
        print(step, flush=True)
        if step % 5 == 4:
            folder.append_many(
                {"kind": "step", "step": s, "loss": 9 - s / 100, **fields}
                for s in range(step - 4, step + 1)
            )
        if step % 10 == 9:
            s = np.repeat(np.arange(step - 9, step + 1), 3)
            row = np.tile(np.arange(3), 10)
            columns = {"step": s, "sample_id": s * 10 + row, "domain": np.full(30, "a")}
            columns |= {"probability": s * 0.1, "loss": 9 - s / 100, "weight": row + 0.5}
            folder.write_ledger(columns, step - 9, step)
            with folder.aside(folder.checkpoint_path(step + 1)) as place:
                for name in "ab":
                    (place / name).write_text(str(step + 1) * 50)
            folder.append("checkpoint", step + 1)
            folder.keep_checkpoints(2)
    folder.append("finished", steps)
"""

REWINDER = """
import os, shutil, sys
from workbench.tracking import RunFolder

template, work = sys.argv[1:]
operations = [(os, "replace"), (os, "rename"), (os, "unlink"), (os, "rmdir"), (os, "truncate")]

def rewind(path, dies_before=None):
    count = 0
    def counted(original):
        def operation(*args, **kwargs):
            nonlocal count
            if count == dies_before:
                os._exit(9)
            count += 1
            return original(*args, **kwargs)
        return operation
    for module, name in operations:
        setattr(module, name, counted(getattr(module, name)))
    RunFolder.open(path).rewind(30)

dies_before = 0
while True:
    shutil.copytree(template, f"{work}/{dies_before}")
    child = os.fork()
    if child == 0:
        rewind(f"{work}/{dies_before}", dies_before)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) == 0:
        break
    assert os.waitstatus_to_exitcode(status) == 9
    dies_before += 1
"""


def record(folder: RunFolder) -> tuple[list, list]:
    steps = [{k: v for k, v in e.items() if k != "time"} for e in folder.events("step")]
    return steps, folder.ledger.frame().fillna(-1).to_dict("records")


def write(path, kill_after_steps: int | None = None, kill_after_seconds: float = 0) -> None:
    command = [sys.executable, "-c", WRITER, str(path), str(STEPS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        if kill_after_steps is not None:
            for _ in range(kill_after_steps):
                process.stdout.readline()
            time.sleep(kill_after_seconds)
            process.kill()
        process.communicate()
    assert process.returncode == (0 if kill_after_steps is None else -signal.SIGKILL)


def assert_readable(folder: RunFolder) -> None:
    assert folder.status() in ("interrupted", "finished")
    steps, rows = record(folder)
    latest = max(folder.checkpoints(), default=0)
    assert [e["step"] for e in steps] == list(range(len(steps))) and len(steps) >= latest
    assert [r["sample_id"] for r in rows] == [s * 10 + i for s in range(STEPS) for i in range(3)][
        : len(rows)
    ]
    assert len(rows) >= 3 * latest
    for step in folder.checkpoints():
        texts = [(folder.checkpoint_path(step) / name).read_text() for name in "ab"]
        assert texts == [str(step) * 50] * 2


def test_killed_at_random_moments_nothing_is_missing_and_nothing_twice(tmp_path):
    moments = random.Random(7)
    for _ in range(KILLS):
        write(tmp_path / "killed", moments.randint(1, 20), moments.uniform(0, 0.01))
        assert_readable(RunFolder.open(tmp_path / "killed"))
    killed_at = max(RunFolder.open(tmp_path / "killed").checkpoints(), default=0)
    write(tmp_path / "killed")
    write(tmp_path / "straight")
    killed, straight = (RunFolder.open(tmp_path / name) for name in ("killed", "straight"))
    assert 0 < killed_at < STEPS, "the kills must fall into the run"
    assert len(killed.events("resumed")) >= KILLS - 1
    assert record(killed) == record(straight)
    assert killed.checkpoints() == straight.checkpoints() == [STEPS - 10, STEPS]
    assert not list(killed.path.rglob(".aside-*"))


def test_a_rewind_killed_between_any_two_operations_can_be_repeated(recorded, tmp_path):
    with recorded.aside(recorded.checkpoint_path(30)) as place:
        (place / "state.bin").write_bytes(b"30")
    with (recorded.path / "events.jsonl").open("a") as file:
        file.write('{"kind":"st')
    work = tmp_path / "work"
    work.mkdir()
    subprocess.run([sys.executable, "-c", REWINDER, str(recorded.path), str(work)], check=True)

    attempts = sorted(work.iterdir(), key=lambda p: int(p.name))
    whole = RunFolder.open(attempts.pop())
    assert len(attempts) >= 8
    for attempt in attempts:
        folder = RunFolder.open(attempt)
        frame = folder.ledger.frame()
        assert not frame["sample_id"].duplicated().any()
        assert set(range(30)) <= set(frame["step"])
        assert 30 in folder.checkpoints()
        folder.rewind(30)
        assert record(folder) == record(whole)
        assert folder.events() == whole.events()
        assert listing(folder) == listing(whole), json.dumps(attempt.name)


def listing(folder: RunFolder) -> list[str]:
    return sorted(str(p.relative_to(folder.path)) for p in folder.path.rglob("*"))

"""kill -9 at random moments: the folder stays readable and the run continues to the bit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from workbench.config import Policy
from workbench.training import resume, train

KILLS = 22


def test_a_run_killed_at_random_moments_equals_a_straight_one(
    nano_config, nano_corpus, cache_dir, tmp_path
):
    training = nano_config.training.replace(
        total_steps=400, checkpoint_every_steps=6, evaluate_every_steps=9, ledger_every_steps=5
    )
    config = nano_config.replace(training=training, reweighter=Policy("linupper", warmup_steps=50))
    seen, path = killed(config, tmp_path / "killed", cache_dir)
    assert len(seen) == KILLS >= 20
    assert {entry["status"] for entry in seen} == {"interrupted"}
    assert all(entry["events"] > 0 for entry in seen)

    run = resume(path, cache_dir=cache_dir)
    straight = train(config, tmp_path / "straight", cache_dir=cache_dir)
    assert run.status() == "finished"
    assert measured(run) == measured(straight)
    query = "select * from ledger order by step, sample_id, loss"
    ledger = run.ledger.sql(query)
    assert ledger.equals(straight.ledger.sql(query))
    assert len(ledger) == training.total_steps * training.batch_rows
    assert (ledger.groupby("step").size() == training.batch_rows).all()
    ours, theirs = (torch.load(r.folder.checkpoint_path(400) / "state.pt") for r in (run, straight))
    assert all(torch.equal(ours["model"][name], theirs["model"][name]) for name in ours["model"])


def killed(config, out_dir, cache_dir):
    """What the driver saw after each kill, and the run's path."""
    settings = out_dir.with_suffix(".json")
    settings.write_text(json.dumps(config.to_dict()))
    driver = Path(__file__).with_name("kill_driver.py")
    done = subprocess.run(
        [sys.executable, driver, settings, out_dir, cache_dir, str(KILLS), "7"],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout), out_dir / config.name


def measured(run):
    return [
        {
            key: value
            for key, value in event.items()
            if key not in ("time", "seconds", "policy_seconds")
        }
        for kind in ("step", "held_out")
        for event in run.events(kind)
    ]

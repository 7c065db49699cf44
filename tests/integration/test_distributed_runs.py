"""Whole runs on two ranks: replicas and shards decide as one process does, and resume anywhere."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.integration.runs_driver import Accident
from tests.training.records import record
from workbench.config import Policy
from workbench.core import MIXERS, REWEIGHTERS, SELECTORS
from workbench.training import open_run, resume, train

STEPS, SAVED_AT, BREAKS_AT = 10, 5, 7
LAYOUTS = ("ddp", "fsdp")


def drive(jobs, folder, cache_dir, world=2):
    """Let ranks do the jobs; what the driver printed and returned."""
    (folder / "jobs.json").write_text(json.dumps(jobs))
    driver = Path(__file__).with_name("runs_driver.py")
    return subprocess.run(
        [sys.executable, driver, folder / "jobs.json", cache_dir, folder, str(world)],
        capture_output=True,
        text=True,
        timeout=400,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
    )


@pytest.fixture(scope="module")
def config(nano_config):
    """All three policies; the selector chooses in the middle, from influence."""
    return nano_config.change(
        total_steps=STEPS,
        checkpoint_every_steps=SAVED_AT,
        evaluate_every_steps=SAVED_AT,
        record_every_steps=1,
        keep_checkpoints=5,
        selector=Policy("quad", clusters=6, trust="off", factor_rows=16),
        selection={"share": 0.3, "first_step": 4, "reference_rows": 12},
        mixer=Policy("acodm", tracked_layers=1),
        reweighter="linupper",
    )


@pytest.fixture(scope="module")
def alone(config, nano_corpus, cache_dir, tmp_path_factory):
    """The same run on one process."""
    out = tmp_path_factory.mktemp("alone")
    return train(config.replace(name="alone"), out, cache_dir=cache_dir)


@pytest.fixture(scope="module")
def broken_alone(config, nano_corpus, cache_dir, tmp_path_factory):
    """One process that broke after a checkpoint."""
    out = tmp_path_factory.mktemp("broken")
    config = config.change(parallel="fsdp").replace(name="broken_alone")
    with pytest.raises(RuntimeError, match="broken by the test"):
        train(config, out, cache_dir=cache_dir, callbacks=[Accident(0, breaks=BREAKS_AT)])
    return out / "broken_alone"


@pytest.fixture(scope="module")
def runs(config, broken_alone, cache_dir, tmp_path_factory):
    """What two ranks left behind, by name."""
    folder = tmp_path_factory.mktemp("ranks")
    fsdp = config.change(parallel="fsdp", activation_checkpointing=True)
    plain = config.change(selector=None)
    more = folder / "one_to_two"
    shutil.copytree(broken_alone, more)
    jobs = [
        {"config": config.replace(name="ddp").to_dict()},
        {"config": fsdp.replace(name="fsdp").to_dict()},
        {"config": fsdp.replace(name="two_to_one").to_dict(), "breaks": BREAKS_AT},
        {"config": fsdp.replace(name="two_to_two").to_dict(), "breaks": BREAKS_AT},
        {"resume": str(folder / "two_to_two")},
        {"resume": str(more)},
        {
            "config": plain.replace(name="stopped").to_dict(),
            "asks": {"rank": 1, "stop": True},
        },
        {
            "config": plain.replace(name="changed").to_dict(),
            "asks": {"rank": 0, "set": {"reweighter": "quadratic"}},
        },
        *(
            {"fork": str(folder / layout), "step": step, "name": f"{layout}_again"}
            for layout, step in zip(LAYOUTS, (BREAKS_AT, SAVED_AT), strict=True)
        ),
        {"fork": str(folder / "ddp"), "step": 99, "name": "none", "refused": "has done 10 steps"},
    ]
    done = drive(jobs, folder, cache_dir)
    assert done.returncode == 0, done.stderr[-3000:]
    resume(folder / "two_to_one", cache_dir=cache_dir)
    return {path.parent.name: open_run(path.parent) for path in folder.glob("*/events.jsonl")}


def decisions(run):
    """Which rows were trained, in order."""
    return run.ledger.sql("select step, sample_id, domain from ledger").to_dict("list")


def assert_same_training(run, other):
    """Sums over ranks are made in another order, which the optimiser's division makes larger."""
    assert run.status() == other.status() == "finished"
    assert decisions(run) == decisions(other)
    for name in ("loss", "weight"):
        ours, theirs = (r.ledger.sql(f"select {name} from ledger")[name] for r in (run, other))
        np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-3)
    for ours, theirs in zip(run.events("step"), other.events("step"), strict=True):
        assert ours["mixture"] == pytest.approx(theirs["mixture"], abs=1e-4)
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=2e-3)
    held_out = [r.events("held_out")[-1]["mean_nats"] for r in (run, other)]
    assert held_out[0] == pytest.approx(held_out[1], abs=2e-3)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_ranks_choose_mix_and_weigh_as_one_process_does(runs, alone, layout):
    assert_same_training(runs[layout], alone)
    chosen = [run.folder.selection().frame("selected") for run in (runs[layout], alone)]
    assert set(chosen[0]["sample_id"]) == set(chosen[1]["sample_id"]) and len(chosen[0]) > 20


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_rank_writes_the_folder(runs, alone, layout):
    kinds = [[event["kind"] for event in run.events()] for run in (runs[layout], alone)]
    for kind in ("step", "held_out", "selected", "started", "finished", "warning"):
        assert kinds[0].count(kind) == kinds[1].count(kind), kind
    assert runs[layout].summary()["tokens"] == alone.summary()["tokens"]


@pytest.mark.parametrize("name", ["two_to_one", "one_to_two", "two_to_two"])
def test_a_run_resumes_on_more_or_fewer_ranks(runs, alone, name):
    assert runs[name].events("resumed")[0]["step"] == SAVED_AT
    assert_same_training(runs[name], alone)


def test_on_as_many_ranks_a_run_resumes_to_the_bit(runs):
    for column in ("loss", "weight", "influence"):
        query = f"select {column} from ledger"
        ours, theirs = (runs[n].ledger.sql(query)[column] for n in ("two_to_two", "fsdp"))
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_on_as_many_ranks_a_fork_with_nothing_changed_repeats_its_parent_to_the_bit(runs, layout):
    forked, parent = runs[f"{layout}_again"], runs[layout]
    (events, ledger), (other_events, other_ledger) = record(forked), record(parent)
    assert len(forked.events("resumed")) == 1 and forked.folder.environment["forked"]["step"] > 0
    assert events == other_events and ledger.equals(other_ledger)


def test_a_fork_that_cannot_be_is_refused_on_every_rank(runs):
    assert "none" not in runs and runs["ddp_again"].status() == "finished"


def test_a_stop_asked_of_any_rank_stops_all(runs):
    assert runs["stopped"].status() == "stopped"
    assert len(runs["stopped"].events("step")) < STEPS


def test_a_change_asked_of_the_leading_rank_is_made_on_all(runs):
    changed = runs["changed"]
    assert changed.config.reweighter.name == "quadratic" and changed.status() == "finished"
    assert len(changed.events("set")) == 1


def test_a_cut_shard_is_found_before_anything_is_trained(runs, cache_dir, tmp_path):
    from workbench.core import RunError

    copy = tmp_path / "cut"
    shutil.copytree(runs["fsdp"].path, copy)
    shard = next((copy / "checkpoints" / f"step_{STEPS:09d}" / "shards").glob("*.distcp"))
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(RunError, match=f"{shard.name} has .* of .* bytes") as error:
        resume(copy, step=STEPS, cache_dir=cache_dir)
    assert f"--step {SAVED_AT}" in error.value.remedy


def test_a_rank_that_dies_ends_the_run_with_a_reason_and_it_resumes(
    config, alone, cache_dir, tmp_path
):
    jobs = [
        {
            "config": config.replace(name="died").to_dict(),
            "dies": {"rank": 1, "step": BREAKS_AT},
        }
    ]
    done = drive(jobs, tmp_path, cache_dir)
    assert done.returncode == 1
    run = open_run(tmp_path / "died")
    failed = run.events("failed")[0]
    assert "another of the 2 ranks ended" in failed["problem"]
    assert "workbench resume" in failed["remedy"]
    assert_same_training(resume(run.path, cache_dir=cache_dir), alone)


@pytest.fixture(scope="module")
def saved_at_once(config, nano_corpus, cache_dir, tmp_path_factory):
    """Shards whose first checkpoint is of step 0, where a selector chose; and one process."""
    folder, single = tmp_path_factory.mktemp("at_once"), tmp_path_factory.mktemp("at_once_alone")
    chosen = {"share": 0.5, "first_step": 0, "reference_rows": 12}
    first = config.change(selector="random", selection=chosen, mixer="static", parallel="fsdp")
    with pytest.raises(RuntimeError, match="broken by the test"):
        broken = first.replace(name="resumed")
        train(broken, folder, cache_dir=cache_dir, callbacks=[Accident(0, breaks=2)])
    jobs = [
        {"config": first.replace(name="shards").to_dict()},
        {"fork": str(folder / "shards"), "step": 0, "name": "forked"},
        {"resume": str(folder / "resumed")},
    ]
    done = drive(jobs, folder, cache_dir)
    assert done.returncode == 0, done.stderr[-3000:]
    runs = {job: open_run(folder / job) for job in ("shards", "forked", "resumed")}
    return runs, train(first.replace(name="alone"), single, cache_dir=cache_dir)


@pytest.mark.parametrize("name", ["shards", "forked", "resumed"])
def test_a_checkpoint_before_the_first_step_leaves_the_optimiser_fresh(saved_at_once, name):
    runs, alone = saved_at_once
    assert 0 in alone.folder.checkpoints() and runs[name].status() == "finished"
    losses = [[event["loss"] for event in run.events("step")] for run in (runs[name], alone)]
    # A step counted too many moves the next loss by some 1e-4.
    assert losses[0] == pytest.approx(losses[1], rel=3e-6)


ROUNDS = 4
OPTIONS = {
    "quad": {"clusters": 6, "trust": "off", "factor_rows": 16},
    "top_influence": {"trust": "off", "factor_rows": 16},
    "cluster_uniform": {"clusters": 6},
}
SELECTED = {"share": 0.3, "first_step": 1, "reference_rows": 12}


def every_policy(config, reference):
    """Few short runs that have every registered policy, by turns replicated and in shards.

    `regmix` is left out: it is `static` once its trials are read.
    """
    mixers = [name for name in MIXERS.names() if name != "regmix"]
    selectors, reweighters = [*SELECTORS.names(), None], REWEIGHTERS.names()
    for i, name in enumerate(mixers):
        options = {"reference": str(reference)} if name == "doremi" else {}
        if "tracked_layers" in MIXERS.options(name):
            options["tracked_layers"] = 1
        selector = selectors[i % len(selectors)]
        yield config.replace(
            name=name,
            mixer=Policy(name, **options),
            reweighter=Policy(reweighters[i % len(reweighters)]),
            selector=selector and Policy(selector, **OPTIONS.get(selector, {})),
        ).change(parallel=LAYOUTS[(i + 1) % 2], micro_batch_rows=[None, 2][i // 2 % 2])


@pytest.fixture(scope="module")
def policies(nano_config, alone, cache_dir, tmp_path_factory):
    """The same runs on one process and on two."""
    base = nano_config.change(
        total_steps=ROUNDS, evaluate_every_steps=ROUNDS, record_every_steps=1, selection=SELECTED
    )
    configs = list(every_policy(base, alone.path))
    folder, single = tmp_path_factory.mktemp("two"), tmp_path_factory.mktemp("one")
    done = drive([{"config": each.to_dict()} for each in configs], folder, cache_dir)
    assert done.returncode == 0, done.stderr[-3000:]
    ours = {each.name: open_run(folder / each.name) for each in configs}
    return {
        name: (run, train(run.config, single, cache_dir=cache_dir)) for name, run in ours.items()
    }


def test_every_policy_decides_alike_on_two_ranks(policies):
    for run, other in policies.values():
        assert_same_training(run, other)
    used = [run.config for run, _ in policies.values()]
    assert {config.reweighter.name for config in used} == set(REWEIGHTERS.names())
    assert {c.selector.name for c in used if c.selector} == set(SELECTORS.names())
    assert {config.training.parallel for config in used} == set(LAYOUTS)


def test_the_excess_over_a_reference_leaves_the_update_of_shards_whole(policies):
    """A pass without gradient, between gradient and update, would leave some parameters out."""
    run, other = policies["doremi"]
    norms = [[event["grad_norm"] for event in each.events("step")] for each in (run, other)]
    assert run.config.training.parallel == "fsdp"
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)

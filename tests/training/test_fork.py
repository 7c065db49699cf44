"""Forks share their first steps with a parent and differ in what was changed, and nothing else."""

import json
import warnings

import numpy as np
import pytest

from tests.training.records import assert_same_record, record
from workbench.config import Policy
from workbench.core import ConfigError, PolicyError, RunError
from workbench.training import open_run, resume, start, train
from workbench.training.loop import Loop


@pytest.fixture
def parent(nano_config, cache_dir, tmp_path):
    config = nano_config.change(name="parent", reweighter="linupper", keep_checkpoints=9)
    return train(config, tmp_path, cache_dir=cache_dir)


def fork(run, step, **changes):
    return run.fork(step, background=False, **changes)


def up_to(run, step):
    events, ledger = record(run)
    return [e for e in events if e["step"] < step], ledger[ledger.step < step]


@pytest.mark.parametrize("step", [0, 20, 27, 40])
def test_a_fork_with_nothing_changed_repeats_its_parent_to_the_bit(parent, step):
    assert_same_record(fork(parent, step), parent)


def test_what_the_parent_computed_is_not_computed_again(parent, monkeypatch):
    steps, real = [], Loop._step
    monkeypatch.setattr(Loop, "_step", lambda self: steps.append(self.state.step) or real(self))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*no checkpoint")
        fork(parent, 30, peak_lr=1e-4)
    assert steps == list(range(30, 40))
    steps.clear()
    # No checkpoint of step 33: the three steps after the one of step 30 are repeated.
    with pytest.warns(UserWarning, match="no checkpoint of step 33.* again from step 30"):
        other = fork(parent, 33, temperature=5.0)
    assert steps == list(range(30, 40))
    mine, theirs = up_to(other, 33), up_to(parent, 33)
    assert mine[0] == theirs[0] and mine[1].equals(theirs[1])
    assert record(other)[0] != record(parent)[0]


def test_one_thing_changes_and_rows_stay_the_same(parent):
    other = fork(parent, 20, reweighter="uniform")
    assert other.path.name == "parent-20-uniform" and other.path.parent == parent.path.parent
    assert other.config.reweighter.name == "uniform" and other.config.name == other.path.name
    ours, theirs = other.ledger.frame(), parent.ledger.frame()
    np.testing.assert_array_equal(ours.sample_id, theirs.sample_id)
    assert (ours.weight[ours.step >= 20] == 1).all() and ours.weight[ours.step < 20].std() > 0
    origin = other.folder.environment["forked"]
    assert origin["parent"] == "parent" and origin["step"] == 20
    assert origin["changes"] == {"reweighter": "uniform"}


def test_another_mixer_learns_from_the_fork_on(parent):
    other = fork(parent, 20, mixer="exp3")
    mixtures = [event["mixture"] for event in other.events("step")]
    assert mixtures[:20] == [event["mixture"] for event in parent.events("step")][:20]
    assert mixtures[30] != mixtures[10]


def test_a_selector_put_in_chooses_before_the_step_and_taken_out_frees_the_pool(parent):
    chosen = fork(parent, 20, selector="random", **{"selection.share": 0.05})
    assert chosen.folder.selections() == [20]
    rows = set(chosen.folder.selection(20).frame("selected").sample_id)
    ledger = chosen.ledger.frame()
    assert set(ledger.sample_id[ledger.step >= 20]) <= rows
    assert not set(ledger.sample_id[ledger.step < 20]) <= rows
    freed = fork(chosen, 30, selector=None)
    ledger = freed.ledger.frame()
    assert set(ledger.sample_id[ledger.step.between(20, 29)]) <= rows
    assert not set(ledger.sample_id[ledger.step >= 30]) <= rows
    assert freed.folder.selections() == [20]


def test_a_fork_killed_after_its_choice_continues_to_the_bit(parent, monkeypatch, cache_dir):
    changes = {"selector": "random", "selection.share": 0.05}
    straight = fork(parent, 20, **changes)
    real = Loop._step

    def dying(self):
        if self.state.step == 24:
            raise KeyboardInterrupt
        real(self)

    monkeypatch.setattr(Loop, "_step", dying)
    with pytest.raises(KeyboardInterrupt):
        fork(parent, 20, name="killed", **changes)
    monkeypatch.setattr(Loop, "_step", real)
    run = resume(parent.path.with_name("killed"), cache_dir=cache_dir)
    assert_same_record(run, straight)


def test_later_changes_of_the_parent_are_made_in_the_fork_too(parent, cache_dir):
    changed = resume(
        fork(parent, 20, name="changed").path,
        step=30,
        changes={"peak_lr": 1e-4, "temperature": 2.0},
        cache_dir=cache_dir,
    )
    again = fork(changed, 20)
    assert_same_record(again, changed)
    other = fork(changed, 20, reweighter="uniform")
    # What belongs to the policy that the fork replaced is left out.
    assert [e["changes"] for e in other.events("set")] == [
        {"reweighter": "uniform"},
        {"optimizer.peak_lr": 1e-4},
    ]
    assert other.status() == "finished"


def test_forks_of_forks_know_where_they_come_from(parent):
    child = fork(parent, 20, mixer="exp3")
    grandchild = fork(child, 30, peak_lr=1e-4)
    origin = grandchild.folder.environment["forked"]
    assert origin["parent"] == child.path.name and origin["step"] == 30
    assert grandchild.config.mixer.name == "exp3"
    assert grandchild.config.optimizer.peak_lr == 1e-4


def test_a_run_still_training_can_be_forked(nano_config, cache_dir, tmp_path):
    run = start(nano_config.change(total_steps=2000), tmp_path, cache_dir=cache_dir)
    while not run.events("step"):
        run._thread.join(0.02)
    other = run.fork(0, total_steps=12).wait()
    assert run.live and other.status() == "finished"
    run.stop()
    run.wait()
    ours, theirs = up_to(other, 12), up_to(run, 12)
    # The learning rate follows total_steps; what was drawn does not.
    np.testing.assert_array_equal(ours[1].sample_id, theirs[1].sample_id)


def test_names_that_exist_are_not_taken_again(parent):
    assert fork(parent, 20).path.name == "parent-20-again"
    assert fork(parent, 20).path.name == "parent-20-again-2"
    with pytest.raises(RunError, match="exists"):
        fork(parent, 20, name="parent")
    with pytest.raises(RunError, match="is no name of a folder"):
        fork(parent, 20, name="elsewhere/fork")


@pytest.mark.parametrize(
    ("step", "changes", "error", "says"),
    [
        (41, {}, RunError, "has done 40 steps"),
        (-1, {}, RunError, "choose a step from 0 to 40"),
        (20, {"reweigher": "uniform"}, ConfigError, "reweighter"),
        (20, {"context_tokens": 64}, ConfigError, "cannot change during a run"),
        (20, {"mixer": Policy("exp4")}, ConfigError, "exp3"),
    ],
)
def test_what_cannot_be_forked_is_refused_and_leaves_nothing(parent, step, changes, error, says):
    before = sorted(path.name for path in parent.path.parent.iterdir())
    with pytest.raises(error, match=says):
        fork(parent, step, **changes)
    assert sorted(path.name for path in parent.path.parent.iterdir()) == before


def test_the_parent_is_as_it_was(parent):
    def bytes_of(folder):
        return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    before = bytes_of(parent.path)
    fork(parent, 20, selector="random", total_steps=60)
    assert bytes_of(parent.path) == before
    assert open_run(parent.path).status() == "finished"
    assert json.loads((parent.path / "config.json").read_text())["config"]["name"] == "parent"


def test_later_changes_by_short_names_are_those_of_their_time(nano_config, cache_dir, tmp_path):
    run = train(nano_config.change(name="a", keep_checkpoints=9), tmp_path, cache_dir=cache_dir)
    run = fork(run, 20, name="b", reweighter="linupper")
    run = fork(run, 30, name="c", temperature=0.3)
    assert_same_record(fork(run, 10), run)
    other = fork(run, 10, mixer="exp3")
    assert other.config.reweighter.options["temperature"] == 0.3
    assert [e["changes"] for e in fork(run, 10, reweighter="upper").events("set")] == [
        {"reweighter": "upper"}
    ]


def test_a_choice_before_the_first_step_is_not_made_again(nano_config, cache_dir, tmp_path):
    config = nano_config.change(selector="random", keep_checkpoints=9, total_steps=12)
    run = train(config, tmp_path, cache_dir=cache_dir)
    for step in (0, 5):
        other = fork(run, step)
        assert_same_record(other, run)
        assert [e["time"] for e in other.events("selected")] == [
            e["time"] for e in run.events("selected")
        ]


def test_a_fork_that_chooses_otherwise_drops_the_choice_made_at_its_step(
    nano_config, cache_dir, tmp_path
):
    config = nano_config.change(keep_checkpoints=9, total_steps=16).replace(
        selector="random", selection={"every_steps": 4}
    )
    run = train(config, tmp_path, cache_dir=cache_dir)
    freed = fork(run, 8, selector=None)
    assert freed.folder.selections() == [0, 4]
    assert [e["step"] for e in freed.events("selected")] == [0, 4]
    again = fork(run, 8, selector=Policy("random", deduplicate=True))
    assert [e["step"] for e in again.events("selected")] == [0, 4, 8, 12]


def test_changes_that_cannot_be_kept_are_refused_before_anything_is_made(parent):
    changed = fork(parent, 20, name="changed", selector="random", **{"selection.first_step": 35})
    with pytest.raises(PolicyError, match="first_step"):
        fork(changed, 10, name="short", total_steps=30)
    assert not parent.path.with_name("short").exists()


def test_a_fork_beside_its_parent_changes_neither_with_dropout(nano_config, cache_dir, tmp_path):
    model = nano_config.model.replace(
        overrides={**nano_config.model.overrides, "attention_dropout": 0.2}
    )
    config = nano_config.replace(model=model).change(total_steps=60)
    alone = train(config, tmp_path / "alone", cache_dir=cache_dir)
    run = start(config, tmp_path / "both", cache_dir=cache_dir)
    while not run.events("step"):
        run._thread.join(0.01)
    other = run.fork(0)
    other.wait()
    run.wait()
    assert_same_record(run, alone)
    assert_same_record(other, alone)

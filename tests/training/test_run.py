"""Runs: exact resume, controls, and errors that lose nothing."""

import json
import os
import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import workbench.training.checkpoint as checkpoint
from tests.training.records import assert_same_record, record
from workbench.config import Policy, RunConfig
from workbench.core import ConfigError, NumericsError, RunError, WorkbenchError
from workbench.training import loop, open_run, resume, start, train
from workbench.training.device import threads_of_rank
from workbench.training.ranks import Ranks, _leave


@pytest.fixture
def training(nano_config, cache_dir, tmp_path):
    """train/start with the test's folders; keyword fields change the config."""

    def go(how=train, into="runs", **fields):
        options = {k: fields.pop(k) for k in ("callbacks", "if_exists") if k in fields}
        steps = {k: fields.pop(k) for k in list(fields) if k.endswith("_steps")}
        config = nano_config.replace(
            **{"training": nano_config.training.replace(**steps), **fields}
        )
        return how(config, tmp_path / into, cache_dir=cache_dir, **options)

    return go


class StopAt:
    """Asks the run to stop, pause or change at a step, from inside the loop."""

    def __init__(self, step, act):
        self.step, self.act, self.run = step, act, None

    def on_step(self, outcome):
        if outcome.step == self.step:
            self.act()

    def on_events(self, events):
        pass


class Crash(BaseException):
    """Ends a run the way a killed process does: nothing is flushed for it."""


def crash():
    raise Crash


def crashed(training, monkeypatch, **fields):
    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr("workbench.training.loop.Loop._fail", lambda self, error: None)
        training(callbacks=[StopAt(27, crash)], **fields)


@pytest.mark.parametrize("reweighter", ["uniform", "linupper"])
def test_resume_equals_straight(training, monkeypatch, cache_dir, tmp_path, reweighter):
    straight = training(into="straight", reweighter=reweighter)
    crashed(training, monkeypatch, reweighter=reweighter)
    run = open_run(tmp_path / "runs" / "nano")
    assert run.status() == "interrupted"
    assert_same_record(resume(run.path, cache_dir=cache_dir), straight)


def test_changes_made_after_the_checkpoint_are_replayed(training, monkeypatch, cache_dir, tmp_path):
    def changed_at_23(into, then):
        run_box = []

        class Change:
            def on_step(self, outcome):
                if outcome.step == 22:
                    run_box[0].change({"temperature": 2.0, "peak_lr": 1e-3})
                if outcome.step == 27 and then:
                    then()

            def on_events(self, events):
                pass

        original = __import__("workbench.training.run", fromlist=["Controls"]).Controls
        with monkeypatch.context() as patch:
            patch.setattr(
                "workbench.training.run.Controls",
                lambda: run_box.append(original()) or run_box[0],
            )
            if then:
                patch.setattr("workbench.training.loop.Loop._fail", lambda self, error: None)
            return training(into=into, reweighter="linupper", callbacks=[Change()])

    straight = changed_at_23("straight", None)
    with pytest.raises(Crash):
        changed_at_23("runs", crash)
    resumed = resume(tmp_path / "runs" / "nano", cache_dir=cache_dir)
    assert_same_record(resumed, straight)
    assert resumed.config.reweighter.options["temperature"] == 2.0
    assert [event["step"] for event in resumed.events("set")] == [23]


def test_pause_change_resume_stop_in_the_background(training, cache_dir):
    run = training(start, total_steps=100_000, reweighter="linupper")
    until(lambda: len(run.events("step")) > 5)
    run.pause()
    until(lambda: run.status() == "paused")
    held = len(run.events("step"))
    time.sleep(0.1)
    assert len(run.events("step")) == held
    run.set(temperature=1.5)
    until(lambda: run.events("set"))
    run.resume()
    until(lambda: len(run.events("step")) > held)
    run.stop()
    run.wait()
    assert run.status() == "stopped"
    steps = run.summary()["steps"]
    assert run.folder.checkpoints()[-1] == steps == len(run.events("step"))
    assert run.config.reweighter.options == {"temperature": 1.5}
    again = resume(run.path, cache_dir=cache_dir, changes={"total_steps": steps + 3})
    assert again.status() == "finished" and again.summary()["steps"] == steps + 3


def test_a_policy_object_can_be_set_and_is_replayed(training, cache_dir):
    run = training(start, total_steps=100_000)
    run.set(reweighter=Policy("linupper", temperature=0.7))
    until(lambda: run.events("set"))
    run.stop()
    run.wait()
    assert run.events("set")[0]["changes"] == {
        "reweighter": {"name": "linupper", "temperature": 0.7}
    }
    assert open_run(run.path).config.reweighter == Policy("linupper", temperature=0.7)


def test_controls_refuse_what_they_cannot_do(training):
    run = training(start, total_steps=100_000, reweighter="linupper")
    try:
        with pytest.raises(ConfigError, match="did you mean 'temperature'"):
            run.set(temprature=1.0)
        with pytest.raises(ConfigError, match="above 0"):
            run.set(temperature=-1.0)
        with pytest.raises(ConfigError, match="cannot change during a run"):
            run.set(batch_rows=4)
        with pytest.raises(ConfigError, match="did you mean 'linupper'"):
            run.set(reweighter="linuper")
    finally:
        run.stop()
        run.wait()
    with pytest.raises(RunError, match="not training in this process"):
        run.pause()


@pytest.mark.parametrize(
    ("threads", "ranks", "world", "own"), [(6, 1, 1, 6), (6, 1, 4, 1), (3, 2, 3, 2), (3, 2, 1, 3)]
)
def test_more_ranks_share_the_threads_that_a_run_started_with(
    monkeypatch, threads, ranks, world, own
):
    monkeypatch.setattr(Ranks, "here", lambda: Ranks(0, world))
    assert threads_of_rank(threads, {"ranks": ranks}) == own


def test_a_rank_whose_run_failed_does_not_wait_for_the_others_at_exit(training, monkeypatch):
    done = []
    monkeypatch.setattr("workbench.training.ranks.atexit.unregister", done.append)
    training(total_steps=1)
    assert not done
    with pytest.raises(Crash):
        training(into="broken", callbacks=[StopAt(0, crash)])
    assert done == [_leave]


def test_a_failing_background_run_raises_on_wait(training, capsys):
    class Broken:
        def on_step(self, outcome):
            raise RuntimeError("the callback broke")

        def on_events(self, events):
            pass

    run = training(start, callbacks=[Broken()])
    with pytest.raises(RuntimeError, match="the callback broke"):
        run.wait()
    assert run.status() == "failed"
    assert "the callback broke" in run.events("failed")[0]["problem"]
    assert "the callback broke" in capsys.readouterr().err


def test_a_second_writer_is_refused(training, cache_dir):
    run = training(start, total_steps=100_000)
    try:
        until(lambda: run.status() == "running")
        with pytest.raises(RunError, match=str(os.getpid())):
            resume(run.path, cache_dir=cache_dir)
    finally:
        run.stop()
        run.wait()


def poison(monkeypatch, update, spoil):
    """Spoil the parameters or gradients at the given update, once."""
    real, count = torch.optim.AdamW.step, [0]

    def step(self, closure=None):
        real(self, closure)
        count[0] += 1
        if count[0] == update:
            spoil(self.param_groups[0]["params"][0].data)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)


def test_nan_loss_names_step_rows_and_text_and_resumes_from_before(training, monkeypatch):
    straight = training(into="straight")
    with monkeypatch.context() as patch:
        poison(patch, 16, lambda weight: weight.fill_(float("nan")))
        with pytest.raises(NumericsError, match=r"step 16: the loss of 8 of 8 rows"):
            training()
    run = training(if_exists="resume")
    failed = run.events("failed")[0]
    assert "peak_lr" in failed["remedy"]
    sample_id = int(failed["problem"].split("rows ")[-1].split(":")[0])
    named = run.ledger.sql(f"select * from ledger where step = 16 and sample_id = {sample_id}")
    assert len(named) == 1
    assert_same_record(run, straight)


def test_a_broken_state_is_never_checkpointed(training, monkeypatch):
    with monkeypatch.context() as patch:
        poison(patch, 20, lambda weight: weight.fill_(float("inf")))
        with pytest.raises(NumericsError, match="step 19: its update made the parameters"):
            training()
    run = training(if_exists="resume")
    assert run.status() == "finished"


def test_a_bad_row_stops_before_the_update_and_resumes_from_the_checkpoint_before(
    training, monkeypatch, cache_dir, tmp_path
):
    from workbench.training.spread import Spread

    straight = training(into="straight")
    real, calls = Spread.losses, [0]

    def one_bad_row(*args, **kwargs):
        calls[0] += 1
        loss_B = real(*args, **kwargs)
        bad_B = torch.arange(len(loss_B)) == 3
        return loss_B.masked_fill(bad_B, torch.nan) if calls[0] == 18 else loss_B

    with monkeypatch.context() as patch:
        patch.setattr(Spread, "losses", one_bad_row)
        with pytest.raises(NumericsError, match=r"step 17: the loss of 1 of 8 rows"):
            training()
    path = tmp_path / "runs" / "nano"
    assert open_run(path).folder.checkpoints() == [10]
    assert len(open_run(path).events("step")) == 18
    assert_same_record(resume(path, cache_dir=cache_dir), straight)


def test_disk_full_loses_nothing_and_resumes(training, cache_dir, monkeypatch, tmp_path):
    straight = training(into="straight")
    real, calls = torch.save, []

    def full_on_the_third(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.torch, "save", full_on_the_third)
        with pytest.raises(RunError, match="disk full") as caught:
            training()
    path = tmp_path / "runs" / "nano"
    assert f"workbench resume {path}" in caught.value.remedy
    assert open_run(path).folder.checkpoints() == [10, 20]
    assert_same_record(resume(path, cache_dir=cache_dir), straight)


def test_a_corrupt_checkpoint_names_its_checksum_and_the_older_one(training, cache_dir):
    run = training()
    state = run.folder.checkpoint_path(40) / "state.pt"
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    state.write_bytes(content)
    with pytest.raises(RunError, match="checksum") as caught:
        resume(run.path, cache_dir=cache_dir, changes={"total_steps": 50})
    assert "--step 30" in caught.value.remedy
    assert resume(run.path, cache_dir=cache_dir, step=30).status() == "finished"


def test_a_checkpoint_of_another_config_says_what_differs(training, cache_dir, tmp_path):
    run, other = training(), training(into="other", seed=3)
    source = other.folder.checkpoint_path(40)
    target = run.folder.checkpoint_path(40)
    for name in ("state.pt", "state.blake2b"):
        (target / name).write_bytes((source / name).read_bytes())
    with pytest.raises(RunError, match=r"another config: seed: 0 → 3"):
        resume(run.path, cache_dir=cache_dir, changes={"total_steps": 50})


def test_starting_over_another_config_says_what_differs(training):
    training()
    with pytest.raises(RunError, match=r"seed: 0 → 1"):
        training(seed=1, if_exists="resume")
    with pytest.raises(RunError, match="already holds a run"):
        training()


def test_a_finished_run_is_returned_as_it_is(training):
    first = training()
    before = (first.path / "events.jsonl").read_bytes()
    again = training(if_exists="resume")
    assert again.status() == "finished"
    assert (first.path / "events.jsonl").read_bytes() == before


def test_an_unknown_policy_is_refused_before_any_work(training, tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'linupper'"):
        training(reweighter="linuper")
    with pytest.raises(ConfigError, match="did you mean 'static'"):
        training(mixer="statik")
    with pytest.raises(ConfigError, match="did you mean 'temperature'"):
        training(reweighter=Policy("linupper", temperatur=1.0))
    assert not (tmp_path / "runs").exists()


def test_a_missing_device_is_refused(training, nano_config):
    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    settings = nano_config.training.replace(device="cuda")
    with pytest.raises(ConfigError, match="no CUDA device"):
        training(training=settings)


def test_every_config_reaches_the_record(training, nano_config):
    run = training(reweighter="linupper")
    stored = json.loads((run.path / "config.json").read_text())
    assert stored["config"]["reweighter"] == {"name": "linupper"}
    assert stored["config"]["training"]["precision"] == "float32"
    assert stored["environment"]["seed"] == 0
    assert stored["environment"]["packages"]["torch"] == torch.__version__
    assert len(stored["environment"]["content_hash"]) >= 16
    step = run.events("step")[-1]
    assert sum(step["weight_share"].values()) == pytest.approx(1, abs=1e-5)
    assert sum(step["sample_share"].values()) == pytest.approx(1)
    assert 0 < step["ess_fraction"] < 1 < step["max_weight"]
    weight = run.ledger.sql("select step, avg(weight) as mean from ledger group by step")
    assert np.allclose(weight["mean"], 1, atol=1e-4)


def test_ctrl_c_ends_a_run_in_the_foreground_at_a_step_with_a_checkpoint(
    training, cache_dir, tmp_path
):
    straight = training(into="straight")
    press = StopAt(17, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        training(callbacks=[press])
    run = open_run(tmp_path / "runs" / "nano")
    assert run.status() == "stopped"
    assert run.folder.checkpoints()[-1] == 18 == len(run.events("step"))
    assert_same_record(resume(run.path, cache_dir=cache_dir), straight)


def test_a_second_ctrl_c_interrupts_at_once_and_the_run_resumes(training, cache_dir, tmp_path):
    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    straight = training(into="straight")
    with pytest.raises(KeyboardInterrupt):
        training(callbacks=[StopAt(17, twice)])
    run = open_run(tmp_path / "runs" / "nano")
    assert run.status() == "interrupted"
    assert_same_record(resume(run.path, cache_dir=cache_dir), straight)


@pytest.mark.parametrize(
    "bad",
    [
        {"mixer": {"name": "static", "mixture": {"nope": 1}}},
        {"reweighter": Policy("linupper", target_ess=0.5)},
    ],
    ids=["unknown domain", "scope that cannot"],
)
def test_a_change_that_does_not_fit_is_refused_and_the_run_goes_on(training, nano_config, bad):
    settings = nano_config.training.replace(total_steps=100_000, micro_batch_rows=2)
    run = training(start, training=settings, reweighter=Policy("linupper", scope="stream"))
    try:
        with pytest.raises(ConfigError, match=r"unknown domain 'nope'|scope='stream'"):
            run.set(**bad)
        # Past the check of the caller, as two changes racing each other could get.
        run._controls.change(bad)
        until(lambda: any("refused" in event["message"] for event in run.events("warning")))
        seen = len(run.events("step"))
        until(lambda: len(run.events("step")) > seen)
    finally:
        run.stop()
        run.wait()
    assert run.status() == "stopped" and not run.events("set")


def test_changes_given_on_resume_replace_those_made_later(training, cache_dir):
    class Later:
        def on_step(self, outcome):
            if outcome.step == 24:
                box[0].change({"temperature": 0.1})

        def on_events(self, events):
            pass

    box = []
    import workbench.training.run as run_module

    original = run_module.Controls
    run_module.Controls = lambda: box.append(original()) or box[-1]
    try:
        run = training(reweighter="linupper", callbacks=[Later()])
    finally:
        run_module.Controls = original
    assert run.config.reweighter.options["temperature"] == 0.1
    again = resume(run.path, cache_dir=cache_dir, step=30, changes={"temperature": 5.0})
    assert again.config.reweighter.options["temperature"] == 5.0
    once_more = resume(again.path, cache_dir=cache_dir, step=30)
    assert once_more.config.reweighter.options["temperature"] == 0.1
    superseded = once_more.events("resumed")[-1]["superseded"]
    assert superseded == [{"step": 30, "changes": {"temperature": 5.0}}]
    saved = torch.load(once_more.folder.checkpoint_path(40) / "state.pt")
    assert saved["config"]["reweighter"]["temperature"] == 0.1


def test_a_live_change_finds_the_policy_given_on_resume(training, cache_dir):
    run = training(reweighter="uniform")
    changes = {"reweighter": "linupper", "total_steps": 100_000}
    again = resume(run.path, cache_dir=cache_dir, changes=changes, background=True)
    try:
        again.set(temperature=1.0)
        until(lambda: len(again.events("set")) == 2)
    finally:
        again.stop()
        again.wait()
    assert again.config.reweighter == Policy("linupper", temperature=1.0)


def test_a_run_that_diverged_while_finite_can_start_over(training, cache_dir, tmp_path):
    with pytest.raises(NumericsError, match="not finite") as caught:
        training(optimizer={"peak_lr": 1e30, "clip_norm": None, "warmup_steps": 0})
    assert "0 starts over" in caught.value.remedy
    path = tmp_path / "runs" / "nano"
    again = resume(path, cache_dir=cache_dir, step=0, changes={"peak_lr": 1e-3})
    assert again.status() == "finished" and len(again.events("step")) == 40


def test_dropout_follows_the_seed_and_leaves_the_users_generator_alone(
    training, nano_config, monkeypatch, cache_dir, tmp_path
):
    model = nano_config.model.replace(
        overrides={**nano_config.model.overrides, "attention_dropout": 0.3}
    )
    torch.manual_seed(1)
    straight = training(into="straight", model=model)
    torch.manual_seed(2)
    untouched = torch.get_rng_state()
    crashed(training, monkeypatch, model=model)
    assert torch.equal(torch.get_rng_state(), untouched)
    assert_same_record(resume(tmp_path / "runs" / "nano", cache_dir=cache_dir), straight)
    plain = training(into="plain")
    assert record(plain)[0] != record(straight)[0]


def test_epochs_are_recorded(training, nano_corpus):
    run = training(total_steps=60)
    epochs = run.events("step")[-1]["epochs"]
    drawn = run.ledger.sql("select domain, count(*) as n from ledger group by domain")
    for domain, rows in zip(nano_corpus.domains, nano_corpus.rows_K, strict=True):
        seen = drawn[drawn.domain == domain].n.sum()
        assert epochs[domain] == pytest.approx(seen / rows)
    assert run.summary()["epochs"] == epochs


def test_errors_survive_a_process_boundary():
    import pickle

    error = pickle.loads(pickle.dumps(RunError("broken", remedy="mend it")))
    assert isinstance(error, WorkbenchError) and error.remedy == "mend it"


def until(condition, *, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def test_resume_uses_the_rows_it_started_on_when_the_source_has_changed(
    training, nano_config, cache_dir, monkeypatch, tmp_path
):
    folder = tmp_path / "text"
    for domain in ("prose", "code"):
        (folder / domain).mkdir(parents=True)
        for i in range(40):
            words = " ".join(f"{domain}{(i * j) % 97}" for j in range(200))
            (folder / domain / f"{i}.txt").write_text(words)
    corpus = nano_config.corpus.replace(name=str(folder), held_out_fraction=0.3)
    straight = training(into="straight", corpus=corpus)
    crashed(training, monkeypatch, corpus=corpus)
    (folder / "prose" / "new.txt").write_text("a document that came later " * 50)
    assert_same_record(resume(tmp_path / "runs" / "nano", cache_dir=cache_dir), straight)


def test_a_checkpoint_of_another_corpus_is_refused(training, cache_dir):
    run = training()
    folder = run.folder.checkpoint_path(40)
    saved = torch.load(folder / "state.pt")
    torch.save({**saved, "content_hash": "0" * 32}, folder / "state.pt")
    (folder / "state.blake2b").write_text(checkpoint._digest(folder / "state.pt"))
    with pytest.raises(RunError, match="the corpus has changed since the checkpoint"):
        resume(run.path, cache_dir=cache_dir, changes={"total_steps": 50})


@pytest.mark.parametrize(("micro", "world", "rows"), [(None, 1, 8), (None, 3, 3), (2, 4, 2)])
def test_no_pass_of_an_evaluation_is_larger_than_one_of_training(monkeypatch, micro, world, rows):
    asked = {}
    monkeypatch.setattr(
        loop, "held_out_loss", lambda *given, **how: asked.update(how) or {"a": 1.0}
    )
    config = RunConfig().change(batch_rows=8, micro_batch_rows=micro)
    state = SimpleNamespace(step=0, model=None, corpus=None, config=config)
    evaluating = SimpleNamespace(
        state=state,
        _evaluated_step=None,
        _ranks=Ranks(rank=0, world=world),
        _cost=SimpleNamespace(evaluate=0.0),
        _flush=lambda: None,
        _emit=lambda *kind, **event: None,
    )
    loop.Loop._evaluate(evaluating)  # pyright: ignore[reportArgumentType]
    assert asked["batch_rows"] == rows

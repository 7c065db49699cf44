"""Selectors inside a run: chosen rows alone are trained on, choices are kept, resume is exact."""

import numpy as np
import pytest
import torch

from workbench.config import Policy, SelectionConfig
from workbench.core import SELECTORS, PolicyError, RunError, Selection
from workbench.training import resume, train
from workbench.training.finished import finished_model
from workbench.training.loop import Loop
from workbench.training.rows import prepared_before

LEDGER = "select * from ledger order by step, sample_id, loss"


@pytest.fixture
def config(nano_config):
    training = nano_config.training.replace(
        total_steps=12, evaluate_every_steps=6, checkpoint_every_steps=6
    )
    return nano_config.replace(
        selector="random",
        selection=SelectionConfig(share=0.1),
        mixer=Policy("static", mixture="natural"),
        training=training,
    )


def choosing(config, *, selector="random", **selection):
    return config.replace(selector=selector, selection=SelectionConfig(**selection))


def trained_on(run, first=0, last=10**9):
    ledger = run.ledger.frame()
    return set(ledger[ledger.step.between(first, last)].sample_id)


def test_only_chosen_rows_are_trained_on_and_the_choice_is_kept(config, cache_dir, tmp_path):
    run = train(config, tmp_path, cache_dir=cache_dir)
    record = run.folder.selection()
    selected = record.frame("selected")
    assert trained_on(run) <= set(selected.sample_id)
    assert run.folder.selections() == [0]
    event = run.events("selected")[0]
    assert event["rows"] == len(selected) == record.manifest["rows"]
    assert event["tokens"] <= event["budget_tokens"] < event["tokens"] + 33
    assert set(selected.reason) == {"random"} and selected.documents.str.len().min() > 8
    assert dict(selected.domain.value_counts()) == {k: n for k, n in event["domains"].items() if n}
    assert run.summary()["select_seconds"] > 0
    assert run.ledger.frame().cluster.isna().all()


def test_a_natural_mixture_follows_the_choice(config, cache_dir, tmp_path):
    run = train(config, tmp_path, cache_dir=cache_dir)
    rows = run.events("selected")[0]["domains"]
    mixture = run.events("step")[-1]["mixture"]
    assert mixture == pytest.approx({k: n / sum(rows.values()) for k, n in rows.items()})


def test_until_the_first_choice_the_whole_pool_is_read(config, cache_dir, tmp_path):
    run = train(choosing(config, share=0.05, first_step=6), tmp_path, cache_dir=cache_dir)
    chosen = set(run.folder.selection(6).frame("selected").sample_id)
    assert trained_on(run, 6) <= chosen and not trained_on(run, 0, 5) <= chosen


def test_online_choices_never_offer_a_row_twice(config, cache_dir, tmp_path):
    run = train(choosing(config, every_steps=4), tmp_path, cache_dir=cache_dir)
    choices = [
        set(run.folder.selection(step).frame("selected").sample_id)
        for step in run.folder.selections()
    ]
    assert run.folder.selections() == [0, 4, 8]
    assert [len(choice) for choice in choices] == [32, 32, 32]
    assert len(set.union(*choices)) == 96
    for i, choice in enumerate(choices):
        assert trained_on(run, 4 * i, 4 * i + 3) == choice


def test_a_pool_used_up_keeps_the_last_choice_and_says_so(config, cache_dir, tmp_path):
    all_of_it = choosing(config, every_steps=4, budget_tokens=150_000)
    with pytest.warns(UserWarning, match="every row of the pool was chosen once"):
        run = train(all_of_it.change(total_steps=40), tmp_path, cache_dir=cache_dir)
    last = run.folder.selections()[-1]
    assert 0 < last < 12
    assert trained_on(run, 36) <= set(run.folder.selection(last).frame("selected").sample_id)
    assert len([e for e in run.events("warning") if "pool" in e["message"]]) == 1


QUAD = Policy("quad", clusters=6, trust="off", factor_rows=16, memory=0.5)
QUICK = QUAD.replace(options={**QUAD.options, "preconditioner": "identity", "scored_share": 0.05})


@pytest.mark.parametrize("selector", [QUICK, Policy("random", deduplicate=True)])
def test_a_pool_used_up_but_for_near_duplicates_keeps_the_last_choice(
    config, cache_dir, tmp_path, selector
):
    config = choosing(
        config, selector=selector, every_steps=3, budget_tokens=60_000, reference_rows=12
    )
    with pytest.warns(UserWarning, match="or repeats one that was"):
        run = train(config.change(total_steps=24), tmp_path, cache_dir=cache_dir)
    frames = [run.folder.selection(step).frame("selected") for step in run.folder.selections()]
    chosen = [sample for frame in frames for sample in frame.sample_id]
    rows = prepared_before(run.folder, cache_dir).pool().tokens_N
    assert len(set(chosen)) == len(chosen) < len(rows), "near-duplicates are in the corpus"
    last = run.events("selected")[-1]
    assert last["tokens"] == last["budget_tokens"] < 60_000
    steps = run.folder.selections()
    assert run.status() == "finished" and steps == list(range(0, steps[-1] + 1, 3))
    assert steps[-1] < 18 and trained_on(run, 21) <= set(frames[-1].sample_id)


@pytest.fixture
def picky(monkeypatch):
    """A selector that finds rows the first time alone."""

    class Picky:
        uses_reference = False

        def __init__(self, task, *, first: int = 40):
            self.rows = first

        def select(self, pool, budget, model):
            ids, self.rows = pool.sample_id_N[: self.rows], 0
            return Selection(ids, ["first"] * len(ids))

        def tables(self):
            return {}

        def diagnostics(self):
            return {"stopped": "nothing passes"}

        def state_dict(self):
            return {"rows": self.rows}

        def load_state_dict(self, state):
            self.rows = state["rows"]

    monkeypatch.setitem(SELECTORS._factories, "picky", Picky)


def test_a_later_choice_of_nothing_keeps_the_last_and_says_why(config, cache_dir, tmp_path, picky):
    with pytest.warns(UserWarning, match="holds 0 of 1024 tokens: nothing passes"):
        run = train(
            choosing(config, selector="picky", every_steps=4), tmp_path, cache_dir=cache_dir
        )
    assert run.status() == "finished" and run.folder.selections() == [0]
    warned = [event["step"] for event in run.events("warning") if "of 1024" in event["message"]]
    assert warned == [4, 8]


def test_a_first_choice_of_nothing_ends_the_run_with_the_reason(config, cache_dir, tmp_path, picky):
    nothing = choosing(config, selector=Policy("picky", first=0))
    with pytest.raises(PolicyError, match=r"holds 0 of .* tokens: nothing passes.*threshold"):
        train(nothing, tmp_path, cache_dir=cache_dir)


@pytest.mark.parametrize(
    ("selector", "killed_at"), [("random", 3), ("random", 8), ("random", 9), (QUAD, 8)]
)
def test_a_run_killed_between_choices_continues_to_the_bit(
    config, cache_dir, tmp_path, monkeypatch, selector, killed_at
):
    config = choosing(config, selector=selector, every_steps=4, first_step=2, reference_rows=12)
    straight = train(config, tmp_path / "a", cache_dir=cache_dir)
    real = Loop._step

    def dying(self):
        if self.state.step == killed_at:
            raise KeyboardInterrupt
        real(self)

    monkeypatch.setattr(Loop, "_step", dying)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "b", cache_dir=cache_dir)
    monkeypatch.setattr(Loop, "_step", real)
    run = resume(tmp_path / "b" / config.name, cache_dir=cache_dir)
    assert run.ledger.sql(LEDGER).equals(straight.ledger.sql(LEDGER))
    assert run.folder.selections() == straight.folder.selections() == [2, 6, 10]
    assert [e["step"] for e in run.events("selected")] == [2, 6, 10]
    for step in (2, 6, 10):
        ours, theirs = (each.folder.selection(step) for each in (run, straight))
        assert all(ours.frame(table).equals(theirs.frame(table)) for table in ours.tables())


def test_resuming_earlier_gives_up_later_choices(config, cache_dir, tmp_path):
    run = train(
        choosing(config, every_steps=4).change(keep_checkpoints=9), tmp_path, cache_dir=cache_dir
    )
    run.folder.rewind(4)
    assert run.folder.selections() == [0, 4]
    with pytest.raises(RunError, match="no selection of step 8"):
        run.folder.selection(8)


def test_another_runs_model_judges_when_asked_to(config, cache_dir, tmp_path):
    judge = train(
        config.replace(name="judge", selector=None).change(total_steps=40),
        tmp_path,
        cache_dir=cache_dir,
    )
    low = Policy("perplexity", band="low")
    own = train(choosing(config, selector=low), tmp_path / "own", cache_dir=cache_dir)
    judged = choosing(config, selector=low, checkpoint=str(judge.path))
    other = train(judged, tmp_path / "other", cache_dir=cache_dir)
    corpus = prepared_before(judge.folder, cache_dir)
    model = finished_model(str(judge.path), corpus, "checkpoint")
    chosen = [run.folder.selection().frame("selected").sample_id for run in (own, other)]
    judged_nats = [mean_loss(model, corpus.tokens(ids.to_numpy())) for ids in chosen]
    pool_nats = mean_loss(model, corpus.tokens(corpus.pool().sample_id_N))
    assert judged_nats[1] < judged_nats[0] - 0.01 and judged_nats[1] < pool_nats


def mean_loss(model, rows_NT):
    rows = torch.from_numpy(rows_NT)
    with torch.no_grad():
        logits = model.hidden(rows[:, :-1]) @ model.head_VD.T
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten()).item()


@pytest.mark.parametrize(
    ("selection", "problem"),
    [
        ({"budget_tokens": 10**9}, "the pool has"),
        ({"budget_tokens": 5}, "the smallest row has"),
        ({"first_step": 12}, "the run ends at step 12"),
        ({"checkpoint": "nowhere"}, "is no run folder"),
    ],
)
def test_what_cannot_be_chosen_is_refused_before_the_first_step(
    config, cache_dir, tmp_path, selection, problem
):
    with pytest.raises(PolicyError, match=problem) as error:
        train(choosing(config, **selection), tmp_path, cache_dir=cache_dir)
    assert error.value.remedy and not (tmp_path / config.name).exists()


def test_what_the_reference_set_lacks_is_told_before_the_first_choice(config, cache_dir, tmp_path):
    config = choosing(config, selector=QUAD, share=0.02, reference_rows=12)
    with pytest.warns(UserWarning, match="left the reference set, because they repeat text"):
        run = train(config, tmp_path, cache_dir=cache_dir)
    record = run.folder.selection()
    reference = record.manifest["reference"]
    assert reference["rows"] + reference["dropped"] == 12
    assert {"arms", "pulls", "samples", "selected"} == set(record.tables())
    ledger = run.ledger.frame()
    assert ledger.cluster.notna().all() and ledger.influence.notna().any()


@pytest.fixture
def slow_selector(monkeypatch):
    """A selector that tells of its progress and calls `between` on the way."""

    class Slow:
        uses_reference = False
        between = staticmethod(lambda: None)

        def __init__(self, task):
            self.task = task

        def select(self, pool, budget, model):
            for done in range(3):
                self.task.progress({"stage": "pull", "done": done, "total": 3, "round": done})
                Slow.between()
            ids = pool.sample_id_N[:40]
            return Selection(ids, ["first"] * 40, np.arange(40) % 3, np.linspace(0, 1, 40))

        def tables(self):
            return {"arms": {"cluster": np.arange(3), "domain": np.array([0, 1, 0])}}

        def diagnostics(self):
            return {"rounds": 3}

        def state_dict(self):
            return {}

        def load_state_dict(self, state):
            pass

    monkeypatch.setitem(SELECTORS._factories, "slow", Slow)
    return Slow


def test_progress_tables_and_the_ledger_carry_what_a_selector_knows(
    config, cache_dir, tmp_path, slow_selector
):
    run = train(choosing(config, selector="slow"), tmp_path, cache_dir=cache_dir)
    assert [e["round"] for e in run.events("selecting")] == [0, 1, 2]
    assert run.events("selected")[0]["selector"] == {"rounds": 3}
    assert run.folder.selection().frame("arms").domain.tolist() == [
        "clean_prose",
        "clean_tales",
        "clean_prose",
    ]
    selected = run.folder.selection().frame("selected").set_index("sample_id")
    ledger = run.ledger.frame()
    known = selected.loc[ledger.sample_id]
    assert ledger.cluster.tolist() == known.cluster.tolist()
    assert ledger.influence.to_numpy() == pytest.approx(known.influence.to_numpy())


@pytest.mark.parametrize("first_step", [0, 3])
def test_a_stop_is_obeyed_while_a_selector_is_at_work(
    config, cache_dir, tmp_path, slow_selector, monkeypatch, first_step
):
    loops = []
    real = Loop.__init__
    monkeypatch.setattr(
        Loop, "__init__", lambda self, *a, **k: (loops.append(self), real(self, *a, **k))[1]
    )
    slow_selector.between = staticmethod(lambda: loops[-1].controls.stop())
    config = choosing(config, selector="slow", first_step=first_step)
    run = train(config, tmp_path, cache_dir=cache_dir)
    assert run.status() == "stopped" and run.folder.selections() == []
    slow_selector.between = staticmethod(lambda: None)
    assert resume(run.path, cache_dir=cache_dir).status() == "finished"
    assert run.folder.selections() == [first_step]

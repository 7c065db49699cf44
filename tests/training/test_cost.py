"""Operations counted from shapes are those that torch dispatches; phases add up."""

import shutil

import pytest
import torch

from tests.training.records import assert_same_record
from workbench.batch import compare
from workbench.batch.equal_cost import _curve
from workbench.config import Policy
from workbench.core import PolicyError, RunError
from workbench.models.operations import counted
from workbench.training import start, train
from workbench.training.cost import StepCost
from workbench.training.state import build_state
from workbench.training.step import train_step
from workbench.training.summary import charged_flops


def dispatched(state, needs):
    """Operations of one step, as torch dispatches them."""
    assert state.mixer.needs == needs
    state.sampler.set_mixture(state.mixer.propose(0))
    batch = state.sampler.draw(0)
    with counted() as found:
        train_step(state, batch)
    return found.total


@pytest.fixture
def state_of(nano_config, nano_corpus):
    def build(mixer):
        return build_state(nano_config.replace(mixer=mixer), nano_corpus)

    return build


def test_a_step_costs_what_its_shapes_say(state_of):
    state = state_of("static")
    cost = StepCost(state)
    # The formula counts weights of norms too, and the backward pass of the first layer's input.
    assert dispatched(state, frozenset()) == pytest.approx(cost.train, rel=0.01)
    assert cost.probe(frozenset()) == 0


@pytest.mark.parametrize(
    "mixer",
    [
        Policy("alignment", tracked_layers=1),
        Policy("alignment", tracked_layers=1, projection_width=8),
        Policy("pike", tracked_layers=1),
    ],
    ids=["exact", "projected", "row norms"],
)
def test_a_probe_costs_what_its_shapes_say(state_of, mixer):
    plain, state = state_of("static"), state_of(mixer)
    extra = dispatched(state, state.mixer.needs) - dispatched(plain, frozenset())
    assert extra == pytest.approx(StepCost(state).probe(state.mixer.needs), rel=0.01)
    assert extra > 0


def test_one_third_of_a_step_is_its_forward_pass(state_of):
    state = state_of("static")
    rows = torch.from_numpy(state.corpus.held_out("clean_prose", 4))
    with counted() as found, torch.inference_mode():
        state.model(rows[:, :-1], rows[:, 1:])
    per_row = StepCost(state).evaluate / (4 * len(state.corpus.domains))
    assert found.total == pytest.approx(len(rows) * per_row, rel=0.01)


def test_phases_of_a_run_add_up(nano_config, cache_dir, tmp_path):
    config = nano_config.change(total_steps=8, evaluate_every_steps=4).replace(
        selector=Policy("quad", clusters=6, trust="off", factor_rows=16),
        selection={"share": 0.2, "reference_rows": 12},
        mixer=Policy("alignment", tracked_layers=1),
    )
    run = train(config, tmp_path, cache_dir=cache_dir)
    compute = run.summary()["compute"]
    phases = ["train", "probe", "influence", "policy", "evaluate"]
    assert [phase for phase in compute if phase != "cached"] == phases
    assert all(compute[phase]["seconds"] > 0 for phase in phases)
    assert compute["influence"]["flops"] > compute["train"]["flops"] > compute["probe"]["flops"] > 0
    assert compute["evaluate"]["flops"] == 3 * run.events("held_out")[0]["flops"]


def test_what_an_earlier_run_paid_is_charged_to_a_later_one(nano_config, cache_dir, tmp_path):
    cache = tmp_path / "cache"
    train(nano_config.change(total_steps=4, name="prepared"), tmp_path, cache_dir=cache_dir)
    shutil.copytree(cache_dir, cache, ignore=shutil.ignore_patterns("selection"))
    config = nano_config.change(total_steps=8, evaluate_every_steps=8).replace(
        selector=Policy("quad", clusters=6, trust="off", factor_rows=48, scored_share=0.0),
        selection={"budget_tokens": 2000, "every_steps": 4, "reference_rows": 12},
    )
    first, second = (
        train(config.change(name=name), tmp_path, cache_dir=cache) for name in ("first", "second")
    )
    choices = first.events("selected")
    assert len(choices) == 2 and all(choice["cached"]["flops"] == 0 for choice in choices)
    paid, later = first.summary()["compute"], second.summary()["compute"]
    assert "cached" not in paid and later["cached"]["seconds"] > 0
    # The plan of a fit is made before it and not kept.
    planning = paid["influence"]["flops"] - later["influence"]["flops"] - later["cached"]["flops"]
    assert 0 <= planning < 0.15 * paid["influence"]["flops"] < later["cached"]["flops"]
    for run in (first, second):
        [(spent_N, _)] = [_curve(run.folder, (), "flops")]
        assert spent_N[-1] == pytest.approx(charged_flops(run.folder))
    assert charged_flops(second.folder) == pytest.approx(charged_flops(first.folder) - planning)


@pytest.fixture
def dear(nano_config, cache_dir, tmp_path):
    """A run that chooses its rows with the model of another one."""
    judge = train(nano_config.change(total_steps=6, name="judge"), tmp_path, cache_dir=cache_dir)
    config = nano_config.change(total_steps=8, name="dear").replace(
        selector=Policy("top_influence", trust="off", factor_rows=16),
        selection={"share": 0.1, "reference_rows": 12, "checkpoint": str(judge.path)},
    )
    return train(config, tmp_path, cache_dir=cache_dir)


def test_a_baseline_gets_what_another_run_cost(nano_config, cache_dir, tmp_path, dear):
    plain = nano_config.change(name="plain", match_run=str(dear.path))
    run = train(plain, tmp_path, cache_dir=cache_dir)
    compute = dear.summary()["compute"]
    spent = sum(own["flops"] for phase, own in compute.items() if phase != "evaluate")
    # The judge's six steps, not its evaluations.
    assert compute["earlier"]["flops"] == 6 * dear.events("step")[0]["flops"]
    own = run.summary()["compute"]["train"]["flops"]
    assert own <= spent < own + run.events("step")[0]["flops"]
    assert len(run.events("step")) == run.config.training.total_steps > 14
    again = train(plain, tmp_path, cache_dir=cache_dir, if_exists="resume")
    assert again.config == run.config
    (mean, *_) = compare({"plain": [run], "dear": [dear]}, "dear")
    assert mean.outcome == "undecided"


def test_the_run_that_was_matched_is_found_from_anywhere(
    nano_config, cache_dir, tmp_path, dear, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    plain = nano_config.change(name="plain", match_run="dear")
    run = train(plain, tmp_path, cache_dir=cache_dir)
    assert run.config.training.match_run == str(dear.path)
    again = train(plain, tmp_path, cache_dir=cache_dir, if_exists="resume")
    assert again.config == run.config
    monkeypatch.chdir("/")
    assert compare({"plain": [run], "dear": [dear]}, "dear")


def test_runs_of_another_length_compare_only_where_one_matches_the_other(
    nano_config, cache_dir, tmp_path, dear
):
    run = train(nano_config.change(total_steps=9, name="long"), tmp_path, cache_dir=cache_dir)
    with pytest.raises(RunError, match="match_run"):
        compare({"long": [run], "dear": [dear]}, "dear")


@pytest.mark.parametrize(("folder", "says"), [("gone", "not a run"), ("stopped", "is stopped")])
def test_what_cannot_be_matched_is_refused_before_training(
    nano_config, cache_dir, tmp_path, folder, says
):
    if folder == "stopped":
        run = start(
            nano_config.change(total_steps=5000, name=folder), tmp_path, cache_dir=cache_dir
        )
        run.stop()
        run.wait()
    config = nano_config.change(name="new", match_run=str(tmp_path / folder))
    with pytest.raises(RunError, match=says):
        train(config, tmp_path, cache_dir=cache_dir)
    assert not (tmp_path / "new").exists()


def test_a_run_is_built_for_the_length_it_is_matched_to(nano_config, cache_dir, tmp_path, dear):
    """What an agent sees of its progress is a part of that length, on a resume too."""
    config = nano_config.change(total_steps=5, name="matched", match_run=str(dear.path)).replace(
        mixer=Policy("acodm", tracked_layers=1, warmup_steps=4, batch_size=4)
    )
    run = train(config, tmp_path, cache_dir=cache_dir)
    assert run.config.training.total_steps > 10
    assert_same_record(run.fork(10, background=False), run)


@pytest.fixture(scope="module")
def short(nano_config, cache_dir, tmp_path_factory):
    config = nano_config.change(total_steps=3, name="short")
    return train(config, tmp_path_factory.mktemp("short"), cache_dir=cache_dir)


@pytest.mark.parametrize(
    ("selector", "options", "judges"),
    [
        ("top_influence", {}, True),
        ("quad", {}, True),
        ("perplexity", {"band": "low"}, True),
        ("cluster_uniform", {"clusters": 4, "embedder": "hidden"}, True),
        ("cluster_uniform", {"clusters": 4}, False),
        ("random", {}, False),
    ],
)
def test_a_selector_that_judges_with_a_model_cannot_be_matched(
    nano_config, cache_dir, tmp_path, short, selector, options, judges
):
    config = nano_config.change(
        name="new", match_run=str(short.path), selector=Policy(selector, **options)
    )
    if judges:
        with pytest.raises(PolicyError, match=f"'{selector}' will compute with a model is not"):
            train(config, tmp_path, cache_dir=cache_dir)
        assert not (tmp_path / "new").exists()
    else:
        run = train(config, tmp_path, cache_dir=cache_dir)
        assert run.config.training.total_steps == 3


def test_a_judge_that_a_fork_brings_in_is_charged(nano_config, cache_dir, tmp_path, dear):
    run = train(nano_config.change(name="free", total_steps=8), tmp_path, cache_dir=cache_dir)
    changes = {
        "selector": dear.config.selector,
        **{
            f"selection.{name}": value
            for name, value in dear.config.selection.model_dump().items()
            if name in ("share", "reference_rows", "checkpoint")
        },
    }
    forked = run.fork(0, background=False, **changes)
    assert forked.summary()["compute"]["earlier"] == dear.summary()["compute"]["earlier"]

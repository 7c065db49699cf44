"""Recorded signals shown to a mixer again."""

import numpy as np
import pytest

import workbench.mixing  # noqa: F401
from workbench.config import Policy
from workbench.core import MIXERS, ConfigError, RunError
from workbench.replay import counterfactual, task_of
from workbench.training import train

OPTIONS = {"warmup_steps": 4, "batch_size": 4, "tracked_layers": 1}


@pytest.fixture(scope="module")
def run(nano_config, cache_dir, tmp_path_factory):
    config = nano_config.replace(mixer=Policy("acodm", **OPTIONS)).change(total_steps=30)
    return train(config, tmp_path_factory.mktemp("runs"), cache_dir=cache_dir).folder


def test_the_task_is_that_of_the_run(run, nano_corpus):
    task = task_of(run)
    assert task.names == nano_corpus.domains and task.batch_rows == 8
    drawn = [event["sample_share"] for event in run.events("step")]
    seen = [any(share[name] for share in drawn) for name in task.names]
    assert task.rows_K[seen].tolist() == nano_corpus.rows_K[seen].tolist()


def test_the_same_mixer_proposes_again_what_it_proposed(run):
    trace = counterfactual(MIXERS.build("acodm", task_of(run), **OPTIONS), run)
    recorded = np.array([list(event["mixture"].values()) for event in run.events("step")])
    # Signals were written with six digits, and learning magnifies the rest.
    np.testing.assert_allclose(trace.mixture_NK, recorded, atol=2e-3)
    assert trace.counterfactual and "counterfactual" in repr(trace)
    assert trace.score_N.tolist() == [event["loss"] for event in run.events("step")]


def test_another_mixer_is_asked_what_it_would_have_done(run):
    trace = counterfactual(MIXERS.build("exp3", task_of(run)), run)
    assert trace.mixture_NK.shape == (30, 6)
    assert trace.mixture_NK.sum(axis=1) == pytest.approx(np.ones(30))
    assert np.abs(trace.mixture_NK[-1] - trace.mixture_NK[0]).max() > 1e-4


def test_a_run_without_the_signals_is_refused_with_the_remedy(
    nano_config, cache_dir, tmp_path, run
):
    plain = train(nano_config.change(total_steps=5), tmp_path, cache_dir=cache_dir).folder
    with pytest.raises(RunError, match="recorded no domain_gradients") as error:
        counterfactual(MIXERS.build("alignment", task_of(plain)), plain)
    assert "acodm" in error.value.remedy
    for name, signal, options in (
        ("pike", "row_gradients", {}),
        ("doremi", "excess_loss", {"reference": "none is read"}),
    ):
        with pytest.raises(RunError, match=f"recorded no {signal}") as error:
            counterfactual(name, run, **options)
        assert error.value.remedy.endswith(f": {name}")


@pytest.mark.parametrize("name", ["doremi", "pike"])
def test_a_run_is_enough_to_ask_its_own_mixer_again(nano_config, cache_dir, tmp_path, run, name):
    options = (
        {"reference": str(run.path)} if name == "doremi" else {"tracked_layers": 1, "signal": 99}
    )
    config = nano_config.replace(mixer=Policy(name, **options)).change(total_steps=12)
    own = train(config, tmp_path, cache_dir=cache_dir).folder
    trace = counterfactual(name, own, **options)
    recorded = np.array([list(event["mixture"].values()) for event in own.events("step")])
    np.testing.assert_allclose(trace.mixture_NK, recorded, atol=2e-3)
    assert np.abs(recorded[-1] - recorded[0]).max() > 0.01


def test_another_number_of_layers_than_was_recorded_names_the_option(run):
    with pytest.raises(ConfigError, match="tracked_layers = 2") as error:
        counterfactual("acodm", run, tracked_layers=2)
    assert error.value.remedy == "set tracked_layers=1"

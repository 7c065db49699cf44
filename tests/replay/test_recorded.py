"""Recorded signals shown to a mixer again."""

import numpy as np
import pytest

import workbench.mixing  # noqa: F401
from workbench.config import Policy
from workbench.core import MIXERS, RunError
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
    with pytest.raises(RunError, match="recorded no row_gradients"):
        counterfactual(MIXERS.build("pike", task_of(run)), run)

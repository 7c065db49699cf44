"""Jobs that look for a mixture, and the static runs that use it."""

import json

import numpy as np
import pytest

from workbench.batch import find_mixture
from workbench.batch.equal_cost import compare_at_equal_cost
from workbench.config import Policy
from workbench.core import MIXERS, ConfigError, MixingTask, RunError
from workbench.data import prepare
from workbench.mixing.regmix import best_mixture
from workbench.mixing.surrogate import fit_surrogate
from workbench.training import open_run, train
from workbench.training.loop import Loop
from workbench.training.summary import charged_flops, own_flops


@pytest.fixture
def small(nano_config, cache_dir, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(cache_dir))
    return nano_config.change(total_steps=8, evaluate_every_steps=8)


@pytest.mark.parametrize("method", ["doremi", "doge", "regmix"])
def test_a_job_finds_a_mixture_that_a_static_run_takes(small, tmp_path, method):
    said = []
    options = {"runs": 4} if method == "regmix" else {}
    if method == "doge":  # the model has fewer layers than doge tracks by default
        small = small.replace(mixer=Policy("doge", tracked_layers=1, floor=0.1))
    path = find_mixture(small, tmp_path, method=method, say=said.append, **options)
    found = json.loads(path.read_text())
    assert found["method"] == method and sum(found["mixture"].values()) == pytest.approx(
        1, abs=1e-4
    )
    run = train(small.replace(name="last", mixer=Policy("static", mixture=str(path))), tmp_path)
    used = run.events("step")[0]["mixture"]
    if method == "doge":
        assert open_run(tmp_path / "proxy").config.mixer.options["floor"] == 0.1
    assert used == pytest.approx(found["mixture"], abs=1e-4)
    assert any(method in line for line in said)
    if method == "regmix":
        again = train(
            small.replace(name="again", mixer=Policy("regmix", trials=str(path), floor=0.0)),
            tmp_path,
        )
        assert again.events("step")[0]["mixture"] == pytest.approx(found["mixture"], abs=0.1)
        with pytest.raises(ConfigError, match="cannot read trials over"):
            small_task = MixingTask(("x", "y"), np.array([9, 9]))
            MIXERS.build("regmix", small_task, trials=str(path))


def test_a_job_that_was_killed_goes_on_and_repeats_nothing(small, tmp_path, monkeypatch):
    trained = []
    real = Loop.run

    def dying(self):
        trained.append(self.folder.path.name)
        if len(trained) == 2:
            raise KeyboardInterrupt
        real(self)

    monkeypatch.setattr(Loop, "run", dying)
    with pytest.raises(KeyboardInterrupt):
        find_mixture(small, tmp_path, method="doremi", say=lambda _: None)
    assert not (tmp_path / "mixture.json").exists()
    find_mixture(small, tmp_path, method="doremi", say=lambda _: None)
    assert trained == ["reference", "proxy", "proxy"]


@pytest.mark.parametrize(
    ("method", "runs"),
    [
        ("doremi", ["reference", "proxy"]),
        ("doge", ["proxy"]),
        ("regmix", [f"mixture_{i}" for i in range(4)]),
    ],
)
def test_the_search_for_a_mixture_is_charged_once_to_who_uses_it(small, tmp_path, method, runs):
    if method == "doge":
        small = small.replace(mixer=Policy("doge", tracked_layers=1))
    job, folder = tmp_path / "job", tmp_path / "out"
    options = {"runs": 4} if method == "regmix" else {}
    path = str(find_mixture(small, job, method=method, say=lambda _: None, **options))
    spent = sum(own_flops([open_run(job / name).folder]) for name in runs)
    mixers = [Policy("static", mixture=path), Policy("static", stages={"0": path, "4": path})]
    mixers += [Policy("regmix", trials=path)] if method == "regmix" else []
    for i, mixer in enumerate(mixers):
        run = train(small.replace(name=f"mixed{i}", mixer=mixer), folder)
        assert run.summary()["compute"]["earlier"]["flops"] == pytest.approx(spent)
        assert run.summary()["not_charged"] == []
    assert charged_flops(run.folder) == pytest.approx(spent + own_flops([run.folder]))
    # A baseline may spend the search on steps of its own.
    plain = small.replace(name="plain", mixer=Policy("static"))
    matched = train(plain.change(match_run=str(run.path)), folder)
    step = matched.events("step")[0]["flops"]
    assert 0 <= charged_flops(run.folder) - charged_flops(matched.folder) < step


def test_a_search_that_is_gone_is_named_and_cannot_be_matched(small, tmp_path):
    path = find_mixture(small, tmp_path / "job", method="doremi", say=lambda _: None)
    moved = tmp_path / "moved.json"
    moved.write_text(path.read_text())
    mixed = small.replace(name="mixed", mixer=Policy("static", mixture=str(moved)))
    run = train(mixed, tmp_path)
    assert "earlier" not in run.summary()["compute"]
    gone = [str(tmp_path / name) for name in ("reference", "proxy")]
    assert run.summary()["not_charged"] == gone
    _, told = compare_at_equal_cost({"mixed": [run], "proxy": [open_run(tmp_path / "job/proxy")]})
    assert f"{run.path} is compared without the cost of {', '.join(gone)}" in told
    plain = small.replace(name="plain").change(match_run=str(run.path))
    with pytest.raises(RunError, match=f"what made {gone[0]}"):
        train(plain, tmp_path)
    # Nor may a run that needs the search itself be matched as if it were free.
    with pytest.raises(RunError, match=f"what made {gone[0]}"):
        train(mixed.change(name="again", match_run=str(tmp_path / "job/proxy")), tmp_path)
    moved.write_text(json.dumps({"mixture": json.loads(path.read_text())["mixture"]}))
    with pytest.raises(RunError, match=f"what made {moved}"):
        train(plain, tmp_path)


def test_an_unknown_method_names_the_nearest(small, tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'doremi'"):
        find_mixture(small, tmp_path, method="doremy")


@pytest.mark.parametrize(
    ("method", "options", "says"),
    [
        ("regmix", {"runs": 3}, "runs = 3 are too few"),
        ("regmix", {"without": ["nois"]}, "did you mean 'noise'"),
        ("regmix", {"without": "all"}, "leaves no domain"),
        ("doge", {"without": ["noise"]}, "'doge' cannot leave out noise"),
    ],
)
def test_a_job_that_cannot_end_well_is_refused_before_it_trains(
    small, tmp_path, monkeypatch, method, options, says
):
    monkeypatch.setattr(Loop, "run", lambda _: pytest.fail("a run was trained"))
    if options.get("without") == "all":
        corpus = prepare(small.corpus, small.tokenizer, small.rows)
        options = {"without": corpus.domains}
    with pytest.raises(ConfigError, match=says):
        find_mixture(small, tmp_path / "job", method=method, say=lambda _: None, **options)
    assert not (tmp_path / "job").exists()


def test_the_surrogate_finds_the_best_of_a_known_law():
    """Loss falls with the log of the shares, by a third of the way from domain to domain."""
    rng = np.random.default_rng(0)
    mixtures = rng.dirichlet(np.ones(4), 40)
    gains = np.array([0.5, 0.3, 0.15, 0.0])
    losses = 4 - np.log(mixtures + 0.01) @ gains + 0.01 * rng.normal(size=40)
    surrogate = fit_surrogate(mixtures, losses[:, None])
    best = best_mixture(surrogate, domains=4, seed=1)
    assert surrogate.explained_D[0] > 0.9
    law = gains / gains.sum()
    assert np.abs(best - law).max() < 0.1 and best[0] > best[1] > best[2] > best[3]

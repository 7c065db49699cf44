"""Presets: what a comparison holds equal, and what it leaves out."""

from __future__ import annotations

import pytest

from workbench.config import ModelConfig, papers, presets
from workbench.config.paper_recipes import RECIPES
from workbench.core import MIXERS, ConfigError, MixingTask
from workbench.mixing.published import PUBLISHED
from workbench.models.paper_presets import PAPER_PRESETS
from workbench.training.checks import check_policies

SEARCHED = {"doremi", "regmix"}
"""Mixers that need runs of their own first; what they find comes in as a fixed mixture."""


@pytest.mark.parametrize("profile", presets.MIXING_PROFILES)
def test_every_mixer_is_compared_under_the_same_floor(profile):
    study = presets.mixing(profile, mixtures={"best fixed": "mixture.json"})
    compared = {label: configs[0].mixer for label, configs in study.items()}
    assert {policy.options["floor"] for policy in compared.values()} == {presets.MIXING_FLOOR}
    assert {policy.name for policy in compared.values()} | SEARCHED == set(MIXERS.names())
    assert compared["best fixed"].options["mixture"] == "mixture.json"
    assert compared["natural"].options["mixture"] == "natural"
    variants = {p.options["variant"] for p in compared.values() if p.name == "exp3"}
    assert variants == {"paper", "official"}
    for policy in compared.values():
        MIXERS.check(policy.name, policy.options)


def test_regret_is_measured_where_the_best_mixture_is_known_to_leave_out_noise():
    corpora = {
        configs[0].corpus.name
        for profile in presets.MIXING_PROFILES
        for configs in presets.mixing(profile).values()
    }
    assert corpora == {"planted"}


PAPER = {"corpus": "slimpajama-627b", "tokenizer": "own"}


@pytest.mark.parametrize(
    ("model", "peak_lr"), [("pythia-410m", 3e-4), ("pythia-1b", 2.5e-4), ("llama-0.9b", 2.5e-4)]
)
def test_the_experiments_of_ac_odm_have_the_settings_of_the_paper(model, peak_lr):
    study = papers.acodm(model, corpus="pile", tokenizer="neox", agent="proxy")
    assert set(study) == {"static", "odm", "acodm", "acodm_proxy"}
    config = study["acodm"]
    training, optimizer = config.training, config.optimizer
    assert config.model == ModelConfig(name=model) and tokens_of(config) == pytest.approx(
        49e9, 0.01
    )
    assert (training.total_steps, training.batch_rows) == (41_667, 1152)
    assert config.rows.context_tokens == 1024
    assert (optimizer.peak_lr, optimizer.final_lr) == (peak_lr, pytest.approx(peak_lr / 10))
    assert optimizer.warmup_steps == 417 and optimizer.weight_decay == 0.1
    assert optimizer.betas == (0.9, 0.95) and optimizer.clip_norm == 1
    assert config.mixer.options["warmup_steps"] == study["odm"].mixer.options["warmup_steps"] == 834
    assert config.corpus.max_domain_mb is None and 41_500 % training.evaluate_every_steps == 0
    assert study["acodm_proxy"].mixer.options["agent"] == "proxy"


@pytest.mark.parametrize(
    ("model", "rows", "temperature"),
    [("gpt2-124m", 48, 1.0), ("gpt2-209m", 32, 0.4), ("gpt2-294m", 32, 0.4)],
)
def test_the_experiments_of_reweighting_have_the_settings_of_the_paper(model, rows, temperature):
    study = papers.reweighting(model, **PAPER)
    config = study["linupper"]
    training, optimizer = config.training, config.optimizer
    assert (config.rows.context_tokens, training.batch_rows) == (512, rows)
    assert (training.total_steps, optimizer.warmup_steps) == (20_000, 500)
    assert (optimizer.peak_lr, optimizer.final_lr) == (5e-4, 1e-4)
    assert (optimizer.weight_decay, optimizer.clip_norm) == (0.01, 1.0)
    assert config.reweighter.options["temperature"] == temperature
    assert config.reweighter.options["warmup_steps"] == 1000
    assert study["uniform"].reweighter.name == "uniform"
    assert {p.reweighter.name for p in study.values()} == {
        *("uniform", "linupper", "quadratic", "extremes")
    }
    assert study["doge_linupper"].mixer.options["mixture"] == "slimpajama-doge"
    assert study["doremi_uniform"].reweighter.name == "uniform"
    assert all(own.name == label for label, own in study.items())


@pytest.mark.parametrize("model", ["llama-1.4b", "llama-7b"])
def test_the_large_models_of_reweighting_have_the_settings_of_the_paper(model):
    config = papers.reweighting(model, **PAPER)["linupper"]
    assert config.rows.context_tokens == 4096 and config.training.precision == "bfloat16"
    assert config.optimizer.peak_lr == 3e-4 and config.optimizer.betas == (0.9, 0.95)
    assert config.reweighter.options["temperature"] == 0.4
    assert config.training.batch_rows % 64 == 0


def test_the_experiments_of_quad_have_the_settings_of_the_paper():
    study = papers.quad("quad-1.3b", **PAPER, checkpoint="judge", reference="lambada.txt")
    assert set(study) == {"random", "perplexity", "quad"}
    config = study["quad"]
    assert config.rows.context_tokens == 1024 and config.training.total_steps == 7500
    assert config.training.batch_rows * 1024 == pytest.approx(4e6, rel=0.05)
    assert tokens_of(config) == pytest.approx(30e9, rel=0.05)
    assert config.optimizer.peak_lr == 5e-5 and config.optimizer.betas == (0.9, 0.95)
    assert config.selection.budget_tokens == 30e9
    assert (config.selection.checkpoint, config.selection.reference) == ("judge", "lambada.txt")
    options = config.selector.options
    assert (options["alpha"], options["tau"], options["clusters"]) == (1e-4, 0.0020, 10_000)
    assert (options["arms_per_round"], options["samples_per_pull"]) == (50, 10)
    assert options["neighbour_distance"] == 0.2 and options["variant"] == "paper"
    assert papers.quad("llama-7b", **PAPER)["quad"].model.name == "llama-7b"


EXPERIMENTS = [
    *((papers.acodm, model) for model in papers.ACODM_MODELS),
    *((papers.reweighting, model) for model in papers.REWEIGHTING_MODELS),
    *((papers.quad, model) for model in papers.QUAD_MODELS),
]


@pytest.mark.parametrize(("experiment", "model"), EXPERIMENTS)
def test_the_policies_of_every_experiment_are_known_with_their_options(experiment, model):
    for config in experiment(model, **PAPER).values():
        check_policies(config)
    with pytest.raises(ConfigError, match=f"did you mean '{model}'"):
        experiment(model.upper(), **PAPER)


def test_every_published_model_has_an_experiment_and_a_recipe():
    assert {model for _, model in EXPERIMENTS} == set(RECIPES) == set(PAPER_PRESETS)
    plain = papers.pretraining("gpt2-124m", corpus="texts")
    assert plain.tokenizer.name == "openai-community/gpt2" and plain.corpus.max_document_kb is None
    assert plain.selector is None and plain.mixer.options == {"mixture": "natural"}


def test_the_mixers_of_the_experiments_can_be_built_on_the_pile():
    domains = tuple(PUBLISHED["pile"])
    task = MixingTask(domains, [10**6] * 22, batch_rows=1152, total_steps=41_667)
    for config in papers.acodm("pythia-1b", corpus="pile", tokenizer="neox").values():
        mixture = MIXERS.build(config.mixer.name, task, **config.mixer.options).propose(0)
        assert len(mixture.probability_K) == 22


def tokens_of(config):
    training = config.training
    return training.total_steps * training.batch_rows * config.rows.context_tokens


@pytest.mark.parametrize("profile", presets.TOGETHER_SEEDS)
def test_all_together_can_be_compared_with_as_many_rows_taken_at_random(profile):
    study = presets.together(profile, against="random")
    selection = study["quad"][0].selection
    pool = presets.together(profile)
    for label, configs in study.items():
        for config, plain in zip(configs, pool[label], strict=True):
            assert config.selection == selection
            if "quad" in label:
                assert config == plain
                continue
            assert config.selector.name == "random" and plain.selector is None
            assert config.name == f"{plain.name}_random"
            alike = {"name": plain.name, "selector": plain.selector, "selection": plain.selection}
            assert config.replace(**alike) == plain
    with pytest.raises(ConfigError, match="rndom"):
        presets.together(profile, against="rndom")  # type: ignore[arg-type]


@pytest.mark.parametrize("profile", presets.TOGETHER_SEEDS)
def test_every_evaluation_of_all_together_has_a_checkpoint_that_is_kept(profile):
    training = presets.together(profile)["quad"][0].training
    every = training.evaluate_every_steps
    assert training.checkpoint_every_steps == every
    # One more is of the choice.
    assert training.keep_checkpoints > training.total_steps // every
    given = presets.together(profile, checkpoint_every_steps=7, keep_checkpoints=1)
    given = given["none"][0].training
    assert (given.checkpoint_every_steps, given.keep_checkpoints) == (7, 1)

"""Presets: what a comparison holds equal, and what it leaves out."""

from __future__ import annotations

import pytest
import torch

import workbench.mixing  # noqa: F401  (fills the registry)
from workbench.config import papers, presets
from workbench.core import MIXERS, ConfigError, MixingTask
from workbench.mixing.published import PUBLISHED
from workbench.models.layers import tracked_layers

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


@pytest.mark.parametrize(
    ("model", "parameters", "layers", "peak_lr"),
    [("pythia-410m", 405_334_016, 24, 3e-4), ("pythia-1b", 1_011_781_632, 16, 2.5e-4)],
)
def test_the_experiments_of_ac_odm_have_the_settings_of_the_paper(
    model, parameters, layers, peak_lr
):
    study = papers.acodm(model, corpus="pile", tokenizer="neox", agent="proxy")
    assert set(study) == {"static", "odm", "acodm", "acodm_proxy"}
    config = study["acodm"]
    built = on_no_device(config.model)
    assert sum(p.numel() for p in built.parameters()) == parameters
    assert len(tracked_layers(built, layers)) == layers
    training, optimizer = config.training, config.optimizer
    tokens = training.total_steps * training.batch_rows * config.rows.context_tokens
    assert tokens == pytest.approx(49e9, rel=0.01) and training.total_steps == 41_667
    assert (training.batch_rows, config.rows.context_tokens) == (1152, 1024)
    assert (optimizer.peak_lr, optimizer.final_lr) == (peak_lr, pytest.approx(peak_lr / 10))
    assert optimizer.warmup_steps == 417 and optimizer.weight_decay == 0.1
    assert optimizer.betas == (0.9, 0.95) and optimizer.clip_norm == 1
    assert config.mixer.options["warmup_steps"] == study["odm"].mixer.options["warmup_steps"] == 834
    assert config.corpus.max_domain_mb is None and 41_500 % training.evaluate_every_steps == 0
    assert study["acodm_proxy"].mixer.options["agent"] == "proxy"


def test_the_mixers_of_the_experiments_can_be_built_on_the_pile():
    domains = tuple(PUBLISHED["pile"])
    task = MixingTask(domains, [10**6] * 22, batch_rows=1152, total_steps=41_667)
    for config in papers.acodm("pythia-1b", corpus="pile", tokenizer="neox").values():
        mixture = MIXERS.build(config.mixer.name, task, **config.mixer.options).propose(0)
        assert len(mixture.probability_K) == 22
    with pytest.raises(ConfigError, match="did you mean 'pythia-1b'"):
        papers.acodm("pythia-1B", corpus="pile", tokenizer="neox")


def on_no_device(model):
    """The model's shape, without its weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(model.name, **model.overrides))

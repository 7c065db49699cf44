"""notebooks/params/: each file is one run of 80_pretrain, with the settings of its paper."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.batch import read_parameters
from workbench.config import RunConfig, papers, presets
from workbench.core import ConfigError
from workbench.kernels.domain_gradients import projection_error
from workbench.training.checks import check_policies

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
TEMPLATE = NOTEBOOKS / "80_pretrain.ipynb"
FILES = {path.stem: path for path in sorted((NOTEBOOKS / "params").glob("*.yaml"))}
EXPERIMENTS = {
    **{
        f"reweighting-{model}": lambda model=model: papers.reweighting(model)["linupper"]
        for model in papers.REWEIGHTING_MODELS
    },
    **{
        f"acodm-{model}": lambda model=model: papers.acodm(model)["acodm"]
        for model in papers.ACODM_MODELS
    },
    "quad-1.3b": lambda: papers.quad(
        "quad-1.3b", checkpoint="runs/judge", reference="reference.jsonl"
    )["quad"],
}
SPREADING = ("micro_batch_rows", "parallel", "activation_checkpointing")
"""How a run lies over its devices, which a paper's result does not depend on."""


def config_of(values: dict) -> RunConfig:
    taken = {k: v for k, v in values.items() if k not in ("out_dir", "devices")}
    return presets.pretraining(taken.pop("profile"), **taken)


def test_there_is_a_file_for_every_experiment_and_one_of_the_size_of_a_test():
    assert set(FILES) == {*EXPERIMENTS, "ci"}
    assert read_parameters(FILES["ci"], TEMPLATE)["profile"] == "ci"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_parameter_file_is_the_experiment_of_its_paper(name):
    values = read_parameters(FILES[name], TEMPLATE)
    config, expected = config_of(values), EXPERIMENTS[name]()
    as_in_paper = {name: getattr(expected.training, name) for name in SPREADING}
    assert config.change(**as_in_paper) == expected
    check_policies(config)
    assert config.training.batch_rows % values["devices"] == 0
    assert values["out_dir"] == f"runs/{name}"


@pytest.mark.parametrize("model", papers.ACODM_MODELS)
def test_ranks_exchange_sketches_of_gradients_and_the_file_says_how_exact_they_are(model):
    options = papers.acodm(model)["acodm"].mixer.options
    stated = f"{projection_error(options['projection_width']):.2f} at most"
    assert stated in FILES[f"acodm-{model}"].read_text()


@pytest.mark.parametrize("name", FILES)
def test_every_file_can_be_rehearsed_at_the_size_of_a_test(name):
    values = {**read_parameters(FILES[name], TEMPLATE), "profile": "ci", "settings": {}}
    config = config_of(values)
    assert config.corpus.name == "planted" and config.training.total_steps <= 30


def test_a_parameter_that_the_notebook_does_not_have_is_refused(tmp_path):
    for text, message in (
        ("modle: tiny", "unknown parameter 'modle' of 80_pretrain.ipynb.*did you mean 'model'"),
        ("model: [", "cannot read parameters"),
        ("- model", "cannot read parameters"),
    ):
        (tmp_path / "p.yaml").write_text(text)
        with pytest.raises(ConfigError, match=message):
            read_parameters(tmp_path / "p.yaml", TEMPLATE)


def test_settings_come_as_a_mapping_or_as_the_text_that_papermill_passes():
    config = presets.pretraining("ci", settings='{"peak_lr": 0.5}', seed=3)
    assert config == presets.pretraining("ci", settings={"peak_lr": 0.5}, seed=3)
    assert (config.optimizer.peak_lr, config.seed) == (0.5, 3)
    with pytest.raises(ConfigError, match="are not JSON"):
        presets.pretraining("ci", settings="peak_lr=0.5")
    with pytest.raises(ConfigError, match=r"unknown setting 'peak_rl'.*did you mean 'peak_lr'"):
        presets.pretraining("ci", settings={"peak_rl": 0.5})


def test_a_paper_model_brings_its_settings_and_a_small_one_keeps_the_profile():
    assert presets.pretraining("demo", "llama-1.4b") == papers.pretraining("llama-1.4b")
    own = presets.pretraining("demo", "llama-1.4b", "texts/*.jsonl").corpus
    assert own.name == "texts/*.jsonl" and own.max_domain_mb is None
    small = presets.pretraining("demo", "tiny", "planted")
    assert (small.model.name, small.corpus.name) == ("tiny", "planted")
    assert small.training == presets.pretraining("demo").training

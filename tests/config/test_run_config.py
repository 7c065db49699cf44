"""Strict settings: typos, wrong types and contradictions are one-line errors with a remedy."""

from __future__ import annotations

import json

import pytest

import workbench.mixing
import workbench.reweighting  # noqa: F401  (fills the registries whose option names are resolved)
from workbench.config import Policy, RowsConfig, RunConfig, TrainingConfig
from workbench.core import REWEIGHTERS, ConfigError


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RunConfig(sed=1), r"unknown field 'sed' in RunConfig — did you mean 'seed'\?"),
        (
            lambda: RunConfig(training={"total_step": 5}),
            r"unknown field 'total_step' in TrainingConfig — did you mean 'total_steps'\?",
        ),
        (lambda: TrainingConfig(total_steps=0), r"TrainingConfig.total_steps = 0: .* — correct"),
        (lambda: RowsConfig(context_tokens="many"), r"RowsConfig.context_tokens = 'many'"),
        (
            lambda: RunConfig(training={"precision": "float8"}),
            r"TrainingConfig.precision = 'float8'",
        ),
    ],
    ids=["field", "nested field", "bound", "type", "choice"],
)
def test_a_wrong_setting_is_named_at_once(build, message):
    with pytest.raises(ConfigError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["", " ", ".", "..", "../esc", "a/b", "/tmp", "a\\b", "a\nb", "a\n", "x\0", "x" * 201]
)
def test_a_name_that_leaves_the_folder_of_runs_is_refused(name):
    for build in (lambda: RunConfig(name=name), lambda: RunConfig().change(name=name)):
        with pytest.raises(ConfigError, match=r"RunConfig.name = .* — give 1 to 200") as caught:
            build()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["run", "linupper_seed0", "a b", ".hidden", "v1.2", "größe"])
def test_a_name_of_one_folder_is_taken(name):
    assert RunConfig(name=name).name == name


def test_an_unknown_policy_names_the_nearest():
    policy = RunConfig(reweighter="linuper").reweighter
    with pytest.raises(ConfigError, match=r"unknown reweighter 'linuper' — did you mean 'linupp"):
        REWEIGHTERS.check(policy.name, policy.options)


def test_micro_batches_divide_the_batch():
    with pytest.raises(ConfigError, match="set batch_rows to 8"):
        RunConfig(training={"batch_rows": 10, "micro_batch_rows": 4})


def test_settings_are_frozen():
    with pytest.raises(Exception, match="frozen"):
        RunConfig().seed = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    "value",
    [
        "linupper",
        {"name": "linupper", "temperature": 0.4},
        {"name": "linupper", "options": {"temperature": 0.4}},
        Policy("linupper", temperature=0.4),
    ],
    ids=["name", "flat", "nested", "policy"],
)
def test_a_policy_is_written_in_any_of_four_ways(value):
    policy = RunConfig(reweighter=value).reweighter
    assert policy.name == "linupper"
    assert policy.options == ({} if value == "linupper" else {"temperature": 0.4})


def test_a_corpus_or_model_can_be_just_a_name(tmp_path):
    config = RunConfig(corpus=tmp_path, model="small", tokenizer="bpe")
    assert config.corpus.name == str(tmp_path)
    assert (config.model.name, config.tokenizer.name) == ("small", "bpe")


def test_a_config_round_trips_through_json(tmp_path):
    config = RunConfig(
        seed=3,
        corpus={"name": "planted", "domains": ("clean", "noise")},
        mixer=Policy("static", weights={"clean": 1.0, "noise": 2.0}),
        reweighter=Policy("linupper", temperature=0.4),
    )
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config.to_dict()))
    assert RunConfig.read(path) == config
    path.write_text(json.dumps({"config": config.to_dict(), "environment": {}}))
    assert RunConfig.read(path) == config


@pytest.mark.parametrize("content", [None, "{not json", "[1, 2]"])
def test_an_unreadable_config_file_is_named(tmp_path, content):
    path = tmp_path / "config.json"
    if content:
        path.write_text(content)
    with pytest.raises(ConfigError, match=r"cannot read a config from .*config\.json"):
        RunConfig.read(path)


def test_short_names_find_their_part():
    config = RunConfig().change(total_steps=7, peak_lr=1e-3, context_tokens=64, seed=4)
    assert config.training.total_steps == 7
    assert config.optimizer.peak_lr == 1e-3
    assert config.rows.context_tokens == 64
    assert config.seed == 4


def test_change_returns_a_new_config_and_validates_it():
    config = RunConfig()
    assert config.change(total_steps=7) != config
    assert config.training.total_steps == RunConfig().training.total_steps
    with pytest.raises(ConfigError, match="total_steps = -1"):
        config.change(total_steps=-1)


def test_an_option_of_the_policy_in_use_is_a_short_name():
    config = RunConfig(reweighter="linupper").change(temperature=0.25)
    assert config.reweighter.options["temperature"] == 0.25


def test_a_dotted_name_reaches_one_part():
    config = RunConfig().change(**{"corpus.name": "planted", "tokenizer.vocab_size": 512})
    assert (config.corpus.name, config.tokenizer.vocab_size) == ("planted", 512)


def test_an_ambiguous_short_name_lists_the_choices():
    with pytest.raises(ConfigError, match="is ambiguous — write one of: ") as caught:
        RunConfig(reweighter=Policy("linupper", peak_lr=1)).change(peak_lr=2)
    assert "optimizer.peak_lr" in str(caught.value)
    assert "reweighter.peak_lr" in str(caught.value)


def test_an_unknown_short_name_suggests_the_nearest():
    with pytest.raises(ConfigError, match=r"unknown setting 'totl_steps' — did you mean 'total_s"):
        RunConfig().change(totl_steps=3)


def test_every_field_path_can_be_changed_to_its_own_value():
    config = RunConfig()
    for path in config.field_paths():
        part, name = path.split(".")
        assert config.change(**{path: getattr(getattr(config, part), name)}) == config

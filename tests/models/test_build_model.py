"""Building decoders: presets, model types, folders, seeds, and every refusal."""

from __future__ import annotations

import socket

import numpy as np
import pytest
import torch

from workbench.config import ModelConfig
from workbench.core import ConfigError, ModelError
from workbench.models import PRESETS, build_model, build_shape

SHALLOW = {
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}
GPT2_SHALLOW = {"n_layer": 2, "n_embd": 32, "n_head": 2}


def build(name="tiny", *, vocab_size=320, context_tokens=16, seed=0, **options):
    config = ModelConfig(name=str(name), **options)
    return build_model(config, vocab_size=vocab_size, context_tokens=context_tokens, seed=seed)


@pytest.mark.parametrize(
    ("name", "vocab_size", "context_tokens", "low", "high"),
    [
        ("tiny", 4096, 128, 1.25e6, 1.35e6),
        ("small", 8192, 256, 9.8e6, 10.2e6),
        ("mini-124m", 50257, 1024, 124.4e6, 124.5e6),
    ],
)
def test_presets_have_the_promised_size(name, vocab_size, context_tokens, low, high):
    decoder = build(name, vocab_size=vocab_size, context_tokens=context_tokens)
    assert low < decoder.parameter_count < high
    assert decoder.head_VD.shape[0] == vocab_size


def test_no_preset_opens_a_connection(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("a preset tried the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for name in PRESETS:
        build_shape(ModelConfig(name=name), vocab_size=320, context_tokens=16)
    build("tiny")


def test_seed_decides_the_weights_and_nothing_else_does():
    torch.manual_seed(1)
    first = build(seed=3)
    torch.manual_seed(2)
    same, other = build(seed=3), build(seed=4)
    assert all(map(torch.equal, first.parameters(), same.parameters()))
    assert not torch.equal(first.head_VD, other.head_VD)


def test_global_random_state_is_untouched():
    torch.manual_seed(11)
    np.random.seed(11)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    build()
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(numpy_before, np.random.get_state()[1])


@pytest.mark.parametrize(
    ("name", "overrides"), [("tiny", {}), ("gpt2", GPT2_SHALLOW), ("qwen2", SHALLOW)]
)
def test_training_mode_without_dropout_is_deterministic(name, overrides):
    decoder = build(name, overrides=overrides)
    tokens_BT = torch.arange(16).repeat(2, 1)
    assert decoder.training
    assert torch.equal(decoder.hidden(tokens_BT), decoder.hidden(tokens_BT))


def test_dropout_can_be_asked_for():
    decoder = build("gpt2", overrides={**GPT2_SHALLOW, "resid_pdrop": 0.5})
    tokens_BT = torch.arange(16).repeat(2, 1)
    assert not torch.equal(decoder.hidden(tokens_BT), decoder.hidden(tokens_BT))


@pytest.mark.parametrize("alias", ["n_layer", "num_hidden_layers"])
def test_overrides_work_under_both_names_of_a_field(alias):
    overrides = {**GPT2_SHALLOW, "n_layer": 2, alias: 1}
    if alias == "num_hidden_layers":
        del overrides["n_layer"]
    assert build("gpt2", overrides=overrides).config.n_layer == 1


def test_derived_fields_follow_overrides():
    decoder = build("tiny", overrides={"hidden_size": 64, "num_attention_heads": 2})
    assert decoder.config.head_dim == 32


def test_no_token_is_treated_as_padding():
    shape = {"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2, "ffn_dim": 48}
    decoder = build("opt", overrides=shape)
    embedding = decoder.model.get_input_embeddings()
    assert embedding.padding_idx is None
    assert embedding.weight[1].abs().sum() > 0


def test_unknown_model_names_the_nearest():
    with pytest.raises(ConfigError, match=r"unknown model 'tiney'.*'tiny'"):
        build("tiney")


def test_unknown_override_names_the_nearest():
    with pytest.raises(ConfigError, match=r"'hiden_size' of model 'llama'.*'hidden_size'"):
        build("llama", overrides={"hiden_size": 32})


def test_contradicting_override_is_a_config_error():
    with pytest.raises(ConfigError, match="attention heads"):
        build("tiny", overrides={"num_attention_heads": 3})


def test_small_vocabulary_says_both_numbers():
    with pytest.raises(ModelError, match="200 entries, the tokenizer's 320"):
        build("tiny", overrides={"vocab_size": 200})


def test_a_padded_vocabulary_is_allowed():
    assert build("tiny", overrides={"vocab_size": 384}).head_VD.shape[0] == 384


def test_rows_longer_than_the_positions_are_refused():
    with pytest.raises(ModelError, match="2048 tokens, the model has positions for 1024"):
        build("gpt2", overrides=GPT2_SHALLOW, context_tokens=2048)


def test_pretrained_needs_a_folder():
    with pytest.raises(ConfigError, match="'tiny' is none"):
        build("tiny", pretrained=True)


def test_unsupported_attention_is_refused_not_replaced():
    with pytest.raises(ModelError, match=r"scaled_dot_product.*eager"):
        build("gptj", overrides={**GPT2_SHALLOW, "rotary_dim": 4})


class TestFolder:
    @pytest.fixture
    def saved(self, tmp_path):
        decoder = build("gpt2", overrides=GPT2_SHALLOW, seed=5)
        decoder.model.save_pretrained(tmp_path)
        return tmp_path, decoder

    def test_weights_are_loaded_only_when_asked(self, saved):
        folder, decoder = saved
        assert torch.equal(build(folder, pretrained=True).head_VD, decoder.head_VD)
        assert not torch.equal(build(folder, seed=6).head_VD, decoder.head_VD)

    def test_shape_of_the_folder_with_the_tokenizer_s_vocabulary(self, saved):
        decoder = build(saved[0], vocab_size=500)
        assert decoder.head_VD.shape == (500, 32)

    def test_weights_with_a_smaller_vocabulary_are_refused(self, saved):
        with pytest.raises(ModelError, match="320 entries, the tokenizer's 500"):
            build(saved[0], pretrained=True, vocab_size=500)

    def test_incomplete_weights_are_refused(self, saved):
        with pytest.raises(ModelError, match=r"lack 1[0-9] tensors"):
            build(saved[0], pretrained=True, overrides={"n_layer": 3})

    def test_a_folder_without_config_is_named(self, tmp_path):
        with pytest.raises(ConfigError, match=r"config\.json"):
            build(tmp_path)

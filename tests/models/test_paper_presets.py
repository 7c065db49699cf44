"""The published models, shape by shape, without their weights."""

from __future__ import annotations

import pytest
import torch

from workbench.config import ModelConfig
from workbench.core import ConfigError, ModelError
from workbench.models import PRESETS, build_model, build_shape
from workbench.models.layers import tracked_layers
from workbench.models.paper_presets import PAPER_PRESETS


def gpt2(layers, width, context, vocab=50_257):
    """Tied embedding, positions, two norms a block and one more; every map has a bias."""
    block = 12 * width**2 + 13 * width
    return (vocab + context) * width + layers * block + 2 * width


def neox(layers, width, vocab=50_304):
    block = 12 * width**2 + 13 * width
    return 2 * vocab * width + layers * block + 2 * width


def llama(layers, width, mlp, vocab=32_000):
    block = 4 * width**2 + 3 * width * mlp + 2 * width
    return 2 * vocab * width + layers * block + width


EXPECTED = {
    # name: (rows' tokens of the experiment, closed formula, total)
    "gpt2-124m": (512, gpt2(12, 768, 512), 124_046_592),
    "gpt2-209m": (512, gpt2(24, 768, 512), 209_101_056),
    "gpt2-294m": (512, gpt2(36, 768, 512), 294_155_520),
    "pythia-410m": (1024, neox(24, 1024), 405_334_016),
    "pythia-1b": (1024, neox(16, 2048), 1_011_781_632),
    "llama-0.9b": (1024, llama(16, 2048, 5120), 902_891_520),
    "quad-1.3b": (1024, llama(24, 2048, 5504), 1_345_423_360),
    "llama-1.4b": (4096, llama(24, 2048, 5632), 1_364_297_728),
    "llama-7b": (4096, llama(32, 4096, 11_008), 6_738_415_616),
}
HEADS = {"gpt2-209m": 16, "gpt2-294m": 24, "quad-1.3b": 16, "llama-1.4b": 16, "llama-7b": 32}


def shape(name, context_tokens, **overrides):
    config = ModelConfig(name=name, overrides=overrides)
    return build_shape(config, vocab_size=400, context_tokens=context_tokens)


def test_every_model_of_a_paper_is_counted_here():
    assert set(EXPECTED) == set(PAPER_PRESETS) <= set(PRESETS)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_published_model_has_its_exact_parameter_count(name):
    context_tokens, formula, total = EXPECTED[name]
    decoder = shape(name, context_tokens)
    assert decoder.parameter_count == formula == total
    assert {p.device for p in decoder.parameters()} == {torch.device("meta")}
    assert decoder.config.num_attention_heads == HEADS.get(name, decoder.config.num_attention_heads)
    assert len(tracked_layers(decoder, 3)) == 3


def test_gpt2_with_1024_positions_is_the_published_124_million():
    assert shape("gpt2-124m", 1024).parameter_count == 124_439_808
    assert PRESETS["mini-124m"] is PRESETS["gpt2-124m"]


def test_a_tokenizer_larger_than_the_published_vocabulary_is_refused():
    with pytest.raises(ModelError, match="32000 entries, the tokenizer's 50257"):
        build_shape(ModelConfig(name="llama-1.4b"), vocab_size=50_257, context_tokens=128)
    with pytest.raises(ConfigError, match=r"unknown model .*did you mean 'llama-1.4b'"):
        build_shape(ModelConfig(name="llama-1.5b"), vocab_size=300, context_tokens=128)


def test_the_shape_is_that_of_the_model_that_is_trained():
    overrides = {"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2}
    config = ModelConfig(name="llama-1.4b", overrides={**overrides, "vocab_size": 320})
    built = build_model(config, vocab_size=320, context_tokens=16, seed=0)
    empty = build_shape(config, vocab_size=320, context_tokens=16)
    assert {n: p.shape for n, p in built.named_parameters()} == {
        n: p.shape for n, p in empty.named_parameters()
    }
    assert empty.flops_per_token == built.flops_per_token

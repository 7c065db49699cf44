"""Decoders of width 8 in float64, small enough for an exact Gauss-Newton matrix."""

import numpy as np
import pytest

from workbench.config import ModelConfig
from workbench.models import build_model

TOKENS = 6
VOCAB = 12
OPT = {
    "num_hidden_layers": 2,
    "hidden_size": 8,
    "word_embed_proj_dim": 8,
    "ffn_dim": 16,
    "num_attention_heads": 2,
    "init_std": 0.6,
    "attn_implementation": "eager",
}
"""Two layers of q, k, v, o and two maps of the MLP: 12 modules."""
GPT2 = {"n_layer": 1, "n_embd": 8, "n_head": 2, "initializer_range": 0.6}
"""Fused qkv, and `Conv1D`."""


def small_decoder(name="opt", **overrides):
    fields = {**(OPT if name == "opt" else GPT2), **overrides}
    config = ModelConfig(name=name, overrides=fields)
    return build_model(config, vocab_size=VOCAB, context_tokens=TOKENS, seed=0).double()


def small_rows(rows, seed=0):
    return np.random.default_rng(seed).integers(0, VOCAB, (rows, TOKENS + 1))


@pytest.fixture(scope="session")
def decoder():
    return small_decoder()

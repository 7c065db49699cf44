"""The decoder's view of a model, and the refusal of models that view would misread."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from workbench.config import ModelConfig
from workbench.core import ModelError
from workbench.models import build_model, require_plain_head

SHALLOW = {
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


def build(name="tiny", **overrides):
    config = ModelConfig(name=name, overrides=overrides)
    return build_model(config, vocab_size=320, context_tokens=16, seed=0)


def rows(count=3):
    tokens = torch.randint(0, 320, (count, 17), generator=torch.Generator().manual_seed(0))
    return tokens[:, :-1], tokens[:, 1:]


@pytest.mark.parametrize("name", ["tiny", "gpt2"])
def test_hidden_and_head_give_the_model_s_own_loss(name):
    decoder = build(name, **({"n_layer": 2, "n_embd": 32, "n_head": 2} if name == "gpt2" else {}))
    tokens_BT, labels_BT = rows()
    logits_BTV = decoder.model(input_ids=tokens_BT).logits
    expected = F.cross_entropy(logits_BTV.flatten(0, 1), labels_BT.flatten())
    torch.testing.assert_close(decoder(tokens_BT, labels_BT).mean(), expected)


def test_hidden_makes_no_logits():
    decoder = build()
    head = decoder.model.get_output_embeddings()
    head.register_forward_hook(lambda *_: pytest.fail("logits were computed"))
    assert decoder.hidden(rows()[0]).shape == (3, 16, 128)


def test_tied_weights_are_counted_once():
    tied, untied = build(), build(tie_word_embeddings=False)
    assert tied.head_VD is tied.model.get_input_embeddings().weight
    assert untied.parameter_count - tied.parameter_count == 320 * 128


def test_flops_count_what_multiplies():
    decoder = build("tiny", tie_word_embeddings=False)
    width, layers, context_tokens = 128, 4, 16
    multiplied = decoder.parameter_count - 320 * width
    attention = 12 * layers * width * context_tokens
    assert decoder.flops_per_token == 6 * multiplied + attention
    assert build().flops_per_token == decoder.flops_per_token


def test_flops_leave_out_position_tables():
    shape = {"n_layer": 2, "n_embd": 32, "n_head": 2}
    few, many = build("gpt2", **shape), build("gpt2", n_positions=2048, **shape)
    assert many.parameter_count > few.parameter_count
    assert many.flops_per_token == few.flops_per_token


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("gemma2", {**SHALLOW, "head_dim": 16, "attn_implementation": "eager"}),
        ("cohere", SHALLOW),
        ("granite", {**SHALLOW, "logits_scaling": 8.0}),
    ],
    ids=["capped", "scaled", "divided"],
)
def test_logits_that_are_not_hidden_times_head_are_refused(name, overrides):
    with pytest.raises(ModelError, match="capped, scaled or shifted"):
        build(name, **overrides)


def test_without_the_cap_the_same_model_is_accepted():
    build(
        "gemma2",
        **SHALLOW,
        head_dim=16,
        attn_implementation="eager",
        final_logit_softcapping=None,
    )


def test_a_head_bias_is_refused_even_while_it_is_zero():
    with pytest.raises(ModelError, match="bias"):
        build("phi", **SHALLOW)


def test_a_model_that_sees_the_future_is_refused():
    decoder = build()
    for layer in decoder.model.base_model.layers:
        layer.self_attn.is_causal = False
    with pytest.raises(ModelError, match="tokens after it"):
        require_plain_head(decoder.model)


def test_the_probe_leaves_the_model_as_it_was():
    decoder = build()
    before = {name: value.clone() for name, value in decoder.state_dict().items()}
    require_plain_head(decoder.model)
    assert decoder.training
    assert not decoder.model.get_output_embeddings()._forward_hooks
    assert all(torch.equal(before[name], value) for name, value in decoder.state_dict().items())

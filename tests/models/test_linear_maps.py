"""Which linear maps of a decoder are tracked, and what is said of the rest."""

import pytest
import torch
from torch import nn

from tests.models.test_layers import SMALL_GPT2, SMALL_NEOX, model
from workbench.core import ModelError
from workbench.models.linear_maps import linear_maps, observed

SMALL_OPT = {
    "num_hidden_layers": 1,
    "hidden_size": 32,
    "word_embed_proj_dim": 32,
    "ffn_dim": 64,
    "num_attention_heads": 2,
}
"""Its MLP is given tokens in one line, (b·T, I)."""
SMALL_PHI3 = {
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
}


def endings(maps, kind):
    return {found.name.split(".")[-1] for found in maps if found.kind == kind}


@pytest.mark.parametrize(
    ("name", "overrides", "attention", "mlp"),
    [
        (
            "tiny",
            {},
            {"q_proj", "k_proj", "v_proj", "o_proj"},
            {"gate_proj", "up_proj", "down_proj"},
        ),
        ("gpt2", SMALL_GPT2, {"c_attn", "c_proj"}, {"c_fc", "c_proj"}),
        ("gpt_neox", SMALL_NEOX, {"query_key_value", "dense"}, {"dense_h_to_4h", "dense_4h_to_h"}),
        ("phi3", SMALL_PHI3, {"qkv_proj", "o_proj"}, {"gate_up_proj", "down_proj"}),
    ],
)
def test_attention_is_tracked_as_well_as_the_mlp(name, overrides, attention, mlp):
    """Trap of the published code: its filters leave out exactly the attention modules."""
    maps = linear_maps(model(name, **overrides))
    assert endings(maps, "attention") == attention
    assert endings(maps, "mlp") == mlp
    assert not endings(maps, "other")


def test_kinds_can_be_left_out_and_are_then_named():
    decoder = model()
    maps = linear_maps(decoder, attention=False)
    assert {found.kind for found in maps} == {"mlp"}
    left_out = {skip.name: skip for skip in maps.skipped}
    skip = left_out["model.model.layers.0.self_attn.q_proj"]
    assert skip.reason == "attention not asked for"
    width = decoder.config.hidden_size
    assert skip.share == pytest.approx(width**2 / decoder.parameter_count)
    assert maps.share < linear_maps(decoder).share < 1


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("name", ["tiny", "gpt2", "gpt_neox"])
def test_tracked_and_skipped_parameters_are_all_there_are(name, tie):
    overrides = {"tiny": {}, "gpt2": SMALL_GPT2, "gpt_neox": SMALL_NEOX}[name]
    decoder = model(name, **overrides, tie_word_embeddings=tie)
    maps = linear_maps(decoder, head=True)
    tracked = sum(found.outputs * found.inputs for found in maps)
    assert maps.share == pytest.approx(tracked / decoder.parameter_count)
    assert ("head" in {found.kind for found in maps}) is not tie


def test_a_tied_head_is_named_with_the_embedding_it_shares():
    maps = linear_maps(model("gpt2", **SMALL_GPT2), head=True)
    (head,) = [skip for skip in maps.skipped if skip.name == "model.lm_head"]
    assert "tied to 'model.transformer.wte'" in head.reason
    assert head.share == 0


@pytest.mark.parametrize("name", ["tiny", "gpt2"])
def test_layouts_turn_into_each_other(name):
    decoder = model(name, **({} if name == "tiny" else SMALL_GPT2))
    found = next(one for one in linear_maps(decoder) if one.kind == "mlp")
    a = torch.randn(3, found.inputs)
    expected = found.module(a) - (0 if found.module.bias is None else found.module.bias)
    torch.testing.assert_close(a @ found.to_OI(found.weight).T, expected)
    assert found.from_OI(found.to_OI(found.weight)).shape == found.weight.shape


def test_exactly_the_names_asked_for():
    wanted = ("model.model.layers.1.self_attn.v_proj", "model.model.layers.0.mlp.up_proj")
    assert set(linear_maps(model(), names=wanted).names) == set(wanted)
    with pytest.raises(ModelError, match=r"v_pro' .*did you mean .*v_proj"):
        linear_maps(model(), names=("model.model.layers.1.self_attn.v_pro",))
    with pytest.raises(ModelError, match="embed_tokens' cannot be tracked: embedding"):
        linear_maps(model(), names=("model.model.embed_tokens",))


def test_nothing_to_track_is_refused():
    with pytest.raises(ModelError, match="no linear map is left"):
        linear_maps(nn.LayerNorm(3))


@pytest.mark.parametrize("name", ["tiny", "gpt2", "gpt_neox", "opt"])
def test_products_of_what_is_observed_are_the_weight_gradients(name):
    overrides = {"tiny": {}, "gpt2": SMALL_GPT2, "gpt_neox": SMALL_NEOX, "opt": SMALL_OPT}[name]
    decoder = model(name, **overrides).double()
    tokens = torch.randint(400, (3, 17), generator=torch.Generator().manual_seed(0))
    maps, seen = linear_maps(decoder), {}

    def see(found, a_bTI, s_bTO):
        seen[found.name] = torch.einsum("bto,bti->oi", s_bTO, a_bTI)

    with observed(decoder, maps, see):
        decoder(tokens[:, :-1], tokens[:, 1:]).sum().backward()
    assert all(p.grad is None and p.requires_grad for p in decoder.parameters())
    decoder(tokens[:, :-1], tokens[:, 1:]).sum().backward()
    assert set(seen) == set(maps.names)
    for found in maps:
        torch.testing.assert_close(seen[found.name], found.to_OI(found.weight.grad))


def test_nothing_stays_on_the_model_and_nothing_is_seen_without_autograd():
    decoder, seen = model(), []
    with pytest.raises(RuntimeError), observed(decoder, linear_maps(decoder), seen.append):
        raise RuntimeError
    assert not any(m._forward_hooks for m in decoder.modules())
    assert all(p.requires_grad for p in decoder.parameters())
    with torch.no_grad(), observed(decoder, linear_maps(decoder), seen.append):
        decoder(torch.zeros(1, 4, dtype=torch.long), torch.zeros(1, 4, dtype=torch.long))
    assert not seen


def test_a_map_whose_rows_cannot_be_told_apart_is_named():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.router = nn.Embedding(5, 4), nn.Linear(4, 2)

        def forward(self, tokens):
            return self.router(self.embed(tokens).flatten(0, 1)[1:])

    net = Flat()
    with (
        pytest.raises(ModelError, match="layer 'router' is given a tensor of shape"),
        observed(net, linear_maps(net), print),
    ):
        net(torch.zeros(2, 3, dtype=torch.long))


def test_dropout_is_off_while_observed():
    decoder = model("gpt2", **SMALL_GPT2, resid_pdrop=0.5).train()
    tokens, seen = torch.zeros(2, 9, dtype=torch.long), []
    for _ in range(2):
        with observed(decoder, linear_maps(decoder), lambda _found, _a, s: seen.append(s)):
            decoder(tokens[:, :-1], tokens[:, 1:]).sum().backward()
    half = len(seen) // 2
    assert half and all(map(torch.equal, seen[:half], seen[half:]))
    assert decoder.training

"""Which layers are tracked."""

import pytest

from workbench.config import ModelConfig
from workbench.core import ModelError
from workbench.models import build_model
from workbench.models.layers import depths_of, down_projections, tracked_layers

SMALL_GPT2 = {"n_layer": 3, "n_embd": 32, "n_head": 2}
SMALL_NEOX = {
    "num_hidden_layers": 3,
    "hidden_size": 32,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}


def model(name="tiny", **overrides):
    config = ModelConfig(name=name, overrides=overrides)
    return build_model(config, vocab_size=400, context_tokens=32, seed=0)


@pytest.mark.parametrize(
    ("name", "overrides", "ending"),
    [
        ("tiny", {}, "mlp.down_proj"),
        ("gpt2", SMALL_GPT2, "mlp.c_proj"),
        ("gpt_neox", SMALL_NEOX, "mlp.dense_4h_to_h"),
    ],
)
def test_the_last_map_of_each_mlp_is_found(name, overrides, ending):
    found = down_projections(model(name, **overrides))
    assert len(found) == overrides.get("n_layer", overrides.get("num_hidden_layers", 4))
    assert all(name.endswith(ending) for name, _ in found)


@pytest.mark.parametrize(
    ("depth", "count", "expected"),
    [(4, 1, [3]), (4, 2, [2, 3]), (4, 3, [1, 2, 3]), (8, 2, [5, 7]), (12, 3, [7, 9, 11])],
)
def test_slots_lie_evenly_over_the_last_half_and_end_at_the_last(depth, count, expected):
    names = tracked_layers(model(num_hidden_layers=depth, hidden_size=16), count)
    assert [int(name.split("layers.")[1].split(".")[0]) for name in names] == expected


@pytest.mark.parametrize(
    ("proxy", "target", "count", "expected"),
    [(4, 6, 3, [2, 4, 5]), (6, 4, 3, [1, 2, 3]), (4, 12, 2, [8, 11]), (12, 3, 3, [0, 1, 2])],
)
def test_a_target_tracks_the_blocks_nearest_to_the_depths_of_its_proxy(
    proxy, target, count, expected
):
    small, other = (model(num_hidden_layers=depth, hidden_size=16) for depth in (proxy, target))
    depths = depths_of(small, tracked_layers(small, count))
    names = tracked_layers(other, count, depths)
    assert [int(name.split("layers.")[1].split(".")[0]) for name in names] == expected
    assert list(tracked_layers(small, count, depths)) == list(tracked_layers(small, count))


def test_tiny_and_small_are_tracked_at_like_depths():
    tiny, small = model("tiny"), model("small", hidden_size=20, intermediate_size=16)
    proxy = depths_of(tiny, tracked_layers(tiny, 3))
    target = depths_of(small, tracked_layers(small, 3, proxy))
    assert proxy == (0.5, 0.75, 1.0)
    assert max(abs(a - b) for a, b in zip(proxy, target, strict=True)) <= 1 / 12 + 1e-9


def test_too_many_slots_are_refused_with_the_remedy():
    with pytest.raises(ModelError, match="5 layers cannot be tracked in a model of 4") as error:
        tracked_layers(model(), 5)
    assert "from 1 to 4" in error.value.remedy

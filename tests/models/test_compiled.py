"""Compiled blocks: one graph without a break, and whatever watches layers still sees them."""

import copy

import pytest
import torch
from torch._dynamo.utils import counters

from workbench.config import ModelConfig
from workbench.kernels.domain_gradients import GradientTracker
from workbench.models import build_model
from workbench.models.layers import tracked_layers
from workbench.models.linear_maps import input_leaders, linear_maps, observed
from workbench.models.parallel import recompute_activations

SMALL = {
    "tiny": {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2},
    "gpt2": {"n_layer": 4, "n_embd": 32, "n_head": 2},
}


def build(name="tiny"):
    config = ModelConfig(name=name, overrides=SMALL[name])
    return build_model(config, vocab_size=320, context_tokens=16, seed=0)


def rows(count=3):
    tokens = torch.randint(0, 320, (count, 17), generator=torch.Generator().manual_seed(0))
    return tokens[:, :-1], tokens[:, 1:]


@pytest.fixture
def graphs():
    """What is compiled meanwhile; the graphs then run as they are."""
    torch._dynamo.reset()
    counters.clear()
    seen = []

    def keep(graph, _inputs):
        seen.append(graph)
        return graph.forward

    keep.seen = seen
    yield keep
    torch._dynamo.reset()


def gradients(model):
    found = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    return found


def assert_same_step(compiled, plain):
    loss_B, expected_B = compiled(*rows()), plain(*rows())
    assert torch.equal(loss_B, expected_B)
    loss_B.sum().backward()
    expected_B.sum().backward()
    torch.testing.assert_close(gradients(compiled), gradients(plain))


@pytest.mark.parametrize("name", SMALL)
def test_one_graph_without_a_break_serves_all_blocks(name, graphs):
    plain, compiled = build(name), build(name)
    names = list(compiled.state_dict())
    compiled.compile_blocks(graphs)
    assert_same_step(compiled, plain)
    assert len(graphs.seen) == 1 and not counters["graph_break"]
    assert list(compiled.state_dict()) == names


def test_a_tracker_that_is_off_breaks_nothing_and_one_that_is_on_sees_its_layers(graphs):
    plain, compiled = build(), build()
    trackers = [GradientTracker(tracked_layers(model, 3), 4) for model in (plain, compiled)]
    compiled.compile_blocks(graphs)
    assert_same_step(compiled, plain)
    assert len(graphs.seen) == 1 and not counters["graph_break"]
    found = []
    for model, tracker in zip((plain, compiled), trackers, strict=True):
        tracker.reset()
        with tracker.rows([0, 1, 1]):
            loss_B = model(*rows())
        loss_B.sum().backward()
        found.append((tracker.gram(), gradients(model)))
    torch.testing.assert_close(found[1], found[0])
    assert found[0][0].diagonal().count_nonzero() == 2
    compiled_so_far = len(graphs.seen)
    assert_same_step(compiled, plain)
    assert len(graphs.seen) == compiled_so_far


def test_hooks_on_layers_are_called_although_the_blocks_were_compiled_without_them(graphs):
    plain, compiled = build(), build()
    compiled.compile_blocks(graphs)
    assert_same_step(compiled, plain)
    seen = []
    for model in (plain, compiled):
        maps, given = linear_maps(model).maps, {}
        with observed(model, maps, lambda m, a, s, given=given: given.update({m.name: (a, s)})):
            model(*rows()).sum().backward()
        seen.append(given)
        assert len(given) == len(maps) and len(input_leaders(model, maps, rows()[0])) == len(maps)
        assert len(set(input_leaders(model, maps, rows()[0]).values())) < len(maps)
    torch.testing.assert_close(seen[1], seen[0])


def test_blocks_may_be_computed_again_in_the_backward_pass(graphs):
    plain, compiled = build(), build()
    recompute_activations(compiled)
    compiled.compile_blocks(graphs)
    assert_same_step(compiled, plain)
    assert graphs.seen and not counters["graph_break"]


def test_a_copy_is_not_compiled(graphs):
    compiled = build()
    compiled.compile_blocks(graphs)
    copy.deepcopy(compiled)(*rows())
    assert not graphs.seen

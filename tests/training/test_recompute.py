"""Activations computed twice change nothing: gradients, weights, and what a mixer is told."""

import pytest
import torch

from workbench.config import Policy
from workbench.core import ConfigError, Signal
from workbench.training.spread import check_world
from workbench.training.state import build_state
from workbench.training.step import train_step

MIXERS = {
    "without signals": Policy("static"),
    "exact": Policy("pike", tracked_layers=2),
    "projected": Policy("pike", tracked_layers=2, projection_width=4),
}
REWEIGHTERS = {
    "at once": (None, Policy("linupper")),
    "micro-batches, exact": (2, Policy("linupper", scope="step")),
    "micro-batches, stream": (2, Policy("linupper", scope="stream")),
    "norm matched": (None, Policy("linupper", control="norm_matched")),
}


def stepped(config, corpus, *, again):
    """Two steps, after which every parameter and every signal shows what was computed."""
    config = config.change(activation_checkpointing=again)
    state = build_state(
        config.change(**{"model.overrides": {**NANO, "num_hidden_layers": 2}}), corpus
    )
    assert state.model.model.is_gradient_checkpointing is again
    found = []
    for step in range(2):
        state.sampler.set_mixture(state.mixer.propose(step))
        outcome = train_step(state, state.sampler.draw(step)).outcome
        state.mixer.observe(outcome)
        state.step += 1
        found.append(outcome)
    return torch.cat([p.detach().flatten() for p in state.model.parameters()]), found


NANO = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("reweighter", REWEIGHTERS)
def test_recomputation_changes_no_parameter_and_no_signal(
    nano_config, nano_corpus, mixer, reweighter
):
    rows, policy = REWEIGHTERS[reweighter]
    config = nano_config.change(
        mixer=MIXERS[mixer], reweighter=policy, micro_batch_rows=rows
    )
    (kept, kept_seen), (again, again_seen) = (
        stepped(config, nano_corpus, again=again) for again in (False, True)
    )
    assert torch.equal(kept, again)
    for ours, theirs in zip(kept_seen, again_seen, strict=True):
        assert torch.equal(ours.weight_B, theirs.weight_B)
        assert ours.signals.keys() == theirs.signals.keys()
        if Signal.DOMAIN_GRADIENTS in ours.signals:
            grams = [each.signals[Signal.DOMAIN_GRADIENTS].gram_KK for each in (ours, theirs)]
            assert (grams[0] == grams[1]).all() and abs(grams[0]).max() > 0


def test_recomputation_runs_each_block_twice(nano_config, nano_corpus):
    from workbench.models.layers import blocks

    state = build_state(nano_config.change(activation_checkpointing=True), nano_corpus)
    passes = []
    blocks(state.model)[0].mlp.register_forward_pre_hook(lambda *_: passes.append(1))
    train_step(state, state.sampler.draw(0))
    assert len(passes) == 2


@pytest.mark.parametrize(
    ("changes", "world", "problem"),
    [
        ({"batch_rows": 2}, 3, "leaves some of 3 ranks without a row"),
        ({"batch_rows": 6, "parallel": "fsdp"}, 4, "is not a multiple of 4 ranks"),
    ],
)
def test_a_batch_that_does_not_fit_the_ranks_is_refused(nano_config, changes, world, problem):
    with pytest.raises(ConfigError, match=problem) as error:
        check_world(nano_config.change(**changes).training, world)
    assert "batch_rows" in error.value.remedy


def test_replicas_take_uneven_parts(nano_config):
    check_world(nano_config.change(batch_rows=7).training, 2)

"""Computing activations twice, or in a compiled graph, changes no gradient and no signal."""

import pytest
import torch

from workbench.config import Policy
from workbench.core import ConfigError, Signal
from workbench.models import Decoder
from workbench.models.layers import blocks
from workbench.training import train
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
    config = nano_config.change(mixer=MIXERS[mixer], reweighter=policy, micro_batch_rows=rows)
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
    state = build_state(nano_config.change(activation_checkpointing=True), nano_corpus)
    passes = []
    blocks(state.model)[0].mlp.register_forward_pre_hook(lambda *_: passes.append(1))
    train_step(state, state.sampler.draw(0))
    assert len(passes) == 2


def test_a_compiled_run_takes_the_steps_of_an_eager_one(
    nano_config, nano_corpus, cache_dir, tmp_path, monkeypatch
):
    graphs = []

    def compiled(self):
        for block in blocks(self):
            block.compile(backend=lambda graph, _: graphs.append(graph) or graph.forward)

    monkeypatch.setattr(Decoder, "compile_blocks", compiled)
    config = nano_config.change(total_steps=3, mixer=MIXERS["exact"], tracked_layers=1)
    runs = [
        train(config.change(compile=each).replace(name=str(each)), tmp_path, cache_dir=cache_dir)
        for each in (False, True)
    ]
    assert len(graphs) >= 1
    losses = [[event["loss"] for event in run.events("step")] for run in runs]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert runs[0].folder.environment["kernels"]["loss"]["form"] == "torch"


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

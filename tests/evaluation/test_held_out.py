"""Held-out loss per domain: the mean is over tokens, and nothing else in the run notices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from workbench.config import ModelConfig
from workbench.core import IGNORE_INDEX, ConfigError, DataError
from workbench.evaluation import held_out_loss
from workbench.models import build_model

CONTEXT_TOKENS = 8


class Rows:
    """A corpus of random rows."""

    domains = ("prose", "code")

    def __init__(self, rows=5):
        rng = np.random.default_rng(0)
        shape = (rows, CONTEXT_TOKENS + 1)
        self.rows = {domain: rng.integers(0, 320, shape) for domain in self.domains}

    def held_out(self, domain, limit):
        return self.rows[domain][:limit]


class ActiveTokens(nn.Module):
    """Its loss of a row is the number of active tokens."""

    def forward(self, tokens_BT, labels_BT):
        return (labels_BT != IGNORE_INDEX).sum(dim=1).float()


@pytest.fixture(scope="module")
def decoder():
    config = ModelConfig(name="tiny", overrides={"num_hidden_layers": 1})
    return build_model(config, vocab_size=320, context_tokens=CONTEXT_TOKENS, seed=0)


def evaluate(model, corpus, **options):
    defaults = {"rows_per_domain": None, "batch_rows": 2, "device": "cpu"}
    return held_out_loss(model, corpus, **{**defaults, **options})


def own_loss(decoder, rows):
    tokens = torch.from_numpy(rows)
    with torch.no_grad():
        logits = decoder.model(input_ids=tokens[:, :-1]).logits.flatten(0, 1)
    return float(nn.functional.cross_entropy(logits, tokens[:, 1:].flatten()))


def test_losses_are_the_model_s_own_per_domain(decoder):
    corpus = Rows()
    losses = evaluate(decoder, corpus)
    assert list(losses) == ["prose", "code"]
    for domain, loss in losses.items():
        assert loss == pytest.approx(own_loss(decoder, corpus.rows[domain]), rel=1e-5)


def test_every_active_token_counts_the_same():
    corpus = Rows(rows=3)
    corpus.rows["code"][1, 3:] = IGNORE_INDEX
    lengths = [CONTEXT_TOKENS, 2, CONTEXT_TOKENS]
    losses = evaluate(ActiveTokens(), corpus)
    assert losses["code"] == pytest.approx(sum(n * n for n in lengths) / sum(lengths))
    assert losses["prose"] == CONTEXT_TOKENS


@pytest.mark.parametrize("batch_rows", [1, 3, 64])
def test_batch_size_does_not_matter(decoder, batch_rows):
    expected = evaluate(decoder, Rows(), batch_rows=5)
    assert evaluate(decoder, Rows(), batch_rows=batch_rows) == pytest.approx(expected, rel=1e-6)


class Part:
    """One of several processes; keeps the sums it hands out, and how often the model ran."""

    def __init__(self, rank, world):
        self.rank, self.world, self.sums, self.passes = rank, world, [], 0

    def total(self, value):
        self.sums.append(value)
        return value + 1  # the others' part, which leaves no domain without a token


@pytest.mark.parametrize("world", [2, 3, 8])
def test_processes_share_the_rows_and_run_the_model_equally_often(decoder, world):
    parts = [Part(rank, world) for rank in range(world)]
    for part in parts:
        counting = decoder.register_forward_pre_hook(
            lambda *_, part=part: setattr(part, "passes", part.passes + 1)
        )
        evaluate(decoder, Rows(), batch_rows=1, share=part)
        counting.remove()
    assert len({part.passes for part in parts}) == 1
    expected = evaluate(decoder, Rows(), batch_rows=5)
    for i, domain in enumerate(Rows.domains):
        loss, tokens = sum(part.sums[i] for part in parts)
        assert tokens == 5 * CONTEXT_TOKENS
        assert float(loss / tokens) == pytest.approx(expected[domain], rel=1e-6)


def test_only_the_first_rows_are_read(decoder):
    corpus = Rows()
    losses = evaluate(decoder, corpus, rows_per_domain=2)
    assert losses["code"] == pytest.approx(own_loss(decoder, corpus.rows["code"][:2]), rel=1e-5)


def test_dropout_is_off_and_the_mode_restored():
    config = ModelConfig(name="gpt2", overrides={"n_layer": 1, "n_embd": 32, "n_head": 2})
    config = config.replace(overrides={**config.overrides, "resid_pdrop": 0.5})
    model = build_model(config, vocab_size=320, context_tokens=CONTEXT_TOKENS, seed=0)
    model.train()
    assert evaluate(model, Rows()) == evaluate(model, Rows())
    assert model.training and all(module.training for module in model.modules())
    model.eval()
    evaluate(model, Rows())
    assert not model.training


def test_mode_is_restored_after_a_failure(decoder):
    corpus = Rows()
    corpus.rows["code"] = corpus.rows["code"][:0]
    decoder.train()
    with pytest.raises(DataError, match="'code' has no held-out row"):
        evaluate(decoder, corpus)
    assert decoder.training


def test_no_random_number_is_drawn_and_no_gradient_kept(decoder):
    before = torch.get_rng_state()
    evaluate(decoder, Rows())
    assert torch.equal(before, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in decoder.parameters())


def test_a_domain_without_active_tokens_is_named():
    corpus = Rows()
    corpus.rows["code"][:, 1:] = IGNORE_INDEX
    with pytest.raises(DataError, match="no held-out token of domain 'code'"):
        evaluate(ActiveTokens(), corpus)


def test_bfloat16_is_close_and_not_the_same(decoder):
    exact, rounded = evaluate(decoder, Rows()), evaluate(decoder, Rows(), precision="bfloat16")
    assert rounded == pytest.approx(exact, rel=1e-2)
    assert rounded != exact


def test_unknown_precision_is_refused(decoder):
    with pytest.raises(ConfigError, match=r"'bfloat61'.*'bfloat16'"):
        evaluate(decoder, Rows(), precision="bfloat61")

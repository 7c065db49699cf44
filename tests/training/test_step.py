"""One optimiser step: its gradient is that of the weighted mean over the whole batch."""

import dataclasses

import pytest
import torch

from workbench.config import Policy
from workbench.core import IGNORE_INDEX, ConfigError
from workbench.kernels.sample_loss import reference_sample_loss
from workbench.training.accumulate import accumulate
from workbench.training.checks import check_fits
from workbench.training.ranks import Ranks
from workbench.training.state import build_state
from workbench.training.step import NonFiniteStep, train_step


def gradient(config, corpus, *, micro_batch_rows=None, reweighter="uniform", edit=None):
    """Gradient, losses and weights of step 0 without clipping or update."""
    training = config.training.replace(micro_batch_rows=micro_batch_rows)
    config = config.replace(training=training, reweighter=reweighter)
    state = build_state(config, corpus)
    batch = state.sampler.draw(0)
    if edit:
        batch = edit(batch)
    valid_B = (batch.labels_BT != IGNORE_INDEX).any(1)
    loss_B, weight_B = accumulate(state, batch.tokens_BT, batch.labels_BT, valid_B, Ranks())
    grads = torch.cat([p.grad.flatten() for p in state.model.parameters()])
    return state, batch, grads, loss_B, weight_B


def test_uniform_is_uniform(nano_config, nano_corpus):
    state, batch, grads, loss_B, weight_B = gradient(nano_config, nano_corpus)
    assert weight_B.tolist() == [1.0] * len(batch)
    state.model.zero_grad()
    hidden = state.model.hidden(batch.tokens_BT)
    truth = reference_sample_loss(hidden, state.model.head_VD, batch.labels_BT)
    truth.mean().backward()
    expected = torch.cat([p.grad.flatten() for p in state.model.parameters()])
    torch.testing.assert_close(grads, expected, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(loss_B.double(), truth.detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("reweighter", ["uniform", Policy("linupper", scope="step")], ids=str)
@pytest.mark.parametrize("micro_batch_rows", [1, 2, 4])
def test_accumulation_does_not_divide_twice(nano_config, nano_corpus, reweighter, micro_batch_rows):
    _, _, whole, loss_B, weight_B = gradient(nano_config, nano_corpus, reweighter=reweighter)
    _, _, split, split_loss_B, split_weight_B = gradient(
        nano_config, nano_corpus, reweighter=reweighter, micro_batch_rows=micro_batch_rows
    )
    torch.testing.assert_close(split, whole, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(split_loss_B, loss_B)
    torch.testing.assert_close(split_weight_B, weight_B)


def test_micro_scope_normalises_within_each_micro_batch(nano_config, nano_corpus):
    policy = Policy("linupper", scope="micro")
    *_, weight_B = gradient(nano_config, nano_corpus, reweighter=policy, micro_batch_rows=2)
    assert weight_B.view(-1, 2).mean(1).tolist() == pytest.approx([1.0] * 4, abs=1e-5)


def test_stream_divides_by_the_exact_sum_and_lags_only_in_the_range(nano_config, nano_corpus):
    policy = Policy("linupper", scope="stream")
    training = nano_config.training.replace(micro_batch_rows=2)
    state = build_state(nano_config.replace(training=training, reweighter=policy), nano_corpus)
    batch = state.sampler.draw(0)
    valid_B = torch.ones(len(batch), dtype=torch.bool)
    arguments = (state, batch.tokens_BT, batch.labels_BT, valid_B, Ranks())
    loss_B, first_B = accumulate(*arguments)
    assert first_B.tolist() == pytest.approx([1.0] * len(batch))
    state.reweighter.observe(loss_B, valid_B, 0)
    state.optimizer.zero_grad(set_to_none=True)
    _, weight_B = accumulate(*arguments)
    streamed = torch.cat([p.grad.flatten() for p in state.model.parameters()])
    exact = gradient(nano_config, nano_corpus, reweighter=Policy("linupper", scope="step"))
    torch.testing.assert_close(weight_B, exact[4])
    torch.testing.assert_close(streamed, exact[2], atol=1e-6, rtol=1e-4)


def test_norm_matched_keeps_the_direction_and_takes_the_uniform_norm(nano_config, nano_corpus):
    for rows in (None, 2):
        options = {"scope": "step", "temperature": 0.1}
        weighted, matched, uniform = (
            gradient(nano_config, nano_corpus, reweighter=policy, micro_batch_rows=rows)[2]
            for policy in (
                Policy("linupper", **options),
                Policy("linupper", **options, control="norm_matched"),
                "uniform",
            )
        )
        assert abs(weighted.norm() / uniform.norm() - 1) > 1e-3
        assert float(matched.norm()) == pytest.approx(float(uniform.norm()), rel=1e-4)
        cosine = torch.nn.functional.cosine_similarity(matched, weighted, dim=0)
        assert float(cosine) == pytest.approx(1, abs=1e-5)


def test_a_scope_that_cannot_do_what_is_asked_is_refused(nano_config, nano_corpus):
    training = nano_config.training.replace(micro_batch_rows=2)
    config = nano_config.replace(training=training)
    needs_all = config.replace(reweighter=Policy("linupper", normalise="rank"))
    with pytest.raises(ConfigError, match="scope='stream'") as caught:
        check_fits(needs_all, nano_corpus)
    assert "scope='step'" in caught.value.remedy
    small = config.replace(reweighter=Policy("linupper", scope="micro"))
    assert "micro-batches of 2 rows" in check_fits(small, nano_corpus)[0]
    assert check_fits(config, nano_corpus) == []


def test_step_gradient_is_the_weighted_sum_of_row_gradients(nano_config, nano_corpus):
    state, batch, grads, _, weight_B = gradient(nano_config, nano_corpus, reweighter="linupper")
    assert weight_B.std() > 0.05
    state.model.zero_grad()
    expected = torch.zeros_like(grads)
    for i, weight in enumerate(weight_B.tolist()):
        row = slice(i, i + 1)
        state.model(batch.tokens_BT[row], batch.labels_BT[row]).sum().backward()
        own = torch.cat([p.grad.flatten() for p in state.model.parameters()])
        expected += weight * own / len(weight_B)
        state.model.zero_grad()
    torch.testing.assert_close(grads, expected, atol=1e-6, rtol=1e-3)


def test_rows_without_active_tokens_change_nothing(nano_config, nano_corpus):
    def blank_last_row(batch):
        labels_BT = batch.labels_BT.clone()
        labels_BT[-1] = IGNORE_INDEX
        return dataclasses.replace(batch, labels_BT=labels_BT)

    def drop_last_row(batch):
        return batch.rows(slice(0, -1))

    blank = gradient(nano_config, nano_corpus, reweighter="linupper", edit=blank_last_row)
    dropped = gradient(nano_config, nano_corpus, reweighter="linupper", edit=drop_last_row)
    torch.testing.assert_close(blank[2], dropped[2], atol=1e-6, rtol=1e-4)
    assert blank[4][-1] == 0
    torch.testing.assert_close(blank[4][:-1], dropped[4])


def test_a_step_that_is_not_finite_changes_no_parameter(nano_config, nano_corpus):
    state = build_state(nano_config, nano_corpus)
    with torch.no_grad():
        state.model.head_VD[7] = float("nan")
    before = [p.clone() for p in state.model.parameters()]
    with pytest.raises(NonFiniteStep, match="step 0"):
        train_step(state, state.sampler.draw(0))
    for old, new in zip(before, state.model.parameters(), strict=True):
        assert torch.equal(old.nan_to_num(), new.detach().nan_to_num())


def test_fewer_rows_than_ranks_are_refused(nano_config, nano_corpus, monkeypatch):
    monkeypatch.setattr(Ranks, "here", lambda: Ranks(0, 9))
    with pytest.raises(ConfigError, match="leaves some of 9 ranks without a row"):
        check_fits(nano_config, nano_corpus)

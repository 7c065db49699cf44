"""The policies in a bare PyTorch loop: losses, weights, mixtures, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.integration import own_rows as own
from workbench.core import (
    REWEIGHTERS,
    ConfigError,
    DataError,
    ModelError,
    PolicyError,
    Signal,
)
from workbench.integration import (
    DomainMixer,
    SampleReweighter,
    require_row_losses,
    row_losses,
)
from workbench.integration.row_loss import batch_losses


def mixer(name="exp3", **options):
    settings = {"batch_rows": 8, "total_steps": 20, **options}
    return DomainMixer(name, own.DOMAIN, **settings)


# --- losses ---


def test_the_loss_of_a_row_is_what_the_model_says_of_that_row_alone():
    model, some = own.llama().eval(), own.rows(6)
    found, _ = batch_losses(model, own.stacked(some))
    alone = torch.stack([model(**own.stacked([row])).loss for row in some])
    torch.testing.assert_close(found.loss_B, alone)
    torch.testing.assert_close(found.token_mean(), model(**own.stacked(some)).loss)


def test_a_row_without_labels_has_no_loss_and_no_gradient():
    logits = torch.randn(2, 5, 7, requires_grad=True)
    labels = torch.randint(0, 7, (2, 5))
    labels[1] = -100
    found = row_losses(logits, labels)
    found.loss_B.sum().backward()
    assert found.valid_B.tolist() == [True, False]
    assert found.loss_B[1] == 0 and not logits.grad[1].any()


def test_labels_already_shifted_are_not_shifted_again():
    model, batch = own.llama().eval(), own.stacked(own.rows(4))
    shifted = torch.nn.functional.pad(batch["labels"][:, 1:], (0, 1), value=-100)
    again, _ = batch_losses(model, {**batch, "shift_labels": shifted})
    expected, _ = batch_losses(model, batch)
    torch.testing.assert_close(again.loss_B, expected.loss_B)


def test_the_probe_leaves_mode_and_random_stream_as_they_were():
    model = own.llama(attention_dropout=0.5).eval()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    require_row_losses(model, own.stacked(own.rows(4)))
    assert not model.training
    assert torch.equal(torch.rand(3), expected)
    assert all(p.grad is None for p in model.parameters())


class Fused(torch.nn.Module):
    """A model patched as by a fused cross-entropy: in training it returns its loss alone."""

    def __init__(self, keeps_logits=False, extra=0.0):
        super().__init__()
        self.inner, self.keeps_logits, self.extra = own.llama(), keeps_logits, extra

    def forward(self, **inputs):
        outputs = self.inner(**inputs)
        logits = outputs.logits if self.keeps_logits else None
        return SimpleNamespace(loss=outputs.loss + self.extra, logits=logits)


def test_a_model_that_hides_its_logits_is_refused_with_the_remedy():
    with pytest.raises(ModelError, match="fused_linear_cross_entropy"):
        require_row_losses(Fused(), own.stacked(own.rows(4)))


def test_a_model_with_another_loss_is_refused():
    require_row_losses(Fused(keeps_logits=True), own.stacked(own.rows(4)))
    with pytest.raises(ModelError, match="another loss"):
        require_row_losses(Fused(keeps_logits=True, extra=0.5), own.stacked(own.rows(4)))


# --- weights ---


@pytest.mark.parametrize("name", REWEIGHTERS.names())
def test_every_reweighter_has_mean_1_in_a_loop_of_ones_own(name):
    reweigh = SampleReweighter(name)
    valid = torch.tensor([True] * 7 + [False])
    for step in range(3):
        weight = reweigh(torch.rand(8) + step, step=step, valid_B=valid)
        assert weight.sum().item() == pytest.approx(7, rel=1e-5)
        assert weight[7] == 0


def test_weights_change_the_gradient_to_that_of_the_weighted_loss():
    model, batch = own.llama(), own.stacked(own.rows(8))
    reweigh = SampleReweighter("linupper", temperature=0.3)
    losses, _ = batch_losses(model, batch)
    weight = reweigh(losses.loss_B, step=0)
    (weight * losses.loss_B).mean().backward()
    found = own.gradient(model)
    model.zero_grad()
    for row, value in zip(own.rows(8), weight.tolist(), strict=True):
        (model(**own.stacked([row])).loss * value / 8).backward()
    torch.testing.assert_close(found, own.gradient(model), rtol=1e-4, atol=1e-6)
    assert weight.max() > 1.1


@pytest.mark.parametrize("scope", ["stream", "micro"])
def test_micro_batches_have_mean_1_over_the_step_once_finished(scope):
    reweigh = SampleReweighter("linupper", scope=scope)
    for step in range(3):
        loss = torch.rand(8) + 1
        given = torch.cat([reweigh.ahead(part, step=step) for part in loss.split(2)])
        factor = reweigh.finish()
        final = given * factor
        assert final.mean().item() == pytest.approx(1, rel=1e-5)
        torch.testing.assert_close(reweigh.last.weight_B, final)
    assert reweigh.diagnostics()["ess_fraction"] < 0.999


def test_a_restored_reweighter_goes_on_as_if_never_saved():
    losses = torch.rand(6, 8)
    straight, first, second = (SampleReweighter("linupper") for _ in range(3))

    def step(reweigh, number):
        given = [reweigh.ahead(part, step=number) for part in losses[number].split(4)]
        return torch.cat(given) * reweigh.finish()

    expected = [step(straight, number) for number in range(6)]
    for number in range(3):
        step(first, number)
    second.load_state_dict(first.state_dict())
    for number in range(3, 6):
        assert torch.equal(step(second, number), expected[number])


def test_one_loss_for_the_batch_is_refused():
    with pytest.raises(PolicyError, match="one loss per row"):
        SampleReweighter("linupper")(torch.tensor(2.0), step=0)


def test_what_a_reweighter_cannot_do_here_is_refused():
    with pytest.raises(ConfigError, match=r"workbench\.train"):
        SampleReweighter("linupper", control="norm_matched")
    with pytest.raises(PolicyError, match="scope='step'"):
        SampleReweighter("linupper", scope="step").ahead(torch.rand(4), step=0)
    with pytest.raises(PolicyError, match="scope='step'"):
        SampleReweighter("linupper", max_weight=2.0).ahead(torch.rand(4), step=0)
    with pytest.raises(PolicyError, match="of reweighter 'uniform'"):
        SampleReweighter("linupper").load_state_dict(SampleReweighter("uniform").state_dict())


def test_a_state_is_not_taken_in_the_middle_of_a_step():
    reweigh = SampleReweighter("linupper")
    reweigh.ahead(torch.rand(4), step=0)
    with pytest.raises(PolicyError, match="finish"):
        reweigh.state_dict()


# --- mixtures ---


def test_batches_follow_the_mixture():
    domain_N = np.array(own.DOMAIN)
    static = mixer("static", mixture={"even": 0.9, "odd": 0.1})
    drawn = []
    for _ in range(40):
        drawn.append(domain_N[static.draw()])
        static.observe(torch.ones(8))
    assert (np.concatenate(drawn) == "even").mean() == pytest.approx(0.9, abs=0.06)


def test_each_row_of_a_domain_is_drawn_once_before_any_is_drawn_again():
    static = mixer("static", mixture={"even": 1.0})
    seen = []
    for _ in range(3):
        seen.extend(static.draw().tolist())
        static.observe(torch.ones(8))
    assert sorted(seen) == [place for place in range(own.ROWS) if own.DOMAIN[place] == "even"]


def test_the_domain_that_pays_is_raised_and_the_mixer_sees_the_losses_of_its_own_rows():
    bandit = mixer("exp3", total_steps=60)
    loss = {"even": 1.0, "odd": 6.0}
    for _ in range(60):
        place = bandit.draw()
        bandit.observe(torch.tensor([loss[own.DOMAIN[p]] for p in place]))
    assert bandit.mixture.as_dict()["odd"] > 0.52
    reward = bandit.diagnostics()["reward_average"]
    assert reward["odd"] > 3 * reward["even"]


def test_a_step_must_be_observed_before_the_next_is_drawn():
    loader = torch.utils.data.DataLoader(range(own.ROWS), batch_sampler=mixer().batches(4))
    batches = iter(loader)
    next(batches), next(batches)
    with pytest.raises(PolicyError, match="num_workers=0"):
        next(batches)


def test_losses_of_another_number_of_rows_are_refused():
    bandit = mixer()
    bandit.draw()
    with pytest.raises(PolicyError, match="4 losses for the 8 rows"):
        bandit.observe(torch.ones(4))


def test_a_restored_mixer_draws_what_the_other_would_have_drawn():
    def steps(bandit, count):
        drawn = []
        for _ in range(count):
            place = bandit.draw()
            bandit.observe(torch.from_numpy(np.cos(place) + 2))
            drawn.append(place.tolist())
        return drawn

    straight, first, second = mixer(seed=3), mixer(seed=3), mixer(seed=3)
    expected = steps(straight, 9)
    steps(first, 4)
    second.load_state_dict(first.state_dict())
    assert steps(second, 5) == expected[4:]


def test_a_resumed_loader_has_passed_over_the_batches_already_trained_on():
    bandit = mixer()
    for _ in range(2):
        bandit.draw()
        bandit.observe(torch.ones(8))
    batches = bandit.batches(4)
    assert len(batches) == 12
    given = []
    for number, batch in enumerate(batches):
        given.append(batch)
        if batch and number % 2:
            bandit.observe(torch.ones(8))
    assert [len(batch) for batch in given] == [0] * 4 + [4] * 8


@pytest.mark.parametrize("name", ["alignment", "acodm"])
def test_gradients_of_domains_are_those_of_separate_backward_passes(name):
    model, data = own.llama(), own.rows(padded=False)
    aligned = mixer(name, model=model)
    seen = {}
    watch = aligned.mixer.observe
    aligned.mixer.observe = lambda outcome: (seen.update(outcome.signals), watch(outcome))
    place = aligned.draw()
    weight = torch.linspace(0.5, 1.5, 8)
    parts = []
    for first in (0, 4):
        batch = own.stacked([data[p] for p in place[first : first + 4]])
        with aligned.forward(4):
            found, _ = batch_losses(model, batch)
        (weight[first : first + 4] * found.loss_B).sum().div(8).backward()
        parts.append(found.loss_B.detach())
    aligned.observe(torch.cat(parts), weight)

    tracked = [slot.module.weight for slot in aligned._signals._tracker._slots]
    domain = np.array([own.DOMAIN[p] for p in place])
    mean = []
    for label in ("even", "odd"):
        mine = np.flatnonzero(domain == label)
        found, _ = batch_losses(model, own.stacked([data[place[i]] for i in mine]))
        loss = (weight[mine] * found.loss_B).mean()
        mean.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, tracked)]).double())
    gram = torch.stack(mean) @ torch.stack(mean).T
    actual = torch.from_numpy(seen[Signal.DOMAIN_GRADIENTS].gram_KK)
    torch.testing.assert_close(actual, gram, rtol=1e-4, atol=1e-9)


def test_norms_of_tracked_weights_are_of_the_change_in_the_step():
    model = own.llama()
    agent = mixer("acodm", model=model)
    seen = {}
    agent.mixer.observe = lambda outcome: seen.update(outcome.signals)
    agent.draw()
    tracked = agent._signals._tracker.weights
    agent._signals._needs = frozenset({Signal.TRACKED_NORMS})
    with torch.no_grad():
        for weight in tracked:
            weight += 0.25
    agent.observe(torch.ones(8))
    change = [0.25 * weight.numel() ** 0.5 for weight in tracked]
    np.testing.assert_allclose(seen[Signal.TRACKED_NORMS].change_L, change, rtol=1e-5)


def test_rows_that_did_not_go_through_forward_are_named():
    aligned = mixer("alignment", model=own.llama())
    aligned.draw()
    with pytest.raises(PolicyError, match="0 of 8 rows"):
        aligned.observe(torch.ones(8))


@pytest.mark.parametrize(
    ("name", "options"), [("pike", {}), ("doremi", {"reference": "runs/reference"})]
)
def test_a_mixer_that_cannot_be_served_is_refused_and_others_are_named(name, options):
    with pytest.raises(PolicyError, match=f"'{name}' needs .*one of: .*exp3"):
        mixer(name, model=own.llama(), **options)


def test_a_mixer_of_gradients_wants_the_model():
    with pytest.raises(ConfigError, match="model="):
        mixer("alignment")


def test_a_domain_smaller_than_a_batch_is_named():
    with pytest.raises(DataError, match="'rare' has 2 rows"):
        DomainMixer("exp3", ["rare"] * 2 + ["common"] * 20, batch_rows=4, total_steps=3)

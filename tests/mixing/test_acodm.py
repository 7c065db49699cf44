"""The actor-critic: what it learns from, what each published form does, and taking it elsewhere."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch

from workbench.core import (
    MIXERS,
    ConfigError,
    DomainGradients,
    MixingTask,
    PolicyError,
    Signal,
    StepOutcome,
    TrackedNorms,
)
from workbench.mixing.acodm.agent import Agent, Settings
from workbench.mixing.acodm.networks import (
    PAPER_HIDDEN,
    Adam,
    Network,
    reference_network,
    soft_update,
)
from workbench.mixing.acodm.observation import Observation
from workbench.mixing.acodm.replay_buffer import ReplayBuffer, Transitions
from workbench.mixing.acodm.rewards import Rewards, mixture_reward

TASK = MixingTask(("a", "b", "c"), np.array([100, 200, 700]), total_steps=100, seed=3)
SIZES = {"state": 7, "domains": 3, "seed": 0}


def transitions(count=16, seed=0):
    rng = np.random.default_rng(seed)

    def draw(width):
        return rng.standard_normal((count, width)).astype(np.float32)

    mixture = np.exp(draw(3))
    return Transitions(draw(7), mixture / mixture.sum(axis=1, keepdims=True), draw(3), draw(7))


def as_tensors(batch):
    return Transitions(*(torch.from_numpy(values) for values in vars(batch).values()))


def parameters(network):
    return network.parameter_P.copy()


def outcome(step, gradients=None, *, counts=(2, 2, 2), losses=(3.0, 4.0, 5.0)):
    if gradients is None:
        gradients = np.random.default_rng(step).normal(size=(3, 10)) + 0.5
    domain_B = np.repeat(np.arange(3), counts)
    return StepOutcome(
        step=step,
        domain_B=domain_B,
        sample_id_B=domain_B,
        loss_B=torch.tensor([losses[k] for k in domain_B]),
        weight_B=torch.ones(len(domain_B)),
        valid_B=torch.ones(len(domain_B), dtype=torch.bool),
        signals={
            Signal.DOMAIN_GRADIENTS: DomainGradients(gradients @ gradients.T, np.array(counts)),
            Signal.TRACKED_NORMS: TrackedNorms(np.arange(1.0, 4.0), np.full(3, 0.1)),
        },
    )


def drive(mixer, steps, first=0):
    mixtures = []
    for step in range(first, first + steps):
        mixtures.append(mixer.propose(step).probability_K)
        mixer.observe(outcome(step))
    return np.array(mixtures)


def test_networks_have_the_sizes_of_the_paper():
    actor = Network(inputs=85, outputs=22, hidden=PAPER_HIDDEN, seed=0)
    critic = Network(inputs=85 + 22, outputs=22, hidden=PAPER_HIDDEN, seed=0)
    assert actor.parameter_P.size == 4_319_254
    assert critic.parameter_P.size == 4_341_782


def test_networks_follow_their_seed_alone():
    torch.manual_seed(1)
    first = parameters(Network(inputs=3, outputs=2, hidden=(4,), seed=5))
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert np.array_equal(first, parameters(Network(inputs=3, outputs=2, hidden=(4,), seed=5)))
    assert torch.equal(before, torch.get_rng_state())
    assert not np.array_equal(first, parameters(Network(inputs=3, outputs=2, hidden=(4,), seed=6)))


@pytest.mark.parametrize("hidden", [(), (8,), (8, 6, 5)], ids=str)
def test_the_written_gradient_is_that_of_autograd(hidden):
    sizes = {"inputs": 7, "outputs": 3, "hidden": hidden, "seed": 0}
    twin, truth = Network(**sizes), reference_network(**sizes)
    with torch.no_grad():
        for parameter, value in zip(truth.parameters(), twin._values, strict=True):
            value += 0.1 * np.random.default_rng(0).standard_normal(value.shape)
            parameter.copy_(torch.from_numpy(value))
    x = torch.randn(9, 7, requires_grad=True)
    upstream = torch.randn(9, 3)
    expected = truth(x)
    close = {"atol": 1e-5, "rtol": 1e-4}
    np.testing.assert_allclose(twin(x.detach().numpy()), expected.detach(), **close)
    expected.backward(upstream)
    slope = twin.backward(upstream.numpy(), parameters=False)
    np.testing.assert_allclose(slope, x.grad, **close)
    assert not twin.gradient_P.any()
    np.testing.assert_allclose(twin.backward(upstream.numpy()), x.grad, **close)
    for found, parameter in zip(twin._slopes, truth.parameters(), strict=True):
        np.testing.assert_allclose(found, parameter.grad, **close)


def test_adam_takes_the_steps_of_torch():
    network = Network(inputs=3, outputs=2, hidden=(4,), seed=0)
    truth = torch.from_numpy(parameters(network))
    ours, theirs = Adam(network, 1e-2), torch.optim.Adam([truth], lr=1e-2)
    rng = np.random.default_rng(0)
    for _ in range(50):
        network.gradient_P[:] = rng.standard_normal(len(network.parameter_P))
        truth.grad = torch.from_numpy(network.gradient_P)
        ours.step()
        theirs.step()
    np.testing.assert_allclose(network.parameter_P, truth, atol=1e-6)


def as_modules(agent):
    """Actor and critic as autograd knows them."""
    sizes = {"hidden": agent.settings.hidden, "seed": 0}
    outputs = 3 if agent.settings.critic == "vector" else 1
    actor = reference_network(inputs=7, outputs=3, **sizes)
    critic = reference_network(inputs=10, outputs=outputs, **sizes)
    for module, network in ((actor, agent.actor), (critic, agent.critic)):
        whole = torch.from_numpy(parameters(network))
        torch.nn.utils.vector_to_parameters(whole, module.parameters())
    return actor, critic


@pytest.mark.parametrize(
    ("critic", "scalarise"),
    [("scalar", "mixture"), ("vector", "mixture"), ("vector", "mean"), ("none", "mixture")],
)
@pytest.mark.parametrize("actor_step", ["own", "critics"])
def test_updates_take_the_gradient_of_the_losses_they_report(critic, scalarise, actor_step):
    settings = Settings(hidden=(16, 16), critic=critic, scalarise=scalarise, actor_step=actor_step)
    agent, arrays = Agent(**SIZES, settings=settings), transitions()
    batch, close = as_tensors(arrays), {"atol": 1e-6, "rtol": 1e-4}
    actor, q = as_modules(agent)
    if critic != "none":
        value = q(torch.cat([batch.state_NS, batch.mixture_NK], dim=1))
        loss = (value - torch.from_numpy(agent.targets(arrays))).square().mean()
        loss.backward()
        assert agent._update_critic(arrays) == pytest.approx(loss.item(), rel=1e-5)
        expected = torch.cat([p.grad.flatten() for p in q.parameters()])
        np.testing.assert_allclose(agent.critic.gradient_P, expected, **close)
    actor, q = as_modules(agent)
    mixture = 0.95 * actor(batch.state_NS).softmax(dim=1) + 0.05 / 3
    if critic == "none":
        gain = (mixture * batch.reward_NK).sum(dim=1).mean()
    else:
        value = q(torch.cat([batch.state_NS, mixture], dim=1))
        gain = (mixture * value).sum(dim=1).mean() if scalarise == "mixture" else value.mean()
        gain = value.mean() if critic == "scalar" else gain
    loss = 0.1 * (mixture * mixture.log()).sum(dim=1).mean() - gain
    loss.backward()
    assert agent._update_actor(arrays) == pytest.approx(loss.item(), rel=1e-4)
    expected = torch.cat([p.grad.flatten() for p in actor.parameters()])
    np.testing.assert_allclose(agent.actor.gradient_P, expected, **close)
    if actor_step == "critics" and critic != "none":
        expected = torch.cat([p.grad.flatten() for p in q.parameters()])
        np.testing.assert_allclose(agent.critic.gradient_P, expected, **close)


def test_a_policy_that_is_sure_of_one_domain_keeps_finite_parameters():
    agent, batch = Agent(**SIZES, settings=Settings(floor=0.0)), transitions()
    agent.actor._values[-1][:] = (500.0, 0.0, 0.0)
    assert 0 in agent.mixture(agent.actor, batch.state_NS)
    for _ in range(3):
        assert np.isfinite(agent.update(batch)["actor_loss"])
    assert np.isfinite(parameters(agent.actor)).all()


def test_soft_update_follows_its_vector():
    target, online = (np.array([value]) for value in (1.0, 3.0))
    seen = {}
    for count in range(1, 1001):
        soft_update(target, online, 0.001)
        seen[count] = target.item()
    expected = {1: 1.002, 2: 1.003998, 10: 1.0199102, 100: 1.1904157, 1000: 2.2646092}
    assert {count: seen[count] for count in expected} == pytest.approx(expected, abs=1e-7)


def test_targets_of_the_critic_follow_their_vector():
    agent = Agent(**SIZES, settings=Settings(critic="vector", discount=0.95))
    agent.target_critic = lambda _: np.array([[1.0, 2.0, 0.0]])
    batch = transitions(1)
    batch = Transitions(
        batch.state_NS, batch.mixture_NK, np.array([[0.5, -0.5, 0.0]]), batch.next_NS
    )
    assert agent.targets(batch)[0].tolist() == pytest.approx([1.45, 1.4, 0.0])


def test_the_scalar_critic_is_paid_for_the_mixture():
    agent, batch = Agent(**SIZES, settings=Settings()), transitions()
    expected = (batch.mixture_NK * batch.reward_NK).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(agent.targets(batch), expected)


def test_actor_and_critic_both_move_and_neither_moves_the_other():
    agent, batch = Agent(**SIZES, settings=Settings(discount=0.95)), transitions()
    actor, critic = parameters(agent.actor), parameters(agent.critic)
    targets = parameters(agent.target_actor), parameters(agent.target_critic)
    agent._update_critic(batch)
    assert np.array_equal(parameters(agent.actor), actor)
    moved_critic = parameters(agent.critic)
    assert np.abs(moved_critic - critic).max() > 0
    agent._update_actor(batch)
    assert np.array_equal(parameters(agent.critic), moved_critic)
    assert np.abs(parameters(agent.actor) - actor).max() > 0
    assert np.array_equal(parameters(agent.target_actor), targets[0])
    agent.update(batch)
    rate = agent.settings.soft_update_rate
    for online, target, before in (
        (agent.actor, agent.target_actor, targets[0]),
        (agent.critic, agent.target_critic, targets[1]),
    ):
        expected = (1 - rate) * before + rate * parameters(online)
        np.testing.assert_allclose(parameters(target), expected, atol=1e-7)


def test_actor_parameters_move():
    """The published code steps the critic's optimiser in the actor's place."""
    for actor_step, moves in (("own", True), ("critics", False)):
        agent = Agent(**SIZES, settings=Settings(actor_step=actor_step))
        before = parameters(agent.actor)
        for seed in range(5):
            agent.update(transitions(seed=seed))
        assert (not np.array_equal(before, parameters(agent.actor))) == moves


class Knows:
    """A critic that has learned the rewards."""

    def __init__(self, value):
        self.value = value

    def __call__(self, _):
        return self.value

    def backward(self, slope, *, parameters):
        return np.zeros((len(slope), 10))


def test_the_mean_of_a_vector_critic_of_z_scores_says_nothing_about_the_mixture():
    """Rewards that sum to 0 over domains: what the actor climbs is flat once the critic knows."""
    batch = transitions()
    flat = batch.reward_NK - batch.reward_NK.mean(axis=1, keepdims=True)
    mixture = np.tile(np.float32([0.8, 0.1, 0.1]), (16, 1))
    gains = {}
    for scalarise in ("mean", "mixture"):
        agent = Agent(**SIZES, settings=Settings(critic="vector", scalarise=scalarise))
        agent.critic = Knows(flat)
        gains[scalarise] = agent._gain(batch, mixture)[0].item()
    assert abs(gains["mean"]) < 1e-6 < 0.01 < abs(gains["mixture"])


def test_without_a_critic_the_actor_climbs_its_reward():
    agent = Agent(**SIZES, settings=Settings(critic="none", entropy=0.0))
    batch = transitions()
    best = np.tile(np.float32([-1.0, -1.0, 2.0]), (16, 1))
    batch = Transitions(batch.state_NS, batch.mixture_NK, best, batch.next_NS)
    for _ in range(200):
        assert "critic_loss" not in agent.update(batch)
    assert agent.mixture(agent.actor, batch.state_NS)[:, 2].min() > 0.9


def test_replay_keeps_the_newest_and_survives_a_restart():
    buffer = ReplayBuffer(3, state=2, domains=1)
    for i in range(5):
        buffer.add(np.full(2, i), np.full(1, i), np.full(1, -i), np.full(2, i + 1))
    other = ReplayBuffer(3, state=2, domains=1)
    other.load_state_dict(buffer.state_dict())
    for kept in (buffer, other):
        batch = kept.sample(200, np.random.default_rng(0))
        assert set(batch.state_NS[:, 0].tolist()) == {2, 3, 4}
        assert np.array_equal(batch.next_NS[:, 0], batch.state_NS[:, 0] + 1)
        assert np.array_equal(batch.reward_NK, -batch.mixture_NK)
    for kept in (buffer, other):
        kept.add(np.full(2, 9), np.ones(1), np.ones(1), np.full(2, 9))
    assert torch.equal(buffer.state_dict()["rows"], other.state_dict()["rows"])


@pytest.mark.parametrize(
    ("capacity", "kept"), [(3, [22, 23, 24]), (10, range(15, 25)), (100, range(15, 25))]
)
def test_replay_takes_over_the_newest_rows_of_another_capacity(capacity, kept):
    full, other = (ReplayBuffer(size, state=1, domains=1) for size in (10, capacity))
    other._rows[:] = np.nan
    for i in range(25):
        full.add(*[np.full(1, i)] * 4)
    other.load_state_dict(full.state_dict())
    assert len(other) == min(10, capacity)
    batch = other.sample(500, np.random.default_rng(0))
    assert set(batch.state_NS[:, 0].tolist()) == set(kept)
    other.add(*[np.full(1, 99)] * 4)
    batch = other.sample(2000, np.random.default_rng(0))
    dropped = {kept[0]} if capacity <= 10 else set()
    assert set(batch.state_NS[:, 0].tolist()) == (set(kept) - dropped) | {99}


def test_the_state_is_normalised_group_by_group():
    view = Observation(3, 2, 10)
    norms = TrackedNorms(np.array([1.0, 3.0]), np.array([0.2, 0.1]))
    view.after(np.array([1.0, 2.0, 3.0]), np.array([1, 2, 3]), norms, 0)
    state = view.after(np.array([1.0, 1.0, np.nan]), np.array([1, 1, 0]), norms, 4)
    assert state.shape == (3 * 3 + 2 * 2 + 1,)
    known = np.array([1.0, 1.0, 3.0])
    assert state[:3] == pytest.approx((known - known.mean()) / known.std(ddof=1), abs=1e-6)
    change = np.array([0.0, -1.0, 0.0])
    assert state[3:6] == pytest.approx((change - change.mean()) / change.std(ddof=1), abs=1e-6)
    seen = np.array([2.0, 3.0, 3.0])
    assert state[6:9] == pytest.approx((seen - seen.mean()) / seen.std(ddof=1), abs=1e-6)
    root = np.sqrt(0.5)
    assert state[9:13] == pytest.approx([-root, root, root, -root], abs=1e-6)
    assert state[13] == 0.5


def test_the_official_state_counts_from_the_first_step_and_in_percent():
    view = Observation(2, 1, 10, form="official")
    for step, loss in enumerate(([4.0, 4.0], [3.0, 2.0], [3.0, 1.0])):
        state = view.after(np.array(loss), np.array([1, 3]), None, step)
    assert state[2] > 0 > state[3]
    assert state[4:6].tolist() == pytest.approx([-np.sqrt(0.5), np.sqrt(0.5)])
    assert state[-1] == pytest.approx(30)


def test_a_domain_without_rows_keeps_its_reward_and_the_others_are_scored_without_it():
    rewards = Rewards(3)
    full = np.array([(1.0, 0.0), (0.5, 0.5), (-1.0, 0.2)])
    gram = full @ full.T
    rewards.after(DomainGradients(gram, np.array([1, 1, 1])), np.full(3, 1 / 3))
    before = rewards.per_domain()["reward"].copy()
    gram[2] = gram[:, 2] = 0
    rewards.after(DomainGradients(gram, np.array([1, 1, 0])), np.full(3, 1 / 3))
    after = rewards.per_domain()["reward"]
    assert after[2] == before[2] and after[0] == pytest.approx(after[1])


def test_rewards_are_running_means_with_a_memory_of_ten_steps():
    rewards, even = Rewards(3), np.full(3, 1 / 3)
    one, other = np.array([(1.0, 1.0), (0.1, 0.0), (0.0, 0.1)]), np.eye(3)[:, :2] + 0.1
    z, found = [], []
    for step in range(30):
        gradients = one if step < 20 else other
        found.append(rewards.after(DomainGradients(gradients @ gradients.T, np.ones(3)), even))
        z.append(rewards.per_domain()["reward"].copy())
    assert found[0] == pytest.approx(z[0]) and found[19] == pytest.approx(z[19])
    expected = 0.9**10 * z[19] + (1 - 0.9**10) * z[29]
    assert found[29] == pytest.approx(expected)


def test_the_importance_reward_is_w_over_p_and_a_mixture_s_is_their_sum():
    rewards = Rewards(3, form="importance")
    gradients = np.array([(1.0, 0.0), (0.5, 0.5), (0.2, 0.2)])
    gram, mixture = gradients @ gradients.T, np.array([0.7, 0.2, 0.1])
    found = rewards.after(DomainGradients(gram, np.ones(3)), mixture)
    utility = (gram.sum(axis=1) - np.diag(gram)) / (np.sqrt(np.diag(gram)).mean() + 1e-6)
    assert found == pytest.approx(utility / mixture)
    assert mixture_reward(found, mixture, "importance") == pytest.approx((utility / mixture).sum())


@pytest.mark.parametrize("critic", ["scalar", "vector"])
def test_each_critic_is_paid_the_paper_s_importance_reward_in_its_form(critic):
    agent = Agent(**SIZES, settings=Settings(critic=critic, reward="importance"))
    batch = transitions()
    reward = batch.reward_NK
    expected = reward if critic == "vector" else reward.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(agent.targets(batch), expected)


def test_a_reward_that_is_not_finite_drops_the_transition():
    rewards = Rewards(3, form="importance")
    gradients = DomainGradients(np.ones((3, 3)), np.ones(3))
    assert rewards.after(gradients, np.array([1.0, 0.0, 0.0])) is None
    assert rewards.dropped == 1
    assert rewards.after(gradients, np.array([0.8, 0.1, 0.1])) is not None
    assert any("floor above 0" in message for message in rewards.warnings(TASK.names))


def test_products_that_are_not_finite_drop_the_transition():
    mixer = MIXERS.build("acodm", TASK, warmup_steps=2)
    drive(mixer, 3)
    mixer.propose(3)
    mixer.observe(outcome(3, np.full((3, 4), np.nan)))
    assert len(mixer.replay) == 3 and mixer.diagnostics()["dropped"] == 1


def test_warm_up_tries_mixtures_around_the_prior():
    mixer = MIXERS.build("acodm", TASK, warmup_steps=10_000, prior="natural")
    tried = np.array([mixer.propose(step).probability_K for step in range(3000)])
    expected = 0.95 * np.array([0.1, 0.2, 0.7]) + 0.05 / 3
    assert np.abs(tried.mean(axis=0) - expected).max() < 0.01
    assert tried.std(axis=0).min() > 0.05


def test_the_mixture_proposed_is_the_one_that_is_stored():
    mixer = MIXERS.build("acodm", TASK, warmup_steps=1)
    mixtures = drive(mixer, 6)
    rows = mixer.replay.state_dict()["rows"]
    states = 3 * 3 + 2 * 3 + 1
    np.testing.assert_allclose(rows[:, states : states + 3], mixtures, rtol=1e-6)


def test_gradients_are_taken_every_so_many_steps():
    mixer = MIXERS.build("acodm", TASK, every_steps=3)
    assert Signal.DOMAIN_GRADIENTS in mixer.needs
    asked = []
    for step in range(7):
        mixer.propose(step)
        asked.append(Signal.DOMAIN_GRADIENTS in mixer.needs)
    assert asked == [True, False, False, True, False, False, True]


@pytest.mark.parametrize("through_file", [True, False])
def test_an_agent_drives_another_run(tmp_path, through_file):
    proxy = MIXERS.build("acodm", TASK, warmup_steps=5, batch_size=4)
    drive(proxy, 30)
    torch.save(proxy.agent_state(), tmp_path / "agent.pt")
    where = tmp_path / "agent.pt" if through_file else tmp_path
    other = MixingTask(TASK.names, np.array([9, 9, 9]), total_steps=50, seed=8)
    frozen = MIXERS.build("acodm", other, agent=str(where), mode="frozen")
    assert frozen.needs == {Signal.TRACKED_NORMS}
    before = parameters(frozen.agent.actor)
    assert np.array_equal(before, parameters(proxy.agent.actor))
    drive(frozen, 10)
    assert np.array_equal(before, parameters(frozen.agent.actor))
    going_on = MIXERS.build("acodm", other, agent=str(where), mode="continue", batch_size=4)
    assert len(going_on.replay) == 30
    drive(going_on, 10)
    assert not np.array_equal(before, parameters(going_on.agent.actor))


def test_a_frozen_agent_repeats_itself():
    first, second = (MIXERS.build("frozen_random", TASK) for _ in range(2))
    assert np.array_equal(drive(first, 5), drive(second, 5))


@pytest.mark.parametrize(
    ("task", "options", "says"),
    [
        (MixingTask(("b", "a", "c"), TASK.rows_K), {}, "domains"),
        (MixingTask(("a", "b"), TASK.rows_K[:2]), {}, "domains"),
        (TASK, {"tracked_layers": 2}, "layers"),
        (TASK, {"critic": "vector"}, "critic"),
        (TASK, {"reward": "importance"}, "reward"),
    ],
)
def test_an_agent_of_something_else_is_refused_with_the_remedy(tmp_path, task, options, says):
    torch.save(MIXERS.build("acodm", TASK).agent_state(), tmp_path / "agent.pt")
    with pytest.raises(ConfigError, match=says) as error:
        MIXERS.build("acodm", task, agent=str(tmp_path), mode="frozen", **options)
    assert error.value.remedy


def test_a_file_that_is_no_agent_is_refused(tmp_path):
    with pytest.raises(PolicyError, match="does not exist"):
        MIXERS.build("acodm", TASK, agent=str(tmp_path / "none.pt"), mode="frozen")
    (tmp_path / "bad.pt").write_bytes(b"nothing")
    torch.save({"other": 1}, tmp_path / "other.pt")
    older = MIXERS.build("acodm", TASK).agent_state()
    del older["layers"]
    torch.save(older, tmp_path / "older.pt")
    for name in ("bad.pt", "other.pt", "older.pt"):
        with pytest.raises(PolicyError, match="is no agent"):
            MIXERS.build("acodm", TASK, agent=str(tmp_path / name), mode="frozen")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"mode": "frozen"}, "mode='frozen' has no agent"),
        ({"mode": "continue"}, "mode='continue' has no agent"),
        ({"agent": "runs/proxy"}, "mode='learn' starts from none"),
        ({"agent": "runs/proxy", "mode": "untrained"}, "mode='untrained' starts from none"),
        ({"critic": "vectr"}, "did you mean 'vector'"),
        ({"state": "offical"}, "did you mean 'official'"),
        ({"actor_step": "foo"}, "'own', 'critics'"),
        ({"discount": 5}, "from 0 to 1"),
        ({"soft_update_rate": 7}, "above 0 to 1"),
        ({"updates_per_step": -1}, "at least 1"),
        ({"warmup_steps": 1.5}, "a whole number"),
    ],
)
def test_options_that_would_be_ignored_or_mean_something_else_are_refused(options, says):
    with pytest.raises(ConfigError, match=says):
        MIXERS.build("acodm", TASK, **options)


def test_a_frozen_agent_says_nothing_of_the_rewards_of_another_run(tmp_path):
    proxy = MIXERS.build("acodm", TASK, warmup_steps=5, batch_size=4)
    noise = np.random.default_rng(0)
    for step in range(40):
        proxy.propose(step)
        proxy.observe(outcome(step, noise.normal(size=(3, 4))))
    assert any("below its noise" in message for message in proxy.warnings())
    torch.save(proxy.agent_state(), tmp_path / "agent.pt")
    for mixer in (
        MIXERS.build("acodm", TASK, agent=str(tmp_path), mode="frozen"),
        MIXERS.build("frozen_random", TASK),
    ):
        drive(mixer, 30)
        assert mixer.diagnostics().keys() == {"phase", "entropy"}
        assert not any("reward" in message for message in mixer.warnings())


def test_an_agent_takes_the_depths_of_its_layers_along(tmp_path):
    proxy = MIXERS.build("acodm", TASK)
    proxy.propose(0)
    shown = outcome(0)
    norms = TrackedNorms(np.ones(3), np.ones(3), (0.5, 0.75, 1.0))
    proxy.observe(replace(shown, signals={**shown.signals, Signal.TRACKED_NORMS: norms}))
    torch.save(proxy.agent_state(), tmp_path / "agent.pt")
    target = MIXERS.build("acodm", TASK, agent=str(tmp_path), mode="frozen")
    assert target.tracking.depths == (0.5, 0.75, 1.0) and proxy.tracking.depths is None


def test_norms_of_another_number_of_layers_name_the_option():
    mixer = MIXERS.build("acodm", TASK, tracked_layers=2)
    mixer.propose(0)
    with pytest.raises(ConfigError, match="tracked_layers = 2") as error:
        mixer.observe(outcome(0))
    assert error.value.remedy == "set tracked_layers=3"


def test_resume_is_exact_with_every_part_of_the_agent():
    options = {"warmup_steps": 3, "batch_size": 4, "discount": 0.95}
    straight = MIXERS.build("acodm", TASK, **options)
    drive(straight, 12)
    buffer = io.BytesIO()
    torch.save(straight.state_dict(), buffer)
    buffer.seek(0)
    again = MIXERS.build("acodm", TASK, **options)
    again.load_state_dict(torch.load(buffer, weights_only=True))
    assert np.array_equal(drive(straight, 8, first=12), drive(again, 8, first=12))
    for name, part in straight.agent._parts().items():
        other = again.agent._parts()[name]
        if isinstance(part, Network):
            assert np.array_equal(parameters(part), parameters(other))
    assert straight.diagnostics() == again.diagnostics()


def test_conflict_and_noise_and_the_floor_are_warned_of_with_a_remedy():
    mixer = MIXERS.build("acodm", TASK, warmup_steps=0, entropy=0.0, batch_size=4)
    opposed = np.array([(1.0, 0.0), (-0.8, 0.6), (0.01, 0.0)])
    for step in range(25):
        mixer.propose(step)
        mixer.observe(outcome(step, opposed))
    assert any("oppose each other" in message for message in mixer.warnings())
    mixer._mixture_K = np.array([0.017, 0.483, 0.5])
    assert any("'a' sits at its floor" in message for message in mixer.warnings())
    noisy = Rewards(3)
    rng = np.random.default_rng(0)
    for _ in range(60):
        gradients = rng.normal(size=(3, 30))
        noisy.after(DomainGradients(gradients @ gradients.T, np.ones(3)), np.full(3, 1 / 3))
    messages = list(noisy.warnings(TASK.names))
    assert any("just as the average one does" in message for message in messages)


def test_diagnostics_tell_the_energies_and_the_phase():
    mixer = MIXERS.build("acodm", TASK, warmup_steps=3, batch_size=4)
    phases = []
    for step in range(8):
        mixer.propose(step)
        mixer.observe(outcome(step))
        phases.append(mixer.diagnostics()["phase"])
    said = mixer.diagnostics()
    assert phases == ["warm-up"] * 3 + ["learning"] * 5
    gram = outcome(7).signals[Signal.DOMAIN_GRADIENTS].gram_KK
    mixture = mixer._mixture_K
    assert said["self_energy"] + said["interaction_energy"] == pytest.approx(
        mixture @ gram @ mixture
    )
    assert 0 < said["entropy"] <= np.log(3) and {"critic_loss", "actor_loss"} <= said.keys()

"""The actor-critic: what it proposes, and one update of it.

    agent = Agent(state=22, domains=5, settings=Settings(), seed=0)
    mixture_K = agent.act(state_S)
    losses = agent.update(buffer.sample(32, rng))

The reference agent is deterministic policy gradient (Lillicrap et al. 2016) with a scalar critic.
The forms of the paper and of the published code are settings; what they do is in the method card.
Shapes: N transitions, S state, K domains, P parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from workbench.mixing.acodm.networks import Adam, Network, soft_update
from workbench.mixing.acodm.replay_buffer import Transitions
from workbench.mixing.acodm.rewards import Reward, mixture_reward

CriticForm = Literal["scalar", "vector", "none"]
Scalarise = Literal["mixture", "mean"]
ActorStep = Literal["own", "critics"]


@dataclass(frozen=True)
class Settings:
    """How the agent learns.

    critic: `scalar` Q(s, a) of the mixture's reward; `vector` one Q a domain, as published; `none`
        lets the actor climb its reward directly.
    scalarise: what the actor climbs under a vector critic: the mixture's own weighting, or the
        plain mean, as published, which is 0 for every policy when rewards are z-scores.
    actor_step: `own`, or `critics` as in the published code, which steps the critic's optimiser
        after the actor's backward pass, so that the actor never moves.
    entropy: weight of -entropy in the actor's loss; without it the optimum is a single domain.
    reward: how the rewards of the domains make that of the mixture, see `acodm.rewards`.
    """

    hidden: tuple[int, ...] = (96, 96)
    critic: CriticForm = "scalar"
    scalarise: Scalarise = "mixture"
    actor_step: ActorStep = "own"
    entropy: float = 0.1
    discount: float = 0.0
    soft_update_rate: float = 0.005
    learning_rate: float = 1e-3
    floor: float = 0.05
    reward: Reward = "alignment"


class Agent:
    """Actor, critic, their targets and optimisers."""

    def __init__(self, *, state: int, domains: int, settings: Settings, seed: int):
        self.settings = settings
        hidden = settings.hidden
        self.actor = Network(inputs=state, outputs=domains, hidden=hidden, seed=seed)
        outputs = domains if settings.critic == "vector" else 1
        self.critic = Network(inputs=state + domains, outputs=outputs, hidden=hidden, seed=seed + 1)
        self.target_actor, self.target_critic = self.actor.copy(), self.critic.copy()
        self.actor_optimizer = Adam(self.actor, settings.learning_rate)
        self.critic_optimizer = Adam(self.critic, settings.learning_rate)

    def mixture(self, actor: Network, state_NS: np.ndarray) -> np.ndarray:
        """a = (1 - floor) softmax(logits) + floor / K, (N, K)."""
        return self._floored(_softmax(actor(state_NS)))

    def _floored(self, share_NK: np.ndarray) -> np.ndarray:
        floor = self.settings.floor
        return (1 - floor) * share_NK + floor / share_NK.shape[-1]

    def act(self, state_S: np.ndarray) -> np.ndarray:
        """The mixture for a state, (K,) float64 with sum 1."""
        state_1S = state_S[None].astype(np.float32)
        mixture_K = self.mixture(self.actor, state_1S)[0].astype(np.float64)
        return mixture_K / mixture_K.sum()

    def update(self, batch: Transitions, *, actor: bool = True) -> dict[str, float]:
        """One step of the critic, one of the actor unless it waits, and of the targets.

        Returns:
            `critic_loss` and `actor_loss`, where there is one.
        """
        losses = {}
        if self.settings.critic != "none":
            losses["critic_loss"] = self._update_critic(batch)
        if actor:
            losses["actor_loss"] = self._update_actor(batch)
        if self.settings.critic != "none":
            rate = self.settings.soft_update_rate
            soft_update(self.target_critic.parameter_P, self.critic.parameter_P, rate)
            soft_update(self.target_actor.parameter_P, self.actor.parameter_P, rate)
        return losses

    @property
    def act_flops(self) -> float:
        """Operations of `act`."""
        return self.actor.flops_per_row

    def update_flops(self, rows: int, *, actor: bool = True) -> float:
        """Operations of `update` on so many transitions; a backward pass takes as many twice, once
        where the parameters' slopes are not asked for."""
        of_actor, of_critic = self.actor.flops_per_row, self.critic.flops_per_row
        climbs = self.settings.critic != "none"
        total = 3 * of_critic if climbs else 0
        if climbs and self._looks_ahead:
            total += of_actor + of_critic
        if actor:
            total += 3 * of_actor
            total += (2 if self.settings.actor_step == "own" else 3) * of_critic if climbs else 0
        return float(rows * total)

    @property
    def _looks_ahead(self) -> bool:
        return self.settings.discount > 0

    def targets(self, batch: Transitions) -> np.ndarray:
        """y = R + discount * target Q(s', target a(s')), (N, 1) or per domain (N, K)."""
        reward = batch.reward_NK
        if self.settings.critic == "scalar":
            reward = mixture_reward(reward, batch.mixture_NK, self.settings.reward)[:, None]
        if not self._looks_ahead:
            return reward
        next_mixture = self.mixture(self.target_actor, batch.next_NS)
        future = self.target_critic(_joined(batch.next_NS, next_mixture))
        return reward + self.settings.discount * future

    def _update_critic(self, batch: Transitions) -> float:
        target = self.targets(batch)
        error = self.critic(_joined(batch.state_NS, batch.mixture_NK)) - target
        self.critic.backward(error * (2 / error.size))
        self.critic_optimizer.step()
        return float(np.square(error).mean())

    def _update_actor(self, batch: Transitions) -> float:
        share_NK = _softmax(self.actor(batch.state_NS))
        mixture_NK = self._floored(share_NK)
        loss, slope_NK = self._actor_loss(batch, mixture_NK)
        # Through the floor, then through the softmax.
        slope_NK = (1 - self.settings.floor) * share_NK * slope_NK
        self.actor.backward(slope_NK - share_NK * slope_NK.sum(axis=1, keepdims=True))
        own = self.settings.actor_step == "own"
        (self.actor_optimizer if own else self.critic_optimizer).step()
        return float(loss)

    def _actor_loss(
        self, batch: Transitions, mixture_NK: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """entropy * sum a log a - gain, averaged over N, and its slope in the mixture, (N, K)."""
        gain, slope_NK = self._gain(batch, mixture_NK)
        # 0 log 0 is 0: without a floor the softmax reaches 0 itself.
        log_NK = np.log(np.maximum(mixture_NK, np.finfo(np.float32).tiny))
        weight = self.settings.entropy / len(mixture_NK)
        loss = weight * (mixture_NK * log_NK).sum() - gain
        return loss, weight * (log_NK + 1) - slope_NK

    def _gain(self, batch: Transitions, mixture_NK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the actor climbs, averaged over N, and its slope in the mixture, (N, K).

        With `actor_step="critics"` the critic's gradient of -gain is left for its optimiser.
        """
        rows, domains = mixture_NK.shape
        if self.settings.critic == "none":
            slope_NK = batch.reward_NK / rows
            return (mixture_NK * slope_NK).sum(), slope_NK
        value = self.critic(_joined(batch.state_NS, mixture_NK))
        weighed = self.settings.critic == "vector" and self.settings.scalarise == "mixture"
        weight = mixture_NK / rows if weighed else np.full_like(value, 1 / value.size)
        own = self.settings.actor_step == "own"
        slope_NK = -self.critic.backward(-weight, parameters=not own)[:, -domains:]
        return (weight * value).sum(), slope_NK + value / rows if weighed else slope_NK

    def _parts(self) -> dict[str, Any]:
        return {
            "actor": self.actor,
            "critic": self.critic,
            "target_actor": self.target_actor,
            "target_critic": self.target_critic,
            "actor_optimizer": self.actor_optimizer,
            "critic_optimizer": self.critic_optimizer,
        }

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, part in self._parts().items():
            part.load_state_dict(state[name])


def _joined(state_NS: np.ndarray, mixture_NK: np.ndarray) -> np.ndarray:
    return np.concatenate([state_NS, mixture_NK], axis=1)


def _softmax(logits_NK: np.ndarray) -> np.ndarray:
    power_NK = np.exp(logits_NK - logits_NK.max(axis=1, keepdims=True))
    return power_NK / power_NK.sum(axis=1, keepdims=True)

"""The actor-critic: what it proposes, and one update of it.

    agent = Agent(state=22, domains=5, settings=Settings(), seed=0)
    mixture_K = agent.act(state_S)
    losses = agent.update(buffer.sample(32, rng))

The reference agent is deterministic policy gradient (Lillicrap et al. 2016) with a scalar critic.
The forms of the paper and of the published code are settings; what they do is in the method card.
Shapes: N transitions, S state, K domains.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from workbench.mixing.acodm.networks import network, soft_update
from workbench.mixing.acodm.replay_buffer import Transitions

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


class Agent:
    """Actor, critic, their targets and optimisers."""

    def __init__(self, *, state: int, domains: int, settings: Settings, seed: int):
        self.settings = settings
        hidden = settings.hidden
        self.actor = network(inputs=state, outputs=domains, hidden=hidden, seed=seed)
        outputs = domains if settings.critic == "vector" else 1
        self.critic = network(inputs=state + domains, outputs=outputs, hidden=hidden, seed=seed + 1)
        self.target_actor = copy.deepcopy(self.actor)
        self.target_critic = copy.deepcopy(self.critic)
        options: dict[str, Any] = {"lr": settings.learning_rate, "fused": True}
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), **options)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), **options)

    def mixture(self, actor: nn.Module, state_NS: Tensor) -> Tensor:
        """a = (1 - floor) softmax(logits) + floor / K, (N, K)."""
        logits_NK = actor(state_NS)
        floor = self.settings.floor
        return (1 - floor) * logits_NK.softmax(dim=-1) + floor / logits_NK.shape[-1]

    @torch.no_grad()
    def act(self, state_S: np.ndarray) -> np.ndarray:
        """The mixture for a state, (K,) float64 with sum 1."""
        state_1S = torch.from_numpy(state_S.astype(np.float32))[None]
        mixture_K = self.mixture(self.actor, state_1S)[0].double().numpy()
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
            soft_update(self.target_critic, self.critic, self.settings.soft_update_rate)
            soft_update(self.target_actor, self.actor, self.settings.soft_update_rate)
        return losses

    def targets(self, batch: Transitions) -> Tensor:
        """y = R + discount * target Q(s', target a(s')), (N, 1) or per domain (N, K)."""
        reward = batch.reward_NK
        if self.settings.critic == "scalar":
            reward = (batch.mixture_NK * reward).sum(dim=1, keepdim=True)
        if not self.settings.discount:
            return reward
        with torch.no_grad():
            next_mixture = self.mixture(self.target_actor, batch.next_NS)
            future = self.target_critic(torch.cat([batch.next_NS, next_mixture], dim=1))
        return reward + self.settings.discount * future

    def _update_critic(self, batch: Transitions) -> float:
        value = self.critic(torch.cat([batch.state_NS, batch.mixture_NK], dim=1))
        loss = (value - self.targets(batch)).square().mean()
        self.critic_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.critic_optimizer.step()
        return loss.item()

    def _update_actor(self, batch: Transitions) -> float:
        mixture_NK = self.mixture(self.actor, batch.state_NS)
        negative_entropy = (mixture_NK * mixture_NK.log()).sum(dim=1).mean()
        loss = self.settings.entropy * negative_entropy - self._gain(batch, mixture_NK)
        self.actor_optimizer.zero_grad(set_to_none=True)
        self.critic_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.settings.actor_step == "own":
            self.actor_optimizer.step()
        else:
            self.critic_optimizer.step()
        self.critic_optimizer.zero_grad(set_to_none=True)
        return loss.item()

    def _gain(self, batch: Transitions, mixture_NK: Tensor) -> Tensor:
        """What the actor climbs, averaged over the mini-batch."""
        if self.settings.critic == "none":
            return (mixture_NK * batch.reward_NK).sum(dim=1).mean()
        value = self.critic(torch.cat([batch.state_NS, mixture_NK], dim=1))
        if self.settings.critic == "vector" and self.settings.scalarise == "mixture":
            return (mixture_NK * value).sum(dim=1).mean()
        return value.mean()

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
        # A copy, because optimisers and networks hand out their own tensors.
        return copy.deepcopy({name: part.state_dict() for name, part in self._parts().items()})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, part in self._parts().items():
            part.load_state_dict(copy.deepcopy(state[name]))

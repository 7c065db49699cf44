"""The mixer `acodm`: signals in, mixture out, learning as it goes.

    Policy("acodm", warmup_steps=200)                             # learns while the model trains
    Policy("acodm", agent="runs/proxy", mode="frozen")            # drives a larger model
    Policy("acodm", agent="runs/proxy", mode="continue")

Shapes: K domains, L tracked layers, S state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from workbench.core import (
    MIXERS,
    ConfigError,
    Count,
    MixingTask,
    Mixture,
    NotNegative,
    PolicyError,
    Positive,
    PositiveShare,
    RandomStreams,
    Share,
    Signal,
    StepOutcome,
    Tracking,
    Whole,
    entropy_nats,
    stream_seed,
)
from workbench.mixing.acodm.agent import ActorStep, Agent, CriticForm, Scalarise, Settings
from workbench.mixing.acodm.networks import PAPER_HIDDEN, default_hidden
from workbench.mixing.acodm.observation import Form, Observation
from workbench.mixing.acodm.replay_buffer import ReplayBuffer
from workbench.mixing.acodm.rewards import Reward, Rewards, mixture_reward
from workbench.mixing.energy import energies
from workbench.mixing.floor import DEFAULT_FLOOR, check_floor, with_floor
from workbench.mixing.signals import domain_losses

Mode = Literal["learn", "frozen", "continue", "untrained"]
AGENT_FILE = "agent.pt"
OWN_FIELDS = ("domains", "layers", "hidden", "critic", "reward", "state")
LEARNED_FIELDS = ("agent", "replay", "rewards")
"""What `AcOdm.agent_state` gives, beside the depths of the layers."""
DIRICHLET = 2.0
"""Concentration per domain of the mixtures tried during the warm-up."""


@MIXERS.register("acodm")
class AcOdm:
    """AC-ODM, Ma et al. 2026 (arXiv 2505.23878), as the reference agent of the method card.

    State fields: agent, replay, rewards, observation, the last action, counts of what was dropped.

    Args:
        task: supplied by the loop.
        warmup_steps: steps that try Dirichlet mixtures around the prior before the actor acts.
        prior: `uniform`, or `natural` (in proportion to rows): the centre of the warm-up.
        discount: of later rewards, the paper's gamma.
        entropy: weight of the policy's entropy; 0 ends at a single domain.
        exploration: standard deviation of the noise on log-probabilities.
        batch_size, replay_size, updates_per_step, learning_rate, soft_update_rate: of DDPG.
        every_steps: gradients are taken and the agent learns every so many steps.
        tracked_layers, projection_width: see `core.Tracking`.
        network: `small` grows with the state; `paper` is five hidden layers of 1024.
        reward: `alignment`, `step`, or the paper's W/P, summed, as `importance`; see
            `acodm.rewards`.
        critic, scalarise, actor_step: see `acodm.agent.Settings`.
        state: `paper` or `official`, see `acodm.observation`.
        mode: `learn`; `frozen` acts as `agent` learned to; `continue` learns on from it;
            `untrained` acts as an actor does that never learned anything.
        agent: an agent.pt, or the folder of a run that has one.
    Raises:
        ConfigError: an agent that is missing, of no use in this mode, or of other domains, layers,
            networks or rewards.
    """

    def __init__(
        self,
        task: MixingTask,
        *,
        warmup_steps: Whole = 100,
        prior: Literal["uniform", "natural"] = "uniform",
        discount: Share = 0.0,
        entropy: NotNegative = 0.1,
        exploration: NotNegative = 0.3,
        batch_size: Count = 32,
        replay_size: Count = 10_000,
        updates_per_step: Count = 1,
        learning_rate: Positive = 1e-3,
        soft_update_rate: PositiveShare = 0.005,
        every_steps: Count = 1,
        tracked_layers: Count = 3,
        projection_width: Count | None = None,
        network: Literal["small", "paper"] = "small",
        reward: Reward = "alignment",
        critic: CriticForm = "scalar",
        scalarise: Scalarise = "mixture",
        actor_step: ActorStep = "own",
        state: Form = "paper",
        mode: Mode = "learn",
        agent: str | Path | None = None,
        floor: Share = DEFAULT_FLOOR,
        guaranteed_rows: Whole = 0,
    ):
        check_floor(task, floor, guaranteed_rows)
        _check_agent(mode, agent)
        self.task, self.mode, self._guaranteed_rows = task, mode, guaranteed_rows
        self.tracking = Tracking(tracked_layers, projection_width)
        self._exploration, self._batch_size, self._floor = exploration, batch_size, floor
        self._updates, self._every_steps = updates_per_step, every_steps
        # An agent that has learned already needs no mixtures at random.
        self._warmup_steps = warmup_steps if mode == "learn" else 0
        self._streams = RandomStreams(task.seed)
        sizes = {"state": 3 * len(task) + 2 * tracked_layers + 1, "domains": len(task)}
        hidden = PAPER_HIDDEN if network == "paper" else default_hidden(sizes["state"])
        settings = Settings(
            hidden, critic, scalarise, actor_step, entropy, discount, soft_update_rate,
            learning_rate, floor, reward,
        )  # fmt: skip
        self.agent = Agent(**sizes, settings=settings, seed=stream_seed(task.seed, "networks"))
        self.replay = ReplayBuffer(replay_size, **sizes)
        self.rewards = Rewards(len(task), form=reward)
        self.view = Observation(len(task), tracked_layers, task.total_steps, form=state)
        self._start(_prior(task, prior), agent)

    def _start(self, prior_K: np.ndarray, agent: str | Path | None) -> None:
        self._prior_K = self._mixture_K = prior_K
        self._step = -1
        self._depth_L: tuple[float, ...] | None = None
        self._logged: dict[str, Any] = {}
        self._flops: float | None = None
        if agent is not None:
            self._take_over(read_agent(agent))

    @property
    def _acts_only(self) -> bool:
        return self.mode in ("frozen", "untrained")

    @property
    def needs(self) -> frozenset[Signal]:
        if self._acts_only:
            return frozenset({Signal.TRACKED_NORMS})
        if self._step >= 0 and self._step % self._every_steps:
            return frozenset({Signal.TRACKED_NORMS})
        return frozenset({Signal.TRACKED_NORMS, Signal.DOMAIN_GRADIENTS})

    @property
    def policy_flops(self) -> float:
        """Operations of actor and critic in the step last observed; at first, the most of one."""
        if self._flops is None:
            learned = 0.0 if self._acts_only else self._learning_flops(actor=True)
            return self.agent.act_flops + learned
        return self._flops

    def _learning_flops(self, *, actor: bool) -> float:
        return self._updates * self.agent.update_flops(self._batch_size, actor=actor)

    def propose(self, step: int) -> Mixture:
        self._step, self._flops = step, 0.0
        self._mixture_K = self._act(step)
        return Mixture(self.task.names, self._mixture_K, self._guaranteed_rows)

    def _act(self, step: int) -> np.ndarray:
        rng = self._streams.at("action", step)
        if step < self._warmup_steps:
            tried_K = rng.dirichlet(DIRICHLET * len(self.task) * self._prior_K)
            return with_floor(tried_K, self._floor)
        mixture_K = self.agent.act(self.view.vector_S)
        self._flops = self.agent.act_flops
        if self._acts_only or not self._exploration:
            return mixture_K
        # Noise on the policy's own softmax, under the floor, which then holds again.
        inner_K = (mixture_K - self._floor / len(mixture_K)) / max(1 - self._floor, 1e-9)
        noisy_K = np.log(np.maximum(inner_K, 1e-12))
        noisy_K = noisy_K + self._exploration * rng.standard_normal(len(mixture_K))
        noisy_K = np.exp(noisy_K - noisy_K.max())
        return with_floor(noisy_K / noisy_K.sum(), self._floor)

    def observe(self, outcome: StepOutcome) -> None:
        loss_K, count_K = domain_losses(outcome, len(self.task))
        before_S = self.view.vector_S
        norms = outcome.signals.get(Signal.TRACKED_NORMS)
        self._depth_L = norms.depth_L if norms else None
        after_S = self.view.after(loss_K, count_K, norms, outcome.step)
        mixture_K = self._mixture_K
        self._logged = {"phase": self._phase(outcome.step), "entropy": entropy_nats(mixture_K)}
        gradients = outcome.signals.get(Signal.DOMAIN_GRADIENTS)
        if gradients is None or self._acts_only:
            return
        reward_K = self.rewards.after(gradients, mixture_K)
        if reward_K is not None:
            own, interaction = energies(gradients.gram_KK, mixture_K)
            self._logged |= {"self_energy": own, "interaction_energy": interaction}
            self.replay.add(before_S, mixture_K, reward_K, after_S)
            total = mixture_reward(reward_K, mixture_K, self.rewards.form)
            self._logged["total_reward"] = float(total)
        self._logged |= self._learn(outcome.step)

    def _learn(self, step: int) -> dict[str, float]:
        if len(self.replay) < self._batch_size:
            return {}
        rng = self._streams.at("replay", step)
        actor = step >= self._warmup_steps
        self._flops = (self._flops or 0.0) + self._learning_flops(actor=actor)
        losses: dict[str, float] = {}
        for _ in range(self._updates):
            batch = self.replay.sample(self._batch_size, rng)
            losses = self.agent.update(batch, actor=actor)
        return losses

    def _phase(self, step: int) -> str:
        if self._acts_only:
            return self.mode
        return "warm-up" if step < self._warmup_steps else "learning"

    def diagnostics(self) -> Mapping[str, Any]:
        if self._acts_only:
            # Rewards that came with the agent are those of another run.
            return self._logged
        by_domain = {
            name: dict(zip(self.task.names, values.tolist(), strict=True))
            for name, values in self.rewards.per_domain().items()
        }
        return {**self._logged, **by_domain, "dropped": self.rewards.dropped}

    def warnings(self) -> Sequence[str]:
        found = [] if self._acts_only else list(self.rewards.warnings(self.task.names))
        lowest = self._floor / len(self.task)
        if self._step >= self._warmup_steps and lowest > 0:
            at_floor = [
                name
                for name, share in zip(self.task.names, self._mixture_K, strict=True)
                if share < 1.1 * lowest
            ]
            found += [
                f"domain '{name}' sits at its floor: raise floor if it must be learned, or entropy "
                "if the policy is too sure"
                for name in at_floor
            ]
        return found

    def state_dict(self) -> dict[str, Any]:
        return {
            **self._learned(),
            "step": self._step,
            "mixture": torch.from_numpy(self._mixture_K.copy()),
            "view": self.view.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._load_learned(state)
        self._step = state["step"]
        self._mixture_K = state["mixture"].numpy().copy()
        self.view.load_state_dict(state["view"])

    def agent_state(self) -> dict[str, Any]:
        return {
            "domains": list(self.task.names),
            "layers": self.tracking.layers,
            "depths": self._depth_L,
            "hidden": list(self.agent.settings.hidden),
            "critic": self.agent.settings.critic,
            "reward": self.rewards.form,
            "state": self.view.form,
            **self._learned(),
        }

    def _learned(self) -> dict[str, Any]:
        return {
            "agent": self.agent.state_dict(),
            "replay": self.replay.state_dict(),
            "rewards": self.rewards.state_dict(),
        }

    def _load_learned(self, state: dict[str, Any]) -> None:
        self.agent.load_state_dict(state["agent"])
        self.replay.load_state_dict(state["replay"])
        self.rewards.load_state_dict(state["rewards"])

    def _take_over(self, saved: dict[str, Any]) -> None:
        own = self.agent_state()
        remedies = {
            "domains": "use the same domains in the same order (CorpusConfig.domains)",
            "layers": f"set tracked_layers={saved['layers']}",
            "hidden": "set network as it was for the agent",
            "critic": f"set critic='{saved['critic']}'",
            "reward": f"set reward='{saved['reward']}'",
            "state": f"set state='{saved['state']}'",
        }
        for name, remedy in remedies.items():
            if saved[name] != own[name]:
                raise ConfigError(
                    f"the agent was trained with {name} {saved[name]}, here {name} is {own[name]}",
                    remedy=remedy,
                )
        self.tracking = replace(self.tracking, depths=saved["depths"])
        self._load_learned(saved)


def read_agent(path: str | Path) -> dict[str, Any]:
    """What `AcOdm.agent_state` gave, from its file or the folder of a run.

    Raises:
        PolicyError: no such file, or it is no agent.
    """
    path = Path(path).expanduser()
    file = path / AGENT_FILE if path.is_dir() else path
    try:
        saved = torch.load(file, weights_only=True, map_location="cpu")
    except FileNotFoundError:
        raise PolicyError(
            f"{file} does not exist", remedy="give the folder of a finished run of mixer 'acodm'"
        ) from None
    except Exception as error:  # torch raises pickle's, zipfile's and its own
        raise PolicyError(
            f"{file} is no agent: {type(error).__name__}", remedy="give an agent.pt"
        ) from None
    fields = {*OWN_FIELDS, *LEARNED_FIELDS, "depths"}
    lacks = fields - saved.keys() if isinstance(saved, dict) else fields
    if lacks:
        raise PolicyError(
            f"{file} is no agent: it lacks {', '.join(sorted(lacks))}",
            remedy="give an agent.pt that this version's mixer 'acodm' wrote",
        )
    return saved


def _prior(task: MixingTask, name: str) -> np.ndarray:
    rows_K = np.asarray(task.rows_K, dtype=np.float64)
    return rows_K / rows_K.sum() if name == "natural" else np.full(len(task), 1 / len(task))


def _check_agent(mode: Mode, agent: str | Path | None) -> None:
    uses = mode in ("frozen", "continue")
    if uses and agent is None:
        raise ConfigError(
            f"mode='{mode}' has no agent",
            remedy="set agent to the folder of a run of mixer 'acodm'",
        )
    if agent is not None and not uses:
        raise ConfigError(
            f"agent is set, and mode='{mode}' starts from none",
            remedy="set mode='frozen' to be driven by it, or mode='continue' to learn on from it",
        )

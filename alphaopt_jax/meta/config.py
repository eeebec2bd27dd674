"""The constants of meta-training, in one frozen dataclass."""

from __future__ import annotations

import dataclasses
from typing import Literal

from alphaopt_jax.config import DEFAULT_BLOCK_SIZE, AgentConfig, PPOConfig, StepConfig

_STEP = StepConfig()
_AGENT = AgentConfig(leaf_hidden=32, max_log_rate=4.0, inverse_sqrt_steps=30.0)
_PPO = PPOConfig(epochs=2, learning_rate=1e-3)


@dataclasses.dataclass(frozen=True)
class MetaConfig:
    """Constants of meta-training.

    An *episode* optimizes one task for `horizon` steps. It is divided into *intervals* of equal
    length, at most `rollouts_per_episode * intervals_per_rollout` of them for any horizon.
    Exploration noise is held for one interval: an episode of 5,000 steps has as many decisions as
    one of 200, and its return reaches as far.

    With one rollout per episode, returns are exact. With several, episodes persist between rounds
    and the critic estimates the return after a rollout: learning from longer episodes costs less
    per round, but was measured to make the agent short-sighted (it lowered its rates too early).

    Attributes:
      step: Constants of the optimizer's step.
      agent: Constants of the agent.
      ppo: Constants of PPO. Its discount and lambda are those of a parameter's rewards, per
        interval. Its learning rate is that of the first round; it falls linearly to a twentieth.
      leaf_critic_hidden: Units in each layer of the leaf critic of meta-training.
      groups: Number of tasks of a family that run at a time.
      copies: Copies of each task that differ only in their exploration noise; even.
      intervals_per_rollout: Intervals between two rounds of learning.
      rollouts_per_episode: Rollouts in an episode, if it is long enough.
      min_interval: Shortest interval, in steps.
      min_horizon: Shortest episode, in steps.
      max_horizon: Longest episode, in steps.
      unknown_horizon_fraction: Share of tasks without the horizon in the observation.
      loss_floor: Added to the loss before its logarithm, as a share of the initial loss.
      num_explorers: Approximate number of parameters of a task that explore.
      leaf_action_std: Standard deviation of the noise shared by all parameters of a leaf.
      action_std: Standard deviation of the explorers' own noise.
      reward: `"divided"` rewards each leaf and parameter with its own part of the decrease of the
        log loss, `"shared"` rewards all with the whole decrease.
      reward_every: `"step"` computes rewards after every step, `"interval"` once per interval, at
        its end. The latter is cheaper if the rewarded loss differs from the training loss.
      reward_averages: Whether the loss at averaged parameters is rewarded, except at the end of an
        episode with a known horizon.
      random_multipliers: Bounds of log-uniform factors of all rates in some tasks. The agent does
        not observe them, so that it learns to find the level of the rates. None for no factors.
      random_multiplier_fraction: Share of these tasks; None without them.
      team_weight: Weight of the other leaves' rewards in each leaf's divided reward. At 1 leaves
        are rewarded as a team and only parameters individually: the end-point rule
        exaggerates the cost of a leaf's own large steps.
      leaf_discount: Discount of a leaf's rewards, per interval.
      leaf_gae_lambda: Lambda of a leaf's generalized advantages.
      coordinate_loss_weight: Weight of the parameters' policy loss relative to the leaves'.
      minibatches: Minibatches per epoch.
    """

    step: StepConfig = _STEP
    agent: AgentConfig = _AGENT
    ppo: PPOConfig = _PPO
    leaf_critic_hidden: int = 64
    groups: int = 4
    copies: int = 8
    intervals_per_rollout: int = 32
    rollouts_per_episode: int = 1
    min_interval: int = 1
    min_horizon: int = 50
    max_horizon: int = 5000
    unknown_horizon_fraction: float = 0.4
    loss_floor: float = 1e-5
    num_explorers: int = 64
    leaf_action_std: float = 0.3
    action_std: float = 0.3
    reward: Literal["divided", "shared"] = "divided"
    reward_every: Literal["step", "interval"] = "step"
    reward_averages: bool = False
    random_multipliers: tuple[float, float] | None = None
    random_multiplier_fraction: float | None = None
    team_weight: float = 1.0
    leaf_discount: float = 1.0
    leaf_gae_lambda: float = 1.0
    coordinate_loss_weight: float = 1.0
    minibatches: int = 4

    @property
    def population_size(self) -> int:
        """Members of a population: `groups * copies`."""
        return self.groups * self.copies


def rotated_config() -> MetaConfig:
    """Constants for an agent in rotated coordinates that decides one rate for each leaf.

    The loss at averaged parameters is rewarded, once for each interval. No rates are multiplied by
    random factors: an agent trained with such factors on 12 % of its tasks found rates that were a
    hundred times too small somewhat sooner, and had losses a tenth higher where they were right.

    Example:
      >>> rotated_config().agent.block_size
      64
    """
    agent = AgentConfig(
        actor_hidden=0,
        leaf_hidden=32,
        max_log_rate=6.0,
        inverse_sqrt_steps=30.0,
        block_size=DEFAULT_BLOCK_SIZE,
    )
    return MetaConfig(
        agent=agent,
        max_horizon=3000,
        unknown_horizon_fraction=0.5,
        num_explorers=4,
        reward_every="interval",
        reward_averages=True,
    )

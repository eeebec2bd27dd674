"""The constants of meta-training, in one frozen object."""

from __future__ import annotations

import dataclasses
from typing import Literal

from alphaopt_jax.config import AlphaOptConfig, adaptive_config


@dataclasses.dataclass(frozen=True)
class MetaConfig:
    """Constants of meta-training.

    An *episode* optimizes one task for `horizon` steps. It is cut into *intervals* of equal length,
    at most `rollouts_per_episode * rollout_length` of them, whatever the horizon: exploration noise
    is held for one interval, so that an episode of 5,000 steps has as many decisions to learn from
    as one of 200, and its return reaches as far.

    With one rollout an episode, returns are those that came about. With more of them, episodes
    persist between rounds and what is to come after a rollout is the critic's guess; this learns
    from longer episodes at less cost a round, and was measured to make the agent short-sighted:
    it lowered its rates too early.

    Attributes:
      optimizer: Constants of the optimizer that the agent acts through.
      actor_hidden: Units in the hidden layer that every parameter passes through.
      leaf_hidden: Units in each of the two layers that every leaf passes through.
      critic_hidden: Units in the critic that goes with the agent.
      leaf_critic_hidden: Units in each layer of the critic that only meta-training has.
      max_log_rate: Bound on the agent's log rates.
      anytime_steps: Where an agent is not told the horizon, its rates fall with the square root of
        time after about so many steps.
      groups: Tasks of a family that run at a time.
      copies: Copies of each of them, alike in all but their exploration noise; even.
      rollout_length: Intervals between two rounds of learning.
      rollouts_per_episode: Rollouts in an episode, where it is long enough.
      min_interval: Least number of steps in an interval.
      min_horizon: Shortest episode, in steps.
      max_horizon: Longest episode, in steps.
      unknown_horizon: Share of tasks whose horizon the agent is not told.
      loss_floor: Added to the loss, as a share of the initial one, where its logarithm is taken.
      num_explorers: About how many parameters of a task explore.
      leaf_exploration: Standard deviation of the noise that all parameters of a leaf share.
      exploration: Standard deviation of the explorers' own noise.
      credit: `"divided"`: each leaf and parameter is rewarded with its own part of the decrease of
        the log loss; `"shared"`: all with the decrease itself.
      judged: When rewards are computed: after every `"step"`, or once an `"interval"`, from where
        it ends. The latter costs less where another loss is rewarded than what is trained on.
      team_share: With divided credit, how much of the other leaves' reward each leaf is given. At 1
        leaves are rewarded as a team, and only parameters each with their own part: a leaf's own
        part, by the end-point rule, makes large steps look worse than they are.
      leaf_discount: Discount of a leaf's rewards, per interval.
      leaf_gae_decay: Lambda of a leaf's generalised advantages.
      discount: Discount of a parameter's rewards, per interval.
      gae_decay: Lambda of a parameter's generalised advantages.
      clip: Bound on the probability ratio in PPO's loss.
      coordinate_cost: Weight of the parameters' policy loss beside the leaves'.
      value_cost: Weight of the critics' losses.
      epochs: Passes over a rollout.
      minibatches: Minibatches in a pass.
      learning_rate: Adam's learning rate for the agent and the critics at the first round; it falls
        linearly to a twentieth.
    """

    optimizer: AlphaOptConfig = dataclasses.field(default_factory=adaptive_config)
    actor_hidden: int = 8
    leaf_hidden: int = 32
    critic_hidden: int = 32
    leaf_critic_hidden: int = 64
    max_log_rate: float = 4.0
    anytime_steps: float = 30.0
    groups: int = 4
    copies: int = 8
    rollout_length: int = 32
    rollouts_per_episode: int = 1
    min_interval: int = 1
    min_horizon: int = 50
    max_horizon: int = 5000
    unknown_horizon: float = 0.4
    loss_floor: float = 1e-5
    num_explorers: int = 64
    leaf_exploration: float = 0.3
    exploration: float = 0.3
    credit: Literal["divided", "shared"] = "divided"
    judged: Literal["step", "interval"] = "step"
    team_share: float = 1.0
    leaf_discount: float = 1.0
    leaf_gae_decay: float = 1.0
    discount: float = 0.98
    gae_decay: float = 0.8
    clip: float = 0.2
    coordinate_cost: float = 1.0
    value_cost: float = 0.5
    epochs: int = 2
    minibatches: int = 4
    learning_rate: float = 1e-3

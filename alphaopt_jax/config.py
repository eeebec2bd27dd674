"""Constants of the optimizer, in frozen dataclasses.

The defaults were chosen by measurement over tasks of very different scale. They are for research;
users need no changes.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

UpdateDirection = Literal["adam", "gradient"]
"""The vector that learning rates multiply: Adam's direction, or the raw gradient."""
CoordinateSystem = Literal["rotated", "parameters"]
"""Coordinates of the learning rates: blocks of each matrix in eigenbases, or single parameters."""
DEFAULT_BLOCK_SIZE = 64
"""Width of the blocks of rotated coordinates for agents without a block size."""


@dataclasses.dataclass(frozen=True)
class StepConfig:
    """Constants of one step: moments, scale of the step, and refresh of the rates.

    Attributes:
      relative_step: Step size for a log rate of zero, relative to the root mean square of the
        leaf.
      min_rms: Lower bound on the root mean square of a leaf, so that leaves of zeros move.
      max_relative_step: Upper bound on `relative_step` times the user's `learning_rate`.
      gradient_decay: Decay of the first moment of the gradients.
      squared_gradient_decay: Decay of the second moment.
      epsilon: Added to the root of the second moment in the denominator.
      moment_dtype: Type of both stored moments. `"bfloat16"` halves their memory and rounds
        stochastically, to keep small changes.
      refresh_interval: Steps between two refreshes of the per-parameter rate multipliers. The rates
        of whole leaves are decided at every step. Bases are refreshed at the same steps.
    """

    relative_step: float = 0.03
    min_rms: float = 0.02
    max_relative_step: float = 0.05
    gradient_decay: float = 0.9
    squared_gradient_decay: float = 0.99
    epsilon: float = 1e-12
    moment_dtype: Literal["float32", "bfloat16"] = "float32"
    refresh_interval: int = 16


@dataclasses.dataclass(frozen=True)
class AgentConfig:
    """Constants of an agent: its networks, and the meaning of its actions.

    Attributes:
      actor_hidden: Hidden units of the actor. Each one costs time for every parameter. With 0 all
        parameters of a leaf have one rate, which the leaf trunk decides.
      critic_hidden: Hidden units of the critic, which is applied to explorers only.
      leaf_hidden: Units in both hidden layers of the actor's leaf trunk; 0 for an actor without
        one.
      max_log_rate: Bound on log rates: the agent changes `StepConfig.relative_step` by a factor of
        `exp(-max_log_rate)` to `exp(max_log_rate)`.
      inverse_sqrt_steps: Time scale of the inverse square root decay of all rates where the horizon
        is unknown; `math.inf` for no decay. Without decay, exploration and learning long after
        convergence can leave the minimum again.
      update_direction: The vector that rates multiply. `"adam"`: first moment over the root of the
        second. `"gradient"`: the raw gradient, with rates ten times as large.
      block_size: Largest width of the blocks of rotated coordinates, the eigenbases of the second
        moments of each matrix's gradients, for moments, rates and exploration. 0 for the
        parameters' own coordinates.
    """

    actor_hidden: int = 8
    critic_hidden: int = 32
    leaf_hidden: int = 0
    max_log_rate: float = 2.0
    inverse_sqrt_steps: float = 1000.0
    update_direction: UpdateDirection = "adam"
    block_size: int = 0


@dataclasses.dataclass(frozen=True)
class PPOConfig:
    """Constants of proximal policy optimization (Schulman et al. 2017).

    Attributes:
      discount: Discount of future rewards, per step of the rollout.
      gae_lambda: Lambda of generalized advantage estimation (Schulman et al. 2016).
      clip_epsilon: Bound on the distance of the probability ratio from 1.
      epochs: Passes over a rollout.
      value_loss_weight: Weight of the critic's loss.
      learning_rate: Learning rate of Adam, which trains the agent.
    """

    discount: float = 0.98
    gae_lambda: float = 0.8
    clip_epsilon: float = 0.2
    epochs: int = 4
    value_loss_weight: float = 0.5
    learning_rate: float = 3e-3


@dataclasses.dataclass(frozen=True)
class LearningConfig:
    """Constants of learning within a training.

    Attributes:
      num_explorers: Approximate number of sampled parameters that explore at a time.
      rollout_length: Steps between two rounds of learning.
      action_std: Standard deviation of the exploration noise, in nats of the rate.
      reward: `"divided"` rewards each parameter with its own part of the decrease of the loss,
        `"shared"` rewards all with the whole decrease, which needs `value`.
      previous_gradient_weight: Weight of the gradient before the step in the divided reward. 0.5 is
        the trapezoid rule, exact on a quadratic without noise; 0 uses only the gradient after the
        step, with minibatch noise that is independent of the step.
      team_weight: Weight of the sum of all rewards in each parameter's divided reward, divided by
        the number of parameters: the few parameters of a small problem act as a team.
      kl_weight: Weight of the KL divergence from the initial policy; 0 for a fresh agent.
      level_change: Largest change of a leaf's level, the learned part of its log rate, in one step.
      ppo: Constants of PPO. Each epoch uses its own share of the explorers if there are many.
    """

    num_explorers: int = 8192
    rollout_length: int = 8
    action_std: float = 0.3
    reward: Literal["divided", "shared"] = "divided"
    previous_gradient_weight: float = 0.0
    team_weight: float = 2.0
    kl_weight: float = 0.0
    level_change: float = 0.05
    ppo: PPOConfig = PPOConfig()


@dataclasses.dataclass(frozen=True)
class AlphaOptConfig(StepConfig):
    """All constants of `alphaopt`: those of a step, of the agent and of its learning.

    Attributes:
      agent: Constants of a fresh agent. A given agent brings its own.
      learning: Constants of learning within a training.

    Example:
      >>> config = AlphaOptConfig(moment_dtype="bfloat16", agent=AgentConfig(actor_hidden=4))
      >>> config.relative_step, config.agent.max_log_rate
      (0.03, 2.0)
    """

    agent: AgentConfig = AgentConfig()
    learning: LearningConfig = LearningConfig()


def pretrained_config() -> AlphaOptConfig:
    """Returns the default constants for a pretrained agent.

    With `learn=True` it learns from fewer explorers and in one pass over a rollout; a KL penalty
    keeps it near the pretrained policy.

    Example:
      >>> pretrained_config().learning.kl_weight > AlphaOptConfig().learning.kl_weight
      True
    """
    ppo = PPOConfig(epochs=1, learning_rate=1e-3)
    return AlphaOptConfig(learning=LearningConfig(num_explorers=1024, kl_weight=0.03, ppo=ppo))

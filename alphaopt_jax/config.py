"""The agent's constants, in one frozen object that no user needs to touch."""

from __future__ import annotations

import dataclasses
from typing import Literal

Direction = Literal["gradient"] | None


@dataclasses.dataclass(frozen=True)
class AlphaOptConfig:
    """Constants of the environment, the agent and its learning.

    The defaults were chosen by measurement over tasks of very different scale; they are here for
    research, not for tuning.

    Attributes:
      relative_step: Size of a step, relative to the scale of the leaf it changes, when the agent's
        action is zero.
      minimum_scale: Least scale of a leaf, so that one that starts at zero can leave it.
      max_log_rate: The agent may change `relative_step` by a factor of `exp(-max_log_rate)` to
        `exp(max_log_rate)`.
      anytime_steps: A fresh agent's rates fall with the square root of time after about so many
        steps, where the horizon is not known. Without (`math.inf`), what it explores and learns
        long after it has arrived can throw it out again.
      max_relative_step: Bound on `relative_step` times the user's `learning_rate`, so that one much
        too large cannot destroy the parameters before the agent has learned.
      gradient_decay: Decay of the first moment of the gradients.
      squared_gradient_decay: Decay of their second moment.
      epsilon: Added to the root of the second moment where it divides.
      moment_dtype: Type in which both moments are kept. `"bfloat16"` halves them; what it cannot
        hold is rounded up or down at random, so that small changes are not lost.
      decision_interval: Steps between two looks at every parameter. What concerns leaves as a whole
        is decided at every step.
      direction: What the rates multiply. None means the first moment over the root of the second
        one, `"gradient"` the raw gradient, ten times `relative_step` of it when the action is zero.
        A given agent says itself what its rates are for.
      actor_hidden: Units in the actor's hidden layer. Every one costs time for every parameter.
      critic_hidden: Units in the critic's hidden layer. The critic sees only explorers.
      num_explorers: About how many of the sampled parameters explore and teach at a time.
      rollout_length: Steps between two rounds of learning.
      exploration: Standard deviation of the explorers' noise, in nats of the rate.
      credit: `"divided"` rewards each parameter with its own part of the decrease of the loss,
        `"shared"` rewards all with the decrease itself (this needs `value`).
      previous_gradient_weight: Weight of the gradient before the step in the divided credit: 0.5 is
        the trapezoid rule, exact on a quadratic without noise; 0 uses the gradient after the step
        alone, which minibatch noise does not flatter.
      team_share: In a model of N parameters, each one's divided credit holds this over N of all the
        others', so that the few parameters of a small problem act as a team.
      discount: Discount of future rewards, per step.
      gae_decay: Lambda of generalised advantage estimation.
      clip: Bound on the probability ratio in PPO's loss.
      epochs: Passes over a rollout; each over its own share of the explorers where they are many.
      agent_learning_rate: Adam's learning rate for the agent.
      value_cost: Weight of the critic's loss.
      prior_weight: Weight, in the policy loss, of the divergence from the policy that the agent
        began with. 0 where there is nothing worth keeping.
    """

    relative_step: float = 0.03
    minimum_scale: float = 0.02
    max_log_rate: float = 2.0
    anytime_steps: float = 1000.0
    max_relative_step: float = 0.05
    gradient_decay: float = 0.9
    squared_gradient_decay: float = 0.99
    epsilon: float = 1e-12
    moment_dtype: Literal["float32", "bfloat16"] = "float32"
    decision_interval: int = 16
    direction: Direction = None
    actor_hidden: int = 8
    critic_hidden: int = 32
    num_explorers: int = 8192
    rollout_length: int = 8
    exploration: float = 0.3
    credit: Literal["divided", "shared"] = "divided"
    previous_gradient_weight: float = 0.0
    team_share: float = 2.0
    discount: float = 0.98
    gae_decay: float = 0.8
    clip: float = 0.2
    epochs: int = 4
    agent_learning_rate: float = 3e-3
    value_cost: float = 0.5
    prior_weight: float = 0.0


def adaptive_config() -> AlphaOptConfig:
    """Returns the constants of an agent that has learned before and learns on.

    It learns from fewer explorers and in one pass over a rollout, and stays near to what it knows
    unless rewards speak clearly for something else.

    Example:
      >>> adaptive_config().prior_weight > AlphaOptConfig().prior_weight
      True
    """
    return AlphaOptConfig(num_explorers=1024, epochs=1, agent_learning_rate=1e-3, prior_weight=0.03)

"""What the optimizer remembers between steps."""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax
from jaxtyping import Array, Float, Float16, Int32, UInt32
import optax

from alphaopt_jax._agent import history
from alphaopt_jax._learning import ppo
from alphaopt_jax._optimizer import safeguards


class LearnerState(NamedTuple):
    """What an agent that learns remembers in addition. M explorers, rollouts of T steps.

    Attributes:
      key_data: `uint32[2]`, from which every random number is drawn.
      prior: Parameters of the agent that it began with, or None where it is not held to them.
      agent_optimizer: State of the agent's own optimizer.
      explorers: `int32[M]`, which of the sampled parameters of their leaves the explorers are.
      explorer_rates: `float16[M]`, by which factor their rates differ from their leaves'.
      rollout: What the explorers saw, did and got since they were drawn.
      explorer_steps: `float32[M]`, the last change of their parameters.
      explorer_gradients: `float32[M]`, their gradients when that change was made.
      loss: `float32[]`, the loss then; NaN when none was given.
      reward: `float32[]`, the explorers' estimate of how much the last step decreased the loss.
      losses: Of the last round of learning.
      rounds: `int32[]`, rounds of learning so far.
    """

    key_data: UInt32[Array, "2"]
    prior: chex.ArrayTree | None
    agent_optimizer: optax.OptState
    explorers: Int32[Array, " explorers"]
    explorer_rates: Float16[Array, " explorers"]
    rollout: ppo.Rollout
    explorer_steps: Float[Array, " explorers"]
    explorer_gradients: Float[Array, " explorers"]
    loss: Float[Array, ""]
    reward: Float[Array, ""]
    losses: ppo.Losses
    rounds: Int32[Array, ""]


class AgentLimits(NamedTuple):
    """What belongs to an agent beside its parameters, as in `agent.Agent`.

    Attributes:
      max_log_rate: `float32[]`.
      anytime_steps: `float32[]`.
      along_gradient: `float32[]`, 1 where its rates multiply the raw gradient, else 0. No boolean,
        since optax's lookahead and SAM mix states by arithmetic.
    """

    max_log_rate: Float[Array, ""]
    anytime_steps: Float[Array, ""]
    along_gradient: Float[Array, ""]


class AlphaOptState(NamedTuple):
    """State of `alphaopt`: a pytree of arrays, with nothing in it that cannot be saved.

    Attributes:
      updates_made: `int32[]`, steps that changed the parameters.
      updates_skipped: `int32[]`, steps skipped because a gradient or the loss was not finite.
      agent: Parameters of the actor-critic, a nested dict of `float32` arrays.
      gradient_average: First moments; a tree like the parameters, of
        `AlphaOptConfig.moment_dtype`.
      squared_gradient_average: Second moments; likewise.
      relative_rates: By which factor the rate of each parameter differs from its leaf's; a tree
        like the parameters, `float16`.
      leaf_rates: `float32[leaves]`, the rate of each leaf at the last step, positive.
      leaf_log_rates: `float32[leaves]`, the action behind it.
      sampled_moments: Both moments of the sampled parameters, `float32[2, leaves, P]`.
      limits: What the agent was made for.
      leaf_memory: What every leaf remembers of earlier steps.
      loss_history: Moving averages of the loss.
      guard: What bounds the harm of a step.
      learner: None for a frozen agent.
    """

    updates_made: Int32[Array, ""]
    updates_skipped: Int32[Array, ""]
    agent: chex.ArrayTree
    gradient_average: optax.Updates
    squared_gradient_average: optax.Updates
    relative_rates: optax.Updates
    leaf_rates: Float[Array, " leaves"]
    leaf_log_rates: Float[Array, " leaves"]
    sampled_moments: Float[Array, "2 leaves samples"]
    limits: AgentLimits
    leaf_memory: history.LeafMemory
    loss_history: history.LossHistory
    guard: safeguards.GuardState
    learner: LearnerState | None


def find(state: optax.OptState) -> AlphaOptState:
    """Finds AlphaOpt's state within that of a chain or wrapper.

    Args:
      state: Any optimizer state that holds exactly one `AlphaOptState`.

    Returns:
      The `AlphaOptState`.

    Raises:
      ValueError: There is none, or more than one.
    """
    is_alphaopt = lambda node: isinstance(node, AlphaOptState)  # noqa: E731
    found = [node for node in jax.tree.leaves(state, is_leaf=is_alphaopt) if is_alphaopt(node)]
    if len(found) != 1:
        raise ValueError(
            f"Expected an optimizer state that holds one AlphaOptState, found {len(found)} in a"
            f" {type(state).__name__}. Pass the state of `alphaopt(...)` or of a chain with it."
        )
    return found[0]


def replace(state: optax.OptState, new: AlphaOptState) -> optax.OptState:
    """Returns `state` with the `AlphaOptState` in it replaced by `new`."""
    is_alphaopt = lambda node: isinstance(node, AlphaOptState)  # noqa: E731
    return jax.tree.map(lambda node: new if is_alphaopt(node) else node, state, is_leaf=is_alphaopt)

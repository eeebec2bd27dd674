"""The optimizer's state, and its place within the state of a chain."""

from __future__ import annotations

from typing import NamedTuple

import jax
from jaxtyping import Array, Float, Int32
import optax

from alphaopt_jax._agent.history import History
from alphaopt_jax._agent.rotation import Bases
from alphaopt_jax._learning.online import LearnerState
from alphaopt_jax._optimizer.safeguards import SafeguardState


class AgentConstants(NamedTuple):
    """Constants of an agent as arrays, as in `Agent`.

    Attributes:
      max_log_rate: `float32[]`.
      inverse_sqrt_steps: `float32[]`, 0 for infinity.
      along_gradient: `float32[]`, 1 for the update direction `"gradient"`, else 0; `float32`
        because optax's lookahead and SAM mix states by arithmetic.
      block_size: `float32[]`.
    """

    max_log_rate: Float[Array, ""]
    inverse_sqrt_steps: Float[Array, ""]
    along_gradient: Float[Array, ""]
    block_size: Float[Array, ""]


class AlphaOptState(NamedTuple):
    """State of `alphaopt`: a pytree of arrays that can all be saved.

    Attributes:
      updates_made: `int32[]`, steps that changed the parameters.
      updates_skipped: `int32[]`, steps skipped for a gradient or loss that was not finite.
      skipped_in_a_row: `int32[]`, those since the last update.
      agent: Parameters of the actor-critic, `float32` arrays without names.
      gradient_average: First moments; a tree like the parameters, of `StepConfig.moment_dtype`.
      squared_gradient_average: Second moments; likewise.
      average: Average of the parameters, a tree like them, `float32`; None with a known number of
        steps.
      rate_multipliers: Each parameter's rate, relative to its leaf's; a tree like the parameters,
        `float16`. None for an agent that decides one rate for each leaf and does not learn.
      bases: Bases of the rotated coordinates of moments and multipliers; None for the parameters'
        own coordinates.
      leaf_rates: `float32[leaves]`, positive learning rates of the leaves at the last step.
      leaf_log_rates: `float32[leaves]`, the actions behind them.
      sampled_moments: Both moments of the sampled parameters, `float32[2, leaves, P]`.
      inverse_units: Power of two that each leaf's gradients are multiplied by, here and in both
        moments, `float32[leaves]` or `float64`; 1 unless float32 cannot hold their squares.
      constants: Constants of the agent.
      history: Moving averages of the leaves' statistics and of the loss.
      safeguards: State of the safeguards.
      learner: State of a learning agent; None for a frozen one.
    """

    updates_made: Int32[Array, ""]
    updates_skipped: Int32[Array, ""]
    skipped_in_a_row: Int32[Array, ""]
    agent: tuple[Float[Array, "..."], ...]
    gradient_average: optax.Updates
    squared_gradient_average: optax.Updates
    average: optax.Updates | None
    rate_multipliers: optax.Updates | None
    bases: Bases | None
    leaf_rates: Float[Array, " leaves"]
    leaf_log_rates: Float[Array, " leaves"]
    sampled_moments: Float[Array, "2 leaves samples"]
    inverse_units: Float[Array, " leaves"]
    constants: AgentConstants
    history: History
    safeguards: SafeguardState
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
    found = [node for node in jax.tree.leaves(state, is_leaf=_is_alphaopt) if _is_alphaopt(node)]
    if len(found) != 1:
        raise ValueError(
            f"Expected an optimizer state that holds one AlphaOptState, found {len(found)} in a"
            f" {type(state).__name__}. Pass the state of `alphaopt(...)` or of a chain with it."
        )
    return found[0]


def replace(state: optax.OptState, new: AlphaOptState) -> optax.OptState:
    """Returns `state` with its `AlphaOptState` replaced by `new`."""
    return jax.tree.map(
        lambda node: new if _is_alphaopt(node) else node, state, is_leaf=_is_alphaopt
    )


def _is_alphaopt(node: object) -> bool:
    return isinstance(node, AlphaOptState)

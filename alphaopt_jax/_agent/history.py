"""What is remembered of earlier steps, beside the accumulators of every parameter: a few numbers.

`LeafMemory` holds a handful for every leaf, `LossHistory` a handful for the whole model.
"""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax.numpy as jnp
from jaxtyping import Array, Float

_LARGEST = 1e18  # A loss whose square float32 still holds.


class LeafMemory(NamedTuple):
    """What every leaf remembers of earlier steps; all `float32[leaves]`.

    Attributes:
      persistence: Average of the leaf's persistence over about 20 steps.
      slow_persistence: The same over about 200 steps.
      consistency: Average of the leaf's consistency over about 20 steps.
      log_rate: Average of the leaf's own part of the log rates over about 10 steps.
      first_second_moment: Average of the second moments over the first 10 steps.
      first_scale: Scale of the leaf at the first step.
    """

    persistence: Float[Array, " leaves"]
    slow_persistence: Float[Array, " leaves"]
    consistency: Float[Array, " leaves"]
    log_rate: Float[Array, " leaves"]
    first_second_moment: Float[Array, " leaves"]
    first_scale: Float[Array, " leaves"]


class LossHistory(NamedTuple):
    """Moving averages of the loss; all `float32[]`.

    Attributes:
      fast: Average over about 10 steps.
      slow: Average over about 100 steps.
      spread: Average squared distance from `slow`, over about 100 steps.
      medium: Average over about 30 steps, and over all while there are fewer.
      noise: Average squared distance of a loss from `fast` before it, over about 50 steps.
      lowest: The lowest that `fast` has been.
      observed: How many losses were seen.
    """

    fast: Float[Array, ""]
    slow: Float[Array, ""]
    spread: Float[Array, ""]
    medium: Float[Array, ""]
    noise: Float[Array, ""]
    lowest: Float[Array, ""]
    observed: Float[Array, ""]


def empty_leaf_memory(num_leaves: int) -> LeafMemory:
    """Returns the memory before any step was made."""
    return LeafMemory(*(jnp.zeros((num_leaves,), jnp.float32) for _ in LeafMemory._fields))


def remember(
    memory: LeafMemory,
    persistence: Float[Array, " leaves"],
    consistency: Float[Array, " leaves"],
    second_moment: Float[Array, " leaves"],
    scale: Float[Array, " leaves"],
    step: Float[Array, ""],
) -> LeafMemory:
    """Adds this step's statistics of every leaf to the memory.

    Args:
      memory: The memory.
      persistence: `float32[leaves]`, as in `observation.LeafStatistics`.
      consistency: Likewise.
      second_moment: Likewise.
      scale: Likewise.
      step: This update's number, from 1, `float32[]`.

    Returns:
      The memory; its `log_rate` is as it was, since the action is still to be chosen.
    """
    # Averages over all steps while there are few, so that the first is no worse than the others.
    fast, slow = jnp.maximum(0.05, 1.0 / step), jnp.maximum(0.005, 1.0 / step)
    first = jnp.where(step <= 10.0, 1.0 / step, 0.0)
    return LeafMemory(
        persistence=_towards(memory.persistence, persistence, fast),
        slow_persistence=_towards(memory.slow_persistence, persistence, slow),
        consistency=_towards(memory.consistency, consistency, fast),
        log_rate=memory.log_rate,
        first_second_moment=_towards(memory.first_second_moment, second_moment, first),
        first_scale=jnp.where(step <= 1.0, scale, memory.first_scale),
    )


def remember_rates(memory: LeafMemory, log_rates: Float[Array, " leaves"]) -> LeafMemory:
    """Adds the leaves' own log rates, `float32[leaves]`, to the memory."""
    return memory._replace(log_rate=_towards(memory.log_rate, log_rates, 0.1))


def empty_loss_history() -> LossHistory:
    """Returns the history before any loss was seen."""
    # No array twice: a state that is to be donated must not hold one in two places.
    return LossHistory(*(jnp.zeros((), jnp.float32) for _ in LossHistory._fields))


def append_loss(history: LossHistory, loss: Float[Array, ""]) -> LossHistory:
    """Adds one loss, `float32[]`, to the history."""
    loss = jnp.clip(loss, -_LARGEST, _LARGEST)
    first = history.observed == 0
    fast = jnp.where(first, loss, 0.9 * history.fast + 0.1 * loss)
    slow = jnp.where(first, loss, 0.99 * history.slow + 0.01 * loss)
    spread = 0.99 * history.spread + 0.01 * jnp.square(loss - slow)
    observed = history.observed + 1.0
    surprise = jnp.where(first, 0.0, jnp.square(loss - history.fast))
    return LossHistory(
        fast=fast,
        slow=slow,
        spread=spread,
        medium=_towards(history.medium, loss, jnp.maximum(0.03, 1.0 / observed)),
        noise=_towards(history.noise, surprise, jnp.maximum(0.02, 1.0 / observed)),
        lowest=jnp.where(first, loss, jnp.minimum(history.lowest, fast)),
        observed=observed,
    )


def _towards(average: chex.Array, value: chex.Array, weight: chex.Numeric) -> chex.Array:
    return average + weight * (value - average)

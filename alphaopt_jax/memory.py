"""What is remembered of earlier steps, beside the accumulators of every parameter: a few numbers.

`LeafMemory` holds a handful for every leaf, `LossHistory` a handful for the whole model.
"""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax.numpy as jnp


class LeafMemory(NamedTuple):
    """What every leaf remembers of earlier steps; all `float32[leaves]`.

    Attributes:
      agreement: Average of the leaf's agreement over about 20 steps.
      consistency: Average of the leaf's consistency over about 20 steps.
      log_rate: Average of the leaf's own part of the log rates over about 10 steps.
      first_second_moment: Average of the second moments over the first 10 steps.
    """

    agreement: chex.Array
    consistency: chex.Array
    log_rate: chex.Array
    first_second_moment: chex.Array


class LossHistory(NamedTuple):
    """Moving averages of the loss; all `float32[]`.

    Attributes:
      fast: Average over about 10 steps.
      slow: Average over about 100 steps.
      spread: Average squared distance from `slow`, over about 100 steps.
      observed: How many losses were seen.
    """

    fast: chex.Array
    slow: chex.Array
    spread: chex.Array
    observed: chex.Array


def empty_leaf_memory(num_leaves: int) -> LeafMemory:
    """Returns the memory before any step was made."""
    return LeafMemory(*(jnp.zeros((num_leaves,), jnp.float32) for _ in LeafMemory._fields))


def remember(
    memory: LeafMemory,
    agreement: chex.Array,
    consistency: chex.Array,
    second_moment: chex.Array,
    step: chex.Array,
) -> LeafMemory:
    """Adds this step's statistics of every leaf to the memory.

    Args:
      memory: The memory.
      agreement: `float32[leaves]`, as in `observation.LeafStatistics`.
      consistency: Likewise.
      second_moment: Likewise.
      step: This update's number, from 1, `float32[]`.

    Returns:
      The memory; its `log_rate` is as it was, since the action is still to be chosen.
    """
    # Averages over all steps while there are few, so that the first is no worse than the others.
    slow, first = jnp.maximum(0.05, 1.0 / step), jnp.where(step <= 10.0, 1.0 / step, 0.0)
    return LeafMemory(
        agreement=_towards(memory.agreement, agreement, slow),
        consistency=_towards(memory.consistency, consistency, slow),
        log_rate=memory.log_rate,
        first_second_moment=_towards(memory.first_second_moment, second_moment, first),
    )


def remember_rates(memory: LeafMemory, log_rates: chex.Array) -> LeafMemory:
    """Adds the leaves' own log rates, `float32[leaves]`, to the memory."""
    return memory._replace(log_rate=_towards(memory.log_rate, log_rates, 0.1))


def empty_loss_history() -> LossHistory:
    """Returns the history before any loss was seen."""
    # No array twice: a state that is to be donated must not hold one in two places.
    return LossHistory(*(jnp.zeros((), jnp.float32) for _ in LossHistory._fields))


def append_loss(history: LossHistory, loss: chex.Array) -> LossHistory:
    """Adds one loss, `float32[]`, to the history."""
    first = history.observed == 0
    fast = jnp.where(first, loss, 0.9 * history.fast + 0.1 * loss)
    slow = jnp.where(first, loss, 0.99 * history.slow + 0.01 * loss)
    spread = 0.99 * history.spread + 0.01 * jnp.square(loss - slow)
    return LossHistory(fast, slow, spread, history.observed + 1.0)


def _towards(average: chex.Array, value: chex.Array, weight: chex.Numeric) -> chex.Array:
    return average + weight * (value - average)

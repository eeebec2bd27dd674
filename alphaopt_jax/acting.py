"""What the agent sees of a whole model, and the log rates it chooses: one step without exploration.

Here leaves keep their shapes, and with them their sharding. Meta-training, whose models are tiny
and many, does the same on flat vectors: `meta/environment.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from alphaopt_jax import memory as memory_lib
from alphaopt_jax import observation, policy
from alphaopt_jax.config import AlphaOptConfig


class Sight(NamedTuple):
    """What the agent sees of a model at one step.

    Attributes:
      views: What it sees of every leaf now.
      memory: What every leaf remembers, this step included.
      memory_features: `float32[leaves, K]`, those named in `observation.MEMORY_FEATURES`.
      history: Moving averages of the loss, this step included.
    """

    views: Sequence[observation.LeafView]
    memory: memory_lib.LeafMemory
    memory_features: chex.Array
    history: memory_lib.LossHistory


def see(
    leaves: Sequence[observation.Coordinates],
    loss: chex.Array | None,
    memory: memory_lib.LeafMemory,
    history: memory_lib.LossHistory,
    step: chex.Array,
    num_steps: chex.Numeric | None,
    config: AlphaOptConfig,
) -> Sight:
    """Observes every leaf.

    Args:
      leaves: Parameters, gradients and moments of every leaf, this step's gradient included.
      loss: The loss, `float32[]`, or None.
      memory: What every leaf remembers.
      history: Moving averages of the loss.
      step: This update's number, from 1, `float32[]`.
      num_steps: Planned number of updates; None, or a number that is not positive, where it is
        not known.
      config: The constants.

    Returns:
      What the agent sees, and the memory and history with this step in them.
    """
    if loss is not None:
        history = memory_lib.append_loss(history, loss)
    views = [observation.observe(leaf, history, step, num_steps, config) for leaf in leaves]
    if not views:
        no_features = jnp.zeros((0, len(observation.MEMORY_FEATURES)), jnp.float32)
        return Sight(views, memory, no_features, history)
    statistics = [view.statistics for view in views]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *statistics)
    memory = memory_lib.remember(
        memory,
        stacked.persistence,
        stacked.consistency,
        stacked.second_moment,
        stacked.scale,
        step,
    )
    fan_ins = np.array([observation.fan_in(leaf.param.shape) for leaf in leaves], np.float32)
    features = observation.memory_features(memory, stacked, fan_ins, history, num_steps, config)
    return Sight(views, memory, features, history)


def act(
    agent: chex.ArrayTree, network: policy.ActorCritic, sight: Sight
) -> tuple[list[chex.Array], chex.Array]:
    """Chooses the mean log rate of every parameter.

    Args:
      agent: Parameters of `network`.
      network: The actor-critic.
      sight: What it sees.

    Returns:
      The mean log rates, one array of every leaf's shape, and the leaves' own parts of them,
      `float32[leaves]`.
    """
    if not sight.views:
        return [], jnp.zeros((0,), jnp.float32)
    context = jnp.stack([view.context for view in sight.views])
    decisions = policy.decide_leaves(agent, context, sight.memory_features, network)
    log_rates = [
        policy.mean_log_rate(
            agent,
            view.features,
            decisions.activation[index],
            decisions.log_rate[index],
            network.max_log_rate,
        )
        for index, view in enumerate(sight.views)
    ]
    return log_rates, policy.bound(decisions.log_rate, network.max_log_rate)

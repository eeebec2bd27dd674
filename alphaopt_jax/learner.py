"""The part of the agent that learns: explorers act with noise, are credited, and teach.

A rollout lasts `rollout_length` steps with the same explorers. The reward of a step is known
one step later, when the gradient at its end is; that of the rollout's last step is never used.
"""

from __future__ import annotations

from collections.abc import Sequence
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np

from alphaopt_jax import acting, credit, explorers, learning, observation, policy
from alphaopt_jax.config import AlphaOptConfig
from alphaopt_jax.state import LearnerState


def init(
    agent: chex.ArrayTree,
    leaf_sizes: Sequence[int],
    key: chex.PRNGKey,
    config: AlphaOptConfig,
) -> LearnerState:
    """Returns the state of an agent that has not begun to learn. Consumes `key`."""
    count = sum(explorers.allocate(leaf_sizes, config.num_explorers))
    return LearnerState(
        key_data=jax.random.key_data(key),
        # Copied: a state that is to be donated must not hold an array in two places.
        prior=jax.tree.map(jnp.array, agent) if config.prior_weight else None,
        agent_optimizer=learning.agent_optimizer(config).init(agent),
        explorers=jnp.zeros((count,), jnp.int32),
        rollout=learning.empty_rollout(config.rollout_length, count, observation.NUM_FEATURES),
        explorer_steps=jnp.zeros((count,), jnp.float32),
        explorer_gradients=jnp.zeros((count,), jnp.float32),
        loss=jnp.full((), jnp.nan, jnp.float32),
        reward=jnp.zeros((), jnp.float32),
        losses=learning.Losses(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32)),
        rounds=jnp.zeros((), jnp.int32),
    )


def reward(
    state: LearnerState,
    grads: Sequence[chex.Array],
    loss: chex.Array | None,
    slot: chex.Array,
    config: AlphaOptConfig,
) -> LearnerState:
    """Credits the explorers for the step before, now that its outcome is seen.

    Args:
      state: The learner.
      grads: Gradients of every leaf after that step.
      loss: The loss after that step, `float32[]`, if it is known.
      slot: Position of the present step in the rollout, `int32[]`; at 0 there is nobody to credit.
      config: The constants.

    Returns:
      The learner with the rewards noted.
    """
    sizes = [leaf.size for leaf in grads]
    counts = explorers.allocate(sizes, config.num_explorers)
    grad = explorers.gather(grads, state.explorers, counts)
    parts = credit.divided(
        state.explorer_gradients, grad, state.explorer_steps, config.previous_gradient_weight
    )
    represented = np.repeat(np.array(sizes) / np.maximum(counts, 1), counts).astype(np.float32)
    total = jnp.sum(parts * represented)
    team = min(config.team_share / max(sum(sizes), 1), 1.0)
    parts = (1.0 - team) * parts + team * total
    if config.credit == "shared":
        known = loss is not None
        decrease = credit.shared(state.loss, loss) if known else jnp.zeros((), jnp.float32)
        total = jnp.where(jnp.isfinite(decrease), decrease, 0.0)
        parts = jnp.broadcast_to(total, parts.shape)
    # At slot 0 this writes into the rollout's last row, which is never read as a reward.
    rewards = state.rollout.rewards.at[slot - 1].set(parts)
    return state._replace(
        rollout=state.rollout._replace(rewards=rewards),
        reward=total,
        loss=jnp.full((), jnp.nan, jnp.float32) if loss is None else loss,
    )


def explore(
    state: LearnerState,
    agent: chex.ArrayTree,
    network: policy.ActorCritic,
    leaves: Sequence[observation.Coordinates],
    sight: acting.Sight,
    step: chex.Array,
    slot: chex.Array,
    config: AlphaOptConfig,
) -> tuple[LearnerState, chex.Array]:
    """Draws new explorers where a rollout begins, and lets them act with noise.

    Args:
      state: The learner.
      agent: Parameters of `network`.
      network: The actor-critic.
      leaves: Parameters, gradients and moments of every leaf.
      sight: What the agent sees.
      step: This update's number, from 1, `float32[]`.
      slot: Position of this step in the rollout, `int32[]`.
      config: The constants.

    Returns:
      The learner with what the explorers saw and did noted, and the noise to be added to their log
      rates, `float32[M]`.
    """
    sizes = [leaf.param.size for leaf in leaves]
    counts = explorers.allocate(sizes, config.num_explorers)
    key, sample_key, noise_key = jax.random.split(jax.random.wrap_key_data(state.key_data), 3)
    positions = jnp.where(slot == 0, explorers.sample(sample_key, sizes, counts), state.explorers)
    gathered, features = _explorers_see(leaves, sight, positions, counts, step, config)
    mean, _ = network.apply({"params": agent}, features)
    noise = config.exploration * jax.random.normal(noise_key, mean.shape, jnp.float32)
    rollout = state.rollout._replace(
        observations=state.rollout.observations.at[slot].set(features),
        actions=state.rollout.actions.at[slot].set(mean + noise),
        means=state.rollout.means.at[slot].set(mean),
    )
    state = state._replace(
        key_data=jax.random.key_data(key),
        explorers=positions,
        rollout=rollout,
        explorer_gradients=gathered.grad,
    )
    return state, noise


def _explorers_see(
    leaves: Sequence[observation.Coordinates],
    sight: acting.Sight,
    positions: chex.Array,
    counts: Sequence[int],
    step: chex.Array,
    config: AlphaOptConfig,
) -> tuple[observation.Coordinates, chex.Array]:
    """The observations of some parameters.

    Args:
      leaves: Parameters, gradients and moments of every leaf.
      sight: What the agent sees of them.
      positions: `int32[M]`, the explorers' positions within their flattened leaves.
      counts: Number of explorers in each leaf.
      step: This update's number, from 1, `float32[]`.
      config: The constants.

    Returns:
      The explorers' parameters, gradients and moments, and `float32[M, NUM_FEATURES]`.
    """
    gathered = observation.Coordinates(
        *(explorers.gather(field, positions, counts) for field in zip(*leaves, strict=True))
    )
    normalized = observation.normalize(gathered, step, config)
    leaf_of = np.repeat(np.arange(len(counts)), counts)
    of_leaf = jax.tree.map(
        lambda *values: jnp.stack(values)[leaf_of], *(view.statistics for view in sight.views)
    )
    coordinate = observation.coordinate_features(gathered.param, normalized, of_leaf)
    context = jnp.stack([view.context for view in sight.views])
    features = (jnp.stack(coordinate, axis=-1), context[leaf_of], sight.memory_features[leaf_of])
    return gathered, jnp.concatenate(features, axis=-1)


# Jitted for those who call `update` outside of `jit`, where `cond` would compile at every call.
@functools.partial(jax.jit, static_argnames=("network", "counts", "config"))
def learn_when_full(
    state: LearnerState,
    agent: chex.ArrayTree,
    network: policy.ActorCritic,
    counts: Sequence[int],
    slot: chex.Array,
    config: AlphaOptConfig,
) -> tuple[chex.ArrayTree, LearnerState]:
    """Learns from the rollout at its last step; until then changes nothing.

    Args:
      state: The learner.
      agent: Parameters of `network`.
      network: The actor-critic.
      counts: Number of explorers in each leaf.
      slot: Position of this step in the rollout, `int32[]`.
      config: The constants.

    Returns:
      The agent's parameters and the learner.
    """

    def learn() -> tuple[chex.ArrayTree, LearnerState]:
        params, optimizer, losses = learning.learn(
            agent, state.prior, state.agent_optimizer, state.rollout, counts, network, config
        )
        return params, state._replace(
            agent_optimizer=optimizer, losses=losses, rounds=state.rounds + 1
        )

    return jax.lax.cond(slot == config.rollout_length - 1, learn, lambda: (agent, state))

"""The part of the agent that learns: explorers act with noise, are credited, and teach.

A rollout lasts `rollout_length` steps with the same explorers. The reward of a step is known
one step later, when the gradient at its end is; that of the rollout's last step would only be known
when others explore. Nobody explores at that step, so that everyone's rate is left as the agent
means it.
"""

from __future__ import annotations

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float16, Int, Key
import numpy as np

from alphaopt_jax._agent import action, observation
from alphaopt_jax._agent import network as network_lib
from alphaopt_jax._agent import sampling as sampling_lib
from alphaopt_jax._learning import explorers, ppo
from alphaopt_jax._learning import reward as reward_lib
from alphaopt_jax._optimizer.state import LearnerState
from alphaopt_jax.config import AlphaOptConfig


def init(
    agent: chex.ArrayTree,
    sampling: sampling_lib.Sampling,
    key: Key[Array, ""],
    config: AlphaOptConfig,
) -> LearnerState:
    """Returns the state of an agent that has not begun to learn. Consumes `key`."""
    count = sum(count_explorers(sampling, config))
    return LearnerState(
        key_data=jax.random.key_data(key),
        # Copied: a state that is to be donated must not hold an array in two places.
        prior=jax.tree.map(jnp.array, agent) if config.prior_weight else None,
        agent_optimizer=ppo.agent_optimizer(config).init(agent),
        explorers=jnp.zeros((count,), jnp.int32),
        explorer_rates=jnp.zeros((count,), jnp.float16),
        rollout=ppo.empty_rollout(config.rollout_length, count, observation.NUM_FEATURES),
        explorer_steps=jnp.zeros((count,), jnp.float32),
        explorer_gradients=jnp.zeros((count,), jnp.float32),
        loss=jnp.full((), jnp.nan, jnp.float32),
        reward=jnp.zeros((), jnp.float32),
        losses=ppo.Losses(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32)),
        rounds=jnp.zeros((), jnp.int32),
    )


def count_explorers(sampling: sampling_lib.Sampling, config: AlphaOptConfig) -> tuple[int, ...]:
    """Number of explorers in each leaf."""
    return explorers.allocate(sampling.sizes, sampling.counts, config.num_explorers)


def reward(
    state: LearnerState,
    grads: Float[Array, "leaves samples"],
    sampling: sampling_lib.Sampling,
    loss: Float[Array, ""] | None,
    slot: Int[Array, ""],
    config: AlphaOptConfig,
) -> LearnerState:
    """Credits the explorers for the step before, now that its outcome is seen.

    Args:
      state: The learner.
      grads: Gradients of the sampled parameters after that step, `float32[L, P]`.
      sampling: What was sampled.
      loss: The loss after that step, `float32[]`, if it is known.
      slot: Position of the present step in the rollout, `int32[]`; at 0 there is nobody to credit.
      config: The constants.

    Returns:
      The learner with the rewards noted.
    """
    counts, sizes = count_explorers(sampling, config), np.array(sampling.sizes)
    parts = reward_lib.divided(
        state.explorer_gradients,
        explorers.take(grads, state.explorers, counts),
        state.explorer_steps,
        config.previous_gradient_weight,
    )
    represented = (sizes / np.maximum(counts, 1))[explorers.leaf_of(counts)].astype(np.float32)
    total = jnp.sum(parts * represented)
    team = min(config.team_share / max(sum(sampling.sizes), 1), 1.0)
    parts = (1.0 - team) * parts + team * total
    if config.credit == "shared":
        unknown = jnp.zeros((), jnp.float32)
        decrease = unknown if loss is None else reward_lib.shared(state.loss, loss)
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
    network: network_lib.ActorCritic,
    sight: action.Sight,
    sampling: sampling_lib.Sampling,
    leaf_log_rates: Float[Array, " leaves"],
    slot: Int[Array, ""],
    config: AlphaOptConfig,
) -> LearnerState:
    """Draws new explorers where a rollout begins, and lets them act with noise.

    Args:
      state: The learner.
      agent: Parameters of `network`.
      network: The actor-critic.
      sight: What the agent sees.
      sampling: What it sees this by.
      leaf_log_rates: The leaves' own log rates, `float32[L]`.
      slot: Position of this step in the rollout, `int32[]`.
      config: The constants.

    Returns:
      The learner with what the explorers saw and did noted.
    """
    counts = count_explorers(sampling, config)
    key, draw_key, noise_key = jax.random.split(jax.random.wrap_key_data(state.key_data), 3)
    drawn = explorers.draw(draw_key, sampling.counts, counts)
    positions = jnp.where(slot == 0, drawn, state.explorers)
    features = _explorers_see(sight, positions, counts)
    mean, _ = network.apply({"params": agent}, features)
    deviation = jnp.where(slot == config.rollout_length - 1, 0.0, config.exploration)
    actions = mean + deviation * jax.random.normal(noise_key, mean.shape, jnp.float32)
    rollout = state.rollout._replace(
        observations=state.rollout.observations.at[slot].set(features),
        actions=state.rollout.actions.at[slot].set(actions),
        means=state.rollout.means.at[slot].set(mean),
    )
    return state._replace(
        key_data=jax.random.key_data(key),
        explorers=positions,
        explorer_rates=action.relative(actions, leaf_log_rates[explorers.leaf_of(counts)]),
        rollout=rollout,
        explorer_gradients=explorers.take(sight.sample.grad, positions, counts),
    )


def note_steps(
    state: LearnerState,
    leaf_rates: Float[Array, " leaves"],
    directions: Float[Array, "leaves samples"],
    sampling: sampling_lib.Sampling,
    config: AlphaOptConfig,
) -> LearnerState:
    """Notes by how much the explorers' parameters are about to change.

    Args:
      state: The learner.
      leaf_rates: The leaves' own rates, positive, `float32[L]`.
      directions: What the rates of the sampled parameters multiply, `float32[L, P]`. What is made
        of an ascent step further down the chain is a descent.
      sampling: What is sampled.
      config: The constants.

    Returns:
      The learner with the steps noted.
    """
    counts = count_explorers(sampling, config)
    rates = leaf_rates[explorers.leaf_of(counts)] * state.explorer_rates.astype(jnp.float32)
    direction = explorers.take(directions, state.explorers, counts)
    return state._replace(explorer_steps=-rates * direction)


def write_rates(
    state: LearnerState,
    relative_rates: Sequence[Float16[Array, "..."]],
    sampling: sampling_lib.Sampling,
    config: AlphaOptConfig,
) -> list[Float16[Array, "..."]]:
    """Puts the explorers' rates in their places among those of every leaf."""
    counts = count_explorers(sampling, config)
    return sampling_lib.write(
        relative_rates, state.explorers, state.explorer_rates, counts, sampling
    )


def _explorers_see(
    sight: action.Sight, positions: Int[Array, " explorers"], counts: Sequence[int]
) -> Float[Array, "explorers features"]:
    """The explorers' observations, `float32[M, NUM_FEATURES]`."""
    leaf_of = explorers.leaf_of(counts)
    param = explorers.take(sight.sample.param, positions, counts)
    normalized = observation.Normalized(
        *(explorers.take(each, positions, counts) for each in sight.normalized)
    )
    of_leaf = jax.tree.map(lambda values: values[leaf_of], sight.statistics)
    coordinate = observation.coordinate_features(param, normalized, of_leaf)
    features = (
        jnp.stack(coordinate, axis=-1),
        sight.context[leaf_of],
        sight.memory_features[leaf_of],
    )
    return jnp.concatenate(features, axis=-1)


def learn_when_full(
    state: LearnerState,
    agent: chex.ArrayTree,
    network: network_lib.ActorCritic,
    sampling: sampling_lib.Sampling,
    slot: Int[Array, ""],
    config: AlphaOptConfig,
) -> tuple[chex.ArrayTree, LearnerState]:
    """Learns from the rollout at its last step; until then changes nothing.

    Args:
      state: The learner.
      agent: Parameters of `network`.
      network: The actor-critic.
      sampling: What is sampled.
      slot: Position of this step in the rollout, `int32[]`.
      config: The constants.

    Returns:
      The agent's parameters and the learner.
    """
    counts = count_explorers(sampling, config)

    def learn() -> tuple[chex.ArrayTree, LearnerState]:
        params, optimizer, losses = ppo.learn(
            agent, state.prior, state.agent_optimizer, state.rollout, counts, network, config
        )
        return params, state._replace(
            agent_optimizer=optimizer, losses=losses, rounds=state.rounds + 1
        )

    return jax.lax.cond(slot == config.rollout_length - 1, learn, lambda: (agent, state))

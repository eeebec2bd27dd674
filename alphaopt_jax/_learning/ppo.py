"""Actor-critic learning from one rollout: generalised advantages, PPO's clipped loss, Adam."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
import warnings

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np
import optax

from alphaopt_jax._agent import network as network_lib
from alphaopt_jax._learning import explorers
from alphaopt_jax.config import AlphaOptConfig

with warnings.catch_warnings():  # rlax's own imports warn of deprecations that are not ours.
    warnings.simplefilter("ignore")
    import rlax

_MAX_ADVANTAGE = 4.0
_MAX_REWARD = 5.0
_ENOUGH_EXPLORERS = 1024  # For one pass to learn from.
_TINY = 1e-30


class Rollout(NamedTuple):
    """What M explorers saw, did and got in T steps.

    Attributes:
      observations: `float32[T, M, NUM_FEATURES]`.
      actions: `float32[T, M]`, the log rates chosen, noise included.
      means: `float32[T, M]`, the log rates without the noise.
      rewards: `float32[T, M]`, the reward of each action; that of the last step is never known,
        since explorers change before it comes.
    """

    observations: Float[Array, "steps explorers features"]
    actions: Float[Array, "steps explorers"]
    means: Float[Array, "steps explorers"]
    rewards: Float[Array, "steps explorers"]


class Losses(NamedTuple):
    """Losses of the last round of learning; both `float32[]`."""

    policy: Float[Array, ""]
    value: Float[Array, ""]


def empty_rollout(length: int, num_explorers: int, num_features: int) -> Rollout:
    """Returns a rollout of zeros."""
    return Rollout(
        observations=jnp.zeros((length, num_explorers, num_features), jnp.float32),
        actions=jnp.zeros((length, num_explorers), jnp.float32),
        means=jnp.zeros((length, num_explorers), jnp.float32),
        rewards=jnp.zeros((length, num_explorers), jnp.float32),
    )


def agent_optimizer(config: AlphaOptConfig) -> optax.GradientTransformation:
    """The conventional optimizer that trains the agent."""
    return optax.chain(
        optax.clip_by_global_norm(1.0), optax.adam(config.agent_learning_rate, eps=1e-5)
    )


def normalize_rewards(
    rewards: Float[Array, "steps explorers"], counts: Sequence[int]
) -> Float[Array, "steps explorers"]:
    """Puts the rewards of every leaf in units of their own root mean square.

    Losses and gradients differ by orders of magnitude between tasks, leaves and stages of a
    training; what the agent must learn is which rates were better than others there and then.

    Args:
      rewards: `float32[T, M]`.
      counts: Number of explorers in each leaf, summing to M.

    Returns:
      `float32[T, M]`, clipped to ±5.
    """
    leaf_of = explorers.leaf_of(counts)
    squares = jax.ops.segment_sum(jnp.square(rewards).mean(axis=0), leaf_of, len(counts))
    scale = jnp.sqrt(squares / np.maximum(counts, 1))[leaf_of]
    return jnp.clip(rewards / (scale + _TINY), -_MAX_REWARD, _MAX_REWARD)


def advantages(
    rewards: Float[Array, "steps explorers"],
    values: Float[Array, "steps+1 explorers"],
    discount: float,
    decay: float,
) -> Float[Array, "steps explorers"]:
    """Generalised advantage estimates of every explorer (Schulman et al. 2016).

    Args:
      rewards: `float32[T, M]`.
      values: `float32[T + 1, M]`, the last row being the bootstrap.
      discount: Gamma; training goes on after the rollout, so no step is terminal.
      decay: Lambda.

    Returns:
      `float32[T, M]`.
    """

    def one_explorer(reward: chex.Array, value: chex.Array) -> chex.Array:
        return rlax.truncated_generalized_advantage_estimation(
            reward, jnp.full_like(reward, discount), decay, value
        )

    return jax.vmap(one_explorer, in_axes=1, out_axes=1)(rewards, values)


def clipped_policy_loss(
    log_ratios: Float[Array, " samples"], advantage: Float[Array, " samples"], clip: float
) -> Float[Array, ""]:
    """PPO's clipped surrogate loss (Schulman et al. 2017, eq. 7), mean over samples.

    Args:
      log_ratios: `float32[N]`, log of the probability now over that when acting.
      advantage: `float32[N]`.
      clip: Bound on the distance of the ratio from 1.

    Returns:
      `float32[]`.
    """
    return rlax.clipped_surrogate_pg_loss(jnp.exp(log_ratios), advantage, clip)


def divergence(
    mean: Float[Array, "*shape"], prior_mean: Float[Array, "*shape"], deviation: float
) -> Float[Array, "*shape"]:
    """Kullback-Leibler divergence of two Gaussians of one deviation, element by element.

    Example:
      >>> float(divergence(jnp.asarray(1.0), jnp.asarray(0.0), 0.5))
      2.0
    """
    return 0.5 * jnp.square((mean - prior_mean) / deviation)


def learn(
    params: chex.ArrayTree,
    prior: chex.ArrayTree | None,
    optimizer_state: optax.OptState,
    rollout: Rollout,
    counts: Sequence[int],
    network: network_lib.ActorCritic,
    config: AlphaOptConfig,
) -> tuple[chex.ArrayTree, optax.OptState, Losses]:
    """Improves the agent on one rollout, in passes that share its explorers if they are many.

    Args:
      params: Parameters of `network`.
      prior: Parameters of the policy that it is held to with `config.prior_weight`, or None.
      optimizer_state: State of `agent_optimizer(config)`.
      rollout: T steps of M explorers; the last step serves only as the bootstrap.
      counts: Number of explorers in each leaf, summing to M.
      network: The actor-critic.
      config: The constants.

    Returns:
      New parameters, new optimizer state, and the losses of the last pass.
    """

    def apply(params: chex.ArrayTree, observations: chex.Array) -> Any:
        return network.apply({"params": params}, observations)

    _, values = apply(params, rollout.observations)
    rewards = normalize_rewards(rollout.rewards[:-1], counts)
    advantage = advantages(rewards, values, config.discount, config.gae_decay)
    returns = advantage + values[:-1]
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    advantage = jnp.clip(advantage, -_MAX_ADVANTAGE, _MAX_ADVANTAGE)
    acted = Rollout(*(field[:-1] for field in rollout))
    parts = _parts((acted, advantage, returns), config.epochs)

    def loss(params: chex.ArrayTree, part: Any) -> tuple[chex.Array, Losses]:
        acted, advantage, returns = part
        mean, value = apply(params, acted.observations)
        log_ratio = network_lib.log_probability(
            acted.actions, mean, config.exploration
        ) - network_lib.log_probability(acted.actions, acted.means, config.exploration)
        log_ratio = jnp.clip(log_ratio, -10.0, 10.0)
        policy_loss = clipped_policy_loss(log_ratio.ravel(), advantage.ravel(), config.clip)
        value_loss = optax.losses.huber_loss(value, returns).mean()
        total = policy_loss + config.value_cost * value_loss
        if prior is not None:
            prior_mean, _ = apply(prior, acted.observations)
            total += config.prior_weight * divergence(mean, prior_mean, config.exploration).mean()
        return total, Losses(policy_loss, value_loss)

    optimizer = agent_optimizer(config)

    def one_pass(carry: Any, number: chex.Array) -> tuple[Any, Losses]:
        params, state = carry
        part = jax.tree.map(lambda each: each[number % each.shape[0]], parts)
        grads, losses = jax.grad(loss, has_aux=True)(params, part)
        updates, state = optimizer.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), losses

    (params, optimizer_state), losses = jax.lax.scan(
        one_pass, (params, optimizer_state), jnp.arange(config.epochs)
    )
    return params, optimizer_state, jax.tree.map(lambda values: values[-1], losses)


def _parts(tree: chex.ArrayTree, passes: int) -> chex.ArrayTree:
    """What each pass learns from: a part of the explorers each, or all where they are few.

    From `[T, M, ...]` to `[parts, T, M / parts, ...]`. Every leaf's explorers lie side by side, so
    that each part has its share of them.
    """
    count = jax.tree.leaves(tree)[0].shape[1]
    parts = passes if count >= passes * _ENOUGH_EXPLORERS else 1

    def cut(values: chex.Array) -> chex.Array:
        length, rest = values.shape[0], values.shape[2:]
        whole = values[:, : count // parts * parts]
        return jnp.moveaxis(whole.reshape(length, count // parts, parts, *rest), 2, 0)

    return jax.tree.map(cut, tree)

"""Actor-critic learning from one rollout: generalized advantages, PPO's clipped loss, Adam."""

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

from alphaopt_jax._agent import differentiable
from alphaopt_jax._agent import network as network_lib
from alphaopt_jax._agent.leaves import leaf_of
from alphaopt_jax._agent.network import Policy
from alphaopt_jax.config import LearningConfig, PPOConfig

with warnings.catch_warnings():  # The imports of rlax warn about deprecations.
    warnings.simplefilter("ignore")
    import rlax

Arrays = tuple[Float[Array, "..."], ...]
"""Parameters of the agent, from `network.flatten`."""

_MAX_ADVANTAGE = 4.0
_MAX_REWARD = 5.0
_MAX_LOG_RATIO = 10.0
_MIN_EXPLORERS_PER_EPOCH = 1024
_TINY = 1e-30


class Rollout(NamedTuple):
    """T steps of M explorers.

    Attributes:
      observations: `float32[T, M, NUM_FEATURES]`.
      actions: `float32[T, M]`, the log rates, noise included.
      means: `float32[T, M]`, the log rates without noise.
      rewards: `float32[T, M]`, the reward of each action. The last row is unused: new explorers are
        drawn before that reward is known.
    """

    observations: Float[Array, "steps explorers features"]
    actions: Float[Array, "steps explorers"]
    means: Float[Array, "steps explorers"]
    rewards: Float[Array, "steps explorers"]


class Losses(NamedTuple):
    """Losses of one round of learning; both `float32[]`."""

    policy_loss: Float[Array, ""]
    value_loss: Float[Array, ""]


def empty_rollout(length: int, num_explorers: int, num_features: int) -> Rollout:
    """Returns a rollout of zeros."""
    return Rollout(
        observations=jnp.zeros((length, num_explorers, num_features), jnp.float32),
        actions=jnp.zeros((length, num_explorers), jnp.float32),
        means=jnp.zeros((length, num_explorers), jnp.float32),
        rewards=jnp.zeros((length, num_explorers), jnp.float32),
    )


class ActionSamples(NamedTuple):
    """Actions with their advantages, all of one shape.

    Attributes:
      actions: `float32[...]`, the actions taken.
      means: Means of the policy that the actions come from.
      advantages: Advantages of the actions.
    """

    actions: Float[Array, "*shape"]
    means: Float[Array, "*shape"]
    advantages: Float[Array, "*shape"]


def agent_optimizer(config: PPOConfig) -> optax.GradientTransformation:
    """The conventional optimizer that trains the agent."""
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        # The root of a second moment of zero has no derivative.
        optax.adam(config.learning_rate, eps=1e-5, eps_root=_TINY),
    )


def normalize_rewards(
    rewards: Float[Array, "steps explorers"], counts: Sequence[int]
) -> Float[Array, "steps explorers"]:
    """Divides the rewards of each leaf by their root mean square.

    Losses and gradients differ by orders of magnitude between tasks, leaves and stages of a
    training; the agent learns which rates were better than others at that time.

    Args:
      rewards: `float32[T, M]`.
      counts: Number of explorers of each leaf, summing to M.

    Returns:
      `float32[T, M]`, clipped to ±5.
    """
    leaves = leaf_of(counts)
    squares = jax.ops.segment_sum(jnp.square(rewards).mean(axis=0), leaves, len(counts))
    scale = differentiable.sqrt(squares / np.maximum(counts, 1).astype(np.float32))[leaves]
    return jnp.clip(rewards / (scale + _TINY)[None, :], -_MAX_REWARD, _MAX_REWARD)


def advantages(
    rewards: Float[Array, "steps explorers"],
    values: Float[Array, "steps+1 explorers"],
    discount: float,
    gae_lambda: float,
) -> Float[Array, "steps explorers"]:
    """Generalized advantage estimates of every explorer (Schulman et al. 2016).

    Args:
      rewards: `float32[T, M]`.
      values: `float32[T + 1, M]`; the last row is the bootstrap value.
      discount: Gamma. Training continues after the rollout, so no step is terminal.
      gae_lambda: Lambda.

    Returns:
      `float32[T, M]`.
    """

    def one_explorer(reward: chex.Array, value: chex.Array) -> chex.Array:
        discounts = jnp.full_like(reward, discount)
        # Equal to rlax's function of that name, except that `shard_map` rejects the constant carry
        # of rlax's scan.
        return rlax.lambda_returns(reward, discounts, value[1:], gae_lambda) - value[:-1]

    return jax.vmap(one_explorer, in_axes=1, out_axes=1)(rewards, values)


def policy_loss(
    means: Float[Array, "*shape"], samples: ActionSamples, action_std: float, clip_epsilon: float
) -> Float[Array, ""]:
    """PPO's clipped surrogate loss (Schulman et al. 2017, eq. 7) of a Gaussian policy.

    Args:
      means: Means of the present policy, `float32[...]`.
      samples: Actions of an earlier policy, of the same shape.
      action_std: Standard deviation of both.
      clip_epsilon: Bound on the distance of the probability ratio from 1.

    Returns:
      `float32[]`, the mean over all samples.
    """
    log_ratios = network_lib.log_probability(
        samples.actions, means, action_std
    ) - network_lib.log_probability(samples.actions, samples.means, action_std)
    log_ratios = jnp.clip(log_ratios, -_MAX_LOG_RATIO, _MAX_LOG_RATIO)
    return rlax.clipped_surrogate_pg_loss(
        jnp.exp(log_ratios.ravel()),
        samples.advantages.ravel(),
        clip_epsilon,
        # Advantages are constants for the policy, but not for gradients through an update.
        use_stop_gradient=False,
    )


def shifted_policy_loss(
    shift: Float[Array, "*shape"],
    noise: Float[Array, "*shape"],
    advantages: Float[Array, "*shape"],
    action_std: float,
    clip_epsilon: float,
) -> Float[Array, ""]:
    """`policy_loss` for means that have moved since noise was added to them.

    Args:
      shift: Movement of the means since the actions, `float32[...]`.
      noise: Exploration noise of the actions, of the same shape.
      advantages: Advantages of the actions, likewise.
      action_std: Standard deviation of the noise.
      clip_epsilon: Bound on the distance of the probability ratio from 1.

    Returns:
      `float32[]`, the mean over all samples.
    """
    samples = ActionSamples(noise, jnp.zeros_like(shift), advantages)
    return policy_loss(shift, samples, action_std, clip_epsilon)


def divergence(
    mean: Float[Array, "*shape"], prior_mean: Float[Array, "*shape"], deviation: float
) -> Float[Array, "*shape"]:
    """KL divergence of two Gaussians of one standard deviation, element by element.

    Example:
      >>> float(divergence(jnp.asarray(1.0), jnp.asarray(0.0), 0.5))
      2.0
    """
    return 0.5 * jnp.square((mean - prior_mean) / deviation)


def learn(
    policy: Policy,
    prior: Arrays | None,
    optimizer_state: optax.OptState,
    rollout: Rollout,
    counts: Sequence[int],
    config: LearningConfig,
) -> tuple[Arrays, optax.OptState, Losses]:
    """Trains the agent on one rollout.

    Args:
      policy: The agent.
      prior: Parameters of the KL penalty's reference policy, as arrays, or None.
      optimizer_state: State of `agent_optimizer(config.ppo)` for the agent's arrays.
      rollout: T steps of M explorers; the last step serves only as the bootstrap.
      counts: Number of explorers of each leaf, summing to M.
      config: The constants.

    Returns:
      New parameters as arrays, new optimizer state, and the losses of the last epoch.
    """
    network, ppo = policy.network, config.ppo

    arrays = network_lib.flatten(policy.params)

    def apply(arrays: Arrays, observations: chex.Array) -> Any:
        return network.apply({"params": network_lib.unflatten(arrays)}, observations)

    def loss(arrays: Arrays, part: Any) -> tuple[chex.Array, Losses]:
        observations, samples, returns = part
        mean, value = apply(arrays, observations)
        actor_loss = policy_loss(mean, samples, config.action_std, ppo.clip_epsilon)
        value_loss = optax.losses.huber_loss(value, returns).mean()
        total = actor_loss + ppo.value_loss_weight * value_loss
        if prior is not None:
            prior_mean, _ = apply(prior, observations)
            total += config.kl_weight * divergence(mean, prior_mean, config.action_std).mean()
        return total, Losses(actor_loss, value_loss)

    _, values = apply(arrays, rollout.observations)
    advantage, returns = _advantages_and_returns(rollout, values, counts, ppo)
    samples = ActionSamples(rollout.actions[:-1], rollout.means[:-1], advantage)
    parts = _parts((rollout.observations[:-1], samples, returns), ppo.epochs)
    optimizer = agent_optimizer(ppo)

    def epoch(carry: Any, number: chex.Array) -> tuple[Any, Losses]:
        arrays, state = carry
        part = jax.tree.map(lambda each: each[number % each.shape[0]], parts)
        grads, losses = jax.grad(loss, has_aux=True)(arrays, part)
        with jax.numpy_dtype_promotion("standard"):  # optax raises a float to an integer power.
            updates, state = optimizer.update(grads, state, arrays)
        return (optax.apply_updates(arrays, updates), state), losses

    (arrays, optimizer_state), losses = jax.lax.scan(
        epoch, (arrays, optimizer_state), jnp.arange(ppo.epochs)
    )
    return arrays, optimizer_state, jax.tree.map(lambda values: values[-1], losses)


def _advantages_and_returns(
    rollout: Rollout, values: chex.Array, counts: Sequence[int], config: PPOConfig
) -> tuple[chex.Array, chex.Array]:
    """Standardized, clipped advantages and the critic's targets, `float32[T - 1, M]` each."""
    rewards = normalize_rewards(rollout.rewards[:-1], counts)
    advantage = advantages(rewards, values, config.discount, config.gae_lambda)
    returns = advantage + values[:-1]
    advantage = advantage - advantage.mean()
    advantage = advantage / (differentiable.sqrt(jnp.mean(jnp.square(advantage))) + 1e-8)
    return jnp.clip(advantage, -_MAX_ADVANTAGE, _MAX_ADVANTAGE), returns


def _parts(tree: chex.ArrayTree, epochs: int) -> chex.ArrayTree:
    """Divides the explorers among the epochs, if there are enough; else one part with all.

    From `[T, M, ...]` to `[parts, T, M / parts, ...]`. The explorers of a leaf are adjacent, so
    that each part gets its share of them.
    """
    count = jax.tree.leaves(tree)[0].shape[1]
    parts = epochs if count >= epochs * _MIN_EXPLORERS_PER_EPOCH else 1

    def cut(values: chex.Array) -> chex.Array:
        length, rest = values.shape[0], values.shape[2:]
        whole = values[:, : count // parts * parts]
        return jnp.moveaxis(whole.reshape(length, count // parts, parts, *rest), 2, 0)

    return jax.tree.map(cut, tree)

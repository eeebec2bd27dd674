"""PPO for `benchmarks.rl_vs_rnn`: AlphaOpt's meta-training for any `Network`."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import functools
from typing import Any, NamedTuple

import chex
import jax
from jax import flatten_util
import jax.numpy as jnp
import numpy as np
import optax

from alphaopt_jax._agent.leaves import FlatLeaves, leaf_of
from alphaopt_jax._learning import explorers, ppo, reward
from alphaopt_jax.baselines import _training
from alphaopt_jax.meta.ppo import averaging_matrix
from benchmarks.rl_vs_rnn import networks
from benchmarks.rl_vs_rnn.learners import Objective

_MAX_REWARD, _MAX_ADVANTAGE = 5.0, 4.0


@dataclasses.dataclass(frozen=True)
class PPOConfig:
    """Constants of PPO.

    Attributes:
      horizon: Steps in an episode.
      interval: Steps for which exploration noise is held; divides `horizon`.
      groups: Tasks in a round.
      copies: Copies of each task that differ only in their noise; advantages are relative to them.
      num_explorers: Approximate number of parameters of a task that explore.
      action_std: Standard deviation of the noise of leaves and of explorers.
      discount: Discount of an explorer's rewards, per interval.
      clip_epsilon: Bound on the distance of the probability ratio from 1.
      epochs: Passes over a round.
      minibatches: Minibatches per epoch.
      learning_rate: Learning rate of Adam.
    """

    horizon: int = 100
    interval: int = 4
    groups: int = 4
    copies: int = 8
    num_explorers: int = 64
    action_std: float = 0.3
    discount: float = 0.8
    clip_epsilon: float = 0.2
    epochs: int = 2
    minibatches: int = 4
    learning_rate: float = 1e-3


class LearnerState(NamedTuple):
    """State of the learner.

    Attributes:
      params: Parameters of the network.
      adam: State of their optimizer.
    """

    params: chex.ArrayTree
    adam: optax.OptState


class Episode(NamedTuple):
    """One episode: T steps in I intervals, M explorers.

    Attributes:
      observations: `float32[T, M, F]`, the explorers'.
      means: `float32[T, M]`, their mean log rates.
      leaf_noise: `float32[I, leaves]`.
      own_noise: `float32[I, M]`.
      decrease: `float32[I]`, decrease of the logarithm of the outcome.
      own_rewards: `float32[I, M]`, each explorer's part of the decrease of the log loss.
    """

    observations: chex.Array
    means: chex.Array
    leaf_noise: chex.Array
    own_noise: chex.Array
    decrease: chex.Array
    own_rewards: chex.Array


class PPO:
    """PPO over one network: shared rewards of the leaves, individual rewards of parameters."""

    def __init__(self, network: networks.Network, config: PPOConfig):
        """Stores the arguments."""
        self.network = network
        self.config = config
        self._optimizer = _training.skip_nonfinite(
            optax.chain(
                optax.clip_by_global_norm(0.5), optax.adam(config.learning_rate, b1=0.9, eps=1e-5)
            )
        )

    @property
    def tasks_per_round(self) -> int:
        """Number of tasks in a round."""
        return self.config.groups

    @property
    def env_steps_per_round(self) -> int:
        """Environment steps in a round, over all tasks."""
        return self.config.horizon * self.config.groups * self.config.copies

    def init(self, key: chex.PRNGKey) -> LearnerState:
        """Initial state. Consumes `key`."""
        params = self.network.init(key)
        return LearnerState(params, self._optimizer.init(params))

    def params(self, learner: LearnerState) -> chex.ArrayTree:
        """Parameters of the network."""
        return learner.params

    def round(
        self, objective: Objective, learner: LearnerState, instances: Any, keys: chex.PRNGKey
    ) -> LearnerState:
        """Runs a round of episodes and learns from it.

        Args:
          objective: Objective of the tasks.
          learner: State of the learner.
          instances: Instances of `groups` tasks.
          keys: `key[groups]`, consumed.
        """
        config = self.config
        shapes = jax.eval_shape(
            lambda: objective.family.draw(jax.random.key(0)).init(jax.random.key(0))
        )
        model = FlatLeaves.of(shapes)
        counts = explorers.allocate(model.sizes, model.sizes, config.num_explorers)
        task_keys, noise_keys, learn_keys = jax.vmap(
            functools.partial(jax.random.split, num=3), out_axes=1
        )(keys)
        copies = jax.vmap(functools.partial(jax.random.split, num=config.copies))(noise_keys)
        play = functools.partial(self._play, objective, learner.params, model, counts)
        of_copies = jax.vmap(play, in_axes=(None, None, 0))
        episodes = jax.vmap(of_copies)(instances, task_keys, copies)
        return self._learn(learner, episodes, counts, learn_keys[0])

    def _play(
        self,
        objective: Objective,
        params: chex.ArrayTree,
        model: FlatLeaves,
        counts: tuple[int, ...],
        instance: Any,
        task_key: chex.PRNGKey,
        noise_key: chex.PRNGKey,
    ) -> Episode:
        """One episode. Copies differ only in `noise_key`."""
        config, task = self.config, objective.family.task(instance)
        tx = self.network.optimizer(params, num_steps=config.horizon)
        init_key, place_key, stream = jax.random.split(task_key, 3)
        start = task.init(init_key)
        positions = _positions(place_key, model.sizes, counts)
        number = config.horizon // config.interval
        leaf_key, own_key = jax.random.split(noise_key)
        leaf_noise = config.action_std * jax.random.normal(leaf_key, (number, len(model.sizes)))
        own_noise = config.action_std * jax.random.normal(own_key, (number, sum(counts)))

        def measure(params: Any, key: chex.PRNGKey) -> tuple[Any, chex.Array]:
            batch_key, outcome_key = jax.random.split(key)
            loss_and_grads = jax.value_and_grad(task.loss)(params, task.batch(batch_key))
            return loss_and_grads, objective.scored_loss(instance, params, outcome_key)

        def step(carry: Any, key: chex.PRNGKey) -> tuple[Any, Any]:
            optimized, state, (loss, grads), noise = carry
            updates, state = tx.update(grads, state, optimized, value=loss, noise=noise)
            moved = optax.apply_updates(optimized, updates)
            measured, outcome = measure(moved, key)
            change, _ = flatten_util.ravel_pytree(updates)
            after, _ = flatten_util.ravel_pytree(measured[1])
            own = reward.divided(after, after, change, previous_gradient_weight=0.0)
            own = own[positions] / (0.5 * (loss + measured[0]))
            seen = (state.observations[positions], state.means[positions], own, outcome)
            return (moved, state, measured, noise), seen

        def interval(carry: Any, each: Any) -> tuple[Any, Any]:
            leaves, own, keys = each
            noise = (model.membership @ leaves).at[positions].add(own)
            carry, seen = jax.lax.scan(step, (*carry, noise), keys)
            return carry[:3], seen

        keys = jax.random.split(stream, config.horizon + 1)
        measured, first = measure(start, keys[0])
        step_keys = keys[1:].reshape(number, config.interval)
        _, (observations, means, own, outcomes) = jax.lax.scan(
            interval, (start, tx.init(start), measured), (leaf_noise, own_noise, step_keys)
        )
        ends = jnp.log(jnp.append(first, outcomes[:, -1]) + 1e-5 * first + 1e-30)
        return Episode(
            observations=observations.reshape(config.horizon, *observations.shape[2:]),
            means=means.reshape(config.horizon, -1),
            leaf_noise=leaf_noise,
            own_noise=own_noise,
            decrease=jnp.clip(jnp.nan_to_num(ends[:-1] - ends[1:]), -_MAX_REWARD, _MAX_REWARD),
            own_rewards=jnp.nan_to_num(jnp.sum(own, axis=1)),
        )

    def _learn(
        self, learner: LearnerState, episodes: Episode, counts: tuple[int, ...], key: chex.PRNGKey
    ) -> LearnerState:
        """Several epochs over episodes, `[groups, copies, ...]`."""
        config = self.config
        owners, averaging = leaf_of(counts), averaging_matrix(counts)
        number = config.horizon // config.interval
        # The remaining return of an episode, relative to its copies.
        to_come = jnp.flip(jnp.cumsum(jnp.flip(episodes.decrease, -1), -1), -1)
        leaf_advantages = _standardized(to_come)
        own_advantages = _standardized(_discounted(episodes.own_rewards, config.discount))

        def objective(params: chex.ArrayTree, part: Any) -> chex.Array:
            episode, leaf_advantage, own_advantage = part
            means = self._replay(params, episode.observations)
            shift = (means - episode.means).reshape(number, config.interval, -1).mean(axis=1)
            leaf_shift = shift @ averaging.T
            own_shift = shift - leaf_shift[:, owners]
            advantages = jnp.broadcast_to(leaf_advantage[:, None], leaf_shift.shape)
            constants = (config.action_std, config.clip_epsilon)
            return ppo.shifted_policy_loss(
                leaf_shift, episode.leaf_noise, advantages, *constants
            ) + ppo.shifted_policy_loss(own_shift, episode.own_noise, own_advantage, *constants)

        size = config.groups * config.copies
        flat = jax.tree.map(
            lambda leaf: leaf.reshape(size, *leaf.shape[2:]),
            (episodes, leaf_advantages, own_advantages),
        )

        def minibatch(learner: LearnerState, members: chex.Array) -> tuple[LearnerState, None]:
            part = jax.tree.map(lambda leaf: leaf[members], flat)
            grads = jax.grad(
                lambda params: jnp.mean(jax.vmap(objective, in_axes=(None, 0))(params, part))
            )(learner.params)
            updates, adam = self._optimizer.update(grads, learner.adam, learner.params)
            return LearnerState(optax.apply_updates(learner.params, updates), adam), None

        orders = jax.vmap(lambda key: jax.random.permutation(key, size))(
            jax.random.split(key, config.epochs)
        ).reshape(config.epochs * config.minibatches, -1)
        learner, _ = jax.lax.scan(minibatch, learner, orders)
        return learner

    def _replay(self, params: chex.ArrayTree, observations: chex.Array) -> chex.Array:
        """Means of the policy along `[T, M, F]` observations: `[T, M]`."""
        carry = self.network.zero_carry(observations.shape[1])
        _, means = jax.lax.scan(
            lambda carry, seen: self.network.apply(params, carry, seen), carry, observations
        )
        return means


def _positions(key: chex.PRNGKey, sizes: Sequence[int], counts: Sequence[int]) -> chex.Array:
    """Draws `counts` parameters of each leaf: indices in the flat vector, `int32[M]`."""
    starts = np.cumsum(sizes) - np.array(sizes)
    keys = jax.random.split(key, len(sizes))
    return jnp.concatenate(
        [
            start + jax.random.permutation(leaf_key, size)[:count]
            for leaf_key, start, size, count in zip(keys, starts, sizes, counts, strict=True)
        ]
    )


def _discounted(rewards: chex.Array, discount: float) -> chex.Array:
    """Discounted returns of `[..., I, M]` rewards."""
    moved = jnp.moveaxis(rewards, -2, 0)

    def back(later: chex.Array, now: chex.Array) -> tuple[chex.Array, chex.Array]:
        total = now + discount * later
        return total, total

    _, totals = jax.lax.scan(back, jnp.zeros_like(moved[0]), moved, reverse=True)
    return jnp.moveaxis(totals, 0, -2)


def _standardized(returns: chex.Array) -> chex.Array:
    """Returns `[groups, copies, ...]`, centered over the copies and standardized."""
    centered = returns - returns.mean(axis=1, keepdims=True)
    scale = jnp.sqrt(jnp.mean(jnp.square(centered))) + 1e-8
    return jnp.clip(centered / scale, -_MAX_ADVANTAGE, _MAX_ADVANTAGE)

"""Training on one episode from learned initial parameters, and its meta-gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key
import optax

from alphaopt_jax.tasks import rollouts
from alphaopt_jax.tasks.omniglot.episodes import EpisodeTask
from alphaopt_jax.tasks.task import Family

Algorithm = Literal["reptile", "fomaml", "maml"]
"""How initial parameters are updated; see `InitializationConfig`."""


class Learned(NamedTuple):
    """Meta-learned parameters.

    Attributes:
      params: Initial parameters of the network; None for those of each task's `init`.
      optimizer_params: Parameters of the inner optimizer: the rates of Meta-SGD, an empty tree for
        most other optimizers.
    """

    params: chex.ArrayTree | None
    optimizer_params: chex.ArrayTree


def adapt(
    task: EpisodeTask,
    optimizer_fn: rollouts.OptimizerFactory,
    learned: Learned,
    keys: Key[Array, " steps"],
) -> chex.ArrayTree:
    """Trains a network on one episode.

    Args:
      task: The episode.
      optimizer_fn: From `learned.optimizer_params` to the optimizer.
      learned: Initial parameters of the network, and parameters of the optimizer.
      keys: `key[T]`, one for the batch of each step; consumed.

    Returns:
      The trained parameters, differentiable with respect to `learned`.
    """
    optimizer = optimizer_fn(learned.optimizer_params)
    # Steps are recomputed in the backward pass: the activations of T steps do not fit in memory.
    step = jax.checkpoint(rollouts.training_step(task, optimizer))
    start = learned.params, optimizer.init(learned.params)
    (params, _), _ = jax.lax.scan(step, start, keys)
    return params


def meta_gradient(
    task: EpisodeTask,
    optimizer_fn: rollouts.OptimizerFactory,
    learned: Learned,
    keys: Key[Array, " steps"],
    algorithm: Algorithm,
) -> Learned:
    """Computes the meta-gradient of one episode.

    Args:
      task: The episode.
      optimizer_fn: From `learned.optimizer_params` to the optimizer.
      learned: The current meta-learned parameters.
      keys: `key[T]`, one for the batch of each step; consumed.
      algorithm: As in `InitializationConfig`.

    Returns:
      A tree like `learned`. The gradient of `optimizer_params` is zero except for "maml".
    """

    def loss_after(learned: Learned) -> chex.Array:
        return task.evaluation_loss(adapt(task, optimizer_fn, learned, keys))

    if algorithm == "maml":
        gradient: Learned = jax.grad(loss_after)(learned)
        return gradient
    end = adapt(task, optimizer_fn, learned, keys)
    if algorithm == "reptile":
        params = optax.tree.sub(learned.params, end)
    else:
        params = jax.grad(task.evaluation_loss)(end)
    return Learned(params, optax.tree.zeros_like(learned.optimizer_params))


def make_evaluate(
    family: Family, optimizer_fn: rollouts.OptimizerFactory, num_steps: int
) -> Callable[..., tuple[Float[Array, ""], Float[Array, ""]]]:
    """Returns a function that evaluates meta-learned parameters.

    Args:
      family: Family of `EpisodeTask`s.
      optimizer_fn: From `learned.optimizer_params` to the optimizer.
      num_steps: Training steps per episode.

    Returns:
      A function to compile. It maps `Learned`, instances and keys to the mean accuracy and the mean
      loss on the queries after training, both `float32[]`.
    """

    def evaluate(
        learned: Learned, instances: Any, keys: chex.PRNGKey
    ) -> tuple[chex.Array, chex.Array]:
        def evaluate_episode(episode: tuple[Any, chex.PRNGKey]) -> tuple[chex.Array, chex.Array]:
            instance, key = episode
            task: Any = family.task(instance)
            init_key, stream = jax.random.split(key)
            start = learned
            if learned.params is None:
                start = learned._replace(params=task.init(init_key))
            params = adapt(task, optimizer_fn, start, jax.random.split(stream, num_steps))
            return task.accuracy(params), task.evaluation_loss(params)

        accuracies, losses = rollouts.map_episodes(evaluate_episode, (instances, keys))
        return jnp.mean(accuracies), jnp.mean(losses)

    return evaluate

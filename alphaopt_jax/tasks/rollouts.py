"""Training loops on one task or on many, shared by training and measurement."""

from __future__ import annotations

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key
import optax

from alphaopt_jax.tasks.task import Family, Task

OptimizerFactory = Callable[[Any], optax.GradientTransformation]
"""Maps an optimizer's own parameters (a learning rate, learned weights), which may be traced, to
the optimizer."""


def rollout(
    task: Task, optimizer: optax.GradientTransformation, key: Key[Array, ""], num_steps: int
) -> Float[Array, " {num_steps}+1"]:
    """Trains once.

    Args:
      task: Task to minimize.
      optimizer: Any optax optimizer; each batch's loss is passed to it as `value`.
      key: Key of the initial parameters and of the batches; consumed.
      num_steps: T, the number of updates.

    Returns:
      `float32[T + 1]`, the loss of each step's batch before its update, and of one more batch.

    Example:
      >>> import jax, optax
      >>> from alphaopt_jax.tasks.papers import l2l
      >>> task = l2l.quadratics().draw(jax.random.key(0))
      >>> losses = rollout(task, optax.sgd(0.1), jax.random.key(1), 20)
      >>> losses.shape, bool(losses[-1] < losses[0])
      ((21,), True)
    """
    step = training_step(task, optimizer)
    init_key, stream = jax.random.split(key)
    params = task.init(init_key)
    *step_keys, last_key = jax.random.split(stream, num_steps + 1)
    (params, _), losses = jax.lax.scan(step, (params, optimizer.init(params)), jnp.stack(step_keys))
    return jnp.append(losses, task.loss(params, task.batch(last_key)))


def training_step(
    task: Task, optimizer: optax.GradientTransformation
) -> Callable[
    [tuple[Any, optax.OptState], Key[Array, ""]], tuple[tuple[Any, Any], Float[Array, ""]]
]:
    """Returns one training step, as a function for `jax.lax.scan`.

    Args:
      task: Task to minimize.
      optimizer: Any optax optimizer; each batch's loss is passed to it as `value`.

    Returns:
      A function that maps `(params, opt_state)` and the key of a batch (consumed) to the updated
      `(params, opt_state)` and the batch's loss before the update, `float32[]`.
    """
    tx = optax.with_extra_args_support(optimizer)

    def step(
        carry: tuple[Any, optax.OptState], key: Key[Array, ""]
    ) -> tuple[tuple[Any, optax.OptState], Float[Array, ""]]:
        params, state = carry
        loss, grads = jax.value_and_grad(task.loss)(params, task.batch(key))
        updates, state = tx.update(grads, state, params, value=loss)
        return (optax.apply_updates(params, updates), state), loss

    return step


def draw(family: Family, keys: Key[Array, " tasks"]) -> tuple[Any, Key[Array, " tasks"]]:
    """Draws one task per key, and one training key per task.

    Args:
      family: Family of the tasks.
      keys: `key[N]`, consumed.

    Returns:
      Task instances, with a leading axis `[N]`, and training keys, `key[N]`.
    """
    pairs = jax.vmap(jax.random.split)(keys)
    return jax.vmap(family.sample)(pairs[:, 0]), pairs[:, 1]


@functools.partial(jax.jit, static_argnums=(0, 1), static_argnames=("num_steps", "vectorize"))
def rollouts(
    family: Family,
    optimizer_fn: OptimizerFactory,
    optimizer_params: Any,
    instances: Any,
    keys: Key[Array, " tasks"],
    *,
    num_steps: int,
    vectorize: bool = True,
) -> Float[Array, " tasks {num_steps}+1"]:
    """Trains once on each of several tasks.

    Args:
      family: Family of the tasks.
      optimizer_fn: Maps `optimizer_params` to the optimizer.
      optimizer_params: Argument of `optimizer_fn`.
      instances: Task instances from `draw`.
      keys: Training keys from `draw`, `key[N]`, consumed.
      num_steps: T, the number of updates.
      vectorize: Whether to train on all tasks at once (`vmap`), which is fastest for small tasks,
        rather than on one after the other.

    Returns:
      `float32[N, T + 1]`, the losses of each task's `rollout`.
    """

    def one(each: tuple[Any, Key[Array, ""]]) -> Float[Array, " losses"]:
        instance, key = each
        return rollout(family.task(instance), optimizer_fn(optimizer_params), key, num_steps)

    if vectorize:
        return jax.vmap(one)((instances, keys))
    return jax.lax.map(one, (instances, keys))


def map_episodes(function: Callable[[Any], Any], episodes: Any) -> Any:
    """Applies a function to each episode: sequentially on a CPU, in parallel on an accelerator.

    On a CPU, many small networks are no faster at once than in turn, and the cache holds only one.
    On an accelerator, launching operations dominates and takes as long for many networks as for
    one.

    Args:
      function: Maps one episode, a pytree of arrays, to a pytree of arrays. Traced once.
      episodes: Pytree of arrays with a leading axis `[N]`.

    Returns:
      The results, with a leading axis `[N]`.

    Example:
      >>> import jax.numpy as jnp
      >>> map_episodes(lambda scale: 2.0 * scale, jnp.arange(3.0)).tolist()
      [0.0, 2.0, 4.0]
    """
    if jax.default_backend() == "cpu":
        return jax.lax.map(function, episodes)
    return jax.vmap(function)(episodes)

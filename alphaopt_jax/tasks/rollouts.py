"""Training on one task or on many, written once for what is trained and for what is measured."""

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
"""From whatever an optimizer is made of, which may be traced (a learning rate, learned parameters),
to the optimizer."""


def rollout(
    task: Task, optimizer: optax.GradientTransformation, key: Key[Array, ""], num_steps: int
) -> Float[Array, " {num_steps}+1"]:
    """Trains once.

    Args:
      task: What to minimise.
      optimizer: Any optax optimizer; each batch's loss is passed to it as `value`.
      key: Of the initial parameters and of the batches; consumed.
      num_steps: T, the number of updates.

    Returns:
      `float32[T + 1]`, the loss of each step's batch before its update, and that of one more batch.

    Example:
      >>> import jax, optax
      >>> from alphaopt_jax.tasks import l2l
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
    """Returns one step of training, to scan over.

    Args:
      task: What to minimise.
      optimizer: Any optax optimizer.

    Returns:
      From the task's parameters with the optimizer's state, and the key of a batch (consumed), to
      these after the step, and the batch's loss before it, `float32[]`.
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
    """Draws one task for each key, and a key to train on each.

    Args:
      family: Where the tasks are from.
      keys: `key[N]`, consumed.

    Returns:
      Instances, with an axis `[N]` before their own, and `key[N]`.
    """
    pairs = jax.vmap(jax.random.split)(keys)
    return jax.vmap(family.sample)(pairs[:, 0]), pairs[:, 1]


@functools.partial(jax.jit, static_argnums=(0, 1), static_argnames=("num_steps", "together"))
def rollouts(
    family: Family,
    make: OptimizerFactory,
    made_of: Any,
    instances: Any,
    keys: Key[Array, " tasks"],
    *,
    num_steps: int,
    together: bool = True,
) -> Float[Array, " tasks {num_steps}+1"]:
    """Trains once on each of several tasks.

    Args:
      family: Where the tasks are from.
      make: Makes the optimizer.
      made_of: What `make` is called with.
      instances: As `draw` gives them.
      keys: `key[N]`, consumed.
      num_steps: T, the number of updates.
      together: Whether all make each step at once, which is quickest for small tasks.

    Returns:
      `float32[N, T + 1]` losses, as of `rollout`.
    """

    def one(each: tuple[Any, Key[Array, ""]]) -> Float[Array, " losses"]:
        instance, key = each
        return rollout(family.task(instance), make(made_of), key, num_steps)

    if together:
        return jax.vmap(one)((instances, keys))
    return jax.lax.map(one, (instances, keys))


def over_episodes(function: Callable[[Any], Any], episodes: Any) -> Any:
    """Applies a function to each episode: in turn on a CPU, side by side on an accelerator.

    A CPU is as quick with one small network as with many, and its caches hold one. An accelerator
    spends most of its time on beginning operations, which is as long for many networks as for one.

    Args:
      function: From one episode, a pytree of arrays, to a pytree of arrays. Traced once.
      episodes: With an axis `[N]` before each array's own.

    Returns:
      The results, with an axis `[N]` before each array's own.

    Example:
      >>> import jax.numpy as jnp
      >>> over_episodes(lambda scale: 2.0 * scale, jnp.arange(3.0)).tolist()
      [0.0, 2.0, 4.0]
    """
    if jax.default_backend() == "cpu":
        return jax.lax.map(function, episodes)
    return jax.vmap(function)(episodes)

"""The interface of tasks: losses to minimize, and families of them.

A `Task` consists of pure functions and a name. A `Family` is a distribution of tasks that differ
only in arrays (data, scales, seeds), not in shapes, so that many of them run under one `jax.vmap`.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any

import chex


@dataclasses.dataclass(frozen=True)
class Task:
    """A loss to minimize. All functions are pure and may be traced.

    Attributes:
      name: Name for tables.
      init: Maps a key to initial parameters, a pytree of `float32` arrays.
      batch: Maps a key to a batch of training data, a pytree of arrays.
      loss: Maps parameters and a batch to the training loss, `float32[]`.
      evaluation_loss: Maps parameters to the evaluation loss, `float32[]`; on held-out data, if
        the task has any.
      reward_loss: Maps parameters and a key to the loss whose decrease is an agent's reward in
        meta-training, `float32[]`; by default the training loss of the next batch.
      rate_factors: Factors of an agent's learning rates in meta-training, shaped like the
        parameters; by default 1.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> bowl = Task(
      ...     name="bowl",
      ...     init=lambda key: jax.random.normal(key, (3,)),
      ...     batch=lambda key: jnp.zeros(()),
      ...     loss=lambda params, batch: jnp.sum(params**2),
      ...     evaluation_loss=lambda params: jnp.sum(params**2),
      ... )
      >>> float(bowl.loss(jnp.ones(3), bowl.batch(jax.random.key(0))))
      3.0
    """

    name: str
    init: Callable[[chex.PRNGKey], chex.ArrayTree]
    batch: Callable[[chex.PRNGKey], chex.ArrayTree]
    loss: Callable[[chex.ArrayTree, chex.ArrayTree], chex.Array]
    evaluation_loss: Callable[[chex.ArrayTree], chex.Array]
    reward_loss: Callable[[chex.ArrayTree, chex.PRNGKey], chex.Array] | None = None
    rate_factors: chex.ArrayTree | None = None


@dataclasses.dataclass(frozen=True)
class Family:
    """A distribution of tasks of one shape.

    Attributes:
      name: Name for tables.
      sample: Maps a key to an instance, the pytree of arrays in which the family's tasks differ.
      task: Maps an instance to its task. Called under `vmap`, with traced arrays.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> def bowl(scale):
      ...     loss = lambda params, batch=None: scale * jnp.sum(params**2)
      ...     return Task("bowl", lambda key: jnp.ones(3), lambda key: None, loss, loss)
      >>> bowls = Family("bowls", sample=jax.random.uniform, task=bowl)
      >>> scales = jax.vmap(bowls.sample)(jax.random.split(jax.random.key(0), 5))
      >>> jax.vmap(lambda scale: bowls.task(scale).evaluation_loss(jnp.ones(3)))(scales).shape
      (5,)
    """

    name: str
    sample: Callable[[chex.PRNGKey], Any]
    task: Callable[[Any], Task]

    def draw(self, key: chex.PRNGKey) -> Task:
        """Returns a random task of the family. Consumes `key`."""
        return self.task(self.sample(key))

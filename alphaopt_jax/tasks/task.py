"""What a task is: something to be minimised, from its initial parameters to its evaluation loss.

A `Task` is four pure functions and a name. A `Family` is a distribution of tasks that differ only
in arrays (data, scales, seeds), not in shapes, so that a population of them runs under one
`jax.vmap`.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any

import chex


@dataclasses.dataclass(frozen=True)
class Task:
    """Something to be minimised. All functions are pure and may be traced.

    Attributes:
      name: What to call it in tables.
      init: From a key to initial parameters, a pytree of `float32` arrays.
      batch: From a key to one batch of training data, a pytree of arrays.
      loss: From parameters and a batch to the training loss, `float32[]`.
      evaluation_loss: From parameters to the loss that the user wants low, on data that is not
        trained on where the task has any, `float32[]`.
      reward_loss: From parameters and a key to the loss whose decrease is an agent's reward in
        meta-training, where that is not the training loss of the next batch, `float32[]`.
      rate_factors: What an agent's rates are multiplied by in meta-training, shaped like the
        parameters, where those are not to be taken as they are.

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
      name: What to call it in tables.
      sample: From a key to an instance: a pytree of arrays, in which the family's tasks differ.
      task: From an instance to its task. Called under `vmap`: the instance's arrays may be traced.

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
        """Returns one task of the family. Consumes `key`."""
        return self.task(self.sample(key))

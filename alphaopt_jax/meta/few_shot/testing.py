"""Meta-tests: any optimizer on episodes of what nobody has trained on; only the network changes."""

from __future__ import annotations

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from alphaopt_jax.tasks import rollouts
from alphaopt_jax.tasks.task import Family


class Curves(NamedTuple):
    """E episodes, looked at C times each.

    Attributes:
      steps: Updates before each look.
      accuracies: Share of queries told right, `float[E, C]`.
      losses: Of the queries, `float[E, C]`.
    """

    steps: tuple[int, ...]
    accuracies: np.ndarray
    losses: np.ndarray

    def accuracy(self, step: int) -> np.ndarray:
        """Accuracy of each episode after so many updates, `float[E]`."""
        return self.accuracies[:, self.steps.index(step)]

    def area(self, last: int) -> np.ndarray:
        """Mean accuracy over the looks up to a step, the first before any, `float[E]`."""
        return self.accuracies[:, : self.steps.index(last) + 1].mean(axis=1)


def meta_test(
    family: Family,
    make: rollouts.OptimizerFactory,
    made_of: Any,
    *,
    key: chex.PRNGKey,
    num_episodes: int,
    num_steps: int,
    every: int,
    initial_params: Any = None,
    learned: Callable[[optax.OptState], Any] | None = None,
    at_once: int = 20,
) -> Curves:
    """Trains on episodes, each from its start, and looks at the queries now and then.

    Args:
      family: Of `EpisodeTask`s.
      make: Makes the optimizer.
      made_of: What `make` is called with.
      key: Of the episodes and their batches; the same for all that are compared. Consumed.
      num_episodes: E.
      num_steps: Updates in each; a multiple of `every`.
      every: Updates between two looks.
      initial_params: Where the network starts; by default where the task says.
      learned: From an optimizer's state to what must not change in a meta-test. It is compared bit
        by bit.
      at_once: Episodes of one call of the compiled program; another number compiles anew.

    Returns:
      The curves.

    Raises:
      RuntimeError: What must not change has changed.

    Example:
      >>> import jax, optax
      >>> from alphaopt_jax.tasks import omniglot
      >>> family = omniglot.episode_family(
      ...     omniglot.synthetic_omniglot().test, omniglot.few_shot_protocol(3, 1), width=4
      ... )
      >>> curves = meta_test(
      ...     family, optax.adam, 1e-2, key=jax.random.key(0), num_episodes=2, num_steps=4, every=2
      ... )
      >>> curves.steps, curves.accuracies.shape
      ((0, 2, 4), (2, 3))
    """
    found = []
    keys = jax.random.split(key, num_episodes)
    for first in range(0, num_episodes, at_once):
        drawn = rollouts.draw(family, keys[first : first + at_once])
        *curves, same = jax.device_get(
            _follow(
                family,
                make,
                learned,
                made_of,
                initial_params,
                *drawn,
                num_looks=num_steps // every,
                every=every,
            )
        )
        if not np.all(same):
            raise RuntimeError(
                "The agent changed during a meta-test, in which only the network may change."
            )
        found.append(curves)
    accuracies, losses = (np.concatenate(each) for each in zip(*found, strict=True))
    return Curves(tuple(range(0, num_steps + 1, every)), accuracies, losses)


@functools.partial(jax.jit, static_argnums=(0, 1, 2), static_argnames=("num_looks", "every"))
def _follow(
    family: Family,
    make: rollouts.OptimizerFactory,
    learned: Callable[[optax.OptState], Any] | None,
    made_of: Any,
    initial_params: Any,
    instances: Any,
    keys: chex.PRNGKey,
    *,
    num_looks: int,
    every: int,
) -> tuple[chex.Array, chex.Array, chex.Array]:
    optimizer = make(made_of)

    def one(each: tuple[Any, chex.PRNGKey]) -> tuple[chex.Array, chex.Array, chex.Array]:
        instance, key = each
        task: Any = family.task(instance)
        init_key, stream = jax.random.split(key)
        params = task.init(init_key) if initial_params is None else initial_params
        begun = optimizer.init(params)
        step = rollouts.training_step(task, optimizer)

        def look(params: Any) -> tuple[chex.Array, chex.Array]:
            return task.accuracy(params), task.evaluation_loss(params)

        def block(carry: Any, block_keys: chex.PRNGKey) -> tuple[Any, Any]:
            carry, _ = jax.lax.scan(step, carry, block_keys)
            return carry, look(carry[0])

        first = look(params)
        step_keys = jax.random.split(stream, (num_looks, every))
        (_, ended), looks = jax.lax.scan(block, (params, begun), step_keys)
        accuracies, losses = (
            jnp.concatenate([before[None], after])
            for before, after in zip(first, looks, strict=True)
        )
        return accuracies, losses, _same(learned, begun, ended)

    return rollouts.over_episodes(one, (instances, keys))


def _same(
    learned: Callable[[optax.OptState], Any] | None, begun: optax.OptState, ended: optax.OptState
) -> chex.Array:
    if learned is None:
        return jnp.ones((), bool)
    pairs = zip(jax.tree.leaves(learned(begun)), jax.tree.leaves(learned(ended)), strict=True)
    return jnp.all(jnp.stack([jnp.all(before == after) for before, after in pairs]))

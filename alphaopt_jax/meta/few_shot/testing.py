"""Meta-tests: an optimizer trains a network on each of several held-out episodes."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from alphaopt_jax.tasks import rollouts
from alphaopt_jax.tasks.task import Family


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["optimizer_params", "initial_params"],
    meta_fields=["optimizer_fn", "constant_state"],
)
@dataclasses.dataclass(frozen=True)
class Learner:
    """An optimizer and the network's initial parameters.

    Learners with the same `optimizer_fn` and `constant_state` share compiled programs.

    Attributes:
      optimizer_fn: Maps `optimizer_params` to the optimizer.
      optimizer_params: Pytree of arrays, such as a learning rate or an agent's parameters.
      initial_params: Initial parameters of the network; None uses those of each task.
      constant_state: Maps the optimizer's state to the part that a meta-test must not change, such
        as the parameters of a frozen agent.
    """

    optimizer_fn: rollouts.OptimizerFactory
    optimizer_params: Any = None
    initial_params: chex.ArrayTree | None = None
    constant_state: Callable[[optax.OptState], chex.ArrayTree] | None = None


@dataclasses.dataclass(frozen=True)
class MetaTestPlan:
    """Size of a meta-test.

    Attributes:
      num_episodes: Number of episodes.
      num_steps: Updates per episode; a multiple of `evaluate_every`.
      evaluate_every: Updates between evaluations on the queries.
      episodes_per_call: Episodes per call of the compiled program; it compiles again for a call
        with fewer.
    """

    num_episodes: int
    num_steps: int
    evaluate_every: int
    episodes_per_call: int = 20


class Curves(NamedTuple):
    """Learning curves of E episodes with C evaluations each.

    Attributes:
      steps: Number of updates before each evaluation.
      accuracies: Accuracy on the queries, `float[E, C]`.
      losses: Loss on the queries, `float[E, C]`.
    """

    steps: tuple[int, ...]
    accuracies: np.ndarray
    losses: np.ndarray

    def accuracy(self, step: int) -> np.ndarray:
        """Accuracy of each episode after `step` updates, `float[E]`."""
        return self.accuracies[:, self.steps.index(step)]

    def mean_accuracy(self, last_step: int) -> np.ndarray:
        """Mean accuracy of each episode over the evaluations from 0 to `last_step`, `float[E]`."""
        return self.accuracies[:, : self.steps.index(last_step) + 1].mean(axis=1)


def meta_test(family: Family, learner: Learner, plan: MetaTestPlan, key: chex.PRNGKey) -> Curves:
    """Trains a network on each of several episodes, and evaluates it on the queries.

    Args:
      family: Family of `EpisodeTask`s.
      learner: Optimizer and initial parameters.
      plan: Size of the meta-test.
      key: Key of the episodes and their batches. Consumed.

    Returns:
      The learning curves.

    Raises:
      RuntimeError: `learner.constant_state` changed.

    Example:
      >>> import jax, optax
      >>> from alphaopt_jax.tasks import omniglot
      >>> family = omniglot.episode_family(
      ...     omniglot.synthetic_omniglot().test, omniglot.few_shot_protocol(3, 1), width=4
      ... )
      >>> plan = MetaTestPlan(num_episodes=2, num_steps=4, evaluate_every=2)
      >>> curves = meta_test(family, Learner(optax.adam, 1e-2), plan, jax.random.key(0))
      >>> curves.steps, curves.accuracies.shape
      ((0, 2, 4), (2, 3))
    """
    results = []
    keys = jax.random.split(key, plan.num_episodes)
    for first in range(0, plan.num_episodes, plan.episodes_per_call):
        episodes = rollouts.draw(family, keys[first : first + plan.episodes_per_call])
        *curves, unchanged = jax.device_get(
            _run_episodes(
                family,
                learner,
                episodes,
                num_evaluations=plan.num_steps // plan.evaluate_every,
                evaluate_every=plan.evaluate_every,
            )
        )
        if not np.all(unchanged):
            raise RuntimeError(
                "The agent changed during a meta-test, in which only the network may change."
            )
        results.append(curves)
    accuracies, losses = (np.concatenate(parts) for parts in zip(*results, strict=True))
    steps = tuple(range(0, plan.num_steps + 1, plan.evaluate_every))
    return Curves(steps, accuracies, losses)


@functools.partial(jax.jit, static_argnums=0, static_argnames=("num_evaluations", "evaluate_every"))
def _run_episodes(
    family: Family,
    learner: Learner,
    episodes: tuple[Any, chex.PRNGKey],
    *,
    num_evaluations: int,
    evaluate_every: int,
) -> tuple[chex.Array, chex.Array, chex.Array]:
    """Accuracies and losses, `float32[E, C]`, and whether the constant state is the same."""
    optimizer = learner.optimizer_fn(learner.optimizer_params)

    def run(episode: tuple[Any, chex.PRNGKey]) -> tuple[chex.Array, chex.Array, chex.Array]:
        instance, key = episode
        task: Any = family.task(instance)
        init_key, stream = jax.random.split(key)
        params = task.init(init_key) if learner.initial_params is None else learner.initial_params
        initial_state = optimizer.init(params)
        step = rollouts.training_step(task, optimizer)

        def evaluate(params: Any) -> tuple[chex.Array, chex.Array]:
            return task.accuracy(params), task.evaluation_loss(params)

        def steps_and_evaluation(carry: Any, step_keys: chex.PRNGKey) -> tuple[Any, Any]:
            carry, _ = jax.lax.scan(step, carry, step_keys)
            return carry, evaluate(carry[0])

        first = evaluate(params)
        step_keys = jax.random.split(stream, (num_evaluations, evaluate_every))
        (_, last_state), later = jax.lax.scan(
            steps_and_evaluation, (params, initial_state), step_keys
        )
        accuracies, losses = (
            jnp.concatenate([before[None], after])
            for before, after in zip(first, later, strict=True)
        )
        return accuracies, losses, _unchanged(learner, initial_state, last_state)

    return rollouts.map_episodes(run, episodes)


def _unchanged(learner: Learner, first: optax.OptState, last: optax.OptState) -> chex.Array:
    """True if the learner's constant state is the same in two states, bit by bit."""
    if learner.constant_state is None:
        return jnp.ones((), bool)
    pairs = zip(
        jax.tree.leaves(learner.constant_state(first)),
        jax.tree.leaves(learner.constant_state(last)),
        strict=True,
    )
    return jnp.all(jnp.stack([jnp.all(before == after) for before, after in pairs]))

"""The learners of `benchmarks.rl_vs_rnn`: evolution and backpropagation through time; beside PPO.

PPO, in a file of its own, and evolution learn by how far an episode decreases the logarithm of what
is to be made small, which may be the loss itself or anything else that can be measured, such as the
share of examples that are classified wrongly. Backpropagation needs the loss's gradient.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple, Protocol

import chex
import jax
from jax import flatten_util
import jax.numpy as jnp
import numpy as np
import optax

from alphaopt_jax.baselines import _bptt_trainer
from alphaopt_jax.baselines.bptt import BackpropagationConfig, TrainableOptimizer
from alphaopt_jax.tasks import rollouts
from alphaopt_jax.tasks.task import Family
from benchmarks.rl_vs_rnn import networks

_WORST = 10.0


class Objective(NamedTuple):
    """What is to be made small on which tasks.

    Attributes:
      family: The tasks that are optimized.
      scored: The same tasks, of the same instances and parameters, with the loss that counts: the
        same family, or one whose loss has no gradient.
    """

    family: Family
    scored: Family

    def scored_loss(self, instance: Any, params: chex.ArrayTree, key: chex.PRNGKey) -> chex.Array:
        """What counts, on a fresh batch. Consumes `key`."""
        task = self.scored.task(instance)
        return task.loss(params, task.batch(key))


class Learner(Protocol):
    """What trains a network, round by round."""

    @property
    def tasks_per_round(self) -> int:
        """Tasks that a round draws."""

    @property
    def env_steps_per_round(self) -> int:
        """Steps made on all tasks together."""

    def init(self, key: chex.PRNGKey) -> Any:
        """The start. Consumes `key`."""

    def round(self, objective: Objective, learned: Any, instances: Any, keys: chex.PRNGKey) -> Any:
        """One round, on tasks as `rollouts.draw` gives them."""

    def params(self, learned: Any) -> chex.ArrayTree:
        """Parameters of the network."""


def outcomes(
    objective: Objective,
    instance: Any,
    optimizer: optax.GradientTransformation,
    key: chex.PRNGKey,
    num_steps: int,
) -> tuple[chex.Array, chex.Array]:
    """What counts before and after a training.

    Args:
      objective: The tasks and what counts.
      instance: Of one of them.
      optimizer: What trains.
      key: Consumed.
      num_steps: How long.

    Returns:
      Two `float32[]`.
    """
    task = objective.family.task(instance)
    init_key, stream = jax.random.split(key)
    start = task.init(init_key)
    keys = jax.random.split(stream, num_steps + 2)
    step = rollouts.training_step(task, optimizer)
    (end, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), keys[2:])
    return objective.scored_loss(instance, start, keys[0]), objective.scored_loss(
        instance, end, keys[1]
    )


@dataclasses.dataclass(frozen=True)
class EvolutionConfig:
    """Constants of evolution.

    Attributes:
      horizon: Steps in an episode.
      pairs: Pairs of networks in a round, perturbed in opposite directions; the two of a pair
        optimize the same task.
      deviation: Standard deviation of the perturbations.
      learning_rate: Adam's.
    """

    horizon: int = 100
    pairs: int = 16
    deviation: float = 0.05
    learning_rate: float = 3e-3


class Evolution:
    """OpenAI-ES (Salimans et al. 2017), from evosax."""

    def __init__(self, network: networks.LearnedOptimizer, config: EvolutionConfig):
        """Keeps its arguments."""
        from evosax import algorithms  # An extra, for those who compare.

        self.network = network
        self.config = config
        shapes = jax.eval_shape(network.init, jax.random.key(0))
        zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
        flat, self._unravel = flatten_util.ravel_pytree(zeros)
        self._strategy = algorithms.Open_ES(
            population_size=2 * config.pairs,
            solution=flat,
            optimizer=optax.chain(optax.clip_by_global_norm(0.5), optax.adam(config.learning_rate)),
            std_schedule=optax.constant_schedule(config.deviation),
        )

    @property
    def tasks_per_round(self) -> int:
        """Tasks that a round draws."""
        return self.config.pairs

    @property
    def env_steps_per_round(self) -> int:
        """Steps made on all tasks together."""
        return self.config.horizon * 2 * self.config.pairs

    def init(self, key: chex.PRNGKey) -> Any:
        """The start: evosax's state. Consumes `key`."""
        init_key, strategy_key = jax.random.split(key)
        flat, _ = flatten_util.ravel_pytree(self.network.init(init_key))
        return self._strategy.init(strategy_key, flat, self._strategy.default_params)

    def params(self, learned: Any) -> chex.ArrayTree:
        """Parameters of the network."""
        return self._unravel(learned.mean)

    def round(self, objective: Objective, learned: Any, instances: Any, keys: chex.PRNGKey) -> Any:
        """Plays a round of episodes and learns from it.

        Args:
          objective: What is to be made small.
          learned: evosax's state.
          instances: Of `pairs` tasks.
          keys: `key[pairs]`, consumed.
        """
        ask_key, tell_key = jax.random.split(jax.random.fold_in(keys[0], 1))
        params = self._strategy.default_params
        population, learned = self._strategy.ask(ask_key, learned, params)
        # evosax puts one half of the pairs before the other.
        halves = population.reshape(2, self.config.pairs, -1)

        def growth(flat: chex.Array, instance: Any, key: chex.PRNGKey) -> chex.Array:
            return self._growth(objective, instance, self._unravel(flat), key)

        of_pair = jax.vmap(growth, in_axes=(0, 0, 0))
        fitness = jax.vmap(of_pair, in_axes=(0, None, None))(halves, instances, keys).ravel()
        fitness = jnp.clip(jnp.nan_to_num(fitness, nan=_WORST), -_WORST, _WORST)
        learned, _ = self._strategy.tell(tell_key, population, fitness, learned, params)
        return learned

    def _growth(
        self, objective: Objective, instance: Any, params: chex.ArrayTree, key: chex.PRNGKey
    ) -> chex.Array:
        """By how much an episode increases the logarithm of the outcome."""
        horizon = self.config.horizon
        optimizer = self.network.optimizer(params, num_steps=horizon)
        before, after = outcomes(objective, instance, optimizer, key, horizon)
        return jnp.log(after + 1e-5 * before + 1e-30) - jnp.log(before + 1e-30)


class BackpropagationLearner:
    """Backpropagation through time, by the face of the others. It knows only the loss itself."""

    def __init__(
        self,
        network: networks.LearnedOptimizer,
        config: BackpropagationConfig,
    ):
        """Keeps its arguments."""
        self.network = network
        self.config = config
        optimizer_fn = functools.partial(network.optimizer, num_steps=config.horizon)
        optimizer = TrainableOptimizer(network.name, optimizer_fn, network.init)
        self._trainer = _bptt_trainer.Trainer(optimizer, config)

    @property
    def tasks_per_round(self) -> int:
        """Tasks that a round draws."""
        return self.config.tasks

    @property
    def env_steps_per_round(self) -> int:
        """Steps made on all tasks together."""
        return self.config.horizon * self.config.tasks

    def init(self, key: chex.PRNGKey) -> _bptt_trainer.TrainingState:
        """The start. Consumes `key`."""
        return self._trainer.init(key)

    def params(self, learned: _bptt_trainer.TrainingState) -> chex.ArrayTree:
        """Parameters of the network."""
        return learned.params

    def round(
        self,
        objective: Objective,
        learned: _bptt_trainer.TrainingState,
        instances: Any,
        keys: chex.PRNGKey,
    ) -> _bptt_trainer.TrainingState:
        """Plays one episode and learns after each of its unrolls.

        Args:
          objective: What is to be made small; its scored loss is not used.
          learned: What was learned.
          instances: Of `tasks` tasks.
          keys: `key[tasks]`, consumed.
        """
        learned, _ = self._trainer.episode(objective.family, learned, instances, keys)
        return learned

"""The learners of `benchmarks.rl_vs_rnn` besides PPO: evolution, and backpropagation through time.

PPO and evolution maximize the decrease of the log of the scored loss in an episode; that loss needs
no gradient and may be, for example, the share of wrongly classified examples. Backpropagation
differentiates the tasks' own loss.
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
    """Tasks to optimize, and the loss that scores an optimizer on them.

    Attributes:
      family: Tasks with the loss that optimizers minimize.
      scored: The same tasks, with the same instances and parameters, and the loss that is scored;
        it may have no gradient.
    """

    family: Family
    scored: Family

    def scored_loss(self, instance: Any, params: chex.ArrayTree, key: chex.PRNGKey) -> chex.Array:
        """Scored loss on a new batch. Consumes `key`."""
        task = self.scored.task(instance)
        return task.loss(params, task.batch(key))


class Learner(Protocol):
    """Trains a network in rounds."""

    @property
    def network(self) -> networks.LearnedOptimizer:
        """The network."""

    @property
    def tasks_per_round(self) -> int:
        """Tasks drawn in a round."""

    @property
    def env_steps_per_round(self) -> int:
        """Environment steps in a round, over all tasks."""

    def init(self, key: chex.PRNGKey) -> Any:
        """Initial state. Consumes `key`."""

    def round(self, objective: Objective, state: Any, instances: Any, keys: chex.PRNGKey) -> Any:
        """State after one round on tasks from `rollouts.draw`."""

    def params(self, state: Any) -> chex.ArrayTree:
        """Parameters of the network."""


def scored_losses(
    objective: Objective,
    instance: Any,
    optimizer: optax.GradientTransformation,
    key: chex.PRNGKey,
    num_steps: int,
) -> tuple[chex.Array, chex.Array]:
    """Scored losses before and after training on one task.

    Args:
      objective: Objective of the task.
      instance: Instance of the task.
      optimizer: Optimizer to train with.
      key: Key of the initial parameters and batches; consumed.
      num_steps: Number of updates.

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
    """Hyperparameters of evolution.

    Attributes:
      horizon: Steps in an episode.
      pairs: Pairs of networks in a round, with opposite perturbations and the same task.
      perturbation_std: Standard deviation of the perturbations.
      learning_rate: Learning rate of Adam.
    """

    horizon: int = 100
    pairs: int = 16
    perturbation_std: float = 0.05
    learning_rate: float = 3e-3


class Evolution:
    """OpenAI-ES (Salimans et al. 2017) from evosax."""

    def __init__(self, network: networks.LearnedOptimizer, config: EvolutionConfig):
        """Creates the learner of a network."""
        from evosax import algorithms  # An optional dependency.

        self.network = network
        self.config = config
        shapes = jax.eval_shape(network.init, jax.random.key(0))
        zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
        flat, self._unravel = flatten_util.ravel_pytree(zeros)
        self._strategy = algorithms.Open_ES(
            population_size=2 * config.pairs,
            solution=flat,
            optimizer=optax.chain(optax.clip_by_global_norm(0.5), optax.adam(config.learning_rate)),
            std_schedule=optax.constant_schedule(config.perturbation_std),
        )

    @property
    def tasks_per_round(self) -> int:
        """Tasks drawn in a round."""
        return self.config.pairs

    @property
    def env_steps_per_round(self) -> int:
        """Environment steps in a round, over all tasks."""
        return self.config.horizon * 2 * self.config.pairs

    def init(self, key: chex.PRNGKey) -> Any:
        """Initial state of evosax. Consumes `key`."""
        init_key, strategy_key = jax.random.split(key)
        flat, _ = flatten_util.ravel_pytree(self.network.init(init_key))
        return self._strategy.init(strategy_key, flat, self._strategy.default_params)

    def params(self, state: Any) -> chex.ArrayTree:
        """Parameters of the network."""
        return self._unravel(state.mean)

    def round(self, objective: Objective, state: Any, instances: Any, keys: chex.PRNGKey) -> Any:
        """Runs an episode of every perturbed network and updates the mean network.

        Args:
          objective: Objective of the tasks.
          state: State of evosax.
          instances: Instances of `pairs` tasks.
          keys: `key[pairs]`, consumed.
        """
        ask_key, tell_key = jax.random.split(jax.random.fold_in(keys[0], 1))
        params = self._strategy.default_params
        population, state = self._strategy.ask(ask_key, state, params)
        # evosax orders the population as all first members of the pairs, then all second members.
        halves = population.reshape(2, self.config.pairs, -1)

        def growth(flat: chex.Array, instance: Any, key: chex.PRNGKey) -> chex.Array:
            return self._growth(objective, instance, self._unravel(flat), key)

        of_pair = jax.vmap(growth, in_axes=(0, 0, 0))
        fitness = jax.vmap(of_pair, in_axes=(0, None, None))(halves, instances, keys).ravel()
        fitness = jnp.clip(jnp.nan_to_num(fitness, nan=_WORST), -_WORST, _WORST)
        state, _ = self._strategy.tell(tell_key, population, fitness, state, params)
        return state

    def _growth(
        self, objective: Objective, instance: Any, params: chex.ArrayTree, key: chex.PRNGKey
    ) -> chex.Array:
        """Increase of the log of the scored loss in an episode."""
        horizon = self.config.horizon
        optimizer = self.network.optimizer(params, num_steps=horizon)
        before, after = scored_losses(objective, instance, optimizer, key, horizon)
        return jnp.log(after + 1e-5 * before + 1e-30) - jnp.log(before + 1e-30)


class BackpropagationLearner:
    """Backpropagation through time, which differentiates the tasks' own loss."""

    def __init__(
        self,
        network: networks.LearnedOptimizer,
        config: BackpropagationConfig,
    ):
        """Creates the learner of a network."""
        self.network = network
        self.config = config
        optimizer_fn = functools.partial(network.optimizer, num_steps=config.horizon)
        optimizer = TrainableOptimizer(network.name, optimizer_fn, network.init)
        self._trainer = _bptt_trainer.Trainer(optimizer, config)

    @property
    def tasks_per_round(self) -> int:
        """Tasks drawn in a round."""
        return self.config.tasks

    @property
    def env_steps_per_round(self) -> int:
        """Environment steps in a round, over all tasks."""
        return self.config.horizon * self.config.tasks

    def init(self, key: chex.PRNGKey) -> _bptt_trainer.TrainingState:
        """Initial state. Consumes `key`."""
        return self._trainer.init(key)

    def params(self, state: _bptt_trainer.TrainingState) -> chex.ArrayTree:
        """Parameters of the network."""
        return state.params

    def round(
        self,
        objective: Objective,
        state: _bptt_trainer.TrainingState,
        instances: Any,
        keys: chex.PRNGKey,
    ) -> _bptt_trainer.TrainingState:
        """Runs one episode, with an update after each of its unrolls.

        Args:
          objective: Objective of the tasks; its scored loss is not used.
          state: State of the trainer.
          instances: Instances of `tasks` tasks.
          keys: `key[tasks]`, consumed.
        """
        state, _ = self._trainer.episode(objective.family, state, instances, keys)
        return state

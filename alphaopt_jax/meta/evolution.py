"""Meta-training by evolution strategies, with the agent, tasks and environment of PPO.

OpenAI-ES (Salimans et al. 2017) keeps each perturbation of the agent for a whole episode and learns
at its end. Persistent ES (Vicol et al. 2021) draws a new perturbation for every rollout and learns
after each; it weights a rollout's fitness by the sum of all perturbations since the episode began,
so the gradient estimate is unbiased. Both implementations come from evosax.

A population consists of antithetic pairs of perturbations, which differ only in sign. The fitness
is the increase of the log loss, the negative sum of PPO's rewards.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import chex
import jax
from jax import flatten_util
import jax.numpy as jnp
import numpy as np
import optax

from alphaopt_jax._agent import network as network_lib
from alphaopt_jax._agent.network import Policy
from alphaopt_jax.meta import _environment as environment
from alphaopt_jax.meta import _population as population
from alphaopt_jax.meta import method
from alphaopt_jax.meta.config import MetaConfig
from alphaopt_jax.tasks.task import Family

Strategy = Literal["openai_es", "persistent_es"]

_MAX_FITNESS = 10.0  # Increase of the log loss that replaces values that are not finite.


class LearnerState(NamedTuple):
    """State of the evolution strategy that all families share.

    Attributes:
      mean: `float32[P]`, flat parameters of the actor.
      averaged_agent: Parameters of the agent, averaged over the last rounds.
      optimizer: State of Adam.
      rounds: `int32[]`, number of updates.
    """

    mean: chex.Array
    averaged_agent: chex.ArrayTree
    optimizer: optax.OptState
    rounds: chex.Array


class Perturbed(NamedTuple):
    """Perturbations of one family's episodes.

    Attributes:
      strategy: State of evosax; its mean and optimizer state are replaced by those of
        `LearnerState` before each use.
      mean: `float32[P]`, mean of the perturbed actors when they were sampled.
      actors: `float32[B, P]`, perturbed actors, in evosax's order.
      fitness: `float32[B]`, increase of the log loss since the episodes began.
    """

    strategy: Any
    mean: chex.Array
    actors: chex.Array
    fitness: chex.Array


def evolution(
    config: MetaConfig, strategy: Strategy, perturbation_std: float = 0.02
) -> method.Method:
    """Returns meta-training by an evolution strategy.

    Args:
      config: Constants of meta-training. The population has `groups * copies` members, as with PPO,
        but in groups of two; exploration and PPO's constants are ignored.
      strategy: Evolution strategy: OpenAI-ES or persistent ES.
      perturbation_std: Standard deviation of the perturbations of the actor's parameters.

    Raises:
      ModuleNotFoundError: evosax is not installed.
    """
    evolution_strategy = _Evolution(config, strategy, perturbation_std)
    return method.Method(
        strategy,
        evolution_strategy.init,
        evolution_strategy.init_family,
        lambda family: functools.partial(evolution_strategy.round, family),
    )


class _Evolution:
    """The functions of a `Method`."""

    def __init__(self, config: MetaConfig, strategy: Strategy, perturbation_std: float):
        self._size = size = config.groups * config.copies
        self._config = dataclasses.replace(
            config, groups=size // 2, copies=2, action_std=0.0, leaf_action_std=0.0
        )
        self._strategy = strategy
        self._network = network = network_lib.make_network(config.agent)
        self._optimizer = optax.inject_hyperparams(_clipped_adam)(
            learning_rate=config.ppo.learning_rate
        )
        shapes = jax.eval_shape(
            lambda: network_lib.init_params(jax.random.key(0), network)["actor"]
        )
        self._flat, self._unravel = flatten_util.ravel_pytree(
            jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
        )
        self._algorithm = _algorithm(strategy, size, self._flat, self._optimizer, perturbation_std)

    def init(self, key: chex.PRNGKey) -> LearnerState:
        """Returns an untrained agent. Consumes `key`."""
        agent = network_lib.init_params(key, self._network)
        mean, _ = flatten_util.ravel_pytree(agent["actor"])
        return LearnerState(mean, agent, self._optimizer.init(mean), jnp.zeros((), jnp.int32))

    def init_family(self) -> Perturbed:
        """Returns a family's perturbations before its first round."""
        algorithm, flat = self._algorithm, self._flat
        state = algorithm.init(jax.random.key(0), flat, algorithm.default_params)
        return Perturbed(
            jax.tree.map(jnp.array, state),
            mean=jnp.zeros_like(flat),
            actors=jnp.zeros((self._size, flat.size), jnp.float32),
            fitness=jnp.zeros((self._size,), jnp.float32),
        )

    def round(
        self,
        family: Family,
        learner: LearnerState,
        state: method.FamilyState,
        key: chex.PRNGKey,
        learning_rate: chex.Numeric,
    ) -> tuple[LearnerState, method.FamilyState, dict[str, chex.Array]]:
        """Runs one round of a family; the other arguments are those of `method.Round`."""
        config, persistent = self._config, self._strategy == "persistent_es"
        ask_key, rollout_key, tell_key = jax.random.split(key, 3)
        begins = jnp.all(state.population.members.step == 0)
        hyperparams = {"learning_rate": jnp.asarray(learning_rate, jnp.float32)}
        learner = learner._replace(optimizer=learner.optimizer._replace(hyperparams=hyperparams))
        perturbed = self._perturb(ask_key, learner, state.method_state)
        if not persistent:  # OpenAI-ES keeps the perturbations of a whole episode.
            perturbed = _where(begins, perturbed, state.method_state)
        # evosax puts the pairs' negative halves after all positive ones; here pairs are adjacent.
        order = np.arange(self._size).reshape(2, -1).T.ravel()
        agents = jax.vmap(lambda actor: {**learner.averaged_agent, "actor": self._unravel(actor)})(
            perturbed.actors[order]
        )
        before = _log_loss(state.population, config)
        episodes, rollout = population.run_rollout(
            family,
            Policy(agents, config.agent),
            state.population,
            rollout_key,
            config,
            one_agent=False,
        )
        increase = jnp.zeros((self._size,)).at[order].set(_log_loss(episodes, config) - before)
        total = jnp.where(begins, 0.0, perturbed.fitness) + increase
        fitness = increase if persistent else total
        updated, strategy_state = self._update(
            tell_key, learner, perturbed._replace(fitness=fitness), rollout.ended
        )
        # OpenAI-ES waits for the end of the episode.
        learner = _where(rollout.ended | persistent, updated, learner)
        perturbed = perturbed._replace(strategy=strategy_state, fitness=total)
        metrics = population.metrics(episodes, rollout) | {"fitness": fitness.mean()}
        return learner, method.FamilyState(episodes, perturbed), metrics

    def _perturb(self, key: chex.PRNGKey, learner: LearnerState, perturbed: Perturbed) -> Perturbed:
        """Samples perturbed actors around the current mean. Consumes `key`."""
        state = perturbed.strategy.replace(mean=learner.mean, opt_state=learner.optimizer)
        actors, state = self._algorithm.ask(key, state, self._algorithm.default_params)
        return Perturbed(state, learner.mean, actors, perturbed.fitness)

    def _update(
        self, key: chex.PRNGKey, learner: LearnerState, perturbed: Perturbed, ended: chex.Array
    ) -> tuple[LearnerState, Any]:
        """Returns the learner and evosax's state after one step. Consumes `key`.

        Other families have moved the mean since the actors were sampled, so the step is computed at
        the mean of that time and added to the present one.
        """
        params = self._algorithm.default_params
        if hasattr(params, "T"):  # Persistent ES resets its sums of perturbations as episodes end.
            params = params.replace(T=jnp.where(ended, 0, jnp.iinfo(jnp.int32).max), K=0)
        state = perturbed.strategy.replace(mean=perturbed.mean, opt_state=learner.optimizer)
        fitness = jnp.nan_to_num(
            perturbed.fitness, nan=_MAX_FITNESS, posinf=_MAX_FITNESS, neginf=-_MAX_FITNESS
        )
        state, _ = self._algorithm.tell(key, perturbed.actors, fitness, state, params)
        mean = learner.mean + (state.mean - perturbed.mean)
        averaged = dict(learner.averaged_agent)
        weight = method.average_weight(learner.rounds)
        averaged["actor"] = optax.incremental_update(self._unravel(mean), averaged["actor"], weight)
        return LearnerState(mean, averaged, state.opt_state, learner.rounds + 1), state


def _clipped_adam(learning_rate: chex.Numeric) -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(0.5), optax.adam(learning_rate))


def _algorithm(
    strategy: Strategy,
    size: int,
    flat: chex.Array,
    optimizer: optax.GradientTransformation,
    perturbation_std: float,
) -> Any:
    from evosax import algorithms  # An optional dependency.

    kinds = {"openai_es": algorithms.Open_ES, "persistent_es": algorithms.PersistentES}
    if strategy not in kinds:
        raise ValueError(f"`strategy` must be one of {sorted(kinds)}, not {strategy!r}.")
    return kinds[strategy](
        population_size=size,
        solution=flat,
        optimizer=optimizer,
        std_schedule=optax.constant_schedule(perturbation_std),
    )


def _where(condition: chex.Array, tree: chex.ArrayTree, other: chex.ArrayTree) -> Any:
    return jax.tree.map(lambda left, right: jnp.where(condition, left, right), tree, other)


def _log_loss(episodes: population.Population, config: MetaConfig) -> chex.Array:
    """Log of each member's loss, `float32[B]`, with the same floor as in PPO's rewards."""
    members = episodes.members
    return jnp.log(environment.floored(members.rewarded_loss, members.first_loss, config))

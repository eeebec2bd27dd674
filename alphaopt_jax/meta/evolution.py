"""Evolution strategies over the same agent, tasks and environment: what PPO is compared with.

OpenAI-ES (Salimans et al. 2017) holds each perturbation of the agent for a whole episode and
learns when it ends. Persistent ES (Vicol et al. 2021) draws a new one for every rollout, learns
after each, and weighs it with the sum of all perturbations since the episode began, which makes the
estimate unbiased although it does not wait for the end. Both come from evosax.

The members of a population are pairs that differ in the sign of their perturbation alone, and the
fitness is the growth of the log loss: the very quantity that PPO's rewards add up to.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any, Literal, NamedTuple

import chex
import jax
from jax import flatten_util
import jax.numpy as jnp
import numpy as np
import optax

from alphaopt_jax._agent import network as network_lib
from alphaopt_jax.meta import _environment as environment
from alphaopt_jax.meta import _population as population
from alphaopt_jax.meta import method, ppo
from alphaopt_jax.meta.config import MetaConfig
from alphaopt_jax.tasks.task import Family

Strategy = Literal["openai_es", "persistent_es"]

_WORST = 10.0  # Growth of the log loss of a task that broke down.


class Learned(NamedTuple):
    """What evolution trains.

    Attributes:
      mean: `float32[P]`, the actor's parameters, flat.
      averaged_agent: Parameters of the agent, averaged over the last rounds.
      optimizer: State of Adam.
      rounds: `int32[]`, rounds learned from.
    """

    mean: chex.Array
    averaged_agent: chex.ArrayTree
    optimizer: optax.OptState
    rounds: chex.Array


class Perturbed(NamedTuple):
    """What is remembered of a family's episodes.

    Attributes:
      strategy: evosax's state; what all families share is put into it when it is used.
      mean: `float32[P]`, where the perturbations were drawn around.
      actors: `float32[B, P]`, the perturbed actors, in evosax's order.
      fitness: `float32[B]`, growth of the log loss since the episodes began.
    """

    strategy: Any
    mean: chex.Array
    actors: chex.Array
    fitness: chex.Array


def evolution(config: MetaConfig, strategy: Strategy, deviation: float = 0.02) -> method.Method:
    """Returns meta-training by an evolution strategy.

    Args:
      config: The constants. The population is `groups * copies` members, as with PPO, but in
        groups of two; exploration and all of PPO's own constants are without effect.
      strategy: Which one.
      deviation: Standard deviation of the perturbations of the actor's parameters.

    Raises:
      ModuleNotFoundError: evosax is not installed.
    """
    size = config.groups * config.copies
    config = dataclasses.replace(
        config, groups=size // 2, copies=2, exploration=0.0, leaf_exploration=0.0
    )
    network = ppo.make_network(config)
    optimizer = optax.inject_hyperparams(_clipped_adam)(learning_rate=config.learning_rate)
    shapes = jax.eval_shape(lambda: network_lib.init_params(jax.random.key(0), network)["actor"])
    flat, unravel = flatten_util.ravel_pytree(
        jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    )
    algorithm = _algorithm(strategy, size, flat, optimizer, deviation)
    # evosax puts one half of the pairs before the other; members of a pair are neighbours here.
    order = np.arange(size).reshape(2, -1).T.ravel()

    def init(key: chex.PRNGKey) -> Learned:
        agent = network_lib.init_params(key, network)
        mean, _ = flatten_util.ravel_pytree(agent["actor"])
        return Learned(mean, agent, optimizer.init(mean), jnp.zeros((), jnp.int32))

    def init_family() -> Perturbed:
        state = algorithm.init(jax.random.key(0), flat, algorithm.default_params)
        return Perturbed(
            jax.tree.map(jnp.array, state),
            mean=jnp.zeros_like(flat),
            actors=jnp.zeros((size, flat.size), jnp.float32),
            fitness=jnp.zeros((size,), jnp.float32),
        )

    def make_round(family: Family) -> method.Round:
        def one_round(
            learned: Learned,
            state: method.FamilyState,
            key: chex.PRNGKey,
            learning_rate: chex.Numeric,
        ) -> tuple[Learned, method.FamilyState, dict[str, chex.Array]]:
            ask_key, rollout_key, tell_key = jax.random.split(key, 3)
            begins = jnp.all(state.population.members.step == 0)
            hyperparams = {"learning_rate": jnp.asarray(learning_rate, jnp.float32)}
            learned = learned._replace(
                optimizer=learned.optimizer._replace(hyperparams=hyperparams)
            )
            kept = _ask(algorithm, ask_key, learned, state.kept, begins, strategy)
            agents = jax.vmap(lambda actor: {**learned.averaged_agent, "actor": unravel(actor)})(
                kept.actors[order]
            )
            before = _log_loss(state.population, config)
            episodes, rollout = population.run_rollout(
                family, network, agents, state.population, rollout_key, config, one_agent=False
            )
            growth = jnp.zeros((size,)).at[order].set(_log_loss(episodes, config) - before)
            kept = kept._replace(fitness=jnp.where(begins, 0.0, kept.fitness) + growth)
            fitness = kept.fitness if strategy == "openai_es" else growth
            told, kept = _tell(algorithm, tell_key, learned, kept, fitness, rollout.ended, unravel)
            # OpenAI-ES waits for the end of the episode.
            learns = rollout.ended | (strategy == "persistent_es")
            learned = jax.tree.map(lambda new, old: jnp.where(learns, new, old), told, learned)
            metrics = population.metrics(episodes, rollout) | {"fitness": fitness.mean()}
            return learned, method.FamilyState(episodes, kept), metrics

        return one_round

    return method.Method(strategy, init, init_family, make_round)


def _clipped_adam(learning_rate: chex.Numeric) -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(0.5), optax.adam(learning_rate))


def _algorithm(
    strategy: Strategy,
    size: int,
    flat: chex.Array,
    optimizer: optax.GradientTransformation,
    deviation: float,
) -> Any:
    from evosax import algorithms  # An extra, for those who compare.

    kinds = {"openai_es": algorithms.Open_ES, "persistent_es": algorithms.PersistentES}
    if strategy not in kinds:
        raise ValueError(f"`strategy` must be one of {sorted(kinds)}, not {strategy!r}.")
    return kinds[strategy](
        population_size=size,
        solution=flat,
        optimizer=optimizer,
        std_schedule=optax.constant_schedule(deviation),
    )


def _ask(
    algorithm: Any,
    key: chex.PRNGKey,
    learned: Learned,
    kept: Perturbed,
    begins: chex.Array,
    strategy: Strategy,
) -> Perturbed:
    """Draws perturbed actors: for every rollout, or only where episodes begin."""
    state = kept.strategy.replace(mean=learned.mean, opt_state=learned.optimizer)
    actors, state = algorithm.ask(key, state, algorithm.default_params)
    drawn = Perturbed(state, learned.mean, actors, kept.fitness)
    if strategy == "persistent_es":
        return drawn
    return jax.tree.map(lambda new, old: jnp.where(begins, new, old), drawn, kept)


def _tell(
    algorithm: Any,
    key: chex.PRNGKey,
    learned: Learned,
    kept: Perturbed,
    fitness: chex.Array,
    ended: chex.Array,
    unravel: Callable[[chex.Array], chex.ArrayTree],
) -> tuple[Learned, Perturbed]:
    """Lets the strategy learn; its step is made from where the mean is by now."""
    params = algorithm.default_params
    if hasattr(params, "T"):  # Persistent ES forgets its perturbations where episodes end.
        params = params.replace(T=jnp.where(ended, 0, jnp.iinfo(jnp.int32).max), K=0)
    state = kept.strategy.replace(mean=kept.mean, opt_state=learned.optimizer)
    fitness = jnp.nan_to_num(fitness, nan=_WORST, posinf=_WORST, neginf=-_WORST)
    state, _ = algorithm.tell(key, kept.actors, fitness, state, params)
    mean = learned.mean + (state.mean - kept.mean)
    actor = unravel(mean)
    averaged = dict(learned.averaged_agent)
    weight = method.average_weight(learned.rounds)
    averaged["actor"] = optax.incremental_update(actor, averaged["actor"], weight)
    told = Learned(mean, averaged, state.opt_state, learned.rounds + 1)
    return told, kept._replace(strategy=state)


def _log_loss(episodes: population.Population, config: MetaConfig) -> chex.Array:
    """Log of every member's loss, `float32[B]`, with the floor that PPO's rewards have too."""
    members = episodes.members
    return jnp.log(environment.floored(members.judged_loss, members.first_loss, config))

"""A population of tasks of one family: groups of copies that differ only in their exploration."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, Shaped
import numpy as np

from alphaopt_jax._agent.network import Policy
from alphaopt_jax._learning import explorers
from alphaopt_jax.meta import _environment as environment
from alphaopt_jax.meta import _episode as episode
from alphaopt_jax.meta import _exploration as exploration
from alphaopt_jax.meta.config import MetaConfig
from alphaopt_jax.tasks.task import Family


class Population(NamedTuple):
    """Running episodes of B members in G groups of C copies, B = G * C.

    Attributes:
      members: `_episode.EnvState` with a leading axis `[B]`; copies of a group are adjacent.
      horizon: `float32[]`, length of the episodes.
      interval: `int32[]`, steps of an interval.
      step: `int32[]`, steps made.
      rollouts_left: `int32[]`, rollouts until the episodes end.
    """

    members: episode.EnvState
    horizon: Float[Array, ""]
    interval: Int[Array, ""]
    step: Int[Array, ""]
    rollouts_left: Int[Array, ""]


class Rollout(NamedTuple):
    """R intervals of a population.

    Attributes:
      outcomes: `_episode.Outcome` with leading axes `[R, B]`.
      noise: `_episode.Noise` with leading axes `[R, B]`.
      last: `Outcome` with leading axis `[B]`: the observations after the rollout. Its rewards are
        meaningless.
      ended: `bool[]`, whether the episodes ended with this rollout.
    """

    outcomes: episode.Outcome
    noise: episode.Noise
    last: episode.Outcome
    ended: Bool[Array, ""]


def start(family: Family, key: Key[Array, ""], config: MetaConfig) -> Population:
    """Begins new episodes, all of one horizon, drawn log-uniformly. Consumes `key`."""
    horizon_key, instance_key, known_key, member_key, multiplier_key = jax.random.split(key, 5)
    shortest, longest = jnp.log(config.min_horizon), jnp.log(config.max_horizon)
    wanted = jnp.exp(jax.random.uniform(horizon_key, (), jnp.float32, shortest, longest))
    per_rollout = config.intervals_per_rollout
    rollouts = jnp.clip(
        jnp.round(wanted / (per_rollout * (config.min_interval + 1))),
        1,
        config.rollouts_per_episode,
    )
    interval = jnp.maximum(jnp.round(wanted / (per_rollout * rollouts)), config.min_interval)
    horizon = interval * per_rollout * rollouts
    instances = jax.vmap(family.sample)(jax.random.split(instance_key, config.groups))
    known = jax.random.uniform(known_key, (config.groups,)) >= config.unknown_horizon_fraction
    keys = jax.random.split(member_key, config.groups)
    groups = jax.vmap(
        lambda instance, key, given: environment.reset(family, instance, key, given, config)
    )(instances, keys, jnp.where(known, horizon, 0.0))
    groups = groups._replace(multiplier=_draw_multipliers(multiplier_key, config))
    return Population(
        members=_copied(groups, config.copies),
        horizon=horizon,
        interval=interval.astype(jnp.int32),
        step=jnp.zeros((), jnp.int32),
        rollouts_left=rollouts.astype(jnp.int32),
    )


def _draw_multipliers(key: chex.PRNGKey, config: MetaConfig) -> chex.Array:
    """Factors of the rates of each group, log-uniform for some of them, else 1."""
    if config.random_multipliers is None or config.random_multiplier_fraction is None:
        return jnp.ones((config.groups,), jnp.float32)
    which_key, key = jax.random.split(key)
    is_random = jax.random.uniform(which_key, (config.groups,)) < config.random_multiplier_fraction
    lowest, highest = (math.log(each) for each in config.random_multipliers)
    drawn = jax.random.uniform(key, (config.groups,), jnp.float32, lowest, highest)
    return jnp.where(is_random, jnp.exp(drawn), 1.0)


def run_rollout(
    family: Family,
    policy: Policy,
    population: Population,
    key: Key[Array, ""],
    config: MetaConfig,
    *,
    one_agent: bool = True,
) -> tuple[Population, Rollout]:
    """Runs `config.intervals_per_rollout` intervals.

    Args:
      family: The family of all members.
      policy: The agent; its parameters have a leading axis `[B]` if not `one_agent`.
      population: The running episodes, with at least one rollout left.
      key: Consumed.
      config: The constants.
      one_agent: Whether the same agent acts in all members.

    Returns:
      The population afterwards, and the rollout.
    """
    positions_key, noise_key, observed_key = jax.random.split(key, 3)
    model = environment.model_of(family, config)
    positions = _draw_positions(positions_key, model, config)
    noise = exploration.draw(noise_key, len(model.explorers), sum(model.explorers), config)

    def interval(
        members: episode.EnvState,
        drawn: tuple[episode.Noise, chex.Array, chex.Array, chex.Array],
    ) -> tuple[episode.EnvState, episode.Outcome]:
        noise, observed, first_step, is_last = drawn
        length = jnp.where(is_last, 1, population.interval)

        def one(
            params: chex.ArrayTree,
            member: episode.EnvState,
            instance: Any,
            positions: chex.Array,
            noise: episode.Noise,
        ) -> tuple[episode.EnvState, episode.Outcome]:
            moved, outcome = environment.run_interval(
                family,
                Policy(params, policy.config),
                member._replace(instance=instance),
                episode.Interval(
                    positions, noise, length, observed, first_step, population.horizon
                ),
                config,
            )
            return moved._replace(instance=()), outcome

        in_axes = (None if one_agent else 0, 0, 0, 0, 0)
        moved, outcome = jax.vmap(one, in_axes)(policy.params, members, instances, positions, noise)
        members = jax.tree.map(lambda old, new: jnp.where(is_last, old, new), members, moved)
        return members, outcome

    # Instances can hold whole data sets: they stay outside of the loop's carry.
    instances, light = population.members.instance, population.members._replace(instance=())
    drawn = _draw_intervals(noise, observed_key, population, config)
    members, outcomes = jax.lax.scan(interval, light, drawn)
    outcomes, last = (
        jax.tree.map(lambda each, part=part: each[part], outcomes) for part in (slice(-1), -1)
    )
    left = population.rollouts_left - 1
    population = population._replace(
        members=members._replace(instance=instances),
        step=population.step + population.interval * config.intervals_per_rollout,
        rollouts_left=left,
    )
    return population, Rollout(outcomes, noise, last, left == 0)


def _draw_positions(key: chex.PRNGKey, model: episode.Model, config: MetaConfig) -> chex.Array:
    """Indices of the explorers in the flat parameters, `int32[B, M]`, alike for all copies."""
    sizes = model.leaves.sizes
    starts = np.repeat(np.cumsum((0, *sizes[:-1])), model.explorers)
    positions = jax.vmap(lambda key: explorers.draw(key, sizes, model.explorers) + starts)(
        jax.random.split(key, config.groups)
    )
    return _copied(positions, config.copies)


def _draw_intervals(
    noise: episode.Noise, key: chex.PRNGKey, population: Population, config: MetaConfig
) -> tuple[episode.Noise, chex.Array, chex.Array, chex.Array]:
    """Noise, observed step, first step and whether it is the last, of `R + 1` intervals.

    The last interval has no noise and moves no member. It gives the observations after the rollout.
    """
    intervals = config.intervals_per_rollout + 1
    is_last = jnp.arange(intervals) == intervals - 1
    silence = jax.tree.map(lambda each: jnp.zeros_like(each[:1]), noise)
    extended = jax.tree.map(lambda *each: jnp.concatenate(each), noise, silence)
    # The noise acts at all steps of an interval, so any of them may be recorded.
    moments = jax.random.uniform(key, (intervals,))
    observed = jnp.floor(moments * population.interval).astype(jnp.int32)
    first_steps = population.step + population.interval * jnp.arange(intervals)
    return extended, jnp.where(is_last, 0, observed), first_steps, is_last


def metrics(population: Population, rollout: Rollout) -> dict[str, Shaped[Array, ""]]:
    """Figures of a rollout to log: scalars by name."""
    first, last = population.members.first_loss, jnp.maximum(rollout.outcomes.loss[-1], 0.0)
    return {
        "horizon": population.horizon,
        "ended": rollout.ended,
        "log_decrease": jnp.mean(jnp.log(first + 1e-12) - jnp.log(last + 1e-12)),
        "reward": rollout.outcomes.leaf_rewards.mean(),
    }


def centered(
    values: Float[Array, "intervals members *shape"], config: MetaConfig
) -> Float[Array, "intervals members *shape"]:
    """Subtracts from every copy the mean of its group; `values` is `float32[R, B, ...]`."""
    groups = values.reshape(values.shape[0], config.groups, config.copies, *values.shape[2:])
    return (groups - groups.mean(axis=2, keepdims=True)).reshape(values.shape)


def _copied(groups: chex.ArrayTree, copies: int) -> chex.ArrayTree:
    return jax.tree.map(lambda leaf: jnp.repeat(leaf, copies, axis=0), groups)

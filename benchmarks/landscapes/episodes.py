"""Episodes of optimizers on landscapes, one compiled program for all landscapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import alphaopt_jax as alphaopt
from alphaopt_jax.plotting import Trace
from alphaopt_jax.tasks.landscapes import LANDSCAPES, Landscape
from benchmarks.landscapes.optimizers import BASELINES, RATES

TARGET = 1e-3
"""A loss at most this far above the minimum counts as having reached it."""

_ALL = tuple(LANDSCAPES.values())
_MINIMA = np.array([each.minimum for each in _ALL], np.float32)
_STARTS = np.array([each.start for each in _ALL], np.float32)


class Episode(NamedTuple):
    """One episode of T steps; several episodes have a leading axis.

    Attributes:
      points: `float32[T + 1, 2]`, the parameters, from the start on.
      losses: `float32[T + 1]`, their losses.
      rates: `float32[T, 2]`, learning rates; NaN for baselines.
      rewards: `float32[T]`, each known one step late; NaN for optimizers that do not learn.
    """

    points: Any
    losses: Any
    rates: Any
    rewards: Any


def gaps(landscape: Landscape, losses: np.ndarray) -> np.ndarray:
    """Loss above the global minimum, or infinity if it is not finite."""
    losses = np.asarray(losses, np.float64)
    return np.where(np.isfinite(losses), np.abs(losses - landscape.minimum), np.inf)


def steps_to_target(landscape: Landscape, losses: np.ndarray) -> np.ndarray:
    """First step with a loss within `TARGET` of the minimum.

    Args:
      landscape: Landscape to minimize.
      losses: `float[..., T + 1]`.

    Returns:
      `int[...]`, T if the target was not reached.
    """
    reached = gaps(landscape, losses) <= TARGET
    limit = losses.shape[-1] - 1
    return np.where(reached.any(axis=-1), reached.argmax(axis=-1), limit)


def run_baselines(landscape: Landscape, name: str, num_steps: int) -> Episode:
    """One episode of a baseline at each of `RATES`, the leading axis."""
    index = _ALL.index(landscape)
    return jax.tree.map(np.asarray, _run_rates(index, np.array(RATES, np.float32), name, num_steps))


class AgentRunner:
    """Runs episodes of AlphaOpt, one seed after the other.

    Seeds run in a loop, since `vmap` would turn the `cond` around learning into a `select` and
    compute the learning of every step.
    """

    def __init__(
        self, *, learn: bool, num_steps: int, stop_at_target: bool, agent: str | None = None
    ):
        """Creates the compiled programs.

        Args:
          learn: Argument `learn` of AlphaOpt.
          num_steps: T, steps in an episode.
          stop_at_target: Whether parameters and agent stay unchanged for the rest of the episode
            once the loss is within `TARGET` of the minimum.
          agent: Argument `agent` of AlphaOpt; by default an agent starts from scratch.
        """
        self._agent, self._learn = agent, learn
        optimizer = alphaopt.alphaopt(agent=agent, learn=learn)

        def episode(index: jax.Array, state: optax.OptState) -> tuple[optax.OptState, Episode]:
            return _descend(optimizer, index, state, num_steps, _agent_metrics, stop_at_target)

        self._episodes = jax.jit(
            lambda index, states: jax.lax.map(lambda s: episode(index, s), states)
        )
        self._new_episodes = jax.jit(lambda states: jax.lax.map(alphaopt.new_episode, states))

    def init(self, landscape: Landscape, seeds: list[int]) -> optax.OptState:
        """Initial states, one per seed along the leading axis."""
        start = landscape.initial_point()
        states = [
            alphaopt.alphaopt(agent=self._agent, learn=self._learn, seed=seed).init(start)
            for seed in seeds
        ]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)

    def run(self, landscape: Landscape, states: optax.OptState) -> tuple[optax.OptState, Episode]:
        """One episode per seed from the landscape's start; the leading axis is the seed."""
        states, episodes = self._episodes(_ALL.index(landscape), states)
        return states, jax.tree.map(np.asarray, episodes)

    def new_episode(self, states: optax.OptState) -> optax.OptState:
        """States for a new episode: learned agents, no history."""
        return self._new_episodes(states)


def first(states: optax.OptState) -> optax.OptState:
    """State of the first seed."""
    return jax.tree.map(lambda leaf: leaf[0], states)


def policy_rates(
    agent: alphaopt.Agent, landscape: Landscape, *, resolution: int, num_steps: int
) -> np.ndarray:
    """Learning rates of a frozen agent in the first steps from each point of a grid.

    Args:
      agent: The agent.
      landscape: Landscape to minimize.
      resolution: N, points along each side of the landscape's bounds.
      num_steps: Steps over which the log rates are averaged; the first step alone has no history.

    Returns:
      `float32[N, N, 2]`, ordered as `Landscape.grid(N)`.
    """
    optimizer = alphaopt.alphaopt(agent=agent, learn=False)
    x, y, _ = landscape.grid(resolution)
    points = jnp.stack(jnp.meshgrid(x, y), axis=-1)

    def rates_from(point: jax.Array) -> jax.Array:
        def step(carry, _):
            params, state = carry
            value, grads = jax.value_and_grad(landscape.function)(params)
            updates, state = optimizer.update(grads, state, params, value=value)
            rates = alphaopt.learning_rates(state, params)
            return (optax.apply_updates(params, updates), state), jnp.log(rates)

        _, logs = jax.lax.scan(step, (point, optimizer.init(point)), length=num_steps)
        return jnp.exp(logs.mean(axis=0))

    return np.asarray(jax.jit(jax.vmap(jax.vmap(rates_from)))(points))


def trace(episode: Episode, index: int) -> Trace:
    """One of several episodes, for plotting; NaN rates and rewards become None."""
    one = Episode(*(field[index] for field in episode))
    if np.isnan(one.rates).all():
        return Trace(one.points, one.losses)
    # The reward of a step is known at the next step.
    rewards = None if np.isnan(one.rewards).all() else one.rewards[1:]
    return Trace(one.points, one.losses, one.rates, rewards)


def _agent_metrics(state: optax.OptState, params: jax.Array) -> tuple[jax.Array, jax.Array]:
    rates = alphaopt.learning_rates(state, params)
    return rates, jnp.asarray(alphaopt.metrics(state).get("reward", jnp.nan), jnp.float32)


def _no_metrics(state: optax.OptState, params: jax.Array) -> tuple[jax.Array, jax.Array]:
    del state
    return jnp.full_like(params, jnp.nan), jnp.full((), jnp.nan)


def _value(index: jax.Array, point: jax.Array) -> jax.Array:
    """Loss of the landscape with a number, so that one compiled program serves all landscapes."""
    return jax.lax.switch(index, [each.function for each in _ALL], point)


def _descend(
    optimizer: optax.GradientTransformation,
    index: jax.Array,
    state: optax.OptState,
    num_steps: int,
    metrics_fn: Callable[[optax.OptState, jax.Array], tuple[jax.Array, jax.Array]],
    stop_at_target: bool = False,
) -> tuple[optax.OptState, Episode]:
    optimizer = optax.with_extra_args_support(optimizer)
    start = jnp.asarray(_STARTS)[index]

    def move(params, state, value, grads):
        updates, state = optimizer.update(grads, state, params, value=value)
        return optax.apply_updates(params, updates), state

    def stay(params, state, value, grads):
        del value, grads
        return params, state

    def step(carry, _):
        params, state = carry
        value, grads = jax.value_and_grad(_value, argnums=1)(index, params)
        if stop_at_target:
            reached = jnp.abs(value - jnp.asarray(_MINIMA)[index]) <= TARGET
            carry = jax.lax.cond(reached, stay, move, params, state, value, grads)
        else:
            carry = move(params, state, value, grads)
        return carry, (params, value, *metrics_fn(carry[1], params))

    (end, state), (points, losses, rates, rewards) = jax.lax.scan(
        step, (start, state), length=num_steps
    )
    points = jnp.concatenate([points, end[None]])
    losses = jnp.append(losses, _value(index, end))
    return state, Episode(points, losses, rates, rewards)


@jax.jit(static_argnames=("name", "num_steps"))
def _run_rates(index: jax.Array, rates: jax.Array, name: str, num_steps: int) -> Episode:
    optimizer_fn, _ = BASELINES[name]

    def run(rate: jax.Array) -> Episode:
        optimizer = optimizer_fn(rate)
        state = optimizer.init(jnp.zeros(2))
        return _descend(optimizer, index, state, num_steps, _no_metrics)[1]

    return jax.vmap(run)(rates)

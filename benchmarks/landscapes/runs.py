"""Runs optimizers on landscapes: whole episodes in one `jit`, one compilation for all of them."""

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

TARGET = 1e-3
"""How close to the minimum's value counts as having reached it."""

_ALL = tuple(LANDSCAPES.values())
_MINIMA = np.array([each.minimum for each in _ALL], np.float32)
_STARTS = np.array([each.start for each in _ALL], np.float32)

BASELINES: dict[str, tuple[Callable[..., optax.GradientTransformation], float]] = {
    "SGD": (optax.sgd, 0.01),
    "momentum": (lambda rate: optax.sgd(rate, momentum=0.9), 0.01),
    "Adam": (optax.adam, 0.001),
}
"""What to compare with: how it is made from a learning rate, and the usual default of that."""

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
"""The grid from which each baseline gets its best rate on each landscape."""


class Episode(NamedTuple):
    """One run, as arrays; every array gains a leading axis where several were run.

    Attributes:
      points: `float32[T + 1, 2]`, the start first.
      losses: `float32[T + 1]`.
      rates: `float32[T, 2]`, NaN for optimizers that choose none.
      rewards: `float32[T]`, each known one step late; NaN for optimizers that learn nothing.
    """

    points: Any
    losses: Any
    rates: Any
    rewards: Any


def gaps(landscape: Landscape, losses: np.ndarray) -> np.ndarray:
    """The loss above the global minimum, infinite where it is not finite."""
    losses = np.asarray(losses, np.float64)
    return np.where(np.isfinite(losses), np.abs(losses - landscape.minimum), np.inf)


def steps_to_target(landscape: Landscape, losses: np.ndarray) -> np.ndarray:
    """The first step at which the loss is within `TARGET` of the minimum.

    Args:
      landscape: What was minimised.
      losses: `float[..., T + 1]`.

    Returns:
      `int[...]`; T where the target was not reached.
    """
    reached = gaps(landscape, losses) <= TARGET
    limit = losses.shape[-1] - 1
    return np.where(reached.any(axis=-1), reached.argmax(axis=-1), limit)


def run_baselines(landscape: Landscape, name: str, num_steps: int) -> Episode:
    """Runs one baseline at every one of `RATES`; the episodes' leading axis is the rate."""
    index = _ALL.index(landscape)
    return jax.tree.map(np.asarray, _run_rates(index, np.array(RATES, np.float32), name, num_steps))


class AgentRunner:
    """Runs agents on landscapes, several seeds one after the other.

    The seeds are a loop, not a `vmap`, which would make a `select` of the `cond` by which an agent
    learns only now and then, and so make it learn at every step.
    """

    def __init__(self, *, learn: bool, num_steps: int, stop_at_target: bool):
        """Makes a runner of fresh agents.

        Args:
          learn: Whether the agents learn.
          num_steps: Steps of an episode, at most.
          stop_at_target: Whether an episode ends within `TARGET` of the minimum; from there on
            neither the point nor the agent changes any more.
        """
        self._learn = learn
        optimizer = alphaopt.alphaopt(agent=None, learn=learn)

        def episode(index: jax.Array, state: optax.OptState) -> tuple[optax.OptState, Episode]:
            return _descend(optimizer, index, state, num_steps, _agent_measures, stop_at_target)

        self._episodes = jax.jit(
            lambda index, states: jax.lax.map(lambda s: episode(index, s), states)
        )
        self._new_episodes = jax.jit(lambda states: jax.lax.map(alphaopt.new_episode, states))

    def init(self, landscape: Landscape, seeds: list[int]) -> optax.OptState:
        """Fresh agents, one a seed: states with a leading axis."""
        start = landscape.initial_point()
        states = [
            alphaopt.alphaopt(agent=None, learn=self._learn, seed=seed).init(start)
            for seed in seeds
        ]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)

    def run(self, landscape: Landscape, states: optax.OptState) -> tuple[optax.OptState, Episode]:
        """One episode of every seed from the landscape's start; the leading axis is the seed."""
        states, episodes = self._episodes(_ALL.index(landscape), states)
        return states, jax.tree.map(np.asarray, episodes)

    def new_episode(self, states: optax.OptState) -> optax.OptState:
        """The same agents, who forget the run but not what they learned."""
        return self._new_episodes(states)


def first(states: optax.OptState) -> optax.OptState:
    """The state of the first seed's agent."""
    return jax.tree.map(lambda leaf: leaf[0], states)


def policy_rates(
    agent: alphaopt.Agent, landscape: Landscape, *, resolution: int, num_steps: int
) -> np.ndarray:
    """The rates that a frozen agent chooses in the first steps from every point of a grid.

    Args:
      agent: Who chooses.
      landscape: Where.
      resolution: Points along each side of the landscape's bounds.
      num_steps: Steps to average the logarithm of the rate over. At the very first step an agent
        has no history yet and sees little of where it is.

    Returns:
      `float32[resolution, resolution, 2]`, ordered as `Landscape.grid(resolution)`.
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
    """One of several runs, for plotting; rates and rewards only where there are some."""
    one = Episode(*(field[index] for field in episode))
    if np.isnan(one.rates).all():
        return Trace(one.points, one.losses)
    # A step's reward is known only when the next one is made.
    rewards = None if np.isnan(one.rewards).all() else one.rewards[1:]
    return Trace(one.points, one.losses, one.rates, rewards)


def _agent_measures(state: optax.OptState, params: jax.Array) -> tuple[jax.Array, jax.Array]:
    rates = alphaopt.learning_rates(state, params)
    return rates, jnp.asarray(alphaopt.metrics(state).get("reward", jnp.nan), jnp.float32)


def _no_measures(state: optax.OptState, params: jax.Array) -> tuple[jax.Array, jax.Array]:
    del state
    return jnp.full_like(params, jnp.nan), jnp.full((), jnp.nan)


def _value(index: jax.Array, point: jax.Array) -> jax.Array:
    """Any landscape by its number, so that one compiled program serves them all."""
    return jax.lax.switch(index, [each.function for each in _ALL], point)


def _descend(
    optimizer: optax.GradientTransformation,
    index: jax.Array,
    state: optax.OptState,
    num_steps: int,
    measures: Callable[[optax.OptState, jax.Array], tuple[jax.Array, jax.Array]],
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
            there = jnp.abs(value - jnp.asarray(_MINIMA)[index]) <= TARGET
            carry = jax.lax.cond(there, stay, move, params, state, value, grads)
        else:
            carry = move(params, state, value, grads)
        return carry, (params, value, *measures(carry[1], params))

    (end, state), (points, losses, rates, rewards) = jax.lax.scan(
        step, (start, state), length=num_steps
    )
    points = jnp.concatenate([points, end[None]])
    losses = jnp.append(losses, _value(index, end))
    return state, Episode(points, losses, rates, rewards)


@jax.jit(static_argnames=("name", "num_steps"))
def _run_rates(index: jax.Array, rates: jax.Array, name: str, num_steps: int) -> Episode:
    make, _ = BASELINES[name]

    def run(rate: jax.Array) -> Episode:
        optimizer = make(rate)
        state = optimizer.init(jnp.zeros(2))
        return _descend(optimizer, index, state, num_steps, _no_measures)[1]

    return jax.vmap(run)(rates)

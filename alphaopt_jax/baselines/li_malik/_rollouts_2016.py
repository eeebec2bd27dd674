"""Trajectories on the functions of 2016: whole vectors, moved by a controller or by a policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
from jax import flatten_util
import jax.numpy as jnp

from alphaopt_jax.baselines.li_malik import _history, _policies
from alphaopt_jax.baselines.li_malik._config import Config2016
from alphaopt_jax.baselines.li_malik._linear_gaussian import Controller, draw_noise
from alphaopt_jax.tasks.task import Family

Objective = Callable[[chex.Array], chex.Array]
"""From a location `float32[d]` to `float32[]`."""


class Trajectory(NamedTuple):
    """T steps of d parameters.

    Attributes:
      states: `float32[T + 1, n]`, as `histories.state` gives them.
      actions: `float32[T, d]`.
      objectives: `float32[T + 1]`.
      gradients: `float32[T + 1, d]`, at the states' locations.
    """

    states: chex.Array
    actions: chex.Array
    objectives: chex.Array
    gradients: chex.Array

    @property
    def cost(self) -> chex.Array:
        """Sum of the objective after each step, `float32[]`."""
        return jnp.sum(self.objectives[..., 1:], axis=-1)


class Functions(NamedTuple):
    """M training functions, each with the point it is optimized from; some may be the same.

    Attributes:
      instances: Of the family, with an axis `[M]` before their own.
      batches: A batch of each function, by which it is a function of its parameters alone.
      starts: `float32[M, d]`.
    """

    instances: Any
    batches: Any
    starts: chex.Array


def draw_functions(family: Family, key: chex.PRNGKey, count: int, starts: int = 1) -> Functions:
    """Draws training functions.

    Args:
      family: Where they are from.
      key: Consumed.
      count: How many there are.
      starts: Of each. A function stands as many times in the result, one after the other.
    """

    def one(key: chex.PRNGKey) -> Functions:
        sample_key, batch_key, init_key = jax.random.split(key, 3)
        instance = family.sample(sample_key)
        task = family.task(instance)

        def start(key: chex.PRNGKey) -> chex.Array:
            return flatten_util.ravel_pytree(task.init(key))[0].astype(jnp.float32)

        def repeat(leaf: chex.Array) -> chex.Array:
            return jnp.broadcast_to(leaf, (starts, *leaf.shape))

        instances, batches = jax.tree.map(repeat, (instance, task.batch(batch_key)))
        return Functions(instances, batches, jax.vmap(start)(jax.random.split(init_key, starts)))

    each = jax.vmap(one)(jax.random.split(key, count))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), each)


def objective_of(family: Family, instance: Any, batch: Any) -> Objective:
    """A function's loss on its batch, by the vector of its parameters."""
    task = family.task(instance)
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    _, unravel = flatten_util.ravel_pytree(
        jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    )
    return lambda location: task.loss(unravel(location), batch)


def follow(
    objective: Objective,
    start: chex.Array,
    act: Callable[[Any, chex.Array, chex.Array], chex.Array],
    inputs: Any,
    config: Config2016,
) -> Trajectory:
    """Optimizes for T steps.

    Args:
      objective: What is optimized.
      start: The first location, `float32[d]`.
      act: From one step's inputs, the state `float32[n]` and the number of points seen `int32[]` to
        the action, `float32[d]`.
      inputs: A tree whose leaves have a first axis `[T]`.
      config: The constants.

    Returns:
      The trajectory.
    """
    value_and_gradient = jax.value_and_grad(objective)

    def look(history: _history.History, location: chex.Array) -> _history.History:
        return _history.observe(
            history, *value_and_gradient(location), current_gradient=config.current_gradient
        )

    def step(carry: tuple[chex.Array, _history.History], inputs: Any) -> tuple[Any, Any]:
        location, history = carry
        state = _history.state(location, history)
        action = act(inputs, state, history.points)
        location = location + action
        following = look(history, location)
        return (location, following), (state, action, history.objective, history.gradient)

    first = look(_history.empty_history(start.shape[0], config.history), start)
    (location, last), (states, actions, objectives, gradients) = jax.lax.scan(
        step, (start, first), inputs
    )
    return Trajectory(
        states=jnp.concatenate([states, _history.state(location, last)[None]]),
        actions=actions,
        objectives=jnp.append(objectives, last.objective),
        gradients=jnp.concatenate([gradients, last.gradient[None]]),
    )


def follow_controller(
    objective: Objective,
    start: chex.Array,
    controller: Controller,
    key: chex.PRNGKey,
    config: Config2016,
) -> Trajectory:
    """A trajectory of a controller with its noise. Consumes `key`."""

    def act(inputs: Any, state: chex.Array, points: chex.Array) -> chex.Array:
        del points
        controller, noise = inputs
        return controller.mean(state) + noise

    return follow(objective, start, act, (controller, draw_noise(controller, key)), config)


def follow_policy(
    objective: Objective, start: chex.Array, params: chex.ArrayTree, config: Config2016
) -> Trajectory:
    """The trajectory of a policy's mean actions."""

    def act(inputs: None, state: chex.Array, points: chex.Array) -> chex.Array:
        features = _history.features_of_state(state, points, start.shape[0])
        return _policies.step_2016(params, features)

    steps = jnp.zeros((config.horizon, 0))
    return follow(objective, start, act, steps, config)


def best_momentum(
    objective: Objective, start: chex.Array, config: Config2016
) -> tuple[Controller, chex.Array]:
    """Gradient descent with the momentum that is best on a function, as a controller with noise.

    Args:
      objective: The function.
      start: The first location, `float32[d]`.
      config: The constants.

    Returns:
      The controller, and the cost of its trajectory without noise, `float32[]`.
    """
    dimension = start.shape[0]

    def gain_of(rate: chex.Array, decay: chex.Array) -> chex.Array:
        return _history.momentum_gain(rate, decay, dimension, config.history)

    def of_pair(rate: chex.Array, decay: chex.Array) -> tuple[chex.Array, chex.Array]:
        gain = gain_of(rate, decay)
        steps = jnp.zeros((config.horizon, 0))
        trajectory = follow(objective, start, lambda _, state, points: gain @ state, steps, config)
        cost = jnp.where(jnp.isfinite(trajectory.cost), trajectory.cost, jnp.inf)
        return cost, trajectory.actions

    rates, decays = (
        axis.ravel() for axis in jnp.meshgrid(jnp.array(config.rates), jnp.array(config.decays))
    )
    costs, actions = jax.vmap(of_pair)(rates, decays)
    best = jnp.argmin(costs)
    gains = jnp.broadcast_to(
        gain_of(rates[best], decays[best]),
        (config.horizon, dimension, dimension + config.history * (1 + dimension)),
    )
    controller = Controller(
        gain=gains,
        offset=jnp.zeros((config.horizon, dimension)),
        covariance=noise_covariance(actions[best][None], config),
    )
    return controller, costs[best]


def noise_covariance(actions: chex.Array, config: Config2016) -> chex.Array:
    """The covariance of a controller's noise, in proportion to its actions.

    Args:
      actions: Mean actions along N trajectories, `float32[N, T, d]`.
      config: The constants.

    Returns:
      `float32[T, d, d]`.

    Example:
      >>> import jax.numpy as jnp
      >>> config = Config2016(exploration=0.5, least_exploration=0.1)
      >>> [round(float(each), 3) for each in noise_covariance(
      ...     jnp.array([[[4.0], [0.0]]]), config
      ... ).ravel()]
      [4.0, 0.16]
    """
    sizes = jnp.sqrt(jnp.mean(jnp.square(actions), axis=(0, 2)))
    deviations = jnp.maximum(config.exploration * sizes, config.least_exploration * jnp.max(sizes))
    # Where nothing moves there must still be something to divide by.
    deviations = jnp.maximum(deviations, 1e-6)
    return jnp.square(deviations)[:, None, None] * jnp.eye(actions.shape[-1])

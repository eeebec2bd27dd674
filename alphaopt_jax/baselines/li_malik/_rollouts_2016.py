"""Trajectories on the functions of 2016, under a controller or a policy for whole vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
from jax import flatten_util
import jax.numpy as jnp

from alphaopt_jax.baselines.li_malik import _history, _policies, _search
from alphaopt_jax.baselines.li_malik._config import Config2016, NoiseConfig
from alphaopt_jax.baselines.li_malik._linear_gaussian import Controller, draw_noise
from alphaopt_jax.tasks.task import Family

Objective = Callable[[chex.Array], chex.Array]
"""From a location `float32[d]` to `float32[]`."""


class Trajectory(NamedTuple):
    """T steps of d parameters.

    Attributes:
      states: States as of `_history.to_state`, `float32[T + 1, n]`.
      actions: `float32[T, d]`.
      objectives: `float32[T + 1]`.
      gradients: Gradients at the states' locations, `float32[T + 1, d]`.
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
    """M pairs of a training function and a start; one function may have several starts.

    Attributes:
      instances: Instances of the family, with a leading axis `[M]`.
      batches: A batch for each function, which makes its loss deterministic.
      starts: `float32[M, d]`.
    """

    instances: Any
    batches: Any
    starts: chex.Array


def draw_functions(family: Family, key: chex.PRNGKey, count: int, starts: int = 1) -> Functions:
    """Draws training functions.

    Args:
      family: Family of the functions.
      key: Consumed.
      count: Number of functions.
      starts: Starts per function; they are consecutive in the result.
    """

    def draw(key: chex.PRNGKey) -> Functions:
        sample_key, batch_key, init_key = jax.random.split(key, 3)
        instance = family.sample(sample_key)
        task = family.task(instance)

        def start(key: chex.PRNGKey) -> chex.Array:
            return flatten_util.ravel_pytree(task.init(key))[0].astype(jnp.float32)

        def repeat(leaf: chex.Array) -> chex.Array:
            return jnp.broadcast_to(leaf, (starts, *leaf.shape))

        instances, batches = jax.tree.map(repeat, (instance, task.batch(batch_key)))
        return Functions(instances, batches, jax.vmap(start)(jax.random.split(init_key, starts)))

    functions = jax.vmap(draw)(jax.random.split(key, count))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), functions)


def make_objective(family: Family, instance: Any, batch: Any) -> Objective:
    """Returns a function's loss on its batch, as a function of the flat parameters."""
    task = family.task(instance)
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    _, unravel = flatten_util.ravel_pytree(
        jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    )
    return lambda location: task.loss(unravel(location), batch)


def map_functions(family: Family, function: Callable[..., Any]) -> Callable[..., Any]:
    """Vectorizes over training functions.

    Args:
      family: Family of the functions.
      function: From an objective, a start and further arguments to a result.

    Returns:
      A function of `Functions` and of the further arguments, all with a leading axis `[M]`.
    """

    def mapped(functions: Functions, *others: Any) -> Any:
        def call(instance: Any, batch: Any, start: chex.Array, *others: Any) -> Any:
            return function(make_objective(family, instance, batch), start, *others)

        return jax.vmap(call)(*functions, *others)

    return mapped


def rollout(
    objective: Objective,
    start: chex.Array,
    act: Callable[[Any, chex.Array, chex.Array], chex.Array],
    inputs: Any,
    config: Config2016,
) -> Trajectory:
    """Runs T steps.

    Args:
      objective: The function to optimize.
      start: The first location, `float32[d]`.
      act: From one step's inputs, the state `float32[n]` and the number of points so far `int32[]`
        to the action, `float32[d]`.
      inputs: A tree of arrays with a leading axis `[T]`.
      config: Hyperparameters.

    Returns:
      The trajectory.
    """
    value_and_gradient = jax.value_and_grad(objective)

    def observe(history: _history.History, location: chex.Array) -> _history.History:
        return _history.append(
            history, *value_and_gradient(location), current_gradient=config.current_gradient
        )

    def step(carry: tuple[chex.Array, _history.History], inputs: Any) -> tuple[Any, Any]:
        location, history = carry
        state = _history.to_state(location, history)
        action = act(inputs, state, history.num_points)
        location = location + action
        next_history = observe(history, location)
        return (location, next_history), (state, action, history.objective, history.gradient)

    first = observe(_history.empty_history(start.shape[0], config.history), start)
    (location, last), (states, actions, objectives, gradients) = jax.lax.scan(
        step, (start, first), inputs
    )
    return Trajectory(
        states=jnp.concatenate([states, _history.to_state(location, last)[None]]),
        actions=actions,
        objectives=jnp.append(objectives, last.objective),
        gradients=jnp.concatenate([gradients, last.gradient[None]]),
    )


def rollout_controller(
    objective: Objective,
    start: chex.Array,
    controller: Controller,
    key: chex.PRNGKey,
    config: Config2016,
) -> Trajectory:
    """Returns a trajectory of a controller, with its noise. Consumes `key`."""

    def act(inputs: Any, state: chex.Array, num_points: chex.Array) -> chex.Array:
        del num_points
        controller, noise = inputs
        return controller.mean(state) + noise

    return rollout(objective, start, act, (controller, draw_noise(controller, key)), config)


def rollout_policy(
    objective: Objective, start: chex.Array, params: chex.ArrayTree, config: Config2016
) -> Trajectory:
    """Returns the trajectory of a policy's mean actions."""

    def act(inputs: None, state: chex.Array, num_points: chex.Array) -> chex.Array:
        features = _history.features_of_state(state, num_points, start.shape[0])
        return _policies.step_2016(params, features)

    steps = jnp.zeros((config.horizon, 0))
    return rollout(objective, start, act, steps, config)


def best_momentum(
    objective: Objective, start: chex.Array, config: Config2016
) -> tuple[Controller, chex.Array]:
    """Tunes gradient descent with momentum on a function.

    Args:
      objective: The function.
      start: The first location, `float32[d]`.
      config: Hyperparameters.

    Returns:
      The best pair of learning rate and decay as a controller with noise, and the cost of its
      trajectory without noise, `float32[]`.
    """
    dimension = start.shape[0]

    def make_gain(rate: chex.Array, decay: chex.Array) -> chex.Array:
        return _history.momentum_gain(rate, decay, dimension, config.history)

    def evaluate(rate: chex.Array, decay: chex.Array) -> tuple[chex.Array, chex.Array]:
        gain = make_gain(rate, decay)
        steps = jnp.zeros((config.horizon, 0))
        trajectory = rollout(
            objective, start, lambda _, state, num_points: gain @ state, steps, config
        )
        cost = jnp.where(jnp.isfinite(trajectory.cost), trajectory.cost, jnp.inf)
        return cost, trajectory.actions

    rates, decays = _search.momentum_pairs(config.momentum)
    costs, actions = jax.vmap(evaluate)(rates, decays)
    best = jnp.argmin(costs)
    gains = jnp.broadcast_to(
        make_gain(rates[best], decays[best]),
        (config.horizon, dimension, dimension + config.history * (1 + dimension)),
    )
    controller = Controller(
        gain=gains,
        offset=jnp.zeros((config.horizon, dimension)),
        covariance=noise_covariance(actions[best][None], config.noise),
    )
    return controller, costs[best]


def noise_covariance(actions: chex.Array, noise: NoiseConfig) -> chex.Array:
    """Returns the covariance of a controller's noise, `float32[T, d, d]`.

    Args:
      actions: Mean actions of N trajectories, `float32[N, T, d]`.
      noise: Scales of the noise relative to the actions.

    Example:
      >>> import jax.numpy as jnp
      >>> noise = NoiseConfig(scale=0.5, min_scale=0.1)
      >>> covariance = noise_covariance(jnp.array([[[4.0], [0.0]]]), noise)
      >>> [f"{variance:.2f}" for variance in covariance.ravel()]
      ['4.00', '0.16']
    """
    sizes = jnp.sqrt(jnp.mean(jnp.square(actions), axis=(0, 2)))
    deviations = jnp.maximum(noise.scale * sizes, noise.min_scale * jnp.max(sizes))
    deviations = jnp.maximum(deviations, 1e-6)  # Covariances are inverted.
    return jnp.square(deviations)[:, None, None] * jnp.eye(actions.shape[-1])

"""Trajectories on the function of 2017, coordinate by coordinate.

A *group* is one leaf of the parameters, a weight matrix or a bias. All coordinates of a group share
a controller, which acts on the state features Φ; the policy acts on the observation features Ψ.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

import chex
import jax
from jax import flatten_util
import jax.numpy as jnp
import numpy as np

from alphaopt_jax.baselines.li_malik import _coordinate_features, _policies
from alphaopt_jax.baselines.li_malik._config import Config2017
from alphaopt_jax.baselines.li_malik._linear_gaussian import Controller
from alphaopt_jax.tasks.task import Task


@dataclasses.dataclass(frozen=True)
class Problem:
    """A task with flat parameters.

    Attributes:
      starts: Starts of the trajectories, `float32[S, N]`.
      loss: From a location and the key of a batch to the batch's loss, `float32[]`.
      objective: From a location to the mean loss on fixed batches, `float32[]`.
      groups: Group of each coordinate, `int[N]`.
      config: Hyperparameters.
    """

    starts: chex.Array
    loss: Callable[[chex.Array, chex.PRNGKey], chex.Array]
    objective: Callable[[chex.Array], chex.Array]
    groups: np.ndarray
    config: Config2017

    @property
    def num_groups(self) -> int:
        """G."""
        return int(self.groups.max()) + 1

    @property
    def group_sizes(self) -> chex.Array:
        """Coordinates in each group, `float32[G]`."""
        return jnp.asarray(np.bincount(self.groups), jnp.float32)

    def group_sums(self, values: chex.Array) -> chex.Array:
        """Sums values `float32[N]` over each group, `float32[G]`."""
        return jax.ops.segment_sum(values, self.groups, self.num_groups, indices_are_sorted=True)


class FeatureState(NamedTuple):
    """The past of N coordinates from which features are computed.

    Attributes:
      num_points: Points so far, `int32[]`.
      loss: Loss of the batch at the latest point, `float32[]`.
      gradient: Gradient of that loss, `float32[N]`.
      last_step: Step to the latest point, `float32[N]`.
      previous_step: Step to the point before, `float32[N]`.
      recent: Last three losses, `float32[3]`, gradients and locations, `float32[3, N]`.
      smoothed: Their means at every step so far: `float32[T + 1]`, and twice `float32[T + 1, N]`.
    """

    num_points: chex.Array
    loss: chex.Array
    gradient: chex.Array
    last_step: chex.Array
    previous_step: chex.Array
    recent: tuple[chex.Array, chex.Array, chex.Array]
    smoothed: tuple[chex.Array, chex.Array, chex.Array]

    def state_features(self) -> chex.Array:
        """Returns Φ at the latest point, `float32[N, 76]`."""
        return _coordinate_features.state_features(*self.smoothed, self.num_points - 1)

    def after_step(self, step: chex.Array) -> FeatureState:
        """Returns the past after a step `float32[N]`."""
        return self._replace(last_step=step, previous_step=self.last_step)


class Samples(NamedTuple):
    """T steps of a trajectory, for C coordinates of each of G groups.

    Attributes:
      states: Φ, `float32[T + 1, G, C, 76]`.
      observations: Ψ, `float32[T, G, C, 3]`.
      actions: `float32[T, G, C]`.
      objectives: `float32[T + 1]`.
      gradients: Gradients of the objective, `float32[T + 1, G, C]`.
      squared_gradients: Sums of squared gradients over each whole group, `float32[T + 1, G]`.
      squared_actions: Means of squared mean actions over each whole group, `float32[T, G]`.
    """

    states: chex.Array
    observations: chex.Array
    actions: chex.Array
    objectives: chex.Array
    gradients: chex.Array
    squared_gradients: chex.Array
    squared_actions: chex.Array

    @property
    def cost(self) -> chex.Array:
        """Sum of the objective after each step, `float32[]`."""
        return jnp.sum(self.objectives[..., 1:], axis=-1)


def make_problem(task: Task, config: Config2017, key: chex.PRNGKey) -> Problem:
    """Returns a task as a problem.

    Args:
      task: The task to optimize.
      config: Hyperparameters.
      key: Key of the starts and of the objective's batches; consumed.
    """
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    _, unravel = flatten_util.ravel_pytree(zeros)
    sizes = [leaf.size for leaf in jax.tree.leaves(zeros)]
    starts_key, batches_key = jax.random.split(key)
    keys = jax.random.split(batches_key, config.objective_batches)

    def start(key: chex.PRNGKey) -> chex.Array:
        return flatten_util.ravel_pytree(task.init(key))[0].astype(jnp.float32)

    def loss(location: chex.Array, key: chex.PRNGKey) -> chex.Array:
        return task.loss(unravel(location), task.batch(key))

    return Problem(
        starts=jax.vmap(start)(jax.random.split(starts_key, config.trajectories)),
        loss=loss,
        objective=lambda location: jnp.mean(jax.vmap(loss, in_axes=(None, 0))(location, keys)),
        groups=np.repeat(np.arange(len(sizes)), sizes),
        config=config,
    )


def sample_coordinates(problem: Problem, key: chex.PRNGKey, count: int) -> chex.Array:
    """Draws C coordinates of each group, with replacement. Consumes `key`.

    Returns:
      `int32[G, C]`.
    """
    firsts = jnp.asarray(np.searchsorted(problem.groups, np.arange(problem.num_groups)))
    sizes = jnp.asarray(np.bincount(problem.groups))
    draws = jax.random.uniform(key, (problem.num_groups, count))
    return firsts[:, None] + (draws * sizes[:, None]).astype(jnp.int32)


def init_features(size: int, horizon: int) -> FeatureState:
    """Returns a past without points, for N coordinates and T steps."""
    zeros = jnp.zeros(size, jnp.float32)
    past, recent = horizon + 1, _coordinate_features.SMOOTHING
    return FeatureState(
        num_points=jnp.zeros((), jnp.int32),
        loss=jnp.zeros((), jnp.float32),
        gradient=zeros,
        last_step=zeros,
        previous_step=zeros,
        recent=(jnp.zeros(recent), jnp.zeros((recent, size)), jnp.zeros((recent, size))),
        smoothed=(jnp.zeros(past), jnp.zeros((past, size)), jnp.zeros((past, size))),
    )


def observe(
    problem: Problem, past: FeatureState, location: chex.Array, key: chex.PRNGKey
) -> tuple[FeatureState, chex.Array]:
    """Adds a point with the loss and gradient of a batch.

    Args:
      problem: The problem.
      past: The points before.
      location: The point, `float32[N]`.
      key: Key of the batch; consumed.

    Returns:
      The past with the point, and Ψ `float32[N, 3]`.
    """
    loss, gradient = jax.value_and_grad(problem.loss)(location, key)
    num_points = past.num_points + 1
    observations = _coordinate_features.observation_features(
        _coordinate_features.RecentPoints(
            num_points=num_points,
            objective=loss,
            previous_objective=past.loss,
            gradient=gradient,
            previous_gradient=past.gradient,
            last_step=past.last_step,
            previous_step=past.previous_step,
        )
    )
    recent = jax.tree.map(
        lambda value, old: jnp.concatenate([value[None], old[:-1]]),
        (loss, gradient, location),
        past.recent,
    )
    smoothed = jax.tree.map(
        lambda means, values: means.at[past.num_points].set(
            _coordinate_features.smooth(values, num_points)
        ),
        past.smoothed,
        recent,
    )
    past = past._replace(
        num_points=num_points, loss=loss, gradient=gradient, recent=recent, smoothed=smoothed
    )
    return past, observations


def rollout_controllers(
    problem: Problem,
    controllers: Controller,
    start: chex.Array,
    selected: chex.Array,
    key: chex.PRNGKey,
) -> Samples:
    """Returns a trajectory of the groups' controllers, with their noise.

    Args:
      problem: The problem.
      controllers: Controllers with a leading axis `[G]`.
      start: `float32[N]`.
      selected: Coordinates to record, `int32[G, C]`.
      key: Consumed.
    """
    config = problem.config

    def evaluate(location: chex.Array) -> tuple[chex.Array, chex.Array, chex.Array]:
        objective, gradient = jax.value_and_grad(problem.objective)(location)
        return objective, gradient[selected], problem.group_sums(jnp.square(gradient))

    def step(carry: tuple[chex.Array, FeatureState, Any], inputs: Any) -> Any:
        location, past, observations = carry
        controllers, act_key, batch_key = inputs
        state = past.state_features()
        action, size = _act(problem, controllers, state, act_key)
        recorded = (state[selected], observations[selected], action[selected], *evaluate(location))
        location = location + action
        past, observations = observe(problem, past.after_step(action), location, batch_key)
        return (location, past, observations), (*recorded, size)

    first_key, act_key, batch_key = jax.random.split(key, 3)
    past = init_features(problem.groups.size, config.horizon)
    past, observations = observe(problem, past, start, first_key)
    in_time = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), controllers)
    act_keys = jax.random.split(act_key, config.horizon)
    batch_keys = jax.random.split(batch_key, config.horizon)
    (location, past, _), recorded = jax.lax.scan(
        step, (start, past, observations), (in_time, act_keys, batch_keys)
    )
    states, observations, actions, *evaluations, squared_actions = recorded
    last = past.state_features()
    objectives, gradients, squared_gradients = (
        jnp.concatenate([values, last_value[None]])
        for values, last_value in zip(evaluations, evaluate(location), strict=True)
    )
    return Samples(
        states=jnp.concatenate([states, last[selected][None]]),
        observations=observations,
        actions=actions,
        objectives=objectives,
        gradients=gradients,
        squared_gradients=squared_gradients,
        squared_actions=squared_actions,
    )


def _act(
    problem: Problem, controllers: Controller, state: chex.Array, key: chex.PRNGKey
) -> tuple[chex.Array, chex.Array]:
    """Draws the actions of one step.

    The noise has the variance of the group's controller. It is correlated with the mean action over
    the group, by `config.noise_correlation`, which varies the length of the whole step.

    Args:
      problem: The problem.
      controllers: Controllers of one step, with a leading axis `[G]`.
      state: Φ, `float32[N, 76]`.
      key: Consumed.

    Returns:
      Actions `float32[N]`, and mean squared mean actions of each group, `float32[G]`.
    """
    groups = problem.groups
    mean = jnp.sum(state * controllers.gain[groups, 0], axis=-1) + controllers.offset[groups, 0]
    size = problem.group_sums(jnp.square(mean)) / problem.group_sizes
    own_key, shared_key = jax.random.split(key)
    own = jax.random.normal(own_key, mean.shape)
    shared = mean * jax.lax.rsqrt(jnp.where(size > 0, size, 1.0))[groups]
    shared = shared * jax.random.normal(shared_key, (problem.num_groups,))[groups]
    correlation = problem.config.noise_correlation
    noise = correlation * shared + np.sqrt(1.0 - correlation**2) * own
    deviation = jnp.sqrt(controllers.covariance[:, 0, 0])[groups]
    return mean + deviation * noise, size


def rollout_policy(
    problem: Problem, params: chex.ArrayTree, start: chex.Array, key: chex.PRNGKey
) -> chex.Array:
    """Returns the objectives `float32[T + 1]` along the trajectory of a policy's mean actions.

    Args:
      problem: The problem.
      params: Parameters of the policy.
      start: `float32[N]`.
      key: Key of the batches; consumed.
    """
    size, config = problem.groups.size, problem.config

    def step(carry: Any, key: chex.PRNGKey) -> tuple[Any, chex.Array]:
        location, past, network_carry = carry
        past, observations = observe(problem, past, location, key)
        network_carry, action = _policies.step_2017(params, network_carry, observations)
        past = past.after_step(action)
        return (location + action, past, network_carry), problem.objective(location)

    # Horizon 0: the policy does not use the smoothed values.
    carry: Any = (start, init_features(size, 0), _policies.zero_carry((size,), config.width))
    (location, *_), objectives = jax.lax.scan(step, carry, jax.random.split(key, config.horizon))
    return jnp.append(objectives, problem.objective(location))


def momentum_controllers(problem: Problem, rate: chex.Array, decay: chex.Array) -> Controller:
    """Returns gradient descent with momentum as the controller of each group, nearly without noise.

    Args:
      problem: The problem.
      rate: Learning rate of each of the state's gradients, `float32[]`.
      decay: Decay rate from one of these gradients to the next, `float32[]`.
    """
    newest = _coordinate_features.NEWEST_GRADIENT
    powers = decay ** jnp.arange(_coordinate_features.WINDOWS + 1, dtype=jnp.float32)
    gain = jnp.zeros(_coordinate_features.NUM_STATE_FEATURES)
    gain = gain.at[newest : newest + powers.shape[0]].set(-rate * powers)
    shape = (problem.num_groups, problem.config.horizon, 1)
    return Controller(
        gain=jnp.broadcast_to(gain, (*shape, gain.shape[0])),
        offset=jnp.zeros(shape),
        covariance=jnp.full((*shape, 1), 1e-20),
    )

"""Trajectories on the function of 2017: every coordinate for itself, alike within a group.

A *group* is a leaf of the parameters, a weight matrix or a bias. All coordinates of a group share a
controller, which sees the state features Φ; a policy sees the observation features Ψ.
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
    """A task whose parameters are one vector.

    Attributes:
      starts: Where trajectories begin, `float32[S, N]`.
      loss: Of a location and a batch drawn with a key, `float32[]`.
      objective: Of a location, on batches that are always the same, `float32[]`.
      groups: Each coordinate's group, `int[N]`.
    """

    starts: chex.Array
    loss: Callable[[chex.Array, chex.PRNGKey], chex.Array]
    objective: Callable[[chex.Array], chex.Array]
    groups: np.ndarray

    @property
    def num_groups(self) -> int:
        """G."""
        return int(self.groups.max()) + 1


class Memory(NamedTuple):
    """What is remembered of a trajectory of N coordinates.

    Attributes:
      points: How many were seen, `int32[]`.
      loss: Of the batch at the latest, `float32[]`.
      gradient: Of the batch there, `float32[N]`.
      last_step: To the latest point, `float32[N]`.
      step_before: The step before that, `float32[N]`.
      recent: The last three losses, `float32[3]`, gradients and locations, `float32[3, N]`.
      smoothed: Their means at every step so far: `float32[T + 1]`, and twice `float32[T + 1, N]`.
    """

    points: chex.Array
    loss: chex.Array
    gradient: chex.Array
    last_step: chex.Array
    step_before: chex.Array
    recent: tuple[chex.Array, chex.Array, chex.Array]
    smoothed: tuple[chex.Array, chex.Array, chex.Array]


class Samples(NamedTuple):
    """T steps of a trajectory, of C coordinates of each of G groups.

    Attributes:
      states: Φ, `float32[T + 1, G, C, 76]`.
      observations: Ψ, `float32[T, G, C, 3]`.
      actions: `float32[T, G, C]`.
      objectives: `float32[T + 1]`.
      gradients: Of the objective, `float32[T + 1, G, C]`.
      slopes: Sum over a whole group of their squares, `float32[T + 1, G]`.
      sizes: Mean over a whole group of the squared mean action, `float32[T, G]`.
    """

    states: chex.Array
    observations: chex.Array
    actions: chex.Array
    objectives: chex.Array
    gradients: chex.Array
    slopes: chex.Array
    sizes: chex.Array

    @property
    def cost(self) -> chex.Array:
        """Sum of the objective after each step, `float32[]`."""
        return jnp.sum(self.objectives[..., 1:], axis=-1)


def as_problem(task: Task, config: Config2017, key: chex.PRNGKey) -> Problem:
    """A task as a problem.

    Args:
      task: What is optimized.
      config: The constants.
      key: Of the starts, and of the batches that stand for the objective; consumed.
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
    )


def choose(problem: Problem, key: chex.PRNGKey, count: int) -> chex.Array:
    """Draws C coordinates of each group, with replacement. Consumes `key`.

    Returns:
      `int32[G, C]`.
    """
    begins = jnp.asarray(np.searchsorted(problem.groups, np.arange(problem.num_groups)))
    sizes = jnp.asarray(np.bincount(problem.groups))
    draws = jax.random.uniform(key, (problem.num_groups, count))
    return begins[:, None] + (draws * sizes[:, None]).astype(jnp.int32)


def begin(size: int, horizon: int) -> Memory:
    """A memory of no points, for N coordinates and T steps."""
    zeros = jnp.zeros(size, jnp.float32)
    past, recent = horizon + 1, _coordinate_features.SMOOTHED
    return Memory(
        points=jnp.zeros((), jnp.int32),
        loss=jnp.zeros((), jnp.float32),
        gradient=zeros,
        last_step=zeros,
        step_before=zeros,
        recent=(jnp.zeros(recent), jnp.zeros((recent, size)), jnp.zeros((recent, size))),
        smoothed=(jnp.zeros(past), jnp.zeros((past, size)), jnp.zeros((past, size))),
    )


def look(
    problem: Problem, memory: Memory, location: chex.Array, key: chex.PRNGKey
) -> tuple[Memory, chex.Array]:
    """Takes a batch's loss and gradient at a location into the memory.

    Args:
      problem: What is optimized.
      memory: Of the points before.
      location: `float32[N]`.
      key: Of the batch; consumed.

    Returns:
      The memory, and Ψ `float32[N, 3]`.
    """
    loss, gradient = jax.value_and_grad(problem.loss)(location, key)
    points = memory.points + 1
    observations = _coordinate_features.observation_features(
        points,
        loss,
        memory.loss,
        gradient,
        memory.gradient,
        memory.last_step,
        memory.step_before,
    )
    recent = jax.tree.map(
        lambda value, old: jnp.concatenate([value[None], old[:-1]]),
        (loss, gradient, location),
        memory.recent,
    )
    smoothed = jax.tree.map(
        lambda past, each: past.at[memory.points].set(_coordinate_features.smooth(each, points)),
        memory.smoothed,
        recent,
    )
    memory = memory._replace(
        points=points, loss=loss, gradient=gradient, recent=recent, smoothed=smoothed
    )
    return memory, observations


def follow_controllers(
    problem: Problem,
    controllers: Controller,
    start: chex.Array,
    chosen: chex.Array,
    key: chex.PRNGKey,
    config: Config2017,
) -> Samples:
    """A trajectory of the groups' controllers with their noise.

    The noise of a coordinate has the deviation that its controller says, over the group; it is
    correlated with the mean action, by `config.shared_noise`, as if a step as a whole were now
    longer, now shorter.

    Args:
      problem: What is optimized.
      controllers: With an axis `[G]` before their own.
      start: `float32[N]`.
      chosen: `int32[G, C]`, the coordinates to tell of.
      key: Consumed.
      config: The constants.
    """
    groups, count = problem.groups, problem.num_groups
    per_group = jnp.asarray(np.bincount(groups), jnp.float32)

    def sums(values: chex.Array) -> chex.Array:
        return jax.ops.segment_sum(values, groups, count, indices_are_sorted=True)

    def act(state: chex.Array, controllers: Controller, key: chex.PRNGKey) -> Any:
        mean = jnp.sum(state * controllers.gain[groups, 0], axis=-1) + controllers.offset[groups, 0]
        size = sums(jnp.square(mean)) / per_group
        own_key, shared_key = jax.random.split(key)
        own = jax.random.normal(own_key, mean.shape)
        shared = mean * jax.lax.rsqrt(jnp.where(size > 0, size, 1.0))[groups]
        shared = shared * jax.random.normal(shared_key, (count,))[groups]
        share = config.shared_noise
        noise = share * shared + np.sqrt(1.0 - share**2) * own
        deviation = jnp.sqrt(controllers.covariance[:, 0, 0])[groups]
        return mean + deviation * noise, size

    def step(carry: tuple[chex.Array, Memory, Any], inputs: Any) -> Any:
        location, memory, observations = carry
        controllers, act_key, batch_key = inputs
        state = _coordinate_features.state_features(*memory.smoothed, memory.points - 1)
        action, size = act(state, controllers, act_key)
        told = (state[chosen], observations[chosen], action[chosen], *judge(location))
        location = location + action
        memory = memory._replace(last_step=action, step_before=memory.last_step)
        memory, observations = look(problem, memory, location, batch_key)
        return (location, memory, observations), (*told, size)

    def judge(location: chex.Array) -> tuple[chex.Array, chex.Array, chex.Array]:
        objective, gradient = jax.value_and_grad(problem.objective)(location)
        return objective, gradient[chosen], sums(jnp.square(gradient))

    first_key, act_key, batch_key = jax.random.split(key, 3)
    memory, observations = look(problem, begin(groups.size, config.horizon), start, first_key)
    in_time = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), controllers)
    act_keys = jax.random.split(act_key, config.horizon)
    batch_keys = jax.random.split(batch_key, config.horizon)
    (location, memory, _), told = jax.lax.scan(
        step, (start, memory, observations), (in_time, act_keys, batch_keys)
    )
    states, observations, actions, *judged, sizes = told
    last = _coordinate_features.state_features(*memory.smoothed, memory.points - 1)
    objectives, gradients, slopes = (
        jnp.concatenate([before, at_last[None]])
        for before, at_last in zip(judged, judge(location), strict=True)
    )
    return Samples(
        states=jnp.concatenate([states, last[chosen][None]]),
        observations=observations,
        actions=actions,
        objectives=objectives,
        gradients=gradients,
        slopes=slopes,
        sizes=sizes,
    )


def follow_policy(
    problem: Problem,
    params: chex.ArrayTree,
    start: chex.Array,
    key: chex.PRNGKey,
    config: Config2017,
) -> chex.Array:
    """The objectives `float32[T + 1]` along the trajectory of a policy's mean actions.

    Args:
      problem: What is optimized.
      params: The policy's.
      start: `float32[N]`.
      key: Of the batches; consumed.
      config: The constants.
    """
    size = problem.groups.size

    def step(carry: Any, key: chex.PRNGKey) -> tuple[Any, chex.Array]:
        location, memory, network_carry = carry
        memory, observations = look(problem, memory, location, key)
        network_carry, action = _policies.step_2017(params, network_carry, observations)
        memory = memory._replace(last_step=action, step_before=memory.last_step)
        return (location + action, memory, network_carry), problem.objective(location)

    # A policy needs no averages, and their past is not kept.
    carry: Any = (start, begin(size, 0), _policies.zero_carry((size,), config.width))
    (location, *_), objectives = jax.lax.scan(step, carry, jax.random.split(key, config.horizon))
    return jnp.append(objectives, problem.objective(location))


def momentum(
    problem: Problem, rate: chex.Array, decay: chex.Array, config: Config2017
) -> Controller:
    """Gradient descent with momentum, of hardly any noise, as the controller of each group.

    Args:
      problem: What is optimized.
      rate: `float32[]`, of each of the state's gradients.
      decay: `float32[]`, from one of them to the next.
      config: The constants.
    """
    newest = _coordinate_features.NEWEST_GRADIENT
    powers = decay ** jnp.arange(_coordinate_features.WINDOWS + 1, dtype=jnp.float32)
    gain = jnp.zeros(_coordinate_features.NUM_STATE_FEATURES)
    gain = gain.at[newest : newest + powers.shape[0]].set(-rate * powers)
    shape = (problem.num_groups, config.horizon, 1)
    return Controller(
        gain=jnp.broadcast_to(gain, (*shape, gain.shape[0])),
        offset=jnp.zeros(shape),
        covariance=jnp.full((*shape, 1), 1e-20),
    )

"""History of the full-vector optimizer of 2016, and its features.

The features are the changes of the objective since each of the last H points, and the gradients
there. The *state* of guided policy search holds the same history as a shift register: the change of
the objective in each step, and a gradient. The features are then sums of entries of the register.

Source: Li & Malik 2016, *Learning to Optimize*, section 4.
"""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax.numpy as jnp


class History(NamedTuple):
    """The last points of a trajectory, latest first; zeros before the first point.

    Attributes:
      num_points: Points so far, `int32[]`.
      objective: Objective at the latest point, `float32[]`.
      gradient: Gradient at the latest point, `float32[d]`.
      changes: Change of the objective from each point to the next, `float32[H]`.
      gradients: Last H gradients, `float32[H, d]`, with or without that at the latest point.
    """

    num_points: chex.Array
    objective: chex.Array
    gradient: chex.Array
    changes: chex.Array
    gradients: chex.Array


def empty_history(dimension: int, length: int) -> History:
    """Returns a history without points.

    Args:
      dimension: d.
      length: H.
    """
    return History(
        num_points=jnp.zeros((), jnp.int32),
        objective=jnp.zeros((), jnp.float32),
        gradient=jnp.zeros(dimension, jnp.float32),
        changes=jnp.zeros(length, jnp.float32),
        gradients=jnp.zeros((length, dimension), jnp.float32),
    )


def append(
    history: History, objective: chex.Array, gradient: chex.Array, *, current_gradient: bool
) -> History:
    """Adds a point.

    Args:
      history: History of the points before.
      objective: Objective at the point, `float32[]`.
      gradient: Gradient at the point, `float32[d]`.
      current_gradient: True to add this gradient to `gradients` now; False to add it with the next
        point.

    Example:
      >>> import jax.numpy as jnp
      >>> history = empty_history(dimension=1, length=2)
      >>> for objective, slope in ((5.0, 2.0), (4.0, 1.0)):
      ...     history = append(
      ...         history, jnp.asarray(objective), jnp.array([slope]), current_gradient=True
      ...     )
      >>> features(history).tolist()
      [-1.0, 0.0, 1.0, 2.0]
    """
    change = jnp.where(history.num_points > 0, objective - history.objective, 0.0)
    added = gradient if current_gradient else history.gradient
    return History(
        num_points=history.num_points + 1,
        objective=jnp.asarray(objective, jnp.float32),
        gradient=gradient,
        changes=jnp.concatenate([change[None], history.changes[:-1]]),
        gradients=jnp.concatenate([added[None], history.gradients[:-1]]),
    )


def features(history: History) -> chex.Array:
    """Returns the policy's features, `float32[H + H d]`.

    First f(latest point) − f(i-th point before it) for i = 1 to H, then the gradients.
    """
    return _features(history.changes, history.gradients, history.num_points)


def to_state(location: chex.Array, history: History) -> chex.Array:
    """Returns the state of guided policy search, `float32[d + H (1 + d)]`.

    First the location, `float32[d]`, then change and gradient of each entry of the register.
    """
    register = jnp.concatenate([history.changes[:, None], history.gradients], axis=1)
    return jnp.concatenate([location, register.ravel()])


def features_of_state(state: chex.Array, num_points: chex.Array, dimension: int) -> chex.Array:
    """Returns the policy's features, `float32[H + H d]`, in a state.

    Args:
      state: State as of `to_state`, `float32[d + H (1 + d)]`.
      num_points: Points so far, `int32[]`.
      dimension: d.

    Example:
      >>> import jax.numpy as jnp
      >>> history = empty_history(dimension=1, length=3)._replace(
      ...     num_points=jnp.asarray(3), changes=jnp.array([-1.0, -2.0, 0.0])
      ... )
      >>> state = to_state(jnp.zeros(1), history)
      >>> features_of_state(state, history.num_points, dimension=1).tolist()
      [-1.0, -3.0, 0.0, 0.0, 0.0, 0.0]
    """
    register = state[dimension:].reshape(-1, 1 + dimension)
    return _features(register[:, 0], register[:, 1:], num_points)


def momentum_gain(rate: chex.Array, decay: chex.Array, dimension: int, length: int) -> chex.Array:
    """Returns gradient descent with momentum as a gain on the state, `float32[d, d + H (1 + d)]`.

    Its step is −rate · Σ_i decay^i g_i over the gradients of the register; older gradients are
    dropped.

    Args:
      rate: Learning rate, `float32[]`.
      decay: Decay rate of the momentum, `float32[]`.
      dimension: d.
      length: H.

    Example:
      >>> momentum_gain(1.0, 0.5, dimension=1, length=2).tolist()
      [[-0.0, -0.0, -1.0, -0.0, -0.5]]
    """
    powers = decay ** jnp.arange(length, dtype=jnp.float32)
    blocks = jnp.eye(dimension)[:, None, :] * powers[None, :, None]
    blocks = jnp.pad(blocks, ((0, 0), (0, 0), (1, 0))).reshape(dimension, -1)
    return -rate * jnp.pad(blocks, ((0, 0), (dimension, 0)))


def _features(changes: chex.Array, gradients: chex.Array, num_points: chex.Array) -> chex.Array:
    distances = jnp.arange(1, changes.shape[0] + 1)
    since = jnp.where(distances < num_points, jnp.cumsum(changes), 0.0)
    return jnp.concatenate([since, gradients.ravel()])

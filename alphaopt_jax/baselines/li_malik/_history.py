"""What the full-vector optimizer of 2016 remembers and sees.

Its features are the changes of the objective since each of the last H points, and the gradients
there. Inside the *state* of guided policy search the same history is kept as a register of
observations: the objective's change of each step and a gradient. A register moves by pure shifts,
and the features are sums of its entries.

Source: Li & Malik 2016, *Learning to Optimize*, section 4.
"""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax.numpy as jnp


class History(NamedTuple):
    """The points seen so far, the latest first; zeros where there are none yet.

    Attributes:
      points: How many were seen, `int32[]`.
      objective: At the latest point, `float32[]`.
      gradient: At the latest point, `float32[d]`.
      changes: Of the objective, each from a point to the next, `float32[H]`.
      gradients: The last H of them, `float32[H, d]`, with or without the latest point's.
    """

    points: chex.Array
    objective: chex.Array
    gradient: chex.Array
    changes: chex.Array
    gradients: chex.Array


def empty_history(dimension: int, length: int) -> History:
    """A history of no points.

    Args:
      dimension: d.
      length: H.
    """
    return History(
        points=jnp.zeros((), jnp.int32),
        objective=jnp.zeros((), jnp.float32),
        gradient=jnp.zeros(dimension, jnp.float32),
        changes=jnp.zeros(length, jnp.float32),
        gradients=jnp.zeros((length, dimension), jnp.float32),
    )


def observe(
    history: History, objective: chex.Array, gradient: chex.Array, *, current_gradient: bool
) -> History:
    """Adds a point.

    Args:
      history: Of the points before.
      objective: There, `float32[]`.
      gradient: There, `float32[d]`.
      current_gradient: Whether `gradients` hold this point's gradient at once, or only when the
        next point is added.

    Example:
      >>> import jax.numpy as jnp
      >>> history = empty_history(dimension=1, length=2)
      >>> for objective, slope in ((5.0, 2.0), (4.0, 1.0)):
      ...     history = observe(
      ...         history, jnp.asarray(objective), jnp.array([slope]), current_gradient=True
      ...     )
      >>> features(history).tolist()
      [-1.0, 0.0, 1.0, 2.0]
    """
    change = jnp.where(history.points > 0, objective - history.objective, 0.0)
    added = gradient if current_gradient else history.gradient
    return History(
        points=history.points + 1,
        objective=jnp.asarray(objective, jnp.float32),
        gradient=gradient,
        changes=jnp.concatenate([change[None], history.changes[:-1]]),
        gradients=jnp.concatenate([added[None], history.gradients[:-1]]),
    )


def features(history: History) -> chex.Array:
    """What the policy sees, `float32[H + H d]`.

    First f(now) − f(i-th most recent point before) for i = 1 to H, then the gradients.
    """
    return _as_features(history.changes, history.gradients, history.points)


def state(location: chex.Array, history: History) -> chex.Array:
    """The state of guided policy search, `float32[d + H (1 + d)]`.

    First the location, `float32[d]`, then for each entry of the register the change and the
    gradient.
    """
    register = jnp.concatenate([history.changes[:, None], history.gradients], axis=1)
    return jnp.concatenate([location, register.ravel()])


def features_of_state(state: chex.Array, points: chex.Array, dimension: int) -> chex.Array:
    """The policy's features, `float32[H + H d]`, of a state.

    Args:
      state: As `state` gives it, `float32[d + H (1 + d)]`.
      points: How many points were seen by then, `int32[]`.
      dimension: d.

    Example:
      >>> import jax.numpy as jnp
      >>> history = empty_history(dimension=1, length=3)._replace(
      ...     points=jnp.asarray(3), changes=jnp.array([-1.0, -2.0, 0.0])
      ... )
      >>> features_of_state(state(jnp.zeros(1), history), history.points, dimension=1).tolist()
      [-1.0, -3.0, 0.0, 0.0, 0.0, 0.0]
    """
    register = state[dimension:].reshape(-1, 1 + dimension)
    return _as_features(register[:, 0], register[:, 1:], points)


def momentum_gain(rate: chex.Array, decay: chex.Array, dimension: int, length: int) -> chex.Array:
    """Gradient descent with momentum as a gain on the state, `float32[d, d + H (1 + d)]`.

    Its step is −rate · Σ_i decay^i g_i over the register's gradients, so that what is older than
    the register is forgotten.

    Args:
      rate: `float32[]`.
      decay: `float32[]`.
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


def _as_features(changes: chex.Array, gradients: chex.Array, points: chex.Array) -> chex.Array:
    reach = jnp.arange(1, changes.shape[0] + 1)
    since = jnp.where(reach < points, jnp.cumsum(changes), 0.0)
    return jnp.concatenate([since, gradients.ravel()])

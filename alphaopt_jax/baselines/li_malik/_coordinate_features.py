"""Features of one coordinate, for the coordinatewise optimizer of 2017 and its controllers.

Controllers use the *state features* Φ, of values averaged over three iterates, up to 130 steps
back. The policy uses the *observation features* Ψ, of the last three iterates without averaging.
Features that are not yet defined are 0.

Source: Li & Malik 2017, *Learning to Optimize Neural Nets*, section 4.
"""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax.numpy as jnp
import numpy as np

STRIDE = 5
"""Steps between two past values in the state features."""
WINDOWS = 25
"""Number of such strides in the state features."""
NUM_STATE_FEATURES = 3 * WINDOWS + 1
"""Entries of Φ."""
NEWEST_GRADIENT = WINDOWS
"""Index in Φ of the newest gradient; older ones follow."""
NUM_OBSERVATION_FEATURES = 3
"""Entries of Ψ."""
SMOOTHING = 3
"""Iterates averaged for Φ."""


class RecentPoints(NamedTuple):
    """The last two points and the last two steps of a trajectory.

    Attributes:
      num_points: Points so far, including the latest, `int32[]`.
      objective: Objective at the latest point, `float32[]`.
      previous_objective: Objective at the point before, `float32[]`.
      gradient: Gradient at the latest point, `float32[...]`.
      previous_gradient: Gradient at the point before, `float32[...]`.
      last_step: Step to the latest point, `float32[...]`.
      previous_step: Step to the point before, `float32[...]`.
    """

    num_points: chex.Array
    objective: chex.Array
    previous_objective: chex.Array
    gradient: chex.Array
    previous_gradient: chex.Array
    last_step: chex.Array
    previous_step: chex.Array


def smooth(recent: chex.Array, num_points: chex.Array) -> chex.Array:
    """Returns the mean of the last iterates.

    Args:
      recent: Last three iterates, `float32[3, ...]`, zeros before the first.
      num_points: Iterates so far, at least 1, `int32[]`.

    Returns:
      `float32[...]`.

    Example:
      >>> import jax.numpy as jnp
      >>> float(smooth(jnp.array([4.0, 2.0, 0.0]), jnp.asarray(2)))
      3.0
    """
    return jnp.sum(recent, axis=0) / jnp.minimum(num_points, SMOOTHING)


def state_features(
    objectives: chex.Array, gradients: chex.Array, locations: chex.Array, step: chex.Array
) -> chex.Array:
    """Returns Φ of N coordinates at one step.

    With t the step and i = 0 to 24 (0 to 25 for the second kind), the features are

    - (f̄_{t−5i} − f̄_{t−5(i+1)}) / f̄_{t−5(i+1)};
    - ḡ_{t−5i} / (|ḡ_{max(t−5(i+1), t mod 5)}| + 1);
    - |x̄_a − x̄_b| / (|x̄_{t−5i} − x̄_{t−5(i+1)}| + 0.1) with a = max(t−5(i+1), t mod 5 + 5) and
      b = max(t−5(i+2), t mod 5): the stride before, or the first one.

    Args:
      objectives: f̄ from the first step on, `float32[L]`; entries after `step` are not used.
      gradients: ḡ, `float32[L, N]`.
      locations: x̄, `float32[L, N]`.
      step: t, `int32[]`.

    Returns:
      `float32[N, 76]`.

    Example:
      >>> import jax.numpy as jnp
      >>> ones = jnp.ones((6, 1))
      >>> features = state_features(2.0 ** jnp.arange(6), ones, 0.4 * ones.cumsum(0), 5)
      >>> [round(float(features[0, index]), 3) for index in (0, 25, 26, 51)]
      [31.0, 0.5, 0.5, 0.952]
    """
    now = step - STRIDE * np.arange(WINDOWS + 1)
    before = now - STRIDE
    first = step % STRIDE

    def at(values: chex.Array, steps: chex.Array) -> chex.Array:
        return values[jnp.maximum(steps, 0)]

    defined = before[:-1] >= 0
    old = at(objectives, before[:-1])
    relative = (at(objectives, now[:-1]) - old) / jnp.where(old != 0.0, old, 1.0)
    relative = jnp.where(defined & (old != 0.0), relative, 0.0)

    slopes = at(gradients, now) / (jnp.abs(at(gradients, jnp.maximum(before, first))) + 1.0)
    slopes = jnp.where((now >= 0)[:, None], slopes, 0.0)

    last = jnp.abs(at(locations, now[:-1]) - at(locations, before[:-1]))
    earlier = jnp.abs(
        at(locations, jnp.maximum(before[:-1], first + STRIDE))
        - at(locations, jnp.maximum(before[:-1] - STRIDE, first))
    )
    ratios = jnp.where(defined[:, None], earlier / (last + 0.1), 0.0)
    shared = jnp.broadcast_to(relative[:, None], ratios.shape)
    return jnp.concatenate([shared, slopes, ratios]).T


def observation_features(recent: RecentPoints) -> chex.Array:
    """Returns Ψ of coordinates at the latest point.

    The features are (f̂_t − f̂_{t−1}) / f̂_{t−1}, ∇f̂_t / (|∇f̂_{t−1}| + 1) and
    |x_{t−1} − x_{t−2}| / (|x_t − x_{t−1}| + 0.1). At the first point all of them are 0.

    Args:
      recent: The last two points and steps.

    Returns:
      `float32[..., 3]`.

    Example:
      >>> import jax.numpy as jnp
      >>> objectives, gradients = jnp.array([1.5, 2.0]), jnp.array([3.0, -1.0])
      >>> steps = jnp.array([0.4, -0.2])
      >>> recent = RecentPoints(jnp.asarray(3), *objectives, *gradients, *steps)
      >>> observation_features(recent).tolist()
      [-0.25, 1.5, 0.4000000059604645]
    """
    defined = (recent.num_points >= 2) & (recent.previous_objective != 0.0)
    relative = (recent.objective - recent.previous_objective) / jnp.where(
        defined, recent.previous_objective, 1.0
    )
    slope = recent.gradient / (jnp.abs(recent.previous_gradient) + 1.0)
    ratio = jnp.abs(recent.previous_step) / (jnp.abs(recent.last_step) + 0.1)
    return jnp.stack(
        [
            jnp.broadcast_to(jnp.where(defined, relative, 0.0), recent.gradient.shape),
            jnp.where(recent.num_points >= 2, slope, 0.0),
            jnp.where(recent.num_points >= 3, ratio, 0.0),
        ],
        axis=-1,
    )

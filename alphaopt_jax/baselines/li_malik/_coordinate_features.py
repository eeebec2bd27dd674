"""What the coordinatewise optimizer of 2017 and its controllers see of one coordinate.

Controllers see the *state features* Φ, of values averaged over three iterates and 130 steps of the
past; the policy sees the *observation features* Ψ, of the last three iterates as they are. What is
not yet defined is 0.

Source: Li & Malik 2017, *Learning to Optimize Neural Nets*, section 4.
"""

from __future__ import annotations

import chex
import jax.numpy as jnp
import numpy as np

STRIDE = 5
"""Steps between two looks of the state features at the past."""
WINDOWS = 25
"""How many such stretches they look back."""
NUM_STATE_FEATURES = 3 * WINDOWS + 1
"""Entries of Φ."""
NEWEST_GRADIENT = WINDOWS
"""Index in Φ of the newest gradient; older ones follow it."""
NUM_OBSERVATION_FEATURES = 3
"""Entries of Ψ."""
SMOOTHED = 3
"""Iterates that are averaged over for Φ."""


def smooth(recent: chex.Array, points: chex.Array) -> chex.Array:
    """Mean of the last iterates.

    Args:
      recent: `float32[3, ...]`, zeros where there is none yet.
      points: How many iterates there were so far, at least 1, `int32[]`.

    Returns:
      `float32[...]`.

    Example:
      >>> import jax.numpy as jnp
      >>> float(smooth(jnp.array([4.0, 2.0, 0.0]), jnp.asarray(2)))
      3.0
    """
    return jnp.sum(recent, axis=0) / jnp.minimum(points, SMOOTHED)


def state_features(
    objectives: chex.Array, gradients: chex.Array, locations: chex.Array, step: chex.Array
) -> chex.Array:
    """Φ of coordinates at one step.

    With t the step, i = 0 to 24, and 0 to 25 for the second kind:

    - (f̄_{t−5i} − f̄_{t−5(i+1)}) / f̄_{t−5(i+1)};
    - ḡ_{t−5i} / (|ḡ_{max(t−5(i+1), t mod 5)}| + 1);
    - |x̄_a − x̄_b| / (|x̄_{t−5i} − x̄_{t−5(i+1)}| + 0.1) with a = max(t−5(i+1), t mod 5 + 5) and
      b = max(t−5(i+2), t mod 5), the stretch before, or the first one.

    Args:
      objectives: f̄, `float32[L]` from the first step on; later entries than `step` are not used.
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

    known = before[:-1] >= 0
    old = at(objectives, before[:-1])
    relative = (at(objectives, now[:-1]) - old) / jnp.where(old != 0.0, old, 1.0)
    relative = jnp.where(known & (old != 0.0), relative, 0.0)

    slopes = at(gradients, now) / (jnp.abs(at(gradients, jnp.maximum(before, first))) + 1.0)
    slopes = jnp.where((now >= 0)[:, None], slopes, 0.0)

    near = jnp.abs(at(locations, now[:-1]) - at(locations, before[:-1]))
    far = jnp.abs(
        at(locations, jnp.maximum(before[:-1], first + STRIDE))
        - at(locations, jnp.maximum(before[:-1] - STRIDE, first))
    )
    ratios = jnp.where(known[:, None], far / (near + 0.1), 0.0)
    shared = jnp.broadcast_to(relative[:, None], ratios.shape)
    return jnp.concatenate([shared, slopes, ratios]).T


def observation_features(
    points: chex.Array,
    objective: chex.Array,
    previous_objective: chex.Array,
    gradient: chex.Array,
    previous_gradient: chex.Array,
    last_step: chex.Array,
    step_before: chex.Array,
) -> chex.Array:
    """Ψ of coordinates at the latest point.

    The features are (f̂_t − f̂_{t−1}) / f̂_{t−1}, ∇f̂_t / (|∇f̂_{t−1}| + 1) and
    |x_{t−1} − x_{t−2}| / (|x_t − x_{t−1}| + 0.1). At the first point all of them are 0.

    Args:
      points: How many points were seen, with the latest, `int32[]`.
      objective: At the latest point, `float32[]`.
      previous_objective: At the one before, `float32[]`.
      gradient: At the latest point, `float32[...]`.
      previous_gradient: At the one before.
      last_step: The step to the latest point, `float32[...]`.
      step_before: The step before that.

    Returns:
      `float32[..., 3]`.

    Example:
      >>> import jax.numpy as jnp
      >>> objectives, gradients = jnp.array([1.5, 2.0]), jnp.array([3.0, -1.0])
      >>> steps = jnp.array([0.4, -0.2])
      >>> observation_features(jnp.asarray(3), *objectives, *gradients, *steps).tolist()
      [-0.25, 1.5, 0.4000000059604645]
    """
    known = (points >= 2) & (previous_objective != 0.0)
    relative = (objective - previous_objective) / jnp.where(known, previous_objective, 1.0)
    slope = gradient / (jnp.abs(previous_gradient) + 1.0)
    ratio = jnp.abs(step_before) / (jnp.abs(last_step) + 0.1)
    return jnp.stack(
        [
            jnp.broadcast_to(jnp.where(known, relative, 0.0), gradient.shape),
            jnp.where(points >= 2, slope, 0.0),
            jnp.where(points >= 3, ratio, 0.0),
        ],
        axis=-1,
    )

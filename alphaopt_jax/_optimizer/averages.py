"""Averages of the parameters, for the evaluation of a training of unknown length.

With rates that never fall far the last parameters are noisy; an average over the recent part of a
training removes the noise (Polyak & Juditsky 1992). Weights grow with a power of time, so that the
window of the average grows with the training (Shamir & Zhang 2013, "polynomial-decay averaging").
"""

from __future__ import annotations

import chex
import jax.numpy as jnp
from jaxtyping import Array, Float

POWER = 8.0
"""Power of time in the weights; the window is about the last ninth of a training."""


def weight(steps: chex.Numeric) -> Float[Array, ""]:
    """Weight of the newest parameters in the average.

    Args:
      steps: Number of steps that led to these parameters.

    Returns:
      `float32[]`; 1 for the first two parameters, so that the initial ones are dropped at once.

    Example:
      >>> [round(float(weight(steps)), 3) for steps in (0, 1, 2, 1000)]
      [1.0, 1.0, 0.9, 0.009]
    """
    return (POWER + 1.0) / (jnp.maximum(jnp.asarray(steps, jnp.float32) - 1.0, 0.0) + POWER + 1.0)


def update(
    average: Float[Array, "*shape"], params: Float[Array, "*shape"], weight: Float[Array, ""]
) -> Float[Array, "*shape"]:
    """The average with newer parameters.

    Args:
      average: The average before, `float32`, any shape.
      params: The newer parameters, the same shape, any type.
      weight: Their weight.

    Returns:
      The new average. Entries of minus infinity (masks) are kept.
    """
    params = params.astype(jnp.float32)
    distance = params - average
    return jnp.where(jnp.isfinite(distance), average + weight * distance, params)

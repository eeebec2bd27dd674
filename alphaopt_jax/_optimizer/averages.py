"""Averages of the parameters, at which a training of unknown length is evaluated.

Rates that never fall far leave the last parameters in noise, which an average over the recent part
of a training takes out (Polyak & Juditsky 1992). Weights grow with a power of time, so that the
average forgets at the pace at which a training slows down (Shamir & Zhang 2013, "polynomial-decay
averaging").
"""

from __future__ import annotations

import chex
import jax.numpy as jnp
from jaxtyping import Array, Float

POWER = 8.0
"""Power of time in the weights: the average reaches over about the last ninth of a training."""


def weight(steps: chex.Numeric) -> Float[Array, ""]:
    """Weight of the parameters after some steps in the average of all parameters until then.

    Args:
      steps: Number of steps that led to these parameters.

    Returns:
      `float32[]`, 1 for the first parameters, which the average is to forget at once.

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
      The new average. Entries of minus infinity, which forbid something, are kept.
    """
    params = params.astype(jnp.float32)
    distance = params - average
    return jnp.where(jnp.isfinite(distance), average + weight * distance, params)

"""Moments of the gradients, normalization by them, and statistics of whole leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from alphaopt_jax._agent import differentiable
from alphaopt_jax.config import StepConfig


class Coordinates(NamedTuple):
    """Parameters with their gradients and moments: a leaf, or a sample of several leaves.

    Attributes:
      param: The parameters, `float32`, any shape.
      grad: Their gradients; this and the following have the parameters' shape.
      first_moment: Moving average of the gradients, this step included, not bias-corrected.
      second_moment: Moving average of the squared gradients, likewise.
    """

    param: Float[Array, "*shape"]
    grad: Float[Array, "*shape"]
    first_moment: Float[Array, "*shape"]
    second_moment: Float[Array, "*shape"]


class BiasCorrections(NamedTuple):
    """Factors that correct moments for their start at zero; both `float32[]`."""

    first: Float[Array, ""]
    second: Float[Array, ""]


class Normalized(NamedTuple):
    """Gradient and momentum in units of the gradient's root mean square.

    Attributes:
      gradient: `g / sqrt(v)`, any shape.
      momentum: `m / sqrt(v)`, the same shape.
      second_moment: Bias-corrected `v`, the same shape.
    """

    gradient: Float[Array, "*shape"]
    momentum: Float[Array, "*shape"]
    second_moment: Float[Array, "*shape"]


class LeafStatistics(NamedTuple):
    """Means over each leaf at one step; all `float32[leaves]`, or broadcast against parameters.

    Attributes:
      scale: Root mean square of the parameters, at least `StepConfig.min_rms`.
      second_moment: Mean of the second moments.
      momentum_energy: Mean of the squared normalized momentum; 1 for constant gradients.
      gradient_momentum_correlation: Mean product of normalized gradient and momentum.
      gradient_autocorrelation: The same without the contribution of this step's gradient to the
        momentum. Positive for consistent gradients, zero for noise, negative for overshooting.
    """

    scale: Float[Array, "*shape"]
    second_moment: Float[Array, "*shape"]
    momentum_energy: Float[Array, "*shape"]
    gradient_momentum_correlation: Float[Array, "*shape"]
    gradient_autocorrelation: Float[Array, "*shape"]


def accumulate(
    param: Float[Array, "*shape"],
    grad: Float[Array, "*shape"],
    first_moment: Float[Array, "*shape"],
    second_moment: Float[Array, "*shape"],
    config: StepConfig,
) -> Coordinates:
    """Adds a gradient to both moving averages."""
    first_decay, second_decay = config.gradient_decay, config.squared_gradient_decay
    return Coordinates(
        param,
        grad,
        first_decay * first_moment + (1.0 - first_decay) * grad,
        second_decay * second_moment + (1.0 - second_decay) * jnp.square(grad),
    )


def bias_corrections(step: Float[Array, ""], config: StepConfig) -> BiasCorrections:
    """Bias corrections after `step` gradients, `float32[]`, at least 1 (Kingma & Ba 2015)."""
    return BiasCorrections(
        1.0 / (1.0 - config.gradient_decay**step),
        1.0 / (1.0 - config.squared_gradient_decay**step),
    )


def normalize(
    coordinates: Coordinates, corrections: BiasCorrections, config: StepConfig
) -> Normalized:
    """Divides gradient and momentum by the root of the second moment.

    Args:
      coordinates: Gradients and their moments, any shape.
      corrections: From `bias_corrections`.
      config: Gives epsilon.

    Returns:
      `Normalized` arrays of the coordinates' shape.
    """
    second = coordinates.second_moment * corrections.second
    inverse_root = 1.0 / (differentiable.sqrt(second) + config.epsilon)
    momentum = coordinates.first_moment * (inverse_root * corrections.first)
    return Normalized(coordinates.grad * inverse_root, momentum, second)


def summands(
    param: Float[Array, "*shape"], normalized: Normalized
) -> tuple[Float[Array, "*shape"], ...]:
    """The five arrays for `statistics_of_means`, which takes their means over a leaf."""
    return (
        jnp.square(param),
        normalized.second_moment,
        jnp.square(normalized.momentum),
        normalized.gradient * normalized.momentum,
        jnp.square(normalized.gradient),
    )


def statistics_of_means(
    means: Float[Array, " summands *shape"] | Sequence[Float[Array, "*shape"]],
    step: Float[Array, ""],
    config: StepConfig,
) -> LeafStatistics:
    """Statistics of leaves from the means of `summands` over each leaf."""
    square, second_moment, momentum_energy, correlation, energy = means
    own = (1.0 - config.gradient_decay) / (1.0 - config.gradient_decay**step)
    return LeafStatistics(
        scale=jnp.maximum(differentiable.sqrt(square), config.min_rms),
        second_moment=second_moment,
        momentum_energy=momentum_energy,
        gradient_momentum_correlation=correlation,
        gradient_autocorrelation=correlation - own * energy,
    )

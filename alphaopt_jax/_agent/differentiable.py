"""Roots and quotients that can be differentiated everywhere, for gradients through an update.

The derivative of a root is infinite at zero and that of a quotient overflows near it, so that the
chain rule gives `0 * inf`, which is NaN, for a leaf of zeros or for the first loss. Here the
derivative of such an element is zero, in forward and reverse mode; values equal those of the plain
functions bit for bit.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

_MIN_ROOTED = 1e-28
"""The derivative of `1 / (sqrt(x) + 1e-12)` overflows in float32 below this."""
_TINY = 1e-30
"""Value below the square of any gradient that float32 distinguishes from zero."""
_MIN_DIVIDED = 1e-18
"""Smallest divisor whose square, a part of the quotient's derivative, does not underflow."""


@jax.custom_jvp
def sqrt(value: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The square root, with a derivative of zero where the value is (almost) zero.

    Example:
      >>> jax.grad(sqrt)(4.0).item(), jax.grad(sqrt)(0.0).item()
      (0.25, 0.0)
    """
    return jnp.sqrt(value)


@sqrt.defjvp
def _sqrt_jvp(primals: tuple[Any], tangents: tuple[Any]) -> tuple[Any, Any]:
    (value,), (tangent,) = primals, tangents
    root = sqrt(value)
    return root, _divided(tangent, 2.0 * root, value > _MIN_ROOTED)


@jax.custom_jvp
def log_ratio(
    size: Float[Array, "*shape"], usual: Float[Array, "*#shape"]
) -> Float[Array, "*shape"]:
    """Logarithm of a quotient of mean squares, 0 where both are zero.

    Its derivative is zero with respect to one that is (almost) zero.

    Example:
      >>> derivative = jax.grad(log_ratio)
      >>> derivative(2.0, 1.0).item(), derivative(0.0, 1.0).item()
      (0.5, 0.0)
    """
    return jnp.log((size + _TINY) / (usual + _TINY))


@log_ratio.defjvp
def _log_ratio_jvp(primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> tuple[Any, Any]:
    (size, usual), (size_tangent, usual_tangent) = primals, tangents
    above = _divided(size_tangent, size + _TINY, size > _MIN_DIVIDED)
    below = _divided(usual_tangent, usual + _TINY, usual > _MIN_DIVIDED)
    return log_ratio(size, usual), above - below


@jax.custom_jvp
def in_deviations(
    distance: Float[Array, "*shape"], variance: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """A distance in standard deviations, with derivatives of zero for a variance of zero.

    Example:
      >>> derivative = jax.grad(in_deviations)
      >>> derivative(1.0, 4.0).item(), derivative(1.0, 0.0).item()
      (0.5, 0.0)
    """
    return distance / (jnp.sqrt(variance) + _TINY)


@in_deviations.defjvp
def _in_deviations_jvp(primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> tuple[Any, Any]:
    (distance, variance), (distance_tangent, variance_tangent) = primals, tangents
    found, known = in_deviations(distance, variance), variance > _MIN_DIVIDED**2
    deviation = jnp.sqrt(variance)
    from_distance = _divided(distance_tangent, deviation, known)
    relative = _divided(variance_tangent, 2.0 * variance, known)
    return found, from_distance - jnp.where(known, found, 0.0) * relative


def _divided(
    tangent: Float[Array, "*shape"], divisor: Float[Array, "*shape"], known: Bool[Array, "*shape"]
) -> Float[Array, "*shape"]:
    return jnp.where(known, tangent, 0.0) / jnp.where(known, divisor, 1.0)

"""Roots and quotients that can be differentiated everywhere, for gradients through an update.

The derivative of a root is infinite at zero and that of a quotient overflows near it, so that the
chain rule gives `0 * inf`, which is NaN, for a leaf of zeros or for the first loss. Here such an
element has a derivative of zero; values are those of the plain functions, bit for bit.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

_MIN_ROOTED = 1e-28
"""The derivative of `1 / (sqrt(x) + 1e-12)` overflows in float32 below this."""


def where(
    condition: Bool[Array, "*#shape"], value: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """The value, with a derivative of zero where the condition is false.

    Args:
      condition: Where the value is differentiated, in a shape that broadcasts against the value's.
      value: Any shape.

    Returns:
      The value.

    Example:
      >>> inverse = lambda x: 1.0 / where(x > 0.0, x)
      >>> jax.grad(inverse)(2.0).item(), jax.grad(inverse)(0.0).item()
      (-0.25, 0.0)
    """
    return jnp.where(condition, value, jax.lax.stop_gradient(value))


def sqrt(value: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The square root, with a derivative of zero where the value is (almost) zero.

    Example:
      >>> jax.grad(sqrt)(4.0).item(), jax.grad(sqrt)(0.0).item()
      (0.25, 0.0)
    """
    return jnp.sqrt(where(value > _MIN_ROOTED, value))

"""Two small questions that both searches ask of arrays."""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp


def is_finite(tree: Any) -> chex.Array:
    """Whether all numbers of a tree are finite, `bool[]`."""
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def root_mean_square(values: chex.Array, axes: tuple[int, ...] | None) -> chex.Array:
    """The typical size over `axes`, or over all; 1 where all values are 0, to divide by.

    Example:
      >>> import jax.numpy as jnp
      >>> root_mean_square(jnp.array([[3.0, 0.0], [-3.0, 0.0]]), (0,)).tolist()
      [3.0, 1.0]
    """
    size = jnp.sqrt(jnp.mean(jnp.square(values), axis=axes))
    return jnp.where(size > 0, size, 1.0)

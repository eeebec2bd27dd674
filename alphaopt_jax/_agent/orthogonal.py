"""Orthonormal columns of many small matrices, and products in full precision."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_PANEL = 32
"""Width of a panel, in which columns are orthogonalized one by one."""
_NO_SQUARE = 1e-24  # The derivative of its root is finite.


def orthonormal(matrices: Float[Array, "blocks width width"]) -> Float[Array, "blocks width width"]:
    """Orthonormal columns as those of QR: the first k span the space of the first k columns.

    Gram-Schmidt orthogonalization in panels, each done twice (Giraud et al. 2005, "Rounding error
    analysis of the classical Gram-Schmidt orthogonalization process"). QR of LAPACK is not called:
    on CPUs, several calls in one program can deadlock.

    Args:
      matrices: Of full rank; the width is a power of two.

    Returns:
      Orthogonal matrices.

    Example:
      >>> matrix = orthonormal(jnp.array([[[3.0, 1.0], [4.0, 2.0]]]))
      >>> bool(jnp.allclose(matrix[0], jnp.array([[0.6, -0.8], [0.8, 0.6]]), atol=1e-6))
      True
    """
    columns = jnp.swapaxes(matrices, 1, 2)
    width = columns.shape[1]
    panel = min(width, _PANEL)

    def twice(function: Callable[[Array], Array], vectors: Array) -> Array:
        # A loop of two passes, so that both share one compiled program.
        return jax.lax.fori_loop(0, 2, lambda _, each: function(each), vectors)

    def without(vectors: Array, done: Array) -> Array:
        shares = einsum("iab,icb->iac", vectors, done)
        return _normalized(vectors - einsum("iac,icb->iab", shares, done))

    def add_panel(index: Array, done: Array) -> Array:
        vectors = jax.lax.dynamic_slice_in_dim(columns, index * panel, panel, axis=1)
        if width == panel:
            return orthogonal(vectors)
        # Nearly dependent columns within the panel lose precision in the first pass only.
        vectors = twice(
            lambda each: orthogonal(twice(lambda one: without(one, done), each)), vectors
        )
        return jax.lax.dynamic_update_slice_in_dim(done, vectors, index * panel, axis=1)

    def orthogonal(vectors: Array) -> Array:
        def add_vector(number: Array, within: Array) -> Array:
            vector = jax.lax.dynamic_slice_in_dim(vectors, number, 1, axis=1)
            vector = twice(lambda each: without(each, within), vector)
            return jax.lax.dynamic_update_slice_in_dim(within, vector, number, axis=1)

        return jax.lax.fori_loop(0, panel, add_vector, jnp.zeros_like(vectors))

    done = jax.lax.fori_loop(0, width // panel, add_panel, jnp.zeros_like(columns))
    return jnp.swapaxes(done, 1, 2)


def _normalized(vectors: Array) -> Array:
    square = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(square, _NO_SQUARE))


def einsum(
    subscripts: str, left: Float[Array, "..."], right: Float[Array, "..."]
) -> Float[Array, "..."]:
    """A product in full precision, on devices that round the factors by default too."""
    return jnp.einsum(subscripts, left, right, precision=jax.lax.Precision.HIGHEST)

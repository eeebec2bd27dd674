"""Linear algebra of small positive definite matrices, for use under `vmap`.

Implemented in plain XLA instead of `jax.numpy.linalg`, which calls LAPACK: with jaxlib 0.10 on a
CPU, two batched LAPACK calls that run concurrently can deadlock.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

_SIGN_ROUNDS = 30


def inverse(matrix: chex.Array) -> tuple[chex.Array, chex.Array]:
    """Returns the inverse and the log-determinant, by Gauss-Jordan elimination.

    Args:
      matrix: `float32[v, v]`, symmetric and positive definite.

    Returns:
      `float32[v, v]` and `float32[]`.

    Example:
      >>> import jax.numpy as jnp
      >>> inverted, log_determinant = inverse(jnp.array([[2.0, 1.0], [1.0, 1.0]]))
      >>> inverted.round(4).tolist(), float(log_determinant.round(4))
      ([[1.0, -1.0], [-1.0, 2.0]], 0.0)
    """
    # With a unit diagonal, pivots lie between 0 and 1, and rows need not be exchanged.
    units = jnp.sqrt(jnp.diagonal(matrix))
    scale = jnp.outer(units, units)

    def eliminate(
        index: chex.Array, carry: tuple[chex.Array, chex.Array]
    ) -> tuple[chex.Array, chex.Array]:
        square, log_determinant = carry
        pivot = square[index, index]
        # Subtracting and adding 1 at the pivot gives one formula for the pivot, its row, its
        # column and the rest.
        column = square[:, index].at[index].add(-1.0)
        row = square[index].at[index].add(1.0)
        return square - jnp.outer(column, row / pivot), log_determinant + jnp.log(pivot)

    inverted, log_determinant = jax.lax.fori_loop(
        0, matrix.shape[0], eliminate, (matrix / scale, jnp.zeros((), matrix.dtype))
    )
    inverted = 0.5 * (inverted + inverted.T) / scale
    return inverted, log_determinant + 2.0 * jnp.sum(jnp.log(units))


def cholesky(matrix: chex.Array) -> chex.Array:
    """Returns the lower triangular factor L of L Lᵀ, `float32[v, v]`.

    Args:
      matrix: `float32[v, v]`, symmetric and positive definite.

    Example:
      >>> import jax.numpy as jnp
      >>> cholesky(jnp.array([[4.0, 2.0], [2.0, 10.0]])).tolist()
      [[2.0, 0.0], [1.0, 3.0]]
    """
    rows = jnp.arange(matrix.shape[0])

    def add_column(
        index: chex.Array, carry: tuple[chex.Array, chex.Array]
    ) -> tuple[chex.Array, chex.Array]:
        rest, factor = carry
        column = jnp.where(rows >= index, rest[:, index], 0.0) / jnp.sqrt(rest[index, index])
        return rest - jnp.outer(column, column), factor.at[:, index].set(column)

    _, factor = jax.lax.fori_loop(0, matrix.shape[0], add_column, (matrix, jnp.zeros_like(matrix)))
    return factor


def positive_part(matrix: chex.Array) -> chex.Array:
    """Returns the nearest positive semidefinite matrix: negative eigenvalues become 0.

    It is half the sum of the matrix and its absolute value, the matrix times its sign. The sign is
    computed by the Newton-Schulz iteration x ← (3x − x³) / 2, which does not resolve eigenvalues
    below 1e-5 of the largest.

    Args:
      matrix: `float32[v, v]`; only its symmetric part is used.

    Returns:
      `float32[v, v]`.

    References:
      Higham 2008, *Functions of Matrices*, section 5.3.

    Example:
      >>> import jax.numpy as jnp
      >>> positive_part(jnp.diag(jnp.array([2.0, -1.0]))).round(4).tolist()
      [[2.0, 0.0], [0.0, 0.0]]
    """
    symmetric = 0.5 * (matrix + matrix.T)
    size = jnp.sqrt(jnp.sum(jnp.square(symmetric)))
    start = symmetric / jnp.where(size > 0, size, 1.0)

    def iterate(_: chex.Array, sign: chex.Array) -> chex.Array:
        return 1.5 * sign - 0.5 * sign @ sign @ sign

    product = symmetric @ jax.lax.fori_loop(0, _SIGN_ROUNDS, iterate, start)
    return 0.5 * symmetric + 0.25 * (product + product.T)

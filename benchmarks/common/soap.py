"""SOAP: Adam in the eigenbases of Shampoo's preconditioners.

Algorithm 3 of Vyas et al., "SOAP: Improving and Stabilizing Shampoo using Adam"
(arXiv:2409.11321), with the details of the authors' code: bases are sorted by descending
eigenvalues, and the first step of a matrix only sets its bases, without an update. That step
cannot be left out. In the bases of the gradient itself the gradient is diagonal, and Adam would
divide the other elements, which are rounding errors, by their own size: random signs at the full
learning rate.

A kernel of any shape counts as a matrix of `[product of all axes but the last, last axis]`.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from alphaopt_jax._agent import conditional

_product = functools.partial(jnp.matmul, precision="highest")

Sides = tuple[chex.Array | None, ...]
"""For each of the two sides of a matrix a square array, or None for a side that is not rotated.

Empty for a scalar or a vector.
"""


class LeafState(NamedTuple):
    """State of one leaf, a matrix of `[M, N]` or a vector.

    Attributes:
      mu: Moving average of the gradient, not rotated, `float32[M, N]`.
      nu: Moving average of the square of the rotated gradient, `float32[M, N]`.
      averages: Moving averages of `G @ G.T`, `float32[M, M]`, and of `G.T @ G`, `float32[N, N]`.
      bases: Orthogonal matrices of the same shapes, with approximate eigenvectors of the averages
        as columns.
    """

    mu: chex.Array
    nu: chex.Array
    averages: Sides
    bases: Sides


class SoapState(NamedTuple):
    """State of SOAP.

    Attributes:
      count: Number of steps, `int32[]`.
      leaves: States of all leaves of the parameters, in their order in the pytree.
    """

    count: chex.Array
    leaves: tuple[LeafState, ...]


def soap(
    learning_rate: optax.ScalarOrSchedule,
    b1: float = 0.95,
    b2: float = 0.95,
    eps: float = 1e-8,
    shampoo_beta: float = 0.95,
    precondition_frequency: int = 10,
    max_dim: int = 1024,
) -> optax.GradientTransformation:
    """SOAP without weight decay.

    All arithmetic is in float32. Under `jax.vmap` the bases are computed only at the steps at which
    they are due for some member of the batch.

    Args:
      learning_rate: The learning rate or its schedule.
      b1: Decay of the average of gradients.
      b2: Decay of the average of squares.
      eps: Added to the root of the average of squares.
      shampoo_beta: Decay of the averages of `G @ G.T` and `G.T @ G`.
      precondition_frequency: Number of steps between two refinements of the bases.
      max_dim: A side that is longer is not rotated.

    Returns:
      The optimizer. Vectors, and matrices without a side that is rotated, are trained by Adam.

    Example:
      >>> optimizer = soap(0.1)
      >>> params = jnp.ones((2, 3))
      >>> state = optimizer.init(params)
      >>> for _ in range(2):
      ...     updates, state = optimizer.update(params, state)
      >>> bool(optax.apply_updates(params, updates).sum() < params.sum())
      True
    """

    def init_fn(params: optax.Params) -> SoapState:
        leaves = tuple(_init_leaf(leaf, max_dim) for leaf in jax.tree.leaves(params))
        return SoapState(jnp.zeros([], jnp.int32), leaves)

    def update_fn(
        updates: optax.Updates, state: SoapState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, SoapState]:
        del params
        gradients, structure = jax.tree.flatten(updates)
        directions, leaves = [], []
        for gradient, leaf in zip(gradients, state.leaves, strict=True):
            matrix = gradient.astype(jnp.float32).reshape(leaf.mu.shape)
            skipped = jnp.logical_and(_is_rotated(leaf), state.count == 0)
            steps = state.count + (0 if _is_rotated(leaf) else 1)
            direction, moved = _adam_step(matrix, leaf, jnp.maximum(steps, 1), b1, b2, eps)
            moved = jax.tree.map(lambda old, new, s=skipped: jnp.where(s, old, new), leaf, moved)
            direction = jnp.where(skipped, 0.0, direction)
            directions.append(direction.reshape(gradient.shape).astype(gradient.dtype))
            averages = _moved_averages(matrix, leaf.averages, shampoo_beta)
            leaves.append(moved._replace(averages=averages))
        updates = jax.tree.unflatten(structure, directions)
        refreshed = _refreshed(tuple(leaves), state.count, precondition_frequency)
        return updates, SoapState(optax.safe_increment(state.count), refreshed)

    return optax.chain(
        optax.GradientTransformation(init_fn, update_fn),
        optax.scale_by_learning_rate(learning_rate),
    )


def _init_leaf(leaf: chex.Array, max_dim: int) -> LeafState:
    shape, sides = leaf.shape, ()
    if leaf.ndim >= 2:
        shape = (leaf.size // leaf.shape[-1], leaf.shape[-1])
        sides = tuple(side if 1 < side <= max_dim else None for side in shape)
    zeros = jnp.zeros(shape, jnp.float32)
    averages = tuple(None if side is None else jnp.zeros((side, side)) for side in sides)
    bases = tuple(None if side is None else jnp.eye(side) for side in sides)
    return LeafState(zeros, zeros, averages, bases)


def _is_rotated(leaf: LeafState) -> bool:
    return any(basis is not None for basis in leaf.bases)


def _rotated(matrix: chex.Array, bases: Sides, *, back: bool = False) -> chex.Array:
    """`Q_L.T @ matrix @ Q_R`, or if `back` its inverse, `Q_L @ matrix @ Q_R.T`."""
    left, right = bases or (None, None)
    if left is not None:
        matrix = _product(left if back else left.T, matrix)
    if right is not None:
        matrix = _product(matrix, right.T if back else right)
    return matrix


def _adam_step(
    gradient: chex.Array, leaf: LeafState, steps: chex.Array, b1: float, b2: float, eps: float
) -> tuple[chex.Array, LeafState]:
    """Adam's direction in the rotated space, rotated back; `steps` counts this step."""
    mu = b1 * leaf.mu + (1.0 - b1) * gradient
    nu = b2 * leaf.nu + (1.0 - b2) * jnp.square(_rotated(gradient, leaf.bases))
    mean = _rotated(mu / (1.0 - b1**steps), leaf.bases)
    direction = mean / (jnp.sqrt(nu / (1.0 - b2**steps)) + eps)
    return _rotated(direction, leaf.bases, back=True), leaf._replace(mu=mu, nu=nu)


def _moved_averages(gradient: chex.Array, averages: Sides, beta: float) -> Sides:
    products = (lambda: _product(gradient, gradient.T), lambda: _product(gradient.T, gradient))
    return tuple(
        None if average is None else beta * average + (1.0 - beta) * product()
        for average, product in zip(averages, products, strict=False)
    )


def _refreshed(
    leaves: tuple[LeafState, ...], count: chex.Array, frequency: int
) -> tuple[LeafState, ...]:
    """The leaves with bases set in the first step and refined in every `frequency`-th later one."""
    if not any(_is_rotated(leaf) for leaf in leaves):
        return leaves

    def parts(leaves: tuple[LeafState, ...]) -> list[tuple[chex.Array, Sides]]:
        return [(leaf.nu, leaf.bases) for leaf in leaves]

    def replaced(new: list[tuple[chex.Array, Sides]]) -> tuple[LeafState, ...]:
        pairs = zip(leaves, new, strict=True)
        return tuple(leaf._replace(nu=nu, bases=bases) for leaf, (nu, bases) in pairs)

    first = count == 0
    leaves = replaced(
        conditional.cond(first, lambda: _all_sides(_eigenbasis, leaves), lambda: parts(leaves))
    )
    due = jnp.logical_and(~first, count % frequency == 0)
    return replaced(
        conditional.cond(due, lambda: _all_sides(_refined, leaves), lambda: parts(leaves))
    )


def _all_sides(
    new_basis: Callable[[chex.Array, chex.Array], tuple[chex.Array, chex.Array]],
    leaves: tuple[LeafState, ...],
) -> list[tuple[chex.Array, Sides]]:
    """New bases of all leaves, with `nu` sorted as their columns.

    Args:
      new_basis: Maps the average and the basis of a side of `N`, `float32[N, N]` each, to the order
        of the present columns, `int32[N]`, and the new basis.
      leaves: The leaves.
    """
    # Each side waits for the one before. On a CPU several batches of `eigh` or `qr` at once wait
    # for each other's threads forever. No element of a basis exceeds 1: what is added is zero.
    wait = jnp.zeros([])
    result = []
    for leaf in leaves:
        nu, bases = leaf.nu, []
        for axis, (average, basis) in enumerate(zip(leaf.averages, leaf.bases, strict=True)):
            if average is None or basis is None:
                bases.append(None)
                continue
            order, basis = new_basis(average + wait, basis)
            wait = jnp.where(basis[0, 0] > 2.0, 1.0, 0.0)
            nu = jnp.take(nu, order, axis=axis)
            bases.append(basis)
        result.append((nu, tuple(bases)))
    return result


def _eigenbasis(average: chex.Array, basis: chex.Array) -> tuple[chex.Array, chex.Array]:
    """Eigenvectors of the average, by descending eigenvalues; there is nothing to sort yet."""
    return jnp.arange(len(basis)), jnp.linalg.eigh(average)[1][:, ::-1]


def _refined(average: chex.Array, basis: chex.Array) -> tuple[chex.Array, chex.Array]:
    """One step of power iteration, by descending estimates of eigenvalues, made orthogonal."""
    powers = _product(average, basis)
    order = jnp.argsort(-jnp.sum(basis * powers, axis=0))
    return order, jnp.linalg.qr(powers[:, order])[0]

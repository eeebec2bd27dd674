"""Conditionals that remain conditionals under `jax.vmap`, and branches that agree in `shard_map`.

`jax.vmap` turns `lax.cond` with a batched predicate into a select that computes both branches for
every member: work due at every eighth step would be done at every step. `shard_map` requires
results of both branches that vary over the same axes of the mesh; constants do not vary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax import custom_batching
import jax.numpy as jnp
from jaxtyping import Array, Bool

_T = TypeVar("_T")


def cond(predicate: Bool[Array, ""], true_fun: Callable[[], _T], false_fun: Callable[[], _T]) -> _T:
    """`lax.cond` that computes `true_fun` only if it is due for at least one member of a batch.

    Args:
      predicate: Whether `true_fun` is due, `bool[]`.
      true_fun: The expensive branch.
      false_fun: The cheap branch, computed at every call under `jax.vmap`.

    Returns:
      For each member of a batch, the result of the branch that its predicate chooses.

    Example:
      >>> double = lambda due, x: cond(due, lambda: 2.0 * x, lambda: x)
      >>> jax.vmap(double)(jnp.array([True, False]), jnp.ones(2)).tolist()
      [2.0, 1.0]
    """

    def due() -> _T:
        return jax.tree.map(
            lambda true, false: jnp.where(predicate, true, false), true_fun(), false_fun()
        )

    def not_due() -> _T:
        return varying_like(false_fun(), predicate)  # As the result of `due`.

    return jax.lax.cond(_any_member(predicate), due, not_due)


def hidden(numbers: Any, predicate: Bool[Array, ""]) -> Any:
    """Integers as traced arrays, so XLA cannot specialize on them.

    Leaves of one shape then share compiled programs, although their indices differ.

    Args:
      numbers: A pytree of integers.
      predicate: True if the numbers are needed, `bool[]`; else they are 0.

    Returns:
      A pytree of `int32[]`.

    Example:
      >>> [int(number) for number in hidden((3, 5), jnp.asarray(True))]
      [3, 5]
    """
    given = jax.tree.map(lambda number: jnp.asarray(number, jnp.int32), numbers)
    zeros = jax.tree.map(jnp.zeros_like, given)
    return jax.lax.cond(
        _any_member(predicate),
        lambda: varying_like(given, predicate),
        lambda: varying_like(zeros, predicate),
    )


@custom_batching.custom_vmap
def _any_member(predicate: Bool[Array, ""]) -> Bool[Array, ""]:
    """The predicate; under `jax.vmap` the unbatched disjunction over all members."""
    return predicate


@_any_member.def_vmap
def _any_of_batch(
    axis_size: int, in_batched: list[bool], predicate: Bool[Array, "..."]
) -> tuple[Bool[Array, ""], bool]:
    del axis_size, in_batched
    return _any_member(jnp.any(predicate, axis=0)), False


def varying_like(tree: _T, references: Any) -> _T:
    """The arrays, varying over every axis of a mesh that any reference varies over.

    Args:
      tree: A pytree of arrays.
      references: A pytree of arrays.

    Returns:
      The tree; outside of `shard_map` unchanged.
    """
    axes: frozenset[str] = frozenset().union(*(_axes(leaf) for leaf in jax.tree.leaves(references)))
    if not axes:
        return tree

    def vary(leaf: Any) -> Any:
        missing = axes - _axes(leaf)
        return jax.lax.pcast(leaf, tuple(sorted(missing)), to="varying") if missing else leaf

    return jax.tree.map(vary, tree)


def _axes(leaf: Any) -> frozenset[str]:
    """The axes of a mesh that an array varies over; none outside of `shard_map`."""
    return jax.typeof(leaf).manual_axis_type.varying

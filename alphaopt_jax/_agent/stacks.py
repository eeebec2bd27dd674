"""Stacks: leaves of one shape, processed by one computation.

The time to compile then hardly grows with the number of layers, and a step launches few programs.
Stacking copies leaves, so only small ones are stacked.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
import math
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

_T = TypeVar("_T")
_MAX_SIZE = 1 << 12
"""Largest number of parameters of a stacked leaf. Larger matrices are rotated faster one by one;
they may be sharded differently, and stacking would move them between devices."""


class Stacks(NamedTuple):
    """Grouping of L leaves into stacks; static.

    An entry of a list "of stacks" is the leaf itself for a stack of one member, else an array with
    a first axis for the members.

    Attributes:
      members: Indices of the leaves of each stack.
    """

    members: tuple[tuple[int, ...], ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of members of each stack."""
        return tuple(len(members) for members in self.members)

    @property
    def first(self) -> tuple[int, ...]:
        """Index of the first leaf of each stack."""
        return tuple(members[0] for members in self.members)


def of_leaves(shapes: Sequence[tuple[int, ...]], kinds: Sequence[Hashable | None]) -> Stacks:
    """Stacks all small leaves of one shape and one kind.

    Args:
      shapes: Shapes of L leaves.
      kinds: Further grouping key, such as the dtype; None: not stacked.

    Returns:
      The stacks, in the order of their first leaves.

    Example:
      >>> of_leaves([(2, 3), (3,), (2, 3)], ["float32"] * 3).members
      ((0, 2), (1,))
    """
    members: list[tuple[int, ...]] = []
    for shape, found in by_shape(shapes).items():
        alike = len({kinds[index] for index in found}) == 1 and kinds[found[0]] is not None
        if alike and 0 < math.prod(shape) <= _MAX_SIZE:
            members.append(tuple(found))
        else:
            members += [(index,) for index in found]
    return Stacks(tuple(sorted(members)))


def by_shape(shapes: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], list[int]]:
    """Indices of the leaves of each shape, shapes in the order of their first leaves."""
    found: dict[tuple[int, ...], list[int]] = {}
    for index, shape in enumerate(shapes):
        found.setdefault(tuple(shape), []).append(index)
    return found


def single(number: int) -> Stacks:
    """Stacks of one leaf each."""
    return Stacks(tuple((index,) for index in range(number)))


def stack(stacks: Stacks, leaves: Sequence[Array]) -> list[Array]:
    """The leaves as a list of stacks."""
    return [
        jnp.stack([leaves[index] for index in members]) if len(members) > 1 else leaves[members[0]]
        for members in stacks.members
    ]


def unstack(
    stacks: Stacks, arrays: Sequence[Array], places: Sequence[Int[Array, ""]]
) -> list[Array]:
    """Undoes `stack`.

    Args:
      stacks: The stacks.
      arrays: A list of stacks.
      places: The numbers from 0 on, at least as many as the largest stack has members, each
        `int32[]`; see `conditional.hidden`.

    Returns:
      The leaves.
    """
    leaves: dict[int, Array] = {}
    for members, array in zip(stacks.members, arrays, strict=True):
        if len(members) == 1:
            leaves[members[0]] = array
            continue
        for index, place in zip(members, places, strict=False):
            leaves[index] = jax.lax.dynamic_index_in_dim(
                array, place, keepdims=False, allow_negative_indices=False
            )
    return [leaves[index] for index in range(len(leaves))]


def each(count: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """Vectorizes a function of one leaf over a stack of `count`."""
    return function if count == 1 else jax.vmap(function)


def for_each(
    stacks: Stacks, functions: Sequence[Callable[..., Any]], *lists: Sequence[Any]
) -> list[Any]:
    """Applies a function to all members of each stack.

    Args:
      stacks: The stacks.
      functions: For each stack a function of one leaf of every list.
      *lists: Lists of stacks.

    Returns:
      The results, a list of stacks.
    """
    return [
        each(count, function)(*arrays)
        for count, function, *arrays in zip(stacks.counts, functions, *lists, strict=True)
    ]


def per_leaf(stacks: Stacks, values: np.ndarray) -> np.ndarray:
    """Static values of each leaf, given those of each stack."""
    found = np.zeros((sum(stacks.counts),), values.dtype)
    for members, value in zip(stacks.members, values, strict=True):
        found[list(members)] = value
    return found


def collect(
    stacks: Stacks, functions: Sequence[Callable[..., Array]], *lists: Sequence[Array]
) -> Float[Array, "leaves ..."]:
    """Results of a function for each leaf, in the order of the leaves.

    Args:
      stacks: The stacks, at least one.
      functions: For each stack a function of one leaf of every list.
      *lists: Lists of stacks.

    Returns:
      The results, stacked.
    """
    results = for_each(stacks, functions, *lists)
    found = [
        result if count > 1 else result[None]
        for count, result in zip(stacks.counts, results, strict=True)
    ]
    order = np.argsort(np.concatenate([np.array(members) for members in stacks.members]))
    joined = jnp.concatenate(found)
    return joined if np.all(np.diff(order) > 0) else joined[order]


def spread(
    stacks: Stacks, values: _T, numbers: Sequence[int | Int[Array, ""]] | None = None
) -> list[_T]:
    """Values of L leaves as lists of stacks.

    Args:
      stacks: The stacks.
      values: A pytree of vectors, each `[L]`.
      numbers: Index of the first leaf of each stack as traced integers, from `conditional.hidden`;
        None for constants.

    Returns:
      For each stack the tree of its values: scalars for a leaf, else a value of each member.
    """
    numbers = stacks.first if numbers is None else numbers
    # One gather for all stacks: a slice costs nothing where its values are used.
    order = np.concatenate([np.array(members) for members in stacks.members])
    ordered = values
    if np.any(np.diff(order) < 0):
        ordered = jax.tree.map(lambda vector: vector[order], values)
    found, start = [], 0
    for number, count in zip(numbers, stacks.counts, strict=True):
        if count == 1:
            found.append(jax.tree.map(lambda vector, at=number: vector[at], values))
        else:
            here = slice(start, start + count)
            found.append(jax.tree.map(lambda vector, at=here: vector[at], ordered))
        start += count
    return found

"""Leaves: layout of parameters, and means over each leaf.

The optimizer reads a sample of each leaf (`sampling.Sampling`, arrays `[leaves, samples]`), so that
leaves keep their shapes and sharding. Meta-training has tiny models in one flat vector
(`FlatLeaves`, arrays `[N]`). The arithmetic is the same in both layouts.
"""

from __future__ import annotations

from collections.abc import Sequence
import math
from typing import NamedTuple, Protocol, runtime_checkable

import chex
import jax
from jaxtyping import Array, Float, Float32, Int32
import numpy as np


@runtime_checkable  # Tests check annotations while they run.
class Leaves(Protocol):
    """L leaves with their parameters in arrays of one shape."""

    @property
    def is_matrix(self) -> Float32[np.ndarray, " leaves"]:
        """1 for leaves with two or more axes, else 0."""

    @property
    def fan_in(self) -> Float32[np.ndarray, " leaves"]:
        """Inputs of one unit of each leaf."""

    def means(
        self, arrays: Sequence[Float[Array, "*shape"]]
    ) -> Sequence[Float[Array, " leaves"]] | Float[Array, "arrays leaves"]:
        """Means of several arrays of parameters over each leaf."""

    def expand(self, values: Float[Array, "*batch leaves"]) -> Float[Array, "..."]:
        """One value per leaf, on the last axis, in a shape that broadcasts against parameters."""


class FlatLeaves(NamedTuple):
    """L leaves in sequence in a flat vector of N parameters; static.

    Attributes:
      sizes: Number of parameters of each leaf.
      is_matrix: As in `Leaves`.
      fan_in: As in `Leaves`.
      membership: `float32[N, leaves]`, 1 where a parameter belongs to a leaf.
    """

    sizes: tuple[int, ...]
    is_matrix: Float32[np.ndarray, " leaves"]
    fan_in: Float32[np.ndarray, " leaves"]
    membership: Float32[np.ndarray, "parameters leaves"]

    @classmethod
    def of(cls, params: chex.ArrayTree) -> FlatLeaves:
        """The layout of a pytree of arrays or of their shapes, in the order of its leaves."""
        leaves = jax.tree.leaves(params)
        sizes = tuple(leaf.size for leaf in leaves)
        return cls(
            sizes=sizes,
            is_matrix=is_matrix([leaf.shape for leaf in leaves]),
            fan_in=fan_ins([leaf.shape for leaf in leaves]),
            membership=np.eye(len(sizes), dtype=np.float32)[leaf_of(sizes)],
        )

    @property
    def shares(self) -> Float32[np.ndarray, "parameters leaves"]:
        """Weights of means: membership over the size of the leaf."""
        return self.membership / np.array(self.sizes, np.float32)

    def means(self, arrays: Sequence[Float[Array, " parameters"]]) -> Float[Array, "arrays leaves"]:
        """See `Leaves.means`."""
        return jax.numpy.stack(arrays) @ self.shares

    def expand(self, values: Float[Array, "*batch leaves"]) -> Float[Array, "*batch parameters"]:
        """See `Leaves.expand`."""
        return values @ self.membership.T  # Exact, and much faster on CPUs than indexing.


def is_matrix(shapes: Sequence[tuple[int, ...]]) -> Float32[np.ndarray, " leaves"]:
    """1 for shapes with two or more axes, else 0."""
    return np.array([len(shape) > 1 for shape in shapes], np.float32)


def fan_ins(shapes: Sequence[tuple[int, ...]]) -> Float32[np.ndarray, " leaves"]:
    """Product of all axes but the last, for each shape; 1 for vectors.

    Example:
      >>> fan_ins([(3, 3, 8, 16), (16,)]).tolist()
      [72.0, 1.0]
    """
    return np.array([max(math.prod(shape[:-1]), 1) for shape in shapes], np.float32)


def leaf_of(counts: Sequence[int]) -> Int32[np.ndarray, " members"]:
    """Leaf of each member, for `counts` members of every leaf: `int32[sum(counts)]`."""
    return np.repeat(np.arange(len(counts), dtype=np.int32), counts)

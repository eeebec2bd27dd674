"""A fixed sample of every leaf, from which the agent sees the leaf as a whole and learns.

Means over whole leaves would read every moment twice a step. A few thousand parameters of each
leaf, spread evenly over it, tell the same to a hundredth, at a cost that does not grow with the
model. Leaves that are small are seen whole.

The sample of a model of L leaves is one array, `[L, P]`, so that what is done for every leaf is
done for all of them at once, however many there are.
"""

from __future__ import annotations

from collections.abc import Sequence
import math
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int, Int32, Shaped
import numpy as np

from alphaopt_jax._learning import explorers

_IN_ALL, _AT_LEAST, _AT_MOST = 16384, 128, 4096  # Parameters sampled: of a model, of one leaf.
_GOLDEN = 0.6180339887498949
_SAFE: dict[str, Any] = {"mode": "promise_in_bounds", "wrap_negative_indices": False}


class Sampling(NamedTuple):
    """Which parameters of every leaf are sampled; everything is static.

    Attributes:
      shapes: Of the leaves.
      counts: How many of each leaf's parameters are sampled; 0 of empty leaves.
      positions: `int32[L, P]`, where they lie in the flattened leaf; zeros fill up.
      weights: `float32[L, P]`, 1 / count, and 0 where positions only fill up.
    """

    shapes: tuple[tuple[int, ...], ...]
    counts: tuple[int, ...]
    positions: Int32[np.ndarray, "leaves samples"]
    weights: Float32[np.ndarray, "leaves samples"]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of parameters of each leaf."""
        return tuple(math.prod(shape) for shape in self.shapes)


def of_shapes(shapes: Sequence[tuple[int, ...]]) -> Sampling:
    """Chooses the sample.

    Args:
      shapes: Of the leaves.

    Returns:
      The same sample for the same shapes, always.

    Example:
      >>> sampling = of_shapes([(3, 2), (100, 1000)])
      >>> sampling.counts
      (6, 4096)
      >>> sampling.positions.shape
      (2, 4096)
    """
    most = int(np.clip(_IN_ALL // max(len(shapes), 1), _AT_LEAST, _AT_MOST))
    sizes = [math.prod(shape) for shape in shapes]
    counts = tuple(min(size, most) for size in sizes)
    width = max(counts, default=0)
    positions = np.zeros((len(sizes), width), np.int32)
    weights = np.zeros((len(sizes), width), np.float32)
    for index, (size, count) in enumerate(zip(sizes, counts, strict=True)):
        positions[index, :count] = _spread(size, count)
        weights[index, :count] = 1.0 / max(count, 1)
    return Sampling(tuple(tuple(shape) for shape in shapes), counts, positions, weights)


def _spread(size: int, count: int) -> np.ndarray:
    """One position of each of `count` near-equal strata.

    Within its stratum each lies elsewhere, by the golden ratio: steps of equal length would meet
    always the same columns of a matrix.
    """
    edges = np.arange(count + 1, dtype=np.int64) * size // max(count, 1)
    within = np.modf(_GOLDEN * np.arange(count))[0]
    return (edges[:-1] + np.floor(within * np.diff(edges))).astype(np.int32)


def read(
    leaves: Sequence[Float[Array, "..."]], sampling: Sampling
) -> Float32[Array, "leaves samples"]:
    """The sampled values, `float32[L, P]`, of leaves of any type, shape and sharding.

    Of leaves that are sharded only these values are gathered.
    """
    rows = [
        _read(leaf, positions, count)
        for leaf, positions, count in zip(leaves, sampling.positions, sampling.counts, strict=True)
    ]
    return jnp.stack(rows) if rows else jnp.zeros((0, 0), jnp.float32)


def means(values: Float[Array, "leaves samples"], sampling: Sampling) -> Float[Array, " leaves"]:
    """Mean of each leaf's sample: from `[L, P]` to `[L]`; 0 for empty leaves."""
    return jnp.sum(values * sampling.weights, axis=-1)


def write(
    leaves: Sequence[Float[Array, "..."]],
    which: Int[Array, " explorers"],
    values: Float[Array, " explorers"],
    counts: Sequence[int],
    sampling: Sampling,
) -> list[Float[Array, "..."]]:
    """Puts values in the places of sampled parameters; the leaves' sharding stays.

    Args:
      leaves: Arrays of the sampled shapes.
      which: `int32[M]`, numbers within the sample of each leaf, leaf after leaf, none twice.
      values: `[M]`, what to put there.
      counts: How many of them belong to each leaf.
      sampling: The sample.

    Returns:
      The leaves with the values in them.
    """
    leaf_of = explorers.leaf_of(counts)
    positions = jnp.asarray(sampling.positions)[leaf_of, which]
    # The indices along all axes, of all leaves at once; axes that a leaf lacks stand in front.
    axes = max((len(shape) for shape in sampling.shapes), default=0)
    lengths = np.array([(1,) * (axes - len(shape)) + shape for shape in sampling.shapes], np.int32)
    strides = np.cumprod(np.c_[lengths[:, 1:], np.ones(len(lengths), np.int32)][:, ::-1], axis=1)
    indices = positions[:, None] // strides[:, ::-1][leaf_of] % np.maximum(lengths, 1)[leaf_of]
    written, start = [], 0
    for leaf, count in zip(leaves, counts, strict=True):
        here = slice(start, start + count)
        written.append(_write(leaf, indices[here, axes - leaf.ndim :], values[here]))
        start += count
    return written


def _write(leaf: chex.Array, indices: chex.Array, values: chex.Array) -> chex.Array:
    if not values.size:
        return leaf
    if leaf.ndim == 0:
        return values[0].astype(leaf.dtype)
    at = leaf.at[tuple(indices[:, axis] for axis in range(leaf.ndim))]
    return at.set(values.astype(leaf.dtype), unique_indices=True, **_SAFE, **_like(leaf))


def _read(leaf: chex.Array, positions: np.ndarray, count: int) -> chex.Array:
    if not count:
        return jnp.zeros(positions.shape, jnp.float32)
    if leaf.ndim == 0:
        return jnp.broadcast_to(leaf.astype(jnp.float32), positions.shape)
    at = leaf.at[np.unravel_index(positions, leaf.shape)]
    return at.get(**_SAFE, **_replicated(leaf)).astype(jnp.float32)


def is_explicit(leaf: Shaped[Array, "..."]) -> bool:
    """Whether a leaf's type says how it is sharded."""
    return jax.sharding.AxisType.Explicit in jax.typeof(leaf).sharding.mesh.axis_types


def _replicated(leaf: chex.Array) -> dict[str, jax.sharding.NamedSharding]:
    """Indexing an explicitly sharded array must say how its result is sharded."""
    if not is_explicit(leaf):
        return {}
    mesh = jax.typeof(leaf).sharding.mesh
    return {"out_sharding": jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())}


def _like(leaf: chex.Array) -> dict[str, jax.sharding.NamedSharding]:
    return {"out_sharding": jax.typeof(leaf).sharding} if is_explicit(leaf) else {}

"""A fixed sample of each leaf, for statistics of leaves and for exploration.

Means over whole leaves would read every moment twice a step. A few thousand parameters of each
leaf, spread evenly over it, give the same means to within a percent, at a cost independent of the
size of the model. Small leaves are sampled whole.

The sample of L leaves is one array, `[L, P]`, so that all leaves are processed at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
import functools
import math
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int, Int32, Shaped
import numpy as np

from alphaopt_jax._agent import differentiable
from alphaopt_jax._agent import leaves as leaves_lib
from alphaopt_jax._agent import stacks as stacks_lib
from alphaopt_jax._agent.stacks import Stacks

_PER_MODEL, _MIN_PER_LEAF, _MAX_PER_LEAF = 16384, 128, 4096  # Sampled parameters.
_MIN_SHARE = 1e-4  # Less than one of the sampled parameters of a leaf.
_GOLDEN = 0.6180339887498949
_SAFE: dict[str, Any] = {"mode": "promise_in_bounds", "wrap_negative_indices": False}


class Sampling(NamedTuple):
    """The sampled parameters of each leaf, a layout of `leaves.Leaves`; everything is static.

    Attributes:
      shapes: Shape of each leaf.
      counts: Number of sampled parameters of each leaf; 0 for empty leaves.
      positions: `int32[L, P]`, indices into the flattened leaf, padded with zeros.
      weights: `float32[L, P]`, 1 / count; 0 for padding.
    """

    shapes: tuple[tuple[int, ...], ...]
    counts: tuple[int, ...]
    positions: Int32[np.ndarray, "leaves samples"]
    weights: Float32[np.ndarray, "leaves samples"]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of parameters of each leaf."""
        return tuple(math.prod(shape) for shape in self.shapes)

    @property
    def is_matrix(self) -> Float32[np.ndarray, " leaves"]:
        """See `leaves.Leaves`."""
        return leaves_lib.is_matrix(self.shapes)

    @property
    def fan_in(self) -> Float32[np.ndarray, " leaves"]:
        """See `leaves.Leaves`."""
        return leaves_lib.fan_ins(self.shapes)

    def means(
        self, arrays: Sequence[Float[Array, "leaves samples"]]
    ) -> list[Float[Array, " leaves"]]:
        """See `leaves.Leaves`; 0 for empty leaves."""
        return [jnp.sum(array * self.weights, axis=-1) for array in arrays]

    def expand(self, values: Float[Array, "*batch leaves"]) -> Float[Array, "*batch leaves 1"]:
        """See `leaves.Leaves`."""
        return values[..., None]


def of_shapes(shapes: Sequence[tuple[int, ...]]) -> Sampling:
    """Chooses the sample, a function of the shapes alone.

    Args:
      shapes: Shape of each leaf.

    Returns:
      The sample.

    Example:
      >>> sampling = of_shapes([(3, 2), (100, 1000)])
      >>> sampling.counts
      (6, 4096)
      >>> sampling.positions.shape
      (2, 4096)
    """
    most = int(np.clip(_PER_MODEL // max(len(shapes), 1), _MIN_PER_LEAF, _MAX_PER_LEAF))
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
    """One position in each of `count` strata of nearly equal size.

    Positions within the strata follow the golden ratio: equal steps would always hit the same
    columns of a matrix.
    """
    edges = np.arange(count + 1, dtype=np.int64) * size // max(count, 1)
    within = np.modf(_GOLDEN * np.arange(count))[0]
    return (edges[:-1] + np.floor(within * np.diff(edges))).astype(np.int32)


def read(
    leaves: Sequence[Float[Array, "..."]], sampling: Sampling, stacks: Stacks | None = None
) -> Float[Array, "leaves samples"]:
    """Reads the sampled values from leaves of any type, shape and sharding.

    From sharded leaves only these values are gathered.

    Args:
      leaves: Arrays of the sampled shapes, or a list of stacks of them.
      sampling: The sample.
      stacks: The stacks; None for leaves.

    Returns:
      `[L, P]`, in `float32` or, if wider, the widest type of the leaves.
    """
    dtype = widest_type(leaf.dtype for leaf in leaves)
    if not leaves:
        return jnp.zeros((0, 0), dtype)
    if stacks is None:
        stacks = stacks_lib.single(len(leaves))
    readers = [
        functools.partial(
            _read, positions=sampling.positions[first], count=sampling.counts[first], dtype=dtype
        )
        for first in stacks.first
    ]
    return stacks_lib.collect(stacks, readers, leaves)


def widest_type(dtypes: Iterable[jnp.dtype]) -> jnp.dtype:
    """`float64` if it is one of the types and enabled, else `float32`; no implicit promotion."""
    is_double = jnp.dtype(jnp.float64) in list(dtypes)  # NumPy has it even if JAX does not.
    return jax.dtypes.canonicalize_dtype(jnp.float64 if is_double else jnp.float32)


def finite(
    values: Float[Array, "leaves samples"], sampling: Sampling
) -> Float[Array, "leaves samples"]:
    """Replaces values that are not finite by the root mean square of their leaf's finite ones.

    A leaf may hold minus infinity as a mask; its other parameters are trained.
    """
    is_finite = jnp.isfinite(values)
    share, square = sampling.means(
        [is_finite.astype(jnp.float32), jnp.square(jnp.where(is_finite, values, 0.0))]
    )
    usual = differentiable.sqrt(square / jnp.maximum(share, _MIN_SHARE))
    return jnp.where(is_finite, values, usual[:, None])


def write(
    leaves: Sequence[Float[Array, "..."]],
    which: Int[Array, " explorers"],
    values: Float[Array, " explorers"],
    counts: Sequence[int],
    sampling: Sampling,
) -> list[Float[Array, "..."]]:
    """Writes values to sampled positions of the leaves, keeping the leaves' sharding.

    Args:
      leaves: Arrays of the sampled shapes.
      which: `int32[M]`, distinct indices into the sample of each leaf, leaf after leaf.
      values: `[M]`, the values to write.
      counts: Number of values for each leaf, summing to M.
      sampling: The sample.

    Returns:
      The leaves with the values written.
    """
    leaf_of = leaves_lib.leaf_of(counts)
    positions = jnp.asarray(sampling.positions)[leaf_of, which]
    # Indices along all axes, for all leaves at once; missing axes are padded in front.
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


def _read(leaf: chex.Array, positions: np.ndarray, count: int, dtype: jnp.dtype) -> chex.Array:
    if not count:
        return jnp.zeros(positions.shape, dtype)
    if leaf.ndim == 0:
        return jnp.broadcast_to(leaf.astype(dtype), positions.shape)
    at = leaf.at[np.unravel_index(positions, leaf.shape)]
    return at.get(**_SAFE, **_replicated(leaf)).astype(dtype)


def is_explicit(leaf: Shaped[Array, "..."]) -> bool:
    """True if the sharding of a leaf is part of its type."""
    return jax.sharding.AxisType.Explicit in jax.typeof(leaf).sharding.mesh.axis_types


def partitioned(
    function: Callable[..., Float[Array, "..."]],
    leaf: Float[Array, "..."],
    *others: Float[Array, "..."],
    replicated: bool,
) -> Float[Array, "..."]:
    """Applies a function to a leaf of any sharding; the compiler chooses its partition.

    Args:
      function: A function of the arrays; it closes over no other.
      leaf: An array of any sharding.
      *others: More arrays.
      replicated: True for the whole result on every device; else it is sharded like the leaf.

    Returns:
      The result.
    """
    if not is_explicit(leaf):
        return function(leaf, *others)
    sharding = _replicated(leaf)["out_sharding"] if replicated else jax.typeof(leaf).sharding
    return jax.sharding.auto_axes(function, out_sharding=sharding)(leaf, *others)


def _replicated(leaf: chex.Array) -> dict[str, jax.sharding.NamedSharding]:
    """Indexing an explicitly sharded array needs the sharding of the result."""
    if not is_explicit(leaf):
        return {}
    mesh = jax.typeof(leaf).sharding.mesh
    return {"out_sharding": jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())}


def _like(leaf: chex.Array) -> dict[str, jax.sharding.NamedSharding]:
    return {"out_sharding": jax.typeof(leaf).sharding} if is_explicit(leaf) else {}

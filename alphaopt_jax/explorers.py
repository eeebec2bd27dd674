"""The few parameters that explore and teach: which ones, and how to reach into their leaves.

Learning costs O(explorers), whatever the size of the model. Leaves are never flattened, and where
they are sharded only the explorers' values are gathered.
"""

from __future__ import annotations

from collections.abc import Sequence
import math
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

AXIS_EXPLICIT = jax.sharding.AxisType.Explicit


def allocate(sizes: Sequence[int], num_explorers: int) -> tuple[int, ...]:
    """Shares the explorers out among leaves in proportion to the root of their sizes.

    The root lets small leaves (biases, norms) be heard beside large ones. Every leaf that is not
    empty has at least one explorer, and none has more than it has parameters.

    Args:
      sizes: Number of parameters in each leaf.
      num_explorers: About how many to share out.

    Returns:
      Number of explorers in each leaf.

    Example:
      >>> allocate([900, 100, 1, 0], 41)
      (30, 10, 1, 0)
    """
    total = sum(math.sqrt(size) for size in sizes)
    shares = (int(num_explorers * math.sqrt(size) / total) if size else 0 for size in sizes)
    return tuple(min(size, max(share, 1)) for size, share in zip(sizes, shares, strict=True))


def sample(key: chex.PRNGKey, sizes: Sequence[int], counts: Sequence[int]) -> chex.Array:
    """Draws explorers without repetition: one of each of `count` near-equal strata of a leaf.

    Args:
      key: Consumed.
      sizes: Number of parameters in each leaf.
      counts: Number of explorers in each leaf, from `allocate`.

    Returns:
      `int32[sum(counts)]`: positions within the flattened leaves, leaf after leaf.
    """
    if not sum(counts):
        return jnp.zeros((0,), jnp.int32)
    uniform = jax.random.uniform(key, (sum(counts),), jnp.float32)
    positions, start = [], 0
    for size, count in zip(sizes, counts, strict=True):
        edges = np.arange(count + 1) * size // max(count, 1)
        first, width = edges[:-1].astype(np.int32), np.diff(edges).astype(np.int32)
        within = jnp.floor(uniform[start : start + count] * width).astype(jnp.int32)
        positions.append(
            first + jnp.minimum(within, width - 1)
        )  # The product can round up to width.
        start += count
    return jnp.concatenate(positions)


def split(values: chex.Array, counts: Sequence[int]) -> list[chex.Array]:
    """Cuts `[sum(counts), ...]` into one piece for every leaf."""
    pieces, start = [], 0
    for count in counts:
        pieces.append(values[start : start + count])
        start += count
    return pieces


def gather(
    leaves: Sequence[chex.Array], positions: chex.Array, counts: Sequence[int]
) -> chex.Array:
    """Reads the explorers' values, `[sum(counts)]`, from leaves of any shape and sharding."""
    values = [
        _indexed(leaf, at).get(**_replicated(leaf))
        for leaf, at in zip(leaves, split(positions, counts), strict=True)
        if at.size
    ]
    return jnp.concatenate(values) if values else jnp.zeros((0,), jnp.float32)


def add(
    leaves: Sequence[chex.Array],
    positions: chex.Array,
    values: chex.Array,
    counts: Sequence[int],
) -> list[chex.Array]:
    """Adds `values`, `[sum(counts)]`, to the leaves at the explorers' positions."""
    pieces = zip(leaves, split(positions, counts), split(values, counts), strict=True)
    return [_add(leaf, at, value) for leaf, at, value in pieces]


def _add(leaf: chex.Array, positions: chex.Array, values: chex.Array) -> chex.Array:
    if not positions.size:
        return leaf
    if leaf.ndim == 0:
        return leaf + values[0]
    return _indexed(leaf, positions).add(values, **_like(leaf))


def _indexed(leaf: chex.Array, positions: chex.Array) -> Any:
    if leaf.ndim == 0:
        return jnp.broadcast_to(leaf, (1,)).at[positions]
    return leaf.at[jnp.unravel_index(positions, leaf.shape)]


def _is_explicit(leaf: chex.Array) -> bool:
    return AXIS_EXPLICIT in jax.typeof(leaf).sharding.mesh.axis_types


def _replicated(leaf: chex.Array) -> dict[str, jax.sharding.NamedSharding]:
    """Indexing an explicitly sharded array must say how its result is sharded."""
    if not _is_explicit(leaf):
        return {}
    mesh = jax.typeof(leaf).sharding.mesh
    return {"out_sharding": jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())}


def _like(leaf: chex.Array) -> dict[str, jax.sharding.NamedSharding]:
    return {"out_sharding": jax.typeof(leaf).sharding} if _is_explicit(leaf) else {}

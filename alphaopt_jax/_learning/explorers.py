"""Explorers: a few sampled parameters with exploration noise in their rates.

The cost of learning is proportional to the number of explorers and independent of the size of the
model. An explorer's observation comes from the sample of its leaf (`sampling.py`); only its rate is
written into the leaf.
"""

from __future__ import annotations

from collections.abc import Sequence
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Int32, Key, Shaped
import numpy as np

from alphaopt_jax._agent.leaves import leaf_of


def allocate(sizes: Sequence[int], available: Sequence[int], num_explorers: int) -> tuple[int, ...]:
    """Allocates explorers to leaves in proportion to the root of their sizes.

    The root gives small leaves (biases, normalizations) a share beside large ones. Every leaf that
    is not empty has at least one explorer, and at most as many as are available.

    Args:
      sizes: Number of parameters of each leaf.
      available: Number of parameters of each leaf that can explore.
      num_explorers: Approximate total.

    Returns:
      Number of explorers in each leaf.

    Example:
      >>> allocate([900, 100, 1, 0], [900, 8, 1, 0], 41)
      (30, 8, 1, 0)
    """
    total = sum(math.sqrt(size) for size in sizes)
    shares = (int(num_explorers * math.sqrt(size) / total) if size else 0 for size in sizes)
    return tuple(min(most, max(share, 1)) for most, share in zip(available, shares, strict=True))


def draw(
    key: Key[Array, ""], available: Sequence[int], counts: Sequence[int]
) -> Int32[Array, " explorers"]:
    """Draws distinct explorers, one from each of `count` nearly equal strata of a leaf.

    Args:
      key: Consumed.
      available: Number of parameters of each leaf that can explore.
      counts: Number of explorers in each leaf, from `allocate`.

    Returns:
      `int32[sum(counts)]`: indices among the available parameters, leaf after leaf.
    """
    if not sum(counts):
        return jnp.zeros((0,), jnp.int32)
    edges = [
        np.arange(count + 1) * most // max(count, 1)
        for most, count in zip(available, counts, strict=True)
    ]
    first = np.concatenate([each[:-1] for each in edges]).astype(np.int32)
    width = np.concatenate([np.diff(each) for each in edges]).astype(np.int32)
    uniform = jax.random.uniform(key, first.shape, jnp.float32)
    within = jnp.floor(uniform * width.astype(np.float32)).astype(jnp.int32)
    return jnp.minimum(within, width - 1) + first  # The product can round up to width.


def take(
    values: Shaped[Array, "leaves samples"],
    explorers: Int[Array, " explorers"],
    counts: Sequence[int],
) -> Shaped[Array, " explorers"]:
    """The explorers' values, `[sum(counts)]`, among those of all available parameters, `[L, P]`."""
    return jnp.asarray(values)[leaf_of(counts), explorers]

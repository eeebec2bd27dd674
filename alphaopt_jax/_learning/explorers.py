"""The few parameters that explore and teach: which of the sampled ones they are.

Learning costs O(explorers), whatever the size of the model. All that is known of an explorer comes
from its leaf's sample (`samples.py`); only its rate is written into the leaf.
"""

from __future__ import annotations

from collections.abc import Sequence
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Int32, Key, Shaped
import numpy as np


def allocate(sizes: Sequence[int], available: Sequence[int], num_explorers: int) -> tuple[int, ...]:
    """Shares the explorers out among leaves in proportion to the root of their sizes.

    The root lets small leaves (biases, norms) be heard beside large ones. Every leaf that is not
    empty has at least one explorer, and none has more than are available.

    Args:
      sizes: Number of parameters in each leaf.
      available: How many of them may explore.
      num_explorers: About how many to share out.

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
    """Draws explorers without repetition: one of each of `count` near-equal strata of a leaf.

    Args:
      key: Consumed.
      available: How many parameters of each leaf may explore.
      counts: Number of explorers in each leaf, from `allocate`.

    Returns:
      `int32[sum(counts)]`: numbers within what is available, leaf after leaf.
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
    within = jnp.floor(uniform * width).astype(jnp.int32)
    return jnp.minimum(within, width - 1) + first  # The product can round up to width.


def leaf_of(counts: Sequence[int]) -> Int32[np.ndarray, " explorers"]:
    """The leaf of each of `counts` explorers in every leaf, `int32[sum(counts)]`."""
    return np.repeat(np.arange(len(counts), dtype=np.int32), counts)


def take(
    values: Shaped[Array, "leaves samples"],
    explorers: Int[Array, " explorers"],
    counts: Sequence[int],
) -> Shaped[Array, " explorers"]:
    """The explorers' own, `[sum(counts)]`, of values of all that are available, `[L, P]`."""
    return jnp.asarray(values)[leaf_of(counts), explorers]

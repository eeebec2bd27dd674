"""Layout of the leaves of a step: stacks, sample and blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import chex
import jax
from jaxtyping import Array, Bool, Int

from alphaopt_jax._agent import conditional, rotation, sampling
from alphaopt_jax._agent import stacks as stacks_lib
from alphaopt_jax._agent.rotation import Rotation
from alphaopt_jax._agent.sampling import Sampling
from alphaopt_jax._agent.stacks import Stacks
from alphaopt_jax.config import AlphaOptConfig


class Layout(NamedTuple):
    """The stacks, sample and blocks of L leaves; static except for the last three fields.

    Integers that differ between leaves of one shape are traced arrays, so that these leaves share
    compiled programs.

    Attributes:
      stacks: The stacks.
      sampled: The sample of the leaves.
      blocks: The blocks of the stacks.
      starts: Indices of the first blocks; see `rotation.Starts`.
      numbers: Index of the first leaf of each stack, each `int32[]`.
      places: Integers from 0, as many as the largest stack has members, each `int32[]`.
    """

    stacks: Stacks
    sampled: Sampling
    blocks: Rotation
    starts: rotation.Starts
    numbers: Sequence[Int[Array, ""]]
    places: Sequence[Int[Array, ""]]


def stacks_of(*trees: Sequence[chex.Array]) -> Stacks:
    """The stacks of leaves, given their gradients and all arrays of the same shapes.

    Explicitly sharded leaves are not stacked.
    """

    def kind(arrays: Sequence[chex.Array]) -> tuple[object, ...] | None:
        if any(sampling.is_explicit(array) for array in arrays):
            return None
        return tuple(jax.typeof(array) for array in arrays)

    shapes = [leaf.shape for leaf in trees[0]]
    return stacks_lib.of_leaves(shapes, [kind(arrays) for arrays in zip(*trees, strict=True)])


def rotation_of(shapes: Sequence[tuple[int, ...]], config: AlphaOptConfig) -> Rotation:
    """The blocks of leaves of these shapes, or none in the parameters' own coordinates."""
    return rotation.of_shapes(shapes, config.agent.block_size)


def layout_of(
    stacks: Stacks,
    shapes: Sequence[tuple[int, ...]],
    always: Bool[Array, ""],
    config: AlphaOptConfig,
) -> Layout:
    """The layout of leaves of these shapes.

    Args:
      stacks: The stacks.
      shapes: Shapes of the leaves.
      always: True, but traced, so that integers that depend on it are traced too.
      config: The constants.

    Returns:
      The layout.
    """
    blocks = rotation_of(shapes, config).stacked(stacks)
    starts, numbers, places = conditional.hidden(
        (blocks.starts, stacks.first, tuple(range(max(stacks.counts)))), always
    )
    return Layout(stacks, sampling.of_shapes(shapes), blocks, starts, numbers, places)

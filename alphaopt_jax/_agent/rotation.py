"""Rotated coordinates: blocks of each matrix in the eigenbasis of its gradients' second moments.

The second moments of a matrix's gradients G, over its rows and over its columns, are `E[G G^T]` and
`E[G^T G]`. In their eigenbases the components of the gradient are nearly uncorrelated, so that a
learning rate for each coordinate is nearly enough. Shampoo (Gupta et al. 2018)
preconditions with roots of these matrices; SOAP (Vyas et al. 2024) runs Adam in their eigenbases,
as here; K-FAC (Martens & Grosse 2015) derives them as factors of the curvature.

Rows and columns are cut into blocks of at most `AgentConfig.block_size`, each with a basis of its
own. The operations per parameter are proportional to the width of a block; the memory per parameter
falls with the size of the leaf. One step of orthogonal iteration, `Q <- qr(C Q)`, refreshes a
basis. Short vectors have one block. Long vectors, scalars and very long sides (a vocabulary) keep
the parameters' own coordinates.

Rotation keeps the shapes of leaves, so samples, shardings and moments keep their layout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

from alphaopt_jax._agent import conditional, orthogonal, sampling
from alphaopt_jax._agent.stacks import Stacks, by_shape, each

_MAX_DIRECTION = 3.0
"""Bound on the components of Adam's direction in rotated coordinates. After a basis turns, second
moments of the old coordinates normalize gradients of the new ones."""
_MAX_SIDE = 10_000
"""Longest side that is rotated, as in SOAP: few rows of an embedding have gradients in one step."""
_MIN_WINDOW = 20.0
"""Averaging window of the second moments, in steps; longer for few gradients per step."""
MOMENTS_INTERVAL = 4
"""Steps between two updates of the second moments of blocks with many gradients per step."""
_EARLY = 64.0
"""First steps, in which all gradients are added: the statistics change fast."""
_MANY_GRADIENTS = 4
"""Gradients per coordinate and step from which every fourth update is enough; blocks count as at
least 32 wide. In such matrices second moments cost as much as the rotation itself."""
_NO_MOMENTS = 1e-30
_RIDGE = 1e-6
"""Share of the identity in second moments, so that directions without a gradient keep theirs."""


class Side(NamedTuple):
    """One side of a leaf that is rotated; everything is static.

    Attributes:
      axis: 0 for the rows of the leaf as a matrix, 1 for its columns.
      blocks: Number of blocks.
      width: Length of a block.
      group: Index of the arrays in `Bases` that hold the blocks.
      start: Index of the first block there.
      gradients_per_step: Number of gradients that a step adds to a block: the length of the other
        side.
    """

    axis: int
    blocks: int
    width: int
    group: int
    start: int
    gradients_per_step: int

    @property
    def interval(self) -> int:
        """Steps between two updates of the second moments."""
        many = _MANY_GRADIENTS * max(self.width, 32)
        return MOMENTS_INTERVAL if self.gradients_per_step >= many else 1


Starts = tuple[tuple[int | Int[Array, ""], ...], ...]
"""`Side.start` of every rotated side of every leaf; arrays, so that programs can be shared."""


class Rotation(NamedTuple):
    """The blocks of L leaves, or of L stacks of leaves (`stacks.Stacks`); everything is static.

    Blocks of all leaves of one shape are adjacent, so that those of a stack are a slice.

    Attributes:
      shapes: Shape of each leaf, or of the members of each stack.
      sides: Rotated sides of each leaf, or of the first member of each stack; at most two.
      widths: Width of the blocks in each group, all powers of two up to the block size; narrower
        blocks are padded.
      counts: Number of blocks in each group.
      members: Number of members of each stack; 1 for a leaf.
    """

    shapes: tuple[tuple[int, ...], ...]
    sides: tuple[tuple[Side, ...], ...]
    widths: tuple[int, ...]
    counts: tuple[int, ...]
    members: tuple[int, ...]

    def stacked(self, stacks: Stacks) -> Rotation:
        """The same blocks for lists of stacks."""
        first = stacks.first
        return self._replace(
            shapes=tuple(self.shapes[index] for index in first),
            sides=tuple(self.sides[index] for index in first),
            members=stacks.counts,
        )

    @property
    def array_shapes(self) -> list[tuple[int, int, int]]:
        """Shapes of the arrays in `Bases`."""
        sizes = zip(self.counts, self.widths, strict=True)
        # At least one block: libraries for checkpoints reject empty arrays.
        return [(max(count, 1), width, width) for count, width in sizes]

    @property
    def is_any_rotated(self) -> bool:
        """Whether some leaf is rotated."""
        return any(self.counts)

    @property
    def starts(self) -> Starts:
        """Index of the first block of every side."""
        return tuple(tuple(side.start for side in sides) for sides in self.sides)

    @property
    def is_rotated(self) -> Float[np.ndarray, " leaves"]:
        """1 for leaves with a rotated side, else 0."""
        return np.array([bool(sides) for sides in self.sides], np.float32)


class Bases(NamedTuple):
    """Second moments and bases of all blocks, one array for each group; all `float32`.

    Attributes:
      moments: Averages of the gradients' second moments, each `[blocks, width, width]`. Gradients
        are measured in units of their leaf's root mean square.
      bases: Orthogonal matrices of the same shapes; a column is a coordinate.
    """

    moments: tuple[Float[Array, "blocks width width"], ...]
    bases: tuple[Float[Array, "blocks width width"], ...]


def of_shapes(shapes: Sequence[tuple[int, ...]], block_size: int) -> Rotation:
    """Cuts leaves into blocks, a function of their shapes alone.

    Args:
      shapes: Shape of each leaf. All axes but the last are the rows of a matrix.
      block_size: Largest width of a block; 0 for no blocks.

    Returns:
      The blocks.

    Example:
      >>> rotation = of_shapes([(784, 512), (10,), (100,)], block_size=32)
      >>> [[(side.blocks, side.width) for side in sides] for sides in rotation.sides]
      [[(28, 28), (16, 32)], [(1, 10)], []]
    """
    cuts = [_cuts(shape, block_size) for shape in shapes]
    # The same groups for all models: optax compares states of different parameters.
    padded = [1 << power for power in range(1, (block_size - 1).bit_length() + 1)]
    counts = [0] * len(padded)
    sides: list[list[Side]] = [[] for _ in cuts]
    for members in by_shape(shapes).values():
        for axis, count, width, gradients in cuts[members[0]]:
            group = padded.index(_padded(width))
            for index in members:
                sides[index].append(Side(axis, count, width, group, counts[group], gradients))
                counts[group] += count
    return Rotation(
        tuple(tuple(shape) for shape in shapes),
        tuple(tuple(found) for found in sides),
        tuple(padded),
        tuple(counts),
        (1,) * len(sides),
    )


def _cuts(shape: tuple[int, ...], block_size: int) -> list[tuple[int, int, int, int]]:
    """Axis, number of blocks, their width and their gradients per step, for each rotated side."""
    if math.prod(shape) < 2 or not block_size:
        return []
    sides = _matrix_shape(shape)
    if min(sides) == 1:
        length = max(sides)
        if length > block_size:
            return []
        return [(sides.index(length), 1, length, 1)]
    found = []
    for axis, length in enumerate(sides):
        if length <= _MAX_SIDE:
            width = _width(length, block_size)
            found.append((axis, -(-length // width), width, sides[1 - axis]))
    return found


def _matrix_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    return math.prod(shape[:-1]), shape[-1]


def _width(length: int, block_size: int) -> int:
    """The largest divisor of a length among usual widths, else a width with little padding."""
    if length <= block_size:
        return length
    for width in range(block_size, block_size // 2, -1):
        if length % width == 0:
            return width
    return -(-length // -(-length // block_size))


def _padded(width: int) -> int:
    return 1 << (width - 1).bit_length()


def init(rotation: Rotation) -> Bases:
    """Initial bases: zero moments, identity matrices."""
    none = tuple(jnp.zeros(shape, jnp.float32) for shape in rotation.array_shapes)
    return blank(Bases(none, none))


def blank(bases: Bases) -> Bases:
    """The bases before the first step, for blocks of the same sizes."""
    return Bases(
        jax.tree.map(jnp.zeros_like, bases.moments),
        tuple(jnp.zeros_like(each) + _identity(each) for each in bases.bases),
    )


def _identity(matrices: Array) -> Array:
    """Identity matrices, broadcast explicitly for `jax_numpy_rank_promotion`."""
    return jnp.broadcast_to(jnp.eye(matrices.shape[-1], dtype=jnp.float32), matrices.shape)


def add_gradients(
    rotation: Rotation,
    bases: Bases,
    grads: Sequence[Callable[[], Float[Array, "..."]]],
    step: Float[Array, ""],
    starts: Starts,
) -> Bases:
    """Adds one step's gradients to the second moments of all blocks for which it is due.

    Args:
      rotation: The blocks.
      bases: The bases.
      grads: Functions that compute the gradients of the leaves (or stacks) in the parameters' own
        coordinates, in units of their leaf's root mean square, called where they are needed.
      step: Number of the step, from 1, `float32[]`.
      starts: `rotation.starts`.

    Returns:
      The bases with new moments.
    """

    def added(bases: Bases, interval: int) -> Bases:
        moments = list(bases.moments)
        for grad, sides, first, members in zip(
            grads, rotation.sides, starts, rotation.members, strict=True
        ):
            for side, start in zip(sides, first, strict=True):
                if side.interval != interval:
                    continue
                second_moments = each(members, functools.partial(_second_moments, side=side))
                new = sampling.partitioned(second_moments, grad(), replicated=True)
                # Uniform average until the window is full.
                steps = jnp.where(step <= _EARLY, 1.0, float(interval))
                weight = steps / jnp.minimum(step, _window(side))
                everything = moments[side.group]
                old = _blocks(bases.moments[side.group], side, start, members)
                moments[side.group] = jax.lax.dynamic_update_slice(
                    everything,
                    (old + weight * (new - old)).reshape(-1, side.width, side.width),
                    _corner(start),
                    allow_negative_indices=False,
                )
        return bases._replace(moments=tuple(moments))

    every_step = added(bases, 1)
    if all(side.interval == 1 for sides in rotation.sides for side in sides):
        return every_step
    # These include the steps at which bases are refreshed.
    due = (step <= _EARLY) | (jnp.mod(step, float(MOMENTS_INTERVAL)) == 1.0)
    return conditional.cond(due, lambda: added(every_step, MOMENTS_INTERVAL), lambda: every_step)


def _blocks(blocks: Array, side: Side, start: int | Array, members: int) -> Array:
    """The blocks of one side of a leaf or of a stack of leaves, without padding."""
    size = (members * side.blocks, side.width, side.width)
    found = jax.lax.dynamic_slice(blocks, _corner(start), size, allow_negative_indices=False)
    return found if members == 1 else found.reshape(members, side.blocks, *size[1:])


def _corner(start: int | Array) -> tuple[Array, ...]:
    # `int32` also with 64-bit types enabled.
    return tuple(jnp.asarray(index, jnp.int32) for index in (start, 0, 0))


def _second_moments(grad: Array, *, side: Side) -> Array:
    """Second moments of a gradient for the blocks of one side, `[blocks, width, width]`."""
    matrix = _as_matrix(grad)
    if side.blocks == 1:  # Without an axis for blocks no transposition is needed.
        subscripts = "ab,cb->ac" if side.axis == 0 else "ab,ac->bc"
        return orthogonal.einsum(subscripts, matrix, matrix)[None] / side.gradients_per_step
    blocks = _cut(matrix, side)
    subscripts = "iab,icb->iac" if side.axis == 0 else "aib,aic->ibc"
    return orthogonal.einsum(subscripts, blocks, blocks) / side.gradients_per_step


def _window(side: Side) -> float:
    """Averaging window of a block's second moments, in steps."""
    return max(_MIN_WINDOW, 4.0 * side.width / side.gradients_per_step)


def refreshed(rotation: Rotation, bases: Bases, step: Float[Array, ""]) -> Bases:
    """One step of orthogonal iteration for every basis with enough gradients.

    A basis stays the identity until its block has had as many gradients as coordinates.

    Args:
      rotation: The blocks.
      bases: The bases, with this step's moments.
      step: Number of the step, from 1, `float32[]`.

    Returns:
      The new bases.
    """
    needed = [np.zeros((count, 1, 1), np.float32) for count in rotation.counts]
    for sides, members in zip(rotation.sides, rotation.members, strict=True):
        for side in sides:
            end = side.start + members * side.blocks
            needed[side.group][side.start : end] = side.width / side.gradients_per_step
    new = []
    for moments, old, steps in zip(bases.moments, bases.bases, needed, strict=True):
        if not steps.size:
            new.append(old)
            continue
        trace = jnp.trace(moments, axis1=1, axis2=2)[:, None, None]
        # The derivative of the quotient is finite also without any gradient.
        relative = moments / jnp.where(trace > _NO_MOMENTS, trace, 1.0) + _RIDGE * _identity(old)
        turned = orthogonal.orthonormal(orthogonal.einsum("iab,ibc->iac", relative, old))
        enough = step >= steps
        new.append(jnp.where(enough & jnp.isfinite(turned), turned, old))
    return bases._replace(bases=tuple(new))


def changes(old: Bases, new: Bases) -> Bases:
    """Bases for `rotate` from the coordinates of the old bases to those of the new ones."""
    turns = zip(old.bases, new.bases, strict=True)
    return new._replace(bases=tuple(orthogonal.einsum("iba,ibc->iac", *turn) for turn in turns))


def rotate(
    rotation: Rotation, bases: Bases, leaves: Sequence[Float[Array, "..."]], starts: Starts
) -> list[Float[Array, "..."]]:
    """Rotates leaves from the parameters' own coordinates into the rotated ones.

    Args:
      rotation: The blocks.
      bases: The bases.
      leaves: The leaves, or stacks of them.
      starts: `rotation.starts`.

    Returns:
      Arrays of the same shapes, at least `float32` where they are rotated.
    """
    return _turn(rotation, bases, leaves, starts, back=False)


def rotate_back(
    rotation: Rotation, bases: Bases, leaves: Sequence[Float[Array, "..."]], starts: Starts
) -> list[Float[Array, "..."]]:
    """Undoes `rotate`."""
    return _turn(rotation, bases, leaves, starts, back=True)


def _turn(
    rotation: Rotation, bases: Bases, leaves: Sequence[Array], starts: Starts, *, back: bool
) -> list[Array]:
    turned = []
    for leaf, sides, first, members in zip(
        leaves, rotation.sides, starts, rotation.members, strict=True
    ):
        own = [
            _blocks(bases.bases[side.group], side, start, members)
            for side, start in zip(sides, first, strict=True)
        ]
        turn = each(members, functools.partial(_turn_leaf, sides=sides, back=back))
        turned.append(sampling.partitioned(turn, leaf, *own, replicated=False) if sides else leaf)
    return turned


def _turn_leaf(leaf: Array, *bases: Array, sides: tuple[Side, ...], back: bool) -> Array:
    matrix = _as_matrix(leaf)
    for side, basis in zip(sides, bases, strict=True):
        matrix = _turn_side(matrix, basis.astype(matrix.dtype), side, back)
    return matrix.reshape(leaf.shape)


def _turn_side(matrix: Array, basis: Array, side: Side, back: bool) -> Array:
    rows, columns = matrix.shape
    if side.blocks == 1:
        if side.axis == 0:
            return orthogonal.einsum("ab,ca->cb" if back else "ab,ac->cb", matrix, basis[0])
        return orthogonal.einsum("ab,cb->ac" if back else "ab,bc->ac", matrix, basis[0])
    if side.axis == 0:
        turned = orthogonal.einsum(
            "iab,ica->icb" if back else "iab,iac->icb", _cut(matrix, side), basis
        )
        return turned.reshape(-1, columns)[:rows]
    turned = orthogonal.einsum(
        "aib,icb->aic" if back else "aib,ibc->aic", _cut(matrix, side), basis
    )
    return turned.reshape(rows, -1)[:, :columns]


def bounded(direction: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Adam's direction in rotated coordinates, with components from -3 to 3."""
    return jnp.clip(direction, -_MAX_DIRECTION, _MAX_DIRECTION)


def _as_matrix(leaf: Array) -> Array:
    return leaf.astype(sampling.widest_type([leaf.dtype])).reshape(_matrix_shape(leaf.shape))


def _cut(matrix: Array, side: Side) -> Array:
    """Blocks of a side: `[blocks, width, columns]` of rows, `[rows, blocks, width]` of columns."""
    missing = side.blocks * side.width - matrix.shape[side.axis]
    if missing:
        padding = [(0, 0), (0, 0)]
        padding[side.axis] = (0, missing)
        matrix = jnp.pad(matrix, padding)
    if side.axis == 0:
        return matrix.reshape(side.blocks, side.width, matrix.shape[1])
    return matrix.reshape(matrix.shape[0], side.blocks, side.width)

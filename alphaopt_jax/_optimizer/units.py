"""Units of the gradients: a power of two for each leaf, so that float32 holds their squares.

In double precision, gradients and losses or their squares can exceed the range of float32. Steps
are independent of the gradients' scale, so the gradients of a leaf may be measured in any unit. The
unit is 1 if gradients fit. Otherwise it is set by the first gradients, by gradients that are too
large for many steps in a row, and again when the usual ones have become small. A single spike
leaves the unit unchanged, since moments in its unit would vanish: that step is skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
import numpy as np

from alphaopt_jax._agent import differentiable, sampling
from alphaopt_jax._agent import stacks as stacks_lib
from alphaopt_jax._agent.stacks import Stacks

_PATIENCE = 100
"""Consecutive steps with gradients too large for their unit before it is changed."""
_SMALL = 2.0**-20
"""Root mean square of usual gradients, in large units, below which the unit is made smaller."""
_FIRST_SMALL = 2.0**-30
"""Largest gradient of the first step, in double precision, below which the unit is made smaller."""
_MAX_CHANGE = 1e18
"""Largest factor between two units with a square within the range of float32."""
_MAX_LOSS = 1e15
"""Losses above this are compressed to their logarithm; the largest double becomes 6.7e17."""


class Sizes(NamedTuple):
    """Sizes of the gradients of L leaves.

    Attributes:
      scales: Power of two that each leaf's gradients are multiplied by, `[L]`; `float64` if a leaf
        is, else `float32`.
      mean_squares: Mean squared gradient of each leaf in these units, `float32[L]`; not finite for
        a gradient that is not finite or far above its unit.
    """

    scales: Float[Array, " leaves"]
    mean_squares: Float[Array, " leaves"]


def init(dtypes: Sequence[jnp.dtype]) -> Float[Array, " leaves"]:
    """The scales before the first step, all 1, for leaves of these types."""
    return jnp.ones((len(dtypes),), sampling.widest_type(dtypes))


def may_change(scales: Float[Array, " leaves"]) -> bool:
    """True if a unit may be other than 1: in double precision."""
    return scales.dtype == jnp.float64


def measure(
    stacks: Stacks,
    grads: Sequence[Float[Array, "..."]],
    scales: Float[Array, " leaves"],
    updates_made: Int[Array, ""],
    skipped_in_a_row: Int[Array, ""],
) -> Sizes:
    """Measures the gradients, in new units if they do not fit the old ones.

    Args:
      stacks: The stacks of L leaves.
      grads: Their gradients, a list of stacks.
      scales: The old scales.
      updates_made: `int32[]`, 0 at the first step.
      skipped_in_a_row: `int32[]`, steps skipped since the last update.

    Returns:
      The sizes.
    """
    if not may_change(scales):
        return Sizes(scales, _mean_squares(stacks, grads))
    mean_squares = _mean_squares(stacks, grads, scales)
    is_first = updates_made == 0
    too_large = ~jnp.all(jnp.isfinite(mean_squares)) & (is_first | (skipped_in_a_row >= _PATIENCE))
    too_small = jnp.all(mean_squares < _FIRST_SMALL**2) & is_first

    def in_new_units() -> Sizes:
        functions = [functools.partial(_largest, dtype=scales.dtype)] * len(grads)
        largest = stacks_lib.collect(stacks, functions, grads)
        in_all = jnp.max(jnp.where(jnp.isfinite(largest), largest, 0.0))
        small = (in_all < _FIRST_SMALL) & (in_all > 0)
        unfit = ~jnp.isfinite(mean_squares) & jnp.isfinite(largest) & (largest > 0)
        size = jnp.where(small, in_all, jnp.where(unfit, largest, 1.0))
        new = jnp.where(small | unfit, jnp.exp2(-jnp.floor(jnp.log2(size))), scales)
        return Sizes(new, _mean_squares(stacks, grads, new))

    return jax.lax.cond(too_large | too_small, in_new_units, lambda: Sizes(scales, mean_squares))


class Change(NamedTuple):
    """A change of the units of L leaves.

    Attributes:
      scales: The new scales, `[L]`.
      mean_squares: Of the gradients, in the new units, `float32[L]`.
      factors: New over old scales, `float32[L]`: 1 for an unchanged unit.
    """

    scales: Float[Array, " leaves"]
    mean_squares: Float[Array, " leaves"]
    factors: Float[Array, " leaves"]


def change(
    sizes: Sizes, old_scales: Float[Array, " leaves"], usual_mean_squares: Float[Array, " leaves"]
) -> Change:
    """The change of units at this step; in most steps none.

    Args:
      sizes: Sizes of the gradients, from `measure`.
      old_scales: The scales of the state.
      usual_mean_squares: Usual mean square of each leaf's gradients in old units, `float32[L]`.

    Returns:
      The change from `measure`; else smaller units for gradients that have become small.
    """
    if not may_change(old_scales):
        return Change(old_scales, sizes.mean_squares, jnp.ones_like(old_scales))
    measured = sizes.scales != old_scales
    scales = jnp.where(measured, sizes.scales, _grown(old_scales, usual_mean_squares))
    factors = jnp.clip(scales / old_scales, 1 / _MAX_CHANGE, _MAX_CHANGE).astype(jnp.float32)
    mean_squares = jnp.where(measured, 1.0, jnp.square(factors)) * sizes.mean_squares
    return Change(scales, mean_squares, factors)


def _grown(
    scales: Float[Array, " leaves"], usual_mean_squares: Float[Array, " leaves"]
) -> Float[Array, " leaves"]:
    """Scales for gradients that have become small in large units; the others are unchanged."""
    size = differentiable.sqrt(usual_mean_squares)
    is_small = (scales < 1.0) & (size > 0) & (size < _SMALL)
    growth = jnp.exp2(-jnp.floor(jnp.log2(jnp.where(is_small, size, 1.0))))
    grown = jnp.minimum(scales * growth.astype(scales.dtype), 1.0)
    return jnp.where(is_small, grown, scales)


def compressed_loss(value: chex.Numeric) -> tuple[Float[Array, ""], Bool[Array, ""]]:
    """The loss as float32 with a finite square, and True if it is finite in its own type.

    Args:
      value: The loss, a scalar of any type.

    Returns:
      `float32[]`, monotone in the loss and equal to it up to 1e15; and `bool[]`.

    Example:
      >>> loss, is_finite = compressed_loss(2.5)
      >>> float(loss), bool(is_finite)
      (2.5, True)
    """
    loss = jnp.asarray(value).reshape(())
    loss = loss.astype(sampling.widest_type([loss.dtype]))
    size = jnp.abs(loss)
    beyond = size > _MAX_LOSS
    logarithm = jnp.log(jnp.where(beyond, size / _MAX_LOSS, 1.0))
    loss = jnp.where(beyond, jnp.sign(loss) * _MAX_LOSS * (1.0 + logarithm), loss)
    return loss.astype(jnp.float32), jnp.isfinite(size)


def rescaled(
    grad: Float[Array, "*shape"], factor: Float[Array, "*#shape"]
) -> Float[Array, "*shape"]:
    """Gradients times a factor, computed in their own type if it is wider, as `float32`."""
    wide = sampling.widest_type([grad.dtype])
    return (factor.astype(wide) * grad.astype(wide)).astype(jnp.float32)


def _mean_squares(
    stacks: Stacks, grads: Sequence[chex.Array], scales: Float[Array, " leaves"] | None = None
) -> Float[Array, " leaves"]:
    def sum_of_squares(leaf: chex.Array, scale: chex.Array | None = None) -> chex.Array:
        in_units = leaf.astype(jnp.float32) if scale is None else rescaled(leaf, scale)
        return jnp.sum(jnp.square(in_units))

    factors = [] if scales is None else [stacks_lib.spread(stacks, scales)]
    sums = stacks_lib.collect(stacks, [sum_of_squares] * len(grads), grads, *factors)
    sizes = np.array([leaf.size // n for leaf, n in zip(grads, stacks.counts, strict=True)])
    return sums / stacks_lib.per_leaf(stacks, np.maximum(sizes, 1).astype(np.float32))


def _largest(leaf: chex.Array, dtype: jnp.dtype) -> chex.Array:
    return jnp.max(jnp.abs(leaf), initial=0.0).astype(dtype)

"""Frames: the rotated coordinates of a step, for its gradients and first moments."""

from __future__ import annotations

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from alphaopt_jax._agent import action, conditional, differentiable, rotation, sampling
from alphaopt_jax._agent import stacks as stacks_lib
from alphaopt_jax._agent.rotation import Bases
from alphaopt_jax._optimizer import stochastic_rounding, units
from alphaopt_jax._optimizer.layout import Layout
from alphaopt_jax._optimizer.state import AlphaOptState
from alphaopt_jax.config import AlphaOptConfig

_MIN_MEAN_SQUARE = 1e-36


class Turned(NamedTuple):
    """Gradients in the coordinates of a step, and the state in the same coordinates.

    Attributes:
      grads: Gradients, a list of stacks; `float32` where they are rotated.
      first_moments: First moments of the steps before, in the stored type, a list of stacks.
      sampled_first_moments: Those of the sampled coordinates, `float32[L, P]`.
      bases: The bases; None for the parameters' own coordinates.
    """

    grads: list[Float[Array, "..."]]
    first_moments: list[Float[Array, "..."]]
    sampled_first_moments: Float[Array, "leaves samples"]
    bases: Bases | None


def turn(
    layout: Layout,
    grads: list[Float[Array, "..."]],
    sizes: units.Sizes,
    finite: Bool[Array, ""],
    state: AlphaOptState,
    config: AlphaOptConfig,
) -> Turned:
    """Adds the gradients to the second moments, refreshes the bases at intervals, and rotates.

    Args:
      layout: Of the leaves.
      grads: Gradients in the parameters' own coordinates, a list of stacks.
      sizes: Their sizes.
      finite: False for a skipped step, which leaves the bases unchanged.
      state: The state.
      config: The constants.

    Returns:
      The gradients and first moments in the coordinates of this step.
    """
    stacks, blocks, starts = layout.stacks, layout.blocks, layout.starts
    moments = stacks_lib.stack(stacks, jax.tree.leaves(state.gradient_average))
    old = state.bases
    if old is None or not blocks.is_any_rotated:
        return Turned(grads, moments, state.sampled_moments[0], old)
    number = state.updates_made.astype(jnp.float32) + 1.0
    # The derivative of the quotient is finite also without any gradient.
    mean_squares = jnp.where(sizes.mean_squares > _MIN_MEAN_SQUARE, sizes.mean_squares, 1.0)
    factors = sizes.scales / differentiable.sqrt(mean_squares).astype(sizes.scales.dtype)
    scaled = [
        functools.partial(stacks_lib.each(members, units.rescaled), grad, factor)
        for members, grad, factor in zip(
            stacks.counts, grads, stacks_lib.spread(stacks, factors, layout.numbers), strict=True
        )
    ]
    updated = rotation.add_gradients(blocks, old, scaled, number, starts)
    updated = jax.tree.map(lambda new, kept: jnp.where(finite, new, kept), updated, old)

    def refresh() -> tuple[Bases, list[chex.Array], chex.Array]:
        new = rotation.refreshed(blocks, updated, number)
        turns = rotation.changes(old, new)
        seed = state.updates_made.astype(jnp.uint32)
        turned = [
            stochastic_rounding.to_dtype(leaf.astype(jnp.float32), before.dtype, 2 * seed)
            for leaf, before in zip(
                rotation.rotate(blocks, turns, moments, starts), moments, strict=True
            )
        ]
        return new, turned, sampling.read(turned, layout.sampled, stacks).astype(jnp.float32)

    due = finite & action.should_refresh(state.updates_made, config)
    bases, moments, sampled_moments = conditional.cond(
        due, refresh, lambda: (updated, moments, state.sampled_moments[0])
    )
    rotated = rotation.rotate(blocks, bases, grads, starts)
    return Turned(rotated, moments, sampled_moments, bases)

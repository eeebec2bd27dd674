"""Periodic refresh of the per-parameter rate multipliers.

In the parameters' coordinates this is the only work per parameter beyond Adam's. It must be cheap
for any model: one computation serves many leaves, so the time to compile hardly grows with the
number of layers.
"""

from __future__ import annotations

from collections.abc import Sequence
import functools
import math
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float16
import numpy as np

from alphaopt_jax._agent import action, sampling, statistics
from alphaopt_jax._agent import stacks as stacks_lib
from alphaopt_jax._agent.action import Action
from alphaopt_jax._agent.network import LeafDecision, Policy
from alphaopt_jax._agent.stacks import Stacks
from alphaopt_jax._agent.statistics import BiasCorrections, Coordinates, LeafStatistics
from alphaopt_jax._optimizer import units
from alphaopt_jax._optimizer.layout import Layout
from alphaopt_jax.config import StepConfig

_MAX_BATCH = 1 << 23  # Parameters; copies take time and memory.
_SMALL = 1 << 17  # Parameters; leaves up to this size may be copied into rows.
_WIDTH = 256  # Parameters of a row; every leaf begins a new one.


class LeafInputs(NamedTuple):
    """Per-leaf inputs of a refresh, for L leaves.

    Attributes:
      layout: Of the leaves.
      statistics: Each `float32[L]`.
      action: The leaves' action.
      corrections: Bias corrections of both moments.
      inverse_units: As in `AlphaOptState`.
    """

    layout: Layout
    statistics: LeafStatistics
    action: Action
    corrections: BiasCorrections
    inverse_units: Float[Array, " leaves"]


class _Group(NamedTuple):
    """A group of stacks of leaves that are processed together.

    Attributes:
      members: Indices of the stacks.
      rows: Number of rows of each leaf of each stack; None if whole leaves of one shape are joined.
    """

    members: list[int]
    rows: list[int] | None

    def owners(self, stacks: Stacks) -> np.ndarray:
        """Leaf of each row, or of each whole leaf."""
        leaves = [stacks.members[index] for index in self.members]
        rows = [1] * len(leaves) if self.rows is None else self.rows
        return np.concatenate(
            [np.repeat(each, number) for each, number in zip(leaves, rows, strict=True)]
        )


def refresh(
    policy: Policy, leaves: Sequence[Coordinates], inputs: LeafInputs, config: StepConfig
) -> list[Float16[Array, "..."]]:
    """Computes the rate multipliers of all parameters.

    Args:
      policy: The policy.
      leaves: Parameters, gradients and moments of L leaves, of any shapes and types, a list of
        stacks.
      inputs: Per-leaf inputs.
      config: The constants.

    Returns:
      `float16` multipliers of each leaf's shape.
    """
    stacks = inputs.layout.stacks
    if units.may_change(inputs.inverse_units):  # Before gradients are stored as float32.
        inverse_units = stacks_lib.spread(stacks, inputs.inverse_units)
        grads = [leaf.grad for leaf in leaves]
        rescaled = [units.rescaled] * len(grads)
        grads = stacks_lib.for_each(stacks, rescaled, grads, inverse_units)
        leaves = [leaf._replace(grad=grad) for leaf, grad in zip(leaves, grads, strict=True)]
    groups = _groups(leaves, stacks)
    order = np.concatenate([group.owners(stacks) for group in groups])
    # Sorted once for all groups, so that the values of a group are a slice.
    leaf_statistics = jax.tree.map(lambda each: each[order], inputs.statistics)
    decision = inputs.action.decision
    activation, log_rates = decision.activation.T[:, order], decision.log_rate[order]
    leaf_log_rates = inputs.action.log_rates[order]
    multipliers: dict[int, chex.Array] = {}
    start = 0
    for group in groups:
        members = [leaves[i] for i in group.members]
        counts = [stacks.counts[i] for i in group.members]
        joined = Coordinates(*(_join(each, counts, group) for each in zip(*members, strict=True)))
        here = slice(start, start + len(group.owners(stacks)))
        start = here.stop
        along = functools.partial(_along, here=here, ndim=joined.param.ndim)
        joined = Coordinates(*(each.astype(jnp.float32) for each in joined))
        own = action.parameter_log_rates(
            policy,
            joined.param,
            statistics.normalize(joined, inputs.corrections, config),
            jax.tree.map(along, leaf_statistics),
            LeafDecision(along(activation), along(log_rates)),
        )
        found = action.rate_multipliers(own, along(leaf_log_rates))
        shapes = [leaves[i].param.shape for i in group.members]
        parts = _split(found, group, shapes, inputs.layout)
        multipliers |= dict(zip(group.members, parts, strict=True))
    in_order = [multipliers[index] for index in range(len(leaves))]
    return stacks_lib.unstack(stacks, in_order, inputs.layout.places)


def _groups(leaves: Sequence[Coordinates], stacks: Stacks) -> list[_Group]:
    """Groups small leaves, and larger leaves of one shape and type.

    Leaves that may be sharded differently are not grouped, which would move data between devices.
    """
    small: list[int] = []
    same_shape: dict[Any, list[int]] = {}
    for index, (leaf, count) in enumerate(zip(leaves, stacks.counts, strict=True)):
        explicit, alone = sampling.is_explicit(leaf.param), jax.device_count() == 1
        if alone and not explicit and leaf.param.size // count <= _SMALL:
            small.append(index)
        else:
            key = jax.tree.map(jax.typeof, leaf) if (alone or explicit) and count == 1 else index
            same_shape.setdefault(key, []).append(index)
    if len(small) == 1:
        same_shape["small"] = [small.pop()]
    groups = []
    for members in same_shape.values():
        most = max(_MAX_BATCH // max(leaves[members[0]].param.size, 1), 1)
        groups += [_Group(members[at : at + most], None) for at in range(0, len(members), most)]
    return groups + _row_groups(small, leaves, stacks)


def _row_groups(
    small: Sequence[int], leaves: Sequence[Coordinates], stacks: Stacks
) -> list[_Group]:
    """Groups of some stacks of small leaves, in rows."""
    groups: list[_Group] = []
    members: list[int] = []
    rows: list[int] = []
    size = 0
    for index in small:
        own = leaves[index].param.size
        if members and size + own > _MAX_BATCH:
            groups.append(_Group(members, rows))
            members, rows, size = [], [], 0
        members.append(index)
        rows.append(-(-(own // stacks.counts[index]) // _WIDTH))
        size += own
    return [*groups, _Group(members, rows)] if members else groups


def _join(arrays: Sequence[chex.Array], counts: Sequence[int], group: _Group) -> chex.Array:
    """The leaves of all stacks of a group, whole or in rows, along a new first axis."""
    stacked = [array if n > 1 else array[None] for array, n in zip(arrays, counts, strict=True)]
    if group.rows is None:
        return jnp.concatenate(stacked)
    rows = []
    for array, number in zip(stacked, group.rows, strict=True):
        flat = array.astype(jnp.float32).reshape(array.shape[0], -1)
        padded = jnp.pad(flat, ((0, 0), (0, number * _WIDTH - flat.shape[1])))
        rows.append(padded.reshape(-1, _WIDTH))
    return jnp.concatenate(rows)


def _along(values: chex.Array, here: slice, ndim: int) -> chex.Array:
    """The group's part of `[..., rows]`, in a shape that broadcasts against `ndim` axes."""
    found = values[..., here]
    return found.reshape(*found.shape, *(1,) * (ndim - 1))


def _split(
    joined: chex.Array, group: _Group, shapes: Sequence[tuple[int, ...]], layout: Layout
) -> list[chex.Array]:
    """Undoes `_join`."""
    counts = [layout.stacks.counts[index] for index in group.members]
    lengths = np.array(counts) * (1 if group.rows is None else group.rows)
    ends = np.cumsum(lengths)
    if group.rows is None:
        return [
            joined[end - length : end] if count > 1 else joined[end - 1]
            for count, length, end in zip(counts, lengths, ends, strict=True)
        ]
    starts = np.zeros((len(layout.sampled.shapes),), np.int32)
    starts[[layout.stacks.first[index] for index in group.members]] = ends - lengths
    parts = []
    for index, count, length, shape in zip(group.members, counts, lengths, shapes, strict=True):
        start = jnp.asarray(starts)[layout.numbers[index]]
        part = jax.lax.dynamic_slice_in_dim(joined, start, length, allow_negative_indices=False)
        size = math.prod(shape) // count  # Without the padding of a leaf's last row.
        parts.append(part.reshape(count, -1)[:, :size].reshape(shape))
    return parts

"""Periodic refresh of the per-parameter rate multipliers.

It is the only work per parameter that Adam does not have, so it must be cheap for any model: one
computation serves many leaves, and a model of many layers compiles no longer than one of few.
"""

from __future__ import annotations

from collections.abc import Sequence
import functools
import math
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float16, Int
import numpy as np

from alphaopt_jax._agent import action, sampling, statistics
from alphaopt_jax._agent.action import Action
from alphaopt_jax._agent.network import LeafDecision, Policy
from alphaopt_jax._agent.statistics import BiasCorrections, Coordinates, LeafStatistics
from alphaopt_jax._optimizer import units
from alphaopt_jax.config import StepConfig

_MAX_BATCH = 1 << 23  # Parameters; copies take time and memory.
_SMALL = 1 << 17  # Parameters; leaves up to this size may be copied into rows.
_WIDTH = 256  # Parameters of a row; every leaf begins a new one.


class LeafInputs(NamedTuple):
    """The inputs of a refresh that are decided per leaf, for L leaves.

    Attributes:
      numbers: Indices of the leaves, from 0, each `int32[]`.
      statistics: Each `float32[L]`.
      action: The leaves' action.
      corrections: Bias corrections of both moments.
      inverse_units: As in `AlphaOptState`.
    """

    numbers: Sequence[Int[Array, ""]]
    statistics: LeafStatistics
    action: Action
    corrections: BiasCorrections
    inverse_units: Float[Array, " leaves"]


class _Group(NamedTuple):
    """Leaves that are processed together.

    Attributes:
      members: Indices of the leaves.
      rows: Number of rows of each leaf; None if whole leaves of one shape are stacked.
    """

    members: list[int]
    rows: list[int] | None

    @property
    def owners(self) -> np.ndarray:
        """Leaf of each row, or of each stacked leaf."""
        return np.repeat(self.members, 1 if self.rows is None else self.rows)


def refresh(
    policy: Policy, leaves: Sequence[Coordinates], inputs: LeafInputs, config: StepConfig
) -> list[Float16[Array, "..."]]:
    """Computes the rate multipliers of all parameters.

    Args:
      policy: The policy.
      leaves: Parameters, gradients and moments of L leaves, of any shapes and types.
      inputs: What was decided for the leaves.
      config: The constants.

    Returns:
      `float16` multipliers of each leaf's shape.
    """
    if units.may_change(inputs.inverse_units):  # Before gradients are stored as float32.
        leaves = [
            leaf._replace(grad=units.rescaled(leaf.grad, inverse_unit))
            for leaf, inverse_unit in zip(leaves, inputs.inverse_units, strict=True)
        ]
    groups = _groups(leaves)
    order = np.concatenate([group.owners for group in groups])
    # Sorted once for all groups, so that the values of a group are a slice.
    leaf_statistics = jax.tree.map(lambda each: each[order], inputs.statistics)
    decision = inputs.action.decision
    activation, log_rates = decision.activation.T[:, order], decision.log_rate[order]
    leaf_log_rates = inputs.action.log_rates[order]
    multipliers: dict[int, chex.Array] = {}
    start = 0
    for group in groups:
        members = [leaves[i] for i in group.members]
        joined = Coordinates(*(_join(each, group) for each in zip(*members, strict=True)))
        here = slice(start, start + len(group.owners))
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
        parts = _split(found, group, shapes, [inputs.numbers[i] for i in group.members])
        multipliers |= dict(zip(group.members, parts, strict=True))
    return [multipliers[index] for index in range(len(leaves))]


def _groups(leaves: Sequence[Coordinates]) -> list[_Group]:
    """Groups small leaves, and larger leaves of one shape and type.

    Leaves that may be sharded differently are not batched; batching would move data between
    devices.
    """
    small: list[int] = []
    same_shape: dict[Any, list[int]] = {}
    for index, leaf in enumerate(leaves):
        explicit, alone = sampling.is_explicit(leaf.param), jax.device_count() == 1
        if alone and not explicit and leaf.param.size <= _SMALL:
            small.append(index)
        else:
            key = jax.tree.map(jax.typeof, leaf) if alone or explicit else index
            same_shape.setdefault(key, []).append(index)
    if len(small) == 1:
        same_shape["small"] = [small.pop()]
    groups = []
    for members in same_shape.values():
        most = max(_MAX_BATCH // max(leaves[members[0]].param.size, 1), 1)
        groups += [_Group(members[at : at + most], None) for at in range(0, len(members), most)]
    most = _MAX_BATCH // max(_SMALL, 1)
    for at in range(0, len(small), most):
        members = small[at : at + most]
        groups.append(_Group(members, [-(-leaves[i].param.size // _WIDTH) for i in members]))
    return groups


def _join(arrays: Sequence[chex.Array], group: _Group) -> chex.Array:
    if group.rows is None:
        return jnp.stack(arrays)
    rows = []
    for array, number in zip(arrays, group.rows, strict=True):
        flat = array.astype(jnp.float32).reshape(-1)
        rows.append(jnp.pad(flat, (0, number * _WIDTH - flat.size)).reshape(number, _WIDTH))
    return jnp.concatenate(rows)


def _along(values: chex.Array, here: slice, ndim: int) -> chex.Array:
    """The group's part of `[..., rows]`, in a shape that broadcasts against `ndim` axes."""
    found = values[..., here]
    return found.reshape(*found.shape, *(1,) * (ndim - 1))


def _split(
    joined: chex.Array,
    group: _Group,
    shapes: Sequence[tuple[int, ...]],
    numbers: Sequence[chex.Array],
) -> list[chex.Array]:
    """Undoes `_join`."""
    if group.rows is None:
        return list(joined)
    starts = np.zeros((max(group.members) + 1,), np.int32)
    starts[group.members] = np.cumsum(group.rows) - group.rows
    parts = []
    for number, count, shape in zip(numbers, group.rows, shapes, strict=True):
        rows = jax.lax.dynamic_slice_in_dim(joined, jnp.asarray(starts)[number], count)
        parts.append(rows.reshape(-1)[: math.prod(shape)].reshape(shape))
    return parts

"""Now and then every parameter is looked at: by which factor its rate differs from its leaf's.

It is the only work for every parameter that Adam does not do, so it has to cost little, whatever
the model: one computation for many leaves, so that a model of many layers compiles no longer than
one of few.
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

from alphaopt_jax._agent import action, observation, sampling
from alphaopt_jax._agent import network as network_lib
from alphaopt_jax.config import AlphaOptConfig

_MOST_TOGETHER = 1 << 23  # Parameters; copies take time and memory.
_SMALL = 1 << 17  # Parameters; leaves of up to so many may be copied into rows.
_WIDTH = 256  # Of a row, in parameters; every leaf begins a new one.


class _Group(NamedTuple):
    """Leaves that are looked at together.

    Attributes:
      members: Numbers of the leaves.
      rows: How many rows each of them fills, or None where each is as it is, stacked.
    """

    members: list[int]
    rows: list[int] | None

    @property
    def owners(self) -> np.ndarray:
        """Whose each row is, or each stacked leaf."""
        return np.repeat(self.members, 1 if self.rows is None else self.rows)


def look(
    agent: chex.ArrayTree,
    network: network_lib.ActorCritic,
    leaves: Sequence[observation.Coordinates],
    numbers: Sequence[Int[Array, ""]],
    statistics: observation.LeafStatistics,
    decision: network_lib.LeafDecision,
    leaf_log_rates: Float[Array, " leaves"],
    momentum_scale: Float[Array, ""],
    second_moment_scale: Float[Array, ""],
    config: AlphaOptConfig,
) -> list[Float16[Array, "..."]]:
    """The relative rates of all parameters.

    Args:
      agent: Parameters of `network`.
      network: The actor-critic.
      leaves: Parameters, gradients and moments of L leaves, of any shapes and types.
      numbers: Of the leaves, from 0, each `int32[]`.
      statistics: Of the leaves, each `float32[L]`.
      decision: What was decided for the leaves, `float32[L, H]` and `float32[L]`.
      leaf_log_rates: The leaves' own log rates, `float32[L]`.
      momentum_scale: Corrects the first moments for their start, `float32[]`.
      second_moment_scale: Corrects the second moments.
      config: The constants.

    Returns:
      `float16` factors of each leaf's shape.
    """
    groups = _groups(leaves)
    order = np.concatenate([group.owners for group in groups])
    # Sorted once for all, so that what belongs to a group is a slice.
    statistics = jax.tree.map(lambda each: each[order], statistics)
    activation, log_rates = decision.activation.T[:, order], decision.log_rate[order]
    leaf_log_rates = leaf_log_rates[order]
    relative: dict[int, chex.Array] = {}
    start = 0
    for group in groups:
        members = [leaves[i] for i in group.members]
        joined = observation.Coordinates(
            *(_join(each, group) for each in zip(*members, strict=True))
        )
        here = slice(start, start + len(group.owners))
        start = here.stop
        along = functools.partial(_along, here=here, ndim=joined.param.ndim)
        found = action.relative_rates(
            agent,
            network,
            observation.Coordinates(*(each.astype(jnp.float32) for each in joined)),
            jax.tree.map(along, statistics),
            network_lib.LeafDecision(along(activation), along(log_rates)),
            along(leaf_log_rates),
            momentum_scale,
            second_moment_scale,
            config,
        )
        shapes = [leaves[i].param.shape for i in group.members]
        parts = _part(found, group, shapes, [numbers[i] for i in group.members])
        relative |= dict(zip(group.members, parts, strict=True))
    return [relative[index] for index in range(len(leaves))]


def _groups(leaves: Sequence[observation.Coordinates]) -> list[_Group]:
    """Who is looked at together: the small, and otherwise those that are alike.

    Nobody is, where the compiler may have sharded the leaves differently, since joining would send
    them from device to device.
    """
    small: list[int] = []
    alike: dict[Any, list[int]] = {}
    for index, leaf in enumerate(leaves):
        explicit, alone = sampling.is_explicit(leaf.param), jax.device_count() == 1
        if alone and not explicit and leaf.param.size <= _SMALL:
            small.append(index)
        else:
            key = jax.tree.map(jax.typeof, leaf) if alone or explicit else index
            alike.setdefault(key, []).append(index)
    if len(small) == 1:
        alike["small"] = [small.pop()]
    groups = []
    for members in alike.values():
        most = max(_MOST_TOGETHER // max(leaves[members[0]].param.size, 1), 1)
        groups += [_Group(members[at : at + most], None) for at in range(0, len(members), most)]
    most = _MOST_TOGETHER // max(_SMALL, 1)
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
    """A group's part of `[..., rows]`, to be broadcast against what is joined, of `ndim` axes."""
    found = values[..., here]
    return found.reshape(*found.shape, *(1,) * (ndim - 1))


def _part(
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

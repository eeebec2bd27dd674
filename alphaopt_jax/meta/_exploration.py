"""Exploration of a population: per leaf and interval, or held for whole episodes.

Noise drawn anew for every leaf and interval shows when and where a higher rate is good. One return
depends on all draws, so independent noise hardly tests a uniformly higher rate: hundreds of draws
average out. Therefore some groups of copies explore independently, others with a few numbers for a
whole rollout:

* `COMMON` noise is the same for all leaves: a constant plus two slow cosines;
* `HELD` noise is one constant per leaf.

Half of the copies of a group explore opposite to the other half.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key
import numpy as np

from alphaopt_jax.meta import _episode as episode
from alphaopt_jax.meta.config import MetaConfig

INDEPENDENT, COMMON, HELD = range(3)
NUM_KINDS = 3
_CYCLE = (INDEPENDENT, COMMON, HELD, COMMON)
_NUM_COSINES = 3


def kinds(config: MetaConfig) -> Int[np.ndarray, " members"]:
    """Returns the kind of noise of each member, `int[B]`, the same for all copies of a group."""
    of_groups = np.resize(np.array(_CYCLE), config.groups)
    return np.repeat(of_groups, config.copies)


def draw(
    key: Key[Array, ""], num_leaves: int, num_explorers: int, config: MetaConfig
) -> episode.Noise:
    """Draws the noise of a rollout of R intervals and B members. Consumes `key`.

    Args:
      key: A random key.
      num_leaves: Leaves of a member.
      num_explorers: Explorers of a member, M.
      config: The constants.

    Returns:
      `_episode.Noise` with leading axes `[R, B]`.
    """
    independent_key, common_key, held_key, explorer_key = jax.random.split(key, 4)
    length = config.intervals_per_rollout

    def mirrored(key: chex.PRNGKey, rows: int, width: int) -> chex.Array:
        shape = (rows, config.groups, config.copies // 2, width)
        half = jax.random.normal(key, shape, jnp.float32)
        return jnp.concatenate([half, -half], axis=2).reshape(rows, -1, width)

    common = jnp.einsum("rk,bk->rb", _cosines(length), mirrored(common_key, 1, _NUM_COSINES)[0])
    by_kind = {
        INDEPENDENT: mirrored(independent_key, length, num_leaves),
        COMMON: common[..., None],
        HELD: mirrored(held_key, 1, num_leaves),
    }
    kind = kinds(config)[:, None]
    parts = (jnp.where(kind == each, noise, 0.0) for each, noise in by_kind.items())
    leaves = sum(parts, start=jnp.zeros(()))
    return episode.Noise(
        leaves=config.leaf_action_std * leaves,
        explorers=config.action_std * mirrored(explorer_key, length, num_explorers),
    )


def common_part(
    values: Float[Array, "intervals members leaves"],
) -> Float[Array, "members numbers"]:
    """The coefficients of `COMMON` noise: from `float32[R, B, leaves]` to `float32[B, K]`.

    For any other values, their projection on such noise.
    """
    cosines = _cosines(values.shape[0])
    cosines = cosines / np.square(cosines).sum(axis=0)
    return jnp.einsum("rk,rb->bk", cosines, values.mean(axis=-1))


def held_part(
    values: Float[Array, "intervals members leaves"],
) -> Float[Array, "members leaves"]:
    """Means over the rollout, from `float32[R, B, leaves]` to `float32[B, leaves]`."""
    return values.mean(axis=0)


def _cosines(length: int) -> np.ndarray:
    """`float32[R, K]`, orthogonal columns, the first of them constant."""
    time = (np.arange(length) + 0.5) / length
    return np.cos(np.pi * time[:, None] * np.arange(_NUM_COSINES)).astype(np.float32)

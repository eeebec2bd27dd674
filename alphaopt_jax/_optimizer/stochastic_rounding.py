"""Stochastic rounding, for moving averages in half precision."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, UInt32


def to_dtype(
    values: Float32[Array, "*shape"], dtype: jax.typing.DTypeLike, seed: UInt32[Array, ""]
) -> Float[Array, "*shape"]:
    """Rounds `float32` values to `dtype`; to bfloat16 stochastically, without bias.

    A moving average that changes by 1 % changes by half of bfloat16's spacing, and would not move
    if it were rounded to nearest (Gupta et al. 2015, "Deep learning with limited numerical
    precision"). The random bits are a hash of the values and of `seed`, which costs a few integer
    operations and no memory.

    Args:
      values: `float32`, any shape.
      dtype: `float32` or `bfloat16`.
      seed: `uint32[]`, a different one at every step.

    Returns:
      The values in `dtype`; non-finite values are unchanged.

    Example:
      >>> third = jnp.full((10_000,), 1.0 / 3.0)
      >>> steps = jnp.arange(100, dtype=jnp.uint32)
      >>> one = lambda seed: to_dtype(jnp.asarray(1.0 / 3.0), jnp.bfloat16, seed)
      >>> bool(abs(jnp.mean(jax.vmap(one)(steps).astype(jnp.float32)) - 1.0 / 3.0) < 2e-4)
      True
    """
    if dtype == jnp.float32:
        return values
    if dtype != jnp.bfloat16:
        raise ValueError(
            f"Moments are kept in float32 or bfloat16, not in {jnp.dtype(dtype).name}."
        )
    bits = jax.lax.bitcast_convert_type(values, jnp.uint32)
    noise = _hash(bits ^ _hash(seed)) >> 16
    rounded = jax.lax.bitcast_convert_type((bits + noise) & jnp.uint32(0xFFFF0000), jnp.float32)
    return jnp.where(jnp.isfinite(rounded), rounded, values).astype(jnp.bfloat16)


def _hash(bits: UInt32[Array, "*shape"]) -> UInt32[Array, "*shape"]:
    """The finalizer of MurmurHash3: each output bit depends on each input bit."""
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x85EBCA6B)
    bits = (bits ^ (bits >> 13)) * jnp.uint32(0xC2B2AE35)
    return bits ^ (bits >> 16)

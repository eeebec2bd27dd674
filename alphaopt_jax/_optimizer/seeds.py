"""Seeds that users pass, as keys of the one implementation that the state holds."""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from alphaopt_jax._learning.online import KEY_IMPL


def resolve(seed: Any) -> int | chex.Array:
    """Checks a seed, and turns a key of any implementation into one of `KEY_IMPL`.

    Args:
      seed: A whole number; an array of shape `[]` that holds one; a key, typed or as raw `uint32`
        data. Arrays may be traced.

    Returns:
      The number (without initializing JAX), an array of shape `[]`, or a typed key.

    Raises:
      ValueError: It is something else.

    Example:
      >>> resolve(3)
      3
      >>> str(resolve(jax.random.key(3, impl="rbg")).dtype)
      'key<fry>'
    """
    if isinstance(seed, (int, np.integer)) and not isinstance(seed, bool):
        return int(seed)
    if isinstance(seed, np.ndarray) and seed.dtype.kind in "iu":
        seed = int(seed) if seed.ndim == 0 else jnp.asarray(seed)
        return resolve(seed)
    if isinstance(seed, jax.Array):
        typed = jnp.issubdtype(seed.dtype, jax.dtypes.prng_key)
        if typed and seed.ndim == 0:
            return _convert(jax.random.key_data(seed))
        if seed.ndim == 1 and seed.dtype == jnp.uint32:
            return _convert(seed)
        # `optax.inject_hyperparams` converts integers to floating point.
        if not typed and seed.ndim == 0 and seed.dtype != bool:
            return seed
        if typed or (seed.ndim > 1 and seed.dtype == jnp.uint32):
            raise ValueError(
                f"`seed` must be one key, but is a batch of the shape {seed.shape}: pass one of"
                " them, or call `alphaopt(...)` in a function under `jax.vmap` over the keys."
            )
    raise ValueError(
        "`seed` must be a whole number or a key such as `jax.random.key(0)`; got"
        f" {_describe(seed)}."
    )


def as_key(seed: int | chex.Array) -> chex.PRNGKey:
    """The typed key of a result of `resolve`."""
    if isinstance(seed, int):  # Beyond 32 bits the lower ones count, as in JAX.
        seed = np.uint32(seed & 0xFFFFFFFF).astype(np.int32)
    elif jnp.issubdtype(seed.dtype, jax.dtypes.prng_key):
        return seed
    return jax.random.key(jnp.asarray(seed).astype(jnp.int32), impl=KEY_IMPL)


def _convert(data: chex.Array) -> chex.PRNGKey:
    if data.shape == (2,):
        return jax.random.wrap_key_data(data, impl=KEY_IMPL)
    key = jax.random.key(0, impl=KEY_IMPL)
    for word in data:
        key = jax.random.fold_in(key, word)
    return key


def _describe(seed: Any) -> str:
    if isinstance(seed, (jax.Array, np.ndarray)):
        return f"an array of the shape {seed.shape} and the type {seed.dtype}"
    return repr(seed)

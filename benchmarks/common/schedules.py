"""Learning-rate schedules of the tuned baselines."""

from __future__ import annotations

from collections.abc import Callable

import chex
import jax.numpy as jnp


def warmup_cosine(
    rate: chex.Numeric, num_steps: int, warmup: float = 0.05
) -> Callable[[chex.Numeric], chex.Array]:
    """A schedule: linear up to `rate` in the first 5 % of the steps, then half a cosine to zero."""
    rising = max(1, round(warmup * num_steps))

    def schedule(count: chex.Numeric) -> chex.Array:
        falling = (count - rising) / max(1, num_steps - rising)
        cosine = 0.5 * (1.0 + jnp.cos(jnp.pi * jnp.clip(falling, 0.0, 1.0)))
        return rate * jnp.where(count < rising, (count + 1.0) / rising, cosine)

    return schedule

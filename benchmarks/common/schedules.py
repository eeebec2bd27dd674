"""Learning-rate schedules of the baselines."""

from __future__ import annotations

from collections.abc import Callable

import chex
import jax.numpy as jnp


def warmup_cosine(
    rate: chex.Numeric, num_steps: int, warmup: float = 0.05
) -> Callable[[chex.Numeric], chex.Array]:
    """Linear warm-up, then a cosine decay to zero.

    Args:
      rate: The peak learning rate.
      num_steps: Number of steps.
      warmup: Share of the steps in which the rate rises.

    Returns:
      A schedule from a step's number to its learning rate.
    """
    rising = max(1, round(warmup * num_steps))

    def schedule(count: chex.Numeric) -> chex.Array:
        falling = (count - rising) / max(1, num_steps - rising)
        cosine = 0.5 * (1.0 + jnp.cos(jnp.pi * jnp.clip(falling, 0.0, 1.0)))
        return rate * jnp.where(count < rising, (count + 1.0) / rising, cosine)

    return schedule

"""Histories: moving averages of each leaf's statistics and of the loss."""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax.numpy as jnp
from jaxtyping import Array, Float

from alphaopt_jax._agent.statistics import LeafStatistics

_MAX_LOSS = 1e18  # Its square is finite in float32.


class LeafHistory(NamedTuple):
    """Moving averages of each leaf; all `float32[leaves]`.

    Attributes:
      gradient_autocorrelation: Average over about 20 steps.
      slow_gradient_autocorrelation: Average over about 200 steps.
      momentum_energy: Average over about 20 steps.
      log_rate: Average of the leaf's log rate over about 10 steps.
      first_second_moment: Average of the second moment over the first 10 steps.
      first_size: Scale of the leaf at the first step.
    """

    gradient_autocorrelation: Float[Array, " leaves"]
    slow_gradient_autocorrelation: Float[Array, " leaves"]
    momentum_energy: Float[Array, " leaves"]
    log_rate: Float[Array, " leaves"]
    first_second_moment: Float[Array, " leaves"]
    first_size: Float[Array, " leaves"]

    @classmethod
    def empty(cls, num_leaves: int) -> LeafHistory:
        """The history before the first step."""
        return cls(*(jnp.zeros((num_leaves,), jnp.float32) for _ in cls._fields))

    def update(self, statistics: LeafStatistics, step: Float[Array, ""]) -> LeafHistory:
        """Adds the statistics of one step; `log_rate` is left to `add_log_rates`.

        Args:
          statistics: Of the leaves, each `float32[leaves]`.
          step: Number of this update, from 1, `float32[]`.
        """
        # Uniform averages until the window is full: the first step has no extra weight.
        fast, slow = jnp.maximum(0.05, 1.0 / step), jnp.maximum(0.005, 1.0 / step)
        first = jnp.where(step <= 10.0, 1.0 / step, 0.0)
        autocorrelation = statistics.gradient_autocorrelation
        return LeafHistory(
            gradient_autocorrelation=_towards(self.gradient_autocorrelation, autocorrelation, fast),
            slow_gradient_autocorrelation=_towards(
                self.slow_gradient_autocorrelation, autocorrelation, slow
            ),
            momentum_energy=_towards(self.momentum_energy, statistics.momentum_energy, fast),
            log_rate=self.log_rate,
            first_second_moment=_towards(self.first_second_moment, statistics.second_moment, first),
            first_size=jnp.where(step <= 1.0, statistics.scale, self.first_size),
        )

    def add_log_rates(self, log_rates: Float[Array, " leaves"]) -> LeafHistory:
        """Adds the leaves' log rates of this step, `float32[leaves]`."""
        return self._replace(log_rate=_towards(self.log_rate, log_rates, 0.1))


class LossHistory(NamedTuple):
    """Moving averages of the loss; all `float32[]`.

    Attributes:
      fast: Average over about 10 steps.
      slow: Average over about 100 steps.
      spread: Average squared distance from `slow`, over about 100 steps.
      medium: Average over about 30 steps; over all steps while there are fewer.
      noise: Average squared distance of a loss from the previous `fast`, over about 50 steps.
      lowest: Lowest value of `fast`.
      observed: Number of losses.
    """

    fast: Float[Array, ""]
    slow: Float[Array, ""]
    spread: Float[Array, ""]
    medium: Float[Array, ""]
    noise: Float[Array, ""]
    lowest: Float[Array, ""]
    observed: Float[Array, ""]

    @classmethod
    def empty(cls) -> LossHistory:
        """The history before the first loss."""
        # A donated state must not hold one array in two places.
        return cls(*(jnp.zeros((), jnp.float32) for _ in cls._fields))

    def append(self, loss: Float[Array, ""]) -> LossHistory:
        """Adds one loss, `float32[]`."""
        loss = jnp.clip(loss, -_MAX_LOSS, _MAX_LOSS)
        first = self.observed == 0
        fast = jnp.where(first, loss, 0.9 * self.fast + 0.1 * loss)
        slow = jnp.where(first, loss, 0.99 * self.slow + 0.01 * loss)
        spread = 0.99 * self.spread + 0.01 * jnp.square(loss - slow)
        observed = self.observed + 1.0
        surprise = jnp.where(first, 0.0, jnp.square(loss - self.fast))
        return LossHistory(
            fast=fast,
            slow=slow,
            spread=spread,
            medium=_towards(self.medium, loss, jnp.maximum(0.03, 1.0 / observed)),
            noise=_towards(self.noise, surprise, jnp.maximum(0.02, 1.0 / observed)),
            lowest=jnp.where(first, loss, jnp.minimum(self.lowest, fast)),
            observed=observed,
        )


class History(NamedTuple):
    """Moving averages of leaf statistics and of the loss.

    Attributes:
      leaves: Averages of each leaf's statistics.
      loss: Averages of the loss.
    """

    leaves: LeafHistory
    loss: LossHistory

    @classmethod
    def empty(cls, num_leaves: int) -> History:
        """The history before the first step."""
        return cls(LeafHistory.empty(num_leaves), LossHistory.empty())


def _towards(average: chex.Array, value: chex.Array, weight: chex.Numeric) -> chex.Array:
    return average + weight * (value - average)

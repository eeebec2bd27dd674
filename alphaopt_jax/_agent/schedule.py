"""Time: the number of the step, the horizon, and the schedule of all rates."""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax.numpy as jnp
from jaxtyping import Array, Float

_LONG_RUN = 1000.0  # Steps; beyond these, rates of a known horizon too fall with the root of time.


class Clock(NamedTuple):
    """Time within one training.

    Attributes:
      step: Number of this update, from 1, `float32[]`.
      num_steps: Planned number of updates; None, or a number that is not positive, if unknown.
      inverse_sqrt_steps: As in `AgentConfig`.
    """

    step: Float[Array, ""]
    num_steps: chex.Numeric | None
    inverse_sqrt_steps: chex.Numeric

    def horizon(self) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Whether the horizon is known, 0 or 1, and the horizon, at least 1; both `float32[]`."""
        steps = jnp.asarray(0 if self.num_steps is None else self.num_steps).astype(jnp.float32)
        return (steps > 0).astype(jnp.float32), jnp.maximum(steps, 1.0)

    def schedule(self) -> Float[Array, ""]:
        """The factor of all rates at this step.

        The environment has this schedule; the agent decides the level of the rates. With a known
        horizon they fall linearly to its end, which is close to the best schedule on most tasks
        (Defazio et al. 2023, "When, why and how much? Adaptive learning rate scheduling by
        refinement"), and beyond a thousand steps with the inverse square root of time as well. With
        an unknown one they fall with the inverse square root of time alone, which loses little
        whenever the training ends (Zinkevich 2003, "Online convex programming and generalized
        infinitesimal gradient ascent").

        Returns:
          `float32[]`. Known horizon: `(1 - (step - 1) / num_steps) / sqrt(1 + (step - 1) / 1000)`,
          constant after the last step. Unknown: `1 / sqrt(1 + (step - 1) / inverse_sqrt_steps)`.

        Example:
          >>> float(Clock(jnp.asarray(3001.0), 6000, 30.0).schedule())
          0.25
          >>> float(Clock(jnp.asarray(91.0), None, 30.0).schedule())
          0.5
        """
        known, horizon = self.horizon()
        elapsed = self.step - 1.0
        planned = jnp.minimum(elapsed, horizon - 1.0)
        falling = (1.0 - planned / horizon) / jnp.sqrt(1.0 + planned / _LONG_RUN)
        inverse_sqrt = 1.0 / jnp.sqrt(1.0 + elapsed / self.inverse_sqrt_steps)
        return jnp.where(known > 0, falling, inverse_sqrt)

"""Safeguards: bounds on the harm of a step, for any agent and any gradients.

Steps are relative to the scale of the parameters, so a diverging training diverges exponentially.
Two safeguards limit it; an ordinary training never activates them:

- A *backoff* of all rates, when the loss has risen above its recent best by more than its largest
  decrease so far and by more than its noise. It tightens while the loss rises and relaxes while the
  loss falls.
- A bound on each leaf's gradient, relative to its usual size. Otherwise the second moments would
  remember one spike for hundreds of steps, in which almost nothing is learned.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from alphaopt_jax.config import StepConfig

_MAX_GROWTH = 30.0
"""Largest root mean square of a leaf's gradient, relative to the usual one.

The second moments must register gradients that grow because the steps have become too large: with
10, learning agents were thrown out of a narrow valley now and then.
"""
_SMALL_MEAN_SQUARE = 1e-16
"""Gradients below this are not bounded: they are close to epsilon in the denominator."""
_NEGLIGIBLE_RISE = 0.05
"""A rise of the loss by less than this share of the first loss is never harm."""
_FEW = 20.0
"""With fewer losses or gradients than this, the usual size is uncertain."""
_MAX_COUNTED = 3.0
"""Largest mean square gradient in the average of usual ones, relative to that average."""
_MAX_SURPRISE = 2.0
"""Largest deviation of a loss in the average of its noise, relative to that average."""
_NOISE_ROOM = 3.0
"""Rise of the average of ten losses due to noise, in standard deviations of a single loss."""
_TIGHTEN, _RELAX = 1.5, 1.2
"""Factors per step of a backoff that tightens (the loss rises) or relaxes (it falls)."""
_FAR = 4.0
"""Excess of the rise over its bound from which the backoff acts at once."""
_FORGETTING = 1e-3
"""Rate per step at which the lowest loss approaches a loss that stays high."""


class SafeguardState(NamedTuple):
    """State of the safeguards; `float32[]` except for the last field.

    Attributes:
      first_loss: The first loss.
      lowest_loss: Lowest average of about 10 losses; it rises slowly towards the present average.
      decrease: Largest distance of `lowest_loss` below `first_loss`.
      noise: Average squared distance of a loss from the average before it.
      losses: Number of losses.
      backoff: Factor of all rates at the last step, from 0 to 1.
      mean_square_grads: Average of each leaf's mean square gradient, `float32[leaves]`, with the
        decay of the second moments and no bias correction.
    """

    first_loss: Float[Array, ""]
    lowest_loss: Float[Array, ""]
    decrease: Float[Array, ""]
    noise: Float[Array, ""]
    losses: Float[Array, ""]
    backoff: Float[Array, ""]
    mean_square_grads: Float[Array, " leaves"]


def init(num_leaves: int) -> SafeguardState:
    """Returns the state before the first step."""
    blank = SafeguardState(*(jnp.zeros((), jnp.float32) for _ in SafeguardState._fields))
    return blank._replace(
        backoff=jnp.ones((), jnp.float32),
        mean_square_grads=jnp.zeros((num_leaves,), jnp.float32),
    )


def watch_loss(
    state: SafeguardState, loss: Float[Array, ""], before: Float[Array, ""], now: Float[Array, ""]
) -> SafeguardState:
    """Adds a loss and sets the backoff.

    Args:
      state: The state.
      loss: This step's loss, `float32[]`.
      before: Average of about 10 losses without it.
      now: The same average with it.

    Returns:
      The state, with the backoff for this step.

    Example:
      >>> import jax.numpy as jnp
      >>> state, losses = init(1), jnp.array([4.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 100.0])
      >>> for before, loss in zip(jnp.roll(losses, 1), losses):
      ...     state = watch_loss(state, loss, before, now=loss)
      >>> bool(state.backoff < 0.02)
      True
    """
    is_first = state.losses == 0
    losses = state.losses + 1.0
    first = jnp.where(is_first, loss, state.first_loss)
    lowest = state.lowest_loss + _FORGETTING * (now - state.lowest_loss)
    lowest = jnp.where(is_first, now, jnp.minimum(lowest, now))
    decrease = jnp.maximum(state.decrease, first - lowest)
    rise = now - lowest
    noise_room = _NOISE_ROOM * (1.0 + _FEW / losses) * jnp.sqrt(state.noise)
    room = decrease + noise_room + _NEGLIGIBLE_RISE * jnp.abs(first)
    # The second loss cannot be judged: the noise is still unknown.
    too_high = (rise > room) & (losses > 2)
    target = jnp.square(room / jnp.where(too_high, rise, 1.0))
    gently = jnp.maximum(target, state.backoff / _TIGHTEN)
    tightened = jnp.where(rise > _FAR * room, jnp.minimum(target, state.backoff), gently)
    relaxed = jnp.minimum(_RELAX * state.backoff, 1.0)
    surprise = jnp.where(is_first, 0.0, jnp.square(loss - before))
    usual = jnp.square(_MAX_SURPRISE) * state.noise
    surprise = jnp.where(state.noise > 0, jnp.minimum(surprise, usual), surprise)
    noise = state.noise + jnp.maximum(0.005, 1.0 / losses) * (surprise - state.noise)
    return state._replace(
        first_loss=first,
        lowest_loss=lowest,
        decrease=decrease,
        # Divergence is not counted as noise.
        noise=jnp.where(too_high & (state.noise > 0), state.noise, noise),
        losses=losses,
        backoff=jnp.where(too_high, jnp.where(now > before, tightened, relaxed), 1.0),
    )


def bound_gradients(
    state: SafeguardState,
    mean_square_grads: Float[Array, " leaves"],
    step: Float[Array, ""],
    config: StepConfig,
) -> tuple[Float[Array, " leaves"], SafeguardState]:
    """Factors of the gradients that bound each leaf's gradient to a multiple of its usual size.

    Args:
      state: The state.
      mean_square_grads: Mean squared gradient of every leaf, `float32[leaves]`.
      step: This update's number, from 1, `float32[]`.
      config: Gives the decay of the second moments.

    Returns:
      Factors, `float32[leaves]`, 1 except for unusually large gradients; and the state.
    """
    decay = config.squared_gradient_decay
    usual = state.mean_square_grads / jnp.maximum(1.0 - decay ** (step - 1.0), 1.0 - decay)
    few = jnp.square(1.0 + _FEW / jnp.maximum(step - 1.0, 1.0))
    largest = jnp.maximum(jnp.square(_MAX_GROWTH) * few * usual, _SMALL_MEAN_SQUARE)
    too_large = (mean_square_grads > largest) & (usual > 0)
    factors = jnp.where(
        too_large, jnp.sqrt(largest / jnp.where(too_large, mean_square_grads, 1.0)), 1.0
    )
    # The usual size follows slowly. A persistent increase is absorbed within a few steps, which
    # costs nothing because steps do not depend on the gradients' scale.
    counted = jnp.where(
        usual > 0, jnp.minimum(mean_square_grads, _MAX_COUNTED * few * usual), mean_square_grads
    )
    return factors, state._replace(
        mean_square_grads=decay * state.mean_square_grads + (1.0 - decay) * counted
    )

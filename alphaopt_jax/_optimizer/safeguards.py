"""Safeguards: bounds on the harm of a step, for any agent and any gradients.

Steps are relative to the scale of the parameters, so a diverging training diverges exponentially.
Two safeguards limit it; an ordinary training never activates them:

- A *backoff* of all rates, when the loss has risen above its recent best by more than its largest
  decrease so far and by more than its noise. It tightens while the loss rises and relaxes while the
  loss falls. If lower rates do not bring the loss down within some tens of steps, the
  rates are not the cause, or do no further harm: the backoff ends, and the new level becomes the
  usual one.
- A bound on each leaf's gradient, relative to its usual size. Otherwise one spike would dominate
  the second moments for hundreds of steps, with hardly any progress in them.

`_agent.action.learning_rates` bounds the rates themselves.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from alphaopt_jax.config import StepConfig

_MAX_GROWTH = 30.0
"""Largest root mean square of a leaf's gradient, relative to the usual one.

The second moments must register gradients that grow because the steps have become too large: with
10, some trainings left a narrow valley.
"""
_MAX_SUDDEN_GROWTH = 100.0
"""Growth from one step to the next that steps can cause; beyond it, a gradient counts less."""
_MIN_SPIKE = 3.0
"""Smallest size to which a sudden spike is cut, relative to the usual one."""
_SMALL_MEAN_SQUARE = 1e-16
"""Gradients below this are not bounded: they are close to epsilon in the denominator."""
_NEGLIGIBLE_RISE = 0.05
"""Rise of the loss, as a share of the first loss, below which the backoff never acts."""
_FEW = 20.0
"""With fewer losses or gradients than this, the usual size is uncertain."""
_MAX_COUNTED = 3.0
"""Largest mean square gradient in the average of usual ones, relative to that average."""
_MAX_SURPRISE = 2.0
"""Largest deviation of a loss in the average of its noise, relative to that average."""
_NOISE_ROOM = 3.0
"""Rise of the average of ten losses due to noise, in standard deviations of a single loss."""
_TIGHTEN, _RELAX, _RELEASE = 1.5, 1.35, 2.0
"""Factors per step of a backoff that tightens (the loss rises), relaxes (it falls) or ends.

With a faster tightening, a divergence is slowed down less: each backoff takes the loss for the
usual one sooner. With a relaxation by 1.5, rates that are too high oscillate; with 1.2, some
trainings do not recover from fifty steps with gradients of the wrong sign.
"""
_FAR = 4.0
"""Excess of the rise over its bound from which the backoff acts at once."""
_MIN_BACKOFF = 1e-4
"""Lowest backoff: steps are negligible, and rates recover from it within 15 steps."""
_STRONG = 0.01
"""Backoff below which the rates cannot be the cause of a loss that still rises."""
_PATIENCE = 20.0
"""Backed-off steps without a lower loss before the backoff ends."""
_IMPATIENCE = 0.02
"""Rate per step at which the patience returns to `_PATIENCE` while the loss is below its first."""
_APPRECIABLE = 0.25
"""Smallest decrease that counts, as a share of the height of the loss above the lowest one."""
_WEAK_EVIDENCE = 0.2
"""Weight in `backed_off` of a step with a rising loss before the backoff is strong."""
_FEW_BACKED_OFF = 5.0
"""Number of backed-off steps whose mean loss is the reference level."""
_FORGETTING = 1e-3
"""Rate per step at which the lowest loss approaches a loss that stays high."""
_SMALLEST = 1e-30
"""Lower bound on divisors."""


class SafeguardState(NamedTuple):
    """State of the safeguards; `float32[]` except for the last two fields.

    Attributes:
      first_loss: The first loss.
      lowest_loss: Lowest average of about 10 losses; it rises slowly towards the present average.
      decrease: Largest distance of `lowest_loss` below `first_loss`.
      noise: Average squared distance of a loss from the average before it.
      losses: Number of losses.
      backoff: Factor of all rates at the last step, at most 1.
      level: Average of about 10 losses, without those before the loss became too high.
      first_level: The same over the first few backed-off steps.
      backed_off: Weighted count of steps since the backoff began, or since it became strong or
        lowered the loss.
      patience: Largest such count before the backoff ends.
      counts_anew: 1 if the count may begin anew when the backoff becomes strong, else 0. It may do
        so once: otherwise a backoff that crosses the threshold again and again never ends.
      exceeded: 1 for each leaf whose last gradient was above its bound, else 0, `float32[leaves]`.
      mean_square_grads: Average of each leaf's mean square gradient, `float32[leaves]`, with the
        decay of the second moments and no bias correction.
    """

    first_loss: Float[Array, ""]
    lowest_loss: Float[Array, ""]
    decrease: Float[Array, ""]
    noise: Float[Array, ""]
    losses: Float[Array, ""]
    backoff: Float[Array, ""]
    level: Float[Array, ""]
    first_level: Float[Array, ""]
    backed_off: Float[Array, ""]
    patience: Float[Array, ""]
    counts_anew: Float[Array, ""]
    exceeded: Float[Array, " leaves"]
    mean_square_grads: Float[Array, " leaves"]


def init(num_leaves: int) -> SafeguardState:
    """Returns the state before the first step."""
    blank = SafeguardState(*(jnp.zeros((), jnp.float32) for _ in SafeguardState._fields))
    return blank._replace(
        backoff=jnp.ones((), jnp.float32),
        patience=jnp.full((), _PATIENCE, jnp.float32),
        counts_anew=jnp.ones((), jnp.float32),
        exceeded=jnp.zeros((num_leaves,), jnp.float32),
        mean_square_grads=jnp.zeros((num_leaves,), jnp.float32),
    )


def watch_loss(
    state: SafeguardState, loss: Float[Array, ""], before: Float[Array, ""], now: Float[Array, ""]
) -> SafeguardState:
    """Adds a loss and sets the backoff.

    Args:
      state: The state.
      loss: This step's loss, `float32[]`; its square is finite.
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
    noisy = state.noise > 0
    deviation = jnp.where(noisy, jnp.sqrt(jnp.where(noisy, state.noise, 1.0)), 0.0)
    noise_room = _NOISE_ROOM * (1.0 + _FEW / losses) * deviation
    room = decrease + noise_room + _NEGLIGIBLE_RISE * jnp.abs(first)
    # Two losses give no estimate of the noise.
    too_high = (rise > room) & (losses > 2)
    surprise = jnp.where(is_first, 0.0, jnp.square(loss - before))
    usual = jnp.square(_MAX_SURPRISE) * state.noise
    surprise = jnp.where(noisy, jnp.minimum(surprise, usual), surprise)
    noise = state.noise + jnp.maximum(0.005, 1.0 / losses) * (surprise - state.noise)
    watched = state._replace(
        first_loss=first,
        lowest_loss=lowest,
        decrease=decrease,
        # Divergence is not counted as noise.
        noise=jnp.where(too_high & noisy, state.noise, noise),
        losses=losses,
    )
    falls = now < first - _NEGLIGIBLE_RISE * jnp.abs(first)
    within_bound = watched._replace(
        backoff=jnp.minimum(_RELEASE * state.backoff, 1.0),
        level=now,
        backed_off=jnp.zeros_like(state.backed_off),
        counts_anew=jnp.ones_like(state.counts_anew),
        patience=state.patience + jnp.where(falls, _IMPATIENCE, 0.0) * (_PATIENCE - state.patience),
    )
    backed_off = _back_off(watched, loss, now, room)
    return jax.tree.map(lambda high, low: jnp.where(too_high, high, low), backed_off, within_bound)


def _back_off(
    state: SafeguardState, loss: Float[Array, ""], now: Float[Array, ""], room: Float[Array, ""]
) -> SafeguardState:
    """The state after a loss that is too high: the backoff tightens, relaxes or ends.

    Args:
      state: The state with this loss, and with the backoff of the step before.
      loss: This step's loss, `float32[]`.
      now: Average of about 10 losses with it.
      room: Rise above the lowest loss that is allowed.

    Returns:
      The state with the backoff for this step.
    """
    noisy = state.noise > 0
    deviation = jnp.where(noisy, jnp.sqrt(jnp.where(noisy, state.noise, 1.0)), 0.0)
    # `now` lags behind by tens of steps; compare with `level`.
    falls = loss < state.level
    rise = now - state.lowest_loss
    excess = room / jnp.maximum(jnp.maximum(rise, room), _SMALLEST)  # Both are 0 for losses of 0.
    target = jnp.maximum(jnp.square(excess), _MIN_BACKOFF)
    gently = jnp.maximum(target, state.backoff / _TIGHTEN)
    tightened = jnp.where(rise > _FAR * room, jnp.minimum(target, state.backoff), gently)
    # If the loss still rises, tighten further to test whether the rates cause it.
    probes = (state.backed_off > _FEW_BACKED_OFF) & (tightened > _STRONG) & (loss > state.level)
    tightened = jnp.where(probes, jnp.minimum(tightened, state.backoff / _TIGHTEN), tightened)
    backoff = jnp.where(falls, jnp.minimum(_RELAX * state.backoff, 1.0), tightened)

    # A step is weak evidence while the loss rises and the backoff is not yet strong.
    is_strong = backoff <= _STRONG
    begins = is_strong & (state.backoff > _STRONG) & (probes | (state.backed_off < _FEW_BACKED_OFF))
    begins &= state.counts_anew > 0
    state = state._replace(backed_off=jnp.where(begins, 0.0, state.backed_off))
    is_evidence = (loss <= state.level) | is_strong
    count = state.backed_off
    backed_off = count + jnp.where(is_evidence, 1.0, _WEAK_EVIDENCE)
    weight = jnp.where(count > 0, jnp.maximum(0.1, 1.0 / (count + 1.0)), 1.0)
    level = state.level + weight * (loss - state.level)
    first = jnp.where(count < _FEW_BACKED_OFF, level, state.first_level)
    height = first - state.lowest_loss
    falling = level < first - _APPRECIABLE * height
    # Such small steps cannot raise the loss as fast as this.
    rising = level > first + _NEGLIGIBLE_RISE * height + deviation
    harmless = rising & is_strong & (backed_off > _PATIENCE) & (backed_off <= 2.0 * _PATIENCE)
    ends = (backed_off > state.patience) & ~falling | harmless

    usual = jnp.maximum(level, now)
    # Double the patience, so that a divergence is slowed down.
    fruitless = ends & ~harmless
    return state._replace(
        first_loss=jnp.where(ends, usual, state.first_loss),
        lowest_loss=jnp.where(ends, usual, state.lowest_loss),
        # A rise that lower rates do not stop is usual in this training.
        decrease=jnp.where(
            harmless, usual - state.lowest_loss, jnp.where(fruitless, 0.0, state.decrease)
        ),
        # The noise at the new level is estimated anew.
        noise=jnp.where(ends, 0.0, state.noise),
        losses=jnp.where(ends, _FEW_BACKED_OFF, state.losses),
        backoff=jnp.where(ends, jnp.minimum(_RELEASE * state.backoff, 1.0), backoff),
        level=level,
        first_level=first,
        backed_off=jnp.where(ends | falling, 0.0, backed_off),
        counts_anew=jnp.where(ends | falling, 1.0, jnp.where(begins, 0.0, state.counts_anew)),
        patience=jnp.where(fruitless, 2.0 * state.patience, state.patience),
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
    # Only the first of several such gradients: persistent growth must reach the moments.
    sudden = jnp.clip(_MAX_SUDDEN_GROWTH / _MAX_GROWTH * factors, _MIN_SPIKE / _MAX_GROWTH, 1.0)
    factors = jnp.where(too_large & (state.exceeded == 0), sudden * factors, factors)
    # The usual size follows slowly. A persistent increase is absorbed within a few steps, which
    # costs nothing because steps are independent of the gradients' scale.
    counted = jnp.where(
        usual > 0, jnp.minimum(mean_square_grads, _MAX_COUNTED * few * usual), mean_square_grads
    )
    return factors, state._replace(
        exceeded=too_large.astype(jnp.float32),
        mean_square_grads=decay * state.mean_square_grads + (1.0 - decay) * counted,
    )

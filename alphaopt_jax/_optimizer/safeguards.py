"""Safeguards: bounds on the harm of a step, for any agent and any gradients.

Steps are relative to the scale of the parameters, so a diverging training diverges exponentially.
Three safeguards limit it; an ordinary training never activates them:

- A *backoff* of all rates, when the loss has risen above its recent best by more than its largest
  decrease so far and by more than its noise. It tightens while the loss rises and relaxes while the
  loss falls. Where lower rates do not bring the loss down within some tens of steps, the rates are
  not at fault, or do no further harm: the backoff lets go, and the new level is the usual one.
- A bound on each leaf's gradient, relative to its usual size. Otherwise the second moments would
  remember one spike for hundreds of steps, in which almost nothing is learned.
- A bound on rates, so that no step is much larger than the leaf. An agent whose log rates reach
  farther can make up for a small `learning_rate`, and does no harm at the usual one.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from alphaopt_jax.config import StepConfig

_MAX_GROWTH = 30.0
"""Largest root mean square of a leaf's gradient, relative to the usual one.

The second moments must register gradients that grow because the steps have become too large: with
10, learning agents were thrown out of a narrow valley now and then.
"""
_MAX_SUDDEN_GROWTH = 100.0
"""Growth from one step to the next that steps can cause; beyond it, a gradient counts less."""
_MIN_SPIKE = 3.0
"""Smallest size to which a sudden spike is cut, relative to the usual one."""
_SMALL_MEAN_SQUARE = 1e-16
"""Gradients below this are not bounded: they are close to epsilon in the denominator."""
_NEGLIGIBLE_RISE = 0.05
"""A rise of the loss by less than this share of the first loss is never harm."""
_MAX_LOG_RATE = 3.5
"""Largest log rate relative to the largest base rate: a step of 1.7 times the size of a leaf."""
_FEW = 20.0
"""With fewer losses or gradients than this, the usual size is uncertain."""
_MAX_COUNTED = 3.0
"""Largest mean square gradient in the average of usual ones, relative to that average."""
_MAX_SURPRISE = 2.0
"""Largest deviation of a loss in the average of its noise, relative to that average."""
_NOISE_ROOM = 3.0
"""Rise of the average of ten losses due to noise, in standard deviations of a single loss."""
_TIGHTEN, _RELAX, _RELEASE = 1.5, 1.35, 2.0
"""Factors per step of a backoff that tightens (the loss rises), relaxes (it falls) or lets go.

With a relaxation by 1.5, an agent whose rates are too high swings between both; with 1.2, some
trainings do not recover from fifty steps uphill.
"""
_FAR = 4.0
"""Excess of the rise over its bound from which the backoff acts at once."""
_MIN_BACKOFF = 1e-4
"""Lowest backoff: steps are negligible, and rates let go are back within 15 steps."""
_STRONG = 0.01
"""Backoff at which a loss that still rises does not rise because of the rates."""
_PATIENCE = 20.0
"""Braked steps without success before the backoff lets go."""
_IMPATIENCE = 0.02
"""Rate per step at which patience returns to the usual one while the loss is below its first."""
_APPRECIABLE = 0.25
"""A change of the loss that counts, as a share of its height above the lowest one."""
_WEAK_EVIDENCE = 0.2
"""Count of a braked step with a loss that rises before the backoff is strong."""
_FEW_BRAKED = 5.0
"""Braked steps whose average is the level that later ones are compared with."""
_FORGETTING = 1e-3
"""Rate per step at which the lowest loss approaches a loss that stays high."""
_SMALLEST = 1e-30
"""Divisors are not smaller."""


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
      first_level: The same over the first few steps that count in `braked`.
      braked: Number of braked steps since the loss last came down, by how much they show of the
        effect of lower rates.
      patience: Largest such number before the backoff lets go.
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
    braked: Float[Array, ""]
    patience: Float[Array, ""]
    exceeded: Float[Array, " leaves"]
    mean_square_grads: Float[Array, " leaves"]


def init(num_leaves: int) -> SafeguardState:
    """Returns the state before the first step."""
    blank = SafeguardState(*(jnp.zeros((), jnp.float32) for _ in SafeguardState._fields))
    return blank._replace(
        backoff=jnp.ones((), jnp.float32),
        patience=jnp.full((), _PATIENCE, jnp.float32),
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
    # The second loss cannot be judged: the noise is still unknown.
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
    at_ease = watched._replace(
        backoff=jnp.minimum(_RELEASE * state.backoff, 1.0),
        level=now,
        braked=jnp.zeros_like(state.braked),
        patience=state.patience + jnp.where(falls, _IMPATIENCE, 0.0) * (_PATIENCE - state.patience),
    )
    braked = _brake(watched, loss, now, room)
    return jax.tree.map(lambda high, low: jnp.where(too_high, high, low), braked, at_ease)


def _brake(
    state: SafeguardState, loss: Float[Array, ""], now: Float[Array, ""], room: Float[Array, ""]
) -> SafeguardState:
    """The state after a loss that is too high: the backoff tightens, relaxes or lets go.

    Args:
      state: The state, with this loss but for the backoff.
      loss: This step's loss, `float32[]`.
      now: Average of about 10 losses with it.
      room: Rise above the lowest loss that is allowed.

    Returns:
      The state with the backoff for this step.
    """
    noisy = state.noise > 0
    deviation = jnp.where(noisy, jnp.sqrt(jnp.where(noisy, state.noise, 1.0)), 0.0)
    # `now` approaches a new level for tens of steps, so it cannot tell a loss that still rises.
    falls = loss < state.level
    rise = now - state.lowest_loss
    excess = room / jnp.maximum(jnp.maximum(rise, room), _SMALLEST)  # Both are 0 for losses of 0.
    target = jnp.maximum(jnp.square(excess), _MIN_BACKOFF)
    gently = jnp.maximum(target, state.backoff / _TIGHTEN)
    tightened = jnp.where(rise > _FAR * room, jnp.minimum(target, state.backoff), gently)
    # A loss that goes on rising at moderate rates: only very low ones show whose fault it is.
    probes = (state.braked > _FEW_BRAKED) & (tightened > _STRONG) & (loss > state.level)
    tightened = jnp.where(probes, jnp.minimum(tightened, state.backoff / _TIGHTEN), tightened)
    backoff = jnp.where(falls, jnp.minimum(_RELAX * state.backoff, 1.0), tightened)

    # While the loss rises and the backoff is not yet strong, a step shows little.
    is_strong = backoff <= _STRONG
    begins = is_strong & (state.backoff > _STRONG) & (probes | (state.braked < _FEW_BRAKED))
    state = state._replace(braked=jnp.where(begins, 0.0, state.braked))
    shows = (loss <= state.level) | is_strong
    braked = state.braked + jnp.where(shows, 1.0, _WEAK_EVIDENCE)
    weight = jnp.where(state.braked > 0, jnp.maximum(0.1, 1.0 / (state.braked + 1.0)), 1.0)
    level = state.level + weight * (loss - state.level)
    first = jnp.where(state.braked < _FEW_BRAKED, level, state.first_level)
    height = first - state.lowest_loss
    falling = level < first - _APPRECIABLE * height
    # Steps this small cannot raise the loss as fast as this.
    rising = level > first + _NEGLIGIBLE_RISE * height + deviation
    harmless = rising & is_strong & (braked > _PATIENCE) & (braked <= 2.0 * _PATIENCE)
    lets_go = (braked > state.patience) & ~falling | harmless

    usual = jnp.maximum(level, now)
    # Longer patience next time: if the rates are at fault, the loss rises in ever slower stairs.
    fruitless = lets_go & ~harmless
    return state._replace(
        first_loss=jnp.where(lets_go, usual, state.first_loss),
        lowest_loss=jnp.where(lets_go, usual, state.lowest_loss),
        # A rise that lower rates do not stop is usual in this training.
        decrease=jnp.where(
            harmless, usual - state.lowest_loss, jnp.where(fruitless, 0.0, state.decrease)
        ),
        # The noise at this level is learned anew.
        noise=jnp.where(lets_go, 0.0, state.noise),
        losses=jnp.where(lets_go, _FEW_BRAKED, state.losses),
        backoff=jnp.where(lets_go, jnp.minimum(_RELEASE * state.backoff, 1.0), backoff),
        level=level,
        first_level=first,
        braked=jnp.where(lets_go | falling, 0.0, braked),
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
    # Only the first of several such gradients: a growth that lasts must reach the moments.
    sudden = jnp.clip(_MAX_SUDDEN_GROWTH / _MAX_GROWTH * factors, _MIN_SPIKE / _MAX_GROWTH, 1.0)
    factors = jnp.where(too_large & (state.exceeded == 0), sudden * factors, factors)
    # The usual size follows slowly. A persistent increase is absorbed within a few steps, which
    # costs nothing because steps do not depend on the gradients' scale.
    counted = jnp.where(
        usual > 0, jnp.minimum(mean_square_grads, _MAX_COUNTED * few * usual), mean_square_grads
    )
    return factors, state._replace(
        exceeded=too_large.astype(jnp.float32),
        mean_square_grads=decay * state.mean_square_grads + (1.0 - decay) * counted,
    )


def bound_rates(
    rates: Float[Array, "*shape"], largest_base: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """Bounds rates.

    Args:
      rates: Learning rates, `float32`, any shape.
      largest_base: Base rates at the largest `learning_rate` that counts, the same shape.

    Returns:
      The rates, at most exp(3.5) times these.
    """
    return jnp.minimum(rates, np.float32(math.exp(_MAX_LOG_RATE)) * largest_base)

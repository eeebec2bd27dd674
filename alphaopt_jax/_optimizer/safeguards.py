"""What bounds the harm of a step, whatever the agent decides and whatever gradients come.

Steps are relative to the scale of what they change, so that a training which goes astray does not
go as a line but as an exponential. Two things hold it back, of which a training that goes as
trainings do never notices anything:

- A *brake* on all rates, where the loss has risen above its recent best by more than it had ever
  fallen, and by more than its noise. It takes hold while the loss rises and lets go while it falls.
- A bound on how much larger than usual a leaf's gradient may be. One spike would otherwise be
  remembered by the second moments for hundreds of steps, in which next to nothing is learned.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from alphaopt_jax.config import AlphaOptConfig

_MAX_GROWTH = 30.0
"""Largest gradient of a leaf, relative to the root mean square of those before.

The second moments must see enough of gradients that grow because steps are too large for where a
training has come to: at 10, agents that learn were thrown out of a narrow valley now and then.
"""
_SMALL_ENERGY = 1e-16
"""Of gradients that are not bounded: they are near to what is added to the root that divides."""
_NO_MATTER = 0.05
"""A rise by this share of the first loss is no harm, however sure it is."""
_FEW = 20.0
"""While there are fewer losses or gradients than this, what is usual is hardly known."""
_MAX_COUNTED = 3.0
"""A mean squared gradient counts at most as so many times the usual one."""
_MAX_SURPRISE = 2.0
"""A loss's distance from what was expected counts at most as so many times the usual one."""
_NOISE_ROOM = 3.0
"""Standard deviations of a single loss that the average of ten may rise without reason."""
_PRESS, _RELEASE = 1.5, 1.2
"""How fast the brake takes hold while the loss rises, and lets go while it falls, a step."""
_FAR = 4.0
"""So many times too high, the brake takes hold at once."""
_FORGETTING = 1e-3
"""Per step: where a loss stays high, what it was before is forgotten after thousands of steps."""


class GuardState(NamedTuple):
    """What the guard remembers; `float32[]` but for the last.

    Attributes:
      first_loss: The first loss.
      lowest_loss: The lowest average of about 10 losses. It rises slowly towards the present one.
      decrease: The most by which that was ever below the first loss.
      noise: Average squared distance of a loss from the average before it.
      losses: How many losses were seen.
      brake: What the rates were multiplied by at the last step, from 0 to 1.
      energies: Average of each leaf's mean squared gradient, `float32[leaves]`, decaying as the
        second moments do and not corrected for its start.
    """

    first_loss: Float[Array, ""]
    lowest_loss: Float[Array, ""]
    decrease: Float[Array, ""]
    noise: Float[Array, ""]
    losses: Float[Array, ""]
    brake: Float[Array, ""]
    energies: Float[Array, " leaves"]


def init(num_leaves: int) -> GuardState:
    """Returns the state before any step was made."""
    blank = GuardState(*(jnp.zeros((), jnp.float32) for _ in GuardState._fields))
    return blank._replace(
        brake=jnp.ones((), jnp.float32), energies=jnp.zeros((num_leaves,), jnp.float32)
    )


def watch_loss(
    guard: GuardState, loss: Float[Array, ""], before: Float[Array, ""], now: Float[Array, ""]
) -> GuardState:
    """Adds a loss and sets the brake.

    Args:
      guard: The state.
      loss: This step's loss, `float32[]`.
      before: The average of about 10 losses before it.
      now: The same with it.

    Returns:
      The state, with the brake for this step.

    Example:
      >>> import jax.numpy as jnp
      >>> guard, losses = init(1), jnp.array([4.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 100.0])
      >>> for before, loss in zip(jnp.roll(losses, 1), losses):
      ...     guard = watch_loss(guard, loss, before, now=loss)
      >>> bool(guard.brake < 0.02)
      True
    """
    is_first = guard.losses == 0
    losses = guard.losses + 1.0
    first = jnp.where(is_first, loss, guard.first_loss)
    lowest = guard.lowest_loss + _FORGETTING * (now - guard.lowest_loss)
    lowest = jnp.where(is_first, now, jnp.minimum(lowest, now))
    decrease = jnp.maximum(guard.decrease, first - lowest)
    rise = now - lowest
    noise_room = _NOISE_ROOM * (1.0 + _FEW / losses) * jnp.sqrt(guard.noise)
    room = decrease + noise_room + _NO_MATTER * jnp.abs(first)
    # A second loss tells nothing: there is no noise yet to compare it with.
    too_high = (rise > room) & (losses > 2)
    target = jnp.square(room / jnp.where(too_high, rise, 1.0))
    gently = jnp.maximum(target, guard.brake / _PRESS)
    braked = jnp.where(rise > _FAR * room, jnp.minimum(target, guard.brake), gently)
    released = jnp.minimum(_RELEASE * guard.brake, 1.0)
    surprise = jnp.where(is_first, 0.0, jnp.square(loss - before))
    usual = jnp.square(_MAX_SURPRISE) * guard.noise
    surprise = jnp.where(guard.noise > 0, jnp.minimum(surprise, usual), surprise)
    noise = guard.noise + jnp.maximum(0.005, 1.0 / losses) * (surprise - guard.noise)
    return guard._replace(
        first_loss=first,
        lowest_loss=lowest,
        decrease=decrease,
        # What a training does that goes astray is no noise.
        noise=jnp.where(too_high & (guard.noise > 0), guard.noise, noise),
        losses=losses,
        brake=jnp.where(too_high, jnp.where(now > before, braked, released), 1.0),
    )


def bound_gradients(
    guard: GuardState,
    energies: Float[Array, " leaves"],
    step: Float[Array, ""],
    config: AlphaOptConfig,
) -> tuple[Float[Array, " leaves"], GuardState]:
    """What gradients are to be multiplied by, so that none is much larger than usual.

    Args:
      guard: The state.
      energies: Mean squared gradient of every leaf, `float32[leaves]`.
      step: This update's number, from 1, `float32[]`.
      config: Gives the decay of the second moments.

    Returns:
      Factors, `float32[leaves]`, 1 for all but the largest gradients; and the state.
    """
    decay = config.squared_gradient_decay
    usual = guard.energies / jnp.maximum(1.0 - decay ** (step - 1.0), 1.0 - decay)
    few = jnp.square(1.0 + _FEW / jnp.maximum(step - 1.0, 1.0))
    largest = jnp.maximum(jnp.square(_MAX_GROWTH) * few * usual, _SMALL_ENERGY)
    too_large = (energies > largest) & (usual > 0)
    factors = jnp.where(too_large, jnp.sqrt(largest / jnp.where(too_large, energies, 1.0)), 1.0)
    # What is usual follows slowly. Where gradients stay large this costs nothing, since a step does
    # not depend on their scale; where they do not, the second moments have little to forget.
    counted = jnp.where(usual > 0, jnp.minimum(energies, _MAX_COUNTED * few * usual), energies)
    return factors, guard._replace(energies=decay * guard.energies + (1.0 - decay) * counted)

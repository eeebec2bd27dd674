"""Levels: the size of each leaf's rates, learned within a training.

A level is added to the log rate that the policy decides for a leaf. An average of the parameters
has moved, over some hundred steps, along a path Δ that is proportional to the rates of those steps.
With rates larger by a factor of exp(δ) the loss L at its end would be lower by

    δ credit + O(δ²),        credit = -⟨∇L, Δ⟩.

This is the derivative of a reward with respect to an action, as in deterministic policy gradients
(Silver et al. 2014), and known without a critic. A level rises while gradients point further along
the path, and falls while they point back.

Credit for the last step alone is greedy: lower rates remove noise from the last parameters, which
lowers the loss at once and slows down all further progress (short-horizon bias: Wu et al. 2018). An
average of the parameters contains little of that noise.

Credits differ by many powers of ten between tasks and times. Levels therefore follow the cosine
between gradient and path, averaged over some steps, in units of its root mean square (compare
Autostep: Mahmood et al. 2012). A small one, which noise explains, moves no level.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float
import numpy as np

from alphaopt_jax._agent import differentiable
from alphaopt_jax._agent.sampling import Sampling

_PARAM_DECAYS = np.array([0.98, 0.995], np.float32)
"""Decays of the two averages of the parameters. The path leads from the longer to the shorter."""
_PARAM_STEPS = np.array([5.0, 2.0], np.float32)
"""Early averages are shorter: the weight of a step is at least k / (k + steps before)."""
_CREDIT_DECAY, _CREDIT_STEPS = 0.95, 5.0
_FIRST_CREDITS = 3.0
"""Steps without a change of levels."""
_RISES_ABOVE, _FALLS_BELOW = 0.3, -0.7
"""Normalized credits between these change no level."""
_CHANGE = 3.0
"""Bound on the change of a level in one step, times the number of the step."""
_FREEDOM = 0.5
"""Learned rates are at most 1.6 times those of the policy alone with a multiplier of 1."""
_LARGEST_LEVEL = 7.0
_MIN_LENGTH = 1e-30
_MIN_MULTIPLIER = 1e-6


class LevelState(NamedTuple):
    """State of the levels of L leaves with P sampled parameters each.

    Attributes:
      levels: `float32[L]`, added to the leaves' log rates.
      param_averages: `float32[2, L, P]`, the shorter and the longer average of the parameters.
      credit_averages: `float32[2, L + 1]`, of credits and of their squares, for each leaf and for
        the whole model.
      multiplier: `float32[]`, the largest multiplier of all rates so far.
    """

    levels: Float[Array, " leaves"]
    param_averages: Float[Array, "2 leaves samples"]
    credit_averages: Float[Array, "2 leaves_and_model"]
    multiplier: Float[Array, ""]


class Sampled(NamedTuple):
    """The sampled parameters and their gradients, in the parameters' own coordinates.

    Attributes:
      params: `float32[L, P]`.
      grads: `float32[L, P]`.
      inverse_units: Factor contained in each leaf's gradients, `[L]`, `float32` or `float64`.
    """

    params: Float[Array, "leaves samples"]
    grads: Float[Array, "leaves samples"]
    inverse_units: Float[Array, " leaves"]


class Circumstances(NamedTuple):
    """The circumstances of a step.

    Attributes:
      number: Its number in the training, from 1, `float32[]`.
      multiplier: Positive factor of all rates by the user, `float32[]`.
      backed_off: Whether the safeguards lower all rates, `bool[]`; levels then stay.
    """

    number: Float[Array, ""]
    multiplier: Float[Array, ""]
    backed_off: Bool[Array, ""]


def init(sampling: Sampling) -> LevelState:
    """Returns the state before the first step."""
    leaves, samples = sampling.positions.shape
    return LevelState(
        levels=jnp.zeros((leaves,), jnp.float32),
        param_averages=jnp.zeros((2, leaves, samples), jnp.float32),
        credit_averages=jnp.zeros((2, leaves + 1), jnp.float32),
        multiplier=jnp.zeros((), jnp.float32),
    )


def update(
    state: LevelState, sampled: Sampled, now: Circumstances, sampling: Sampling, max_change: float
) -> LevelState:
    """Credits the path so far with the gradient of a step, and moves the levels.

    Args:
      state: The state.
      sampled: Parameters and gradients before the step.
      now: The circumstances of the step.
      sampling: The layout of the sample.
      max_change: Largest change of a level in one step.

    Returns:
      The new state, with levels for this step.
    """
    before = now.number - 1.0
    weights = jnp.maximum(1.0 - _PARAM_DECAYS, _PARAM_STEPS / (_PARAM_STEPS + before))
    param_averages = state.param_averages
    param_averages += weights[:, None, None] * (sampled.params[None] - param_averages)
    path = param_averages[0] - param_averages[1]
    credit = credits(path, sampled, sampling)
    decay = jnp.minimum(_CREDIT_DECAY, now.number / (now.number + _CREDIT_STEPS))
    credit_averages = decay * state.credit_averages
    credit_averages += (1.0 - decay) * jnp.stack([credit, jnp.square(credit)])
    normalized = differentiable.in_deviations(*credit_averages)
    # A leaf's own credit and the model's.
    change = direction(0.5 * (normalized[:-1] + normalized[-1]))
    change *= jnp.minimum(max_change, _CHANGE / now.number)
    multiplier = jnp.maximum(state.multiplier, now.multiplier)
    moved = jnp.clip(state.levels + change, *bounds(multiplier))
    stays = now.backed_off | (now.number <= _FIRST_CREDITS)
    levels = jnp.where(stays, state.levels, moved)
    return LevelState(levels, param_averages, credit_averages, multiplier)


def credits(
    path: Float[Array, "leaves samples"], sampled: Sampled, sampling: Sampling
) -> Float[Array, " leaves_and_model"]:
    """Cosines between descent and the path, for each leaf and for the whole model.

    Args:
      path: Change of the averaged parameters, `float32[L, P]`.
      sampled: The gradients.
      sampling: The layout of the sample.

    Returns:
      `float32[L + 1]`, between -1 and 1; 0 without a gradient or a path.
    """
    grads = sampled.grads
    means = sampling.means([-grads * path, jnp.square(grads), jnp.square(path)])
    sizes = np.array(sampling.sizes, np.float32)
    # Relative to the smallest: in double precision units can exceed the range of float32.
    smallest = jnp.min(sampled.inverse_units)
    units = (smallest / sampled.inverse_units).astype(jnp.float32)
    products, squared_grads, squared_path = (
        jnp.append(sizes * mean, jnp.sum(sizes * mean * unit))
        for mean, unit in zip(means, (units, jnp.square(units), jnp.ones_like(units)), strict=True)
    )
    length = differentiable.sqrt(squared_grads) * differentiable.sqrt(squared_path)
    known = length > _MIN_LENGTH
    return jnp.where(known, products / jnp.where(known, length, 1.0), 0.0)


def direction(credit: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Direction in which levels move, from normalized credits; both between -1 and 1.

    Example:
      >>> [f"{each:.1f}" for each in direction(jnp.array([-1.0, -0.5, 0.2, 0.65, 1.0]))]
      ['-1.0', '0.0', '0.0', '0.5', '1.0']
    """
    rise = jnp.maximum(credit - _RISES_ABOVE, 0.0) / (1.0 - _RISES_ABOVE)
    fall = jnp.minimum(credit - _FALLS_BELOW, 0.0) / (1.0 + _FALLS_BELOW)
    return rise + fall


def bounds(multiplier: Float[Array, ""]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Smallest and largest level, a trust region around the rates that the policy alone decides.

    Levels make up for a multiplier of all rates below or above 1, and may add a factor of 1.6. They
    do not make up for its decay later in a training.

    Args:
      multiplier: The largest so far, positive.

    Example:
      >>> [f"{each + 0.0:.1f}" for each in (*bounds(jnp.array(1.0)), *bounds(jnp.array(0.1)))]
      ['0.0', '0.5', '0.0', '2.8']
    """
    usual = -jnp.log(jnp.maximum(multiplier, _MIN_MULTIPLIER))
    return jnp.minimum(usual, 0.0), jnp.clip(usual + _FREEDOM, 0.0, _LARGEST_LEVEL)

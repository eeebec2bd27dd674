"""What one parameter sees: itself, its gradient and their history, its leaf, the loss, the time.

An observation has three parts. The *coordinate features* differ from parameter to parameter and are
computed for every one of them, so there are few and they need only the accumulators that Adam has.
The *context* is the same for all parameters of a leaf. The *memory* is what each leaf remembers of
earlier steps, and what is known of the horizon. None of them changes when the loss is multiplied by
a constant, or (but for the logarithm of a leaf's scale) when a leaf is, nor (but for the few
features of `Context`) when the loss is shifted.

The meaning and order of the features is the *observation contract*: an agent is only good for the
contract that it was trained with. Change a feature, and raise `CONTRACT_VERSION`.
"""

from __future__ import annotations

from collections.abc import Sequence
import math
from typing import NamedTuple

import chex
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from alphaopt_jax._agent.history import LeafMemory, LossHistory
from alphaopt_jax.config import AlphaOptConfig

CONTRACT_VERSION = 3

COORDINATE_FEATURES = (
    "gradient",
    "momentum",
    "gradient times momentum",
    "log of the gradient's size relative to its leaf",
    "parameter relative to its leaf",
)
CONTEXT_FEATURES = (
    "consistency of the leaf's momentum",
    "agreement of the leaf's gradient and momentum",
    "is a matrix",
    "log scale of the leaf",
    "trend of the loss",
    "log time",
    "time to go",
    "nearness of the end",
)
MEMORY_FEATURES = (
    "persistence of the leaf's gradients",
    "slow average of the persistence",
    "persistence of the whole model's gradients",
    "slow average of the whole model's persistence",
    "log of the consistency relative to noise",
    "recent log rate of the leaf",
    "log of the gradient's size relative to the first steps",
    "log of the leaf's scale relative to the first step",
    "recent trend of the loss",
    "loss above its lowest",
    "log of the inputs of a unit",
    "log of the number of leaves",
    "horizon is known",
    "log of the horizon",
)
NUM_COORDINATE_FEATURES = len(COORDINATE_FEATURES)
NUM_DIRECT_FEATURES = NUM_COORDINATE_FEATURES + len(CONTEXT_FEATURES)
NUM_FEATURES = NUM_DIRECT_FEATURES + len(MEMORY_FEATURES)

_LONG_RUN = 1000.0  # Steps; with a known horizon too, rates fall with the root of time after them.
_TINY = 1e-30  # Smaller than the square of any gradient that float32 can tell from zero.


class Coordinates(NamedTuple):
    """What the accumulators hold of some coordinates: a leaf, or a gathered sample of many leaves.

    Attributes:
      param: The parameters, `float32`, any shape.
      grad: Their gradients; this and the following have the parameters' shape.
      first_moment: Moving average of the gradients, this one included, not bias-corrected.
      second_moment: Moving average of their squares, likewise.
    """

    param: Float[Array, "*shape"]
    grad: Float[Array, "*shape"]
    first_moment: Float[Array, "*shape"]
    second_moment: Float[Array, "*shape"]


class Normalized(NamedTuple):
    """Gradient and momentum of some coordinates in units of their own root mean square.

    Attributes:
      gradient: `g / sqrt(v)`, any shape.
      momentum: `m / sqrt(v)`, the same shape.
      second_moment: bias-corrected `v`, the same shape.
    """

    gradient: Float[Array, "*shape"]
    momentum: Float[Array, "*shape"]
    second_moment: Float[Array, "*shape"]


class LeafStatistics(NamedTuple):
    """Means over one leaf; all `float32[]`, or any shape that broadcasts against coordinates.

    Attributes:
      scale: Root mean square of the parameters, at least the configured minimum.
      second_moment: Mean of the second moments.
      consistency: Mean of the squared normalised momentum; 1 when gradients never change.
      agreement: Mean of the product of normalised gradient and momentum.
      persistence: The same, but for the part of the momentum that is this gradient itself. Above
        zero where gradients go on as they were, zero where they are noise, below zero where steps
        are so large that each undoes a part of those before.
    """

    scale: Float[Array, "*shape"]
    second_moment: Float[Array, "*shape"]
    consistency: Float[Array, "*shape"]
    agreement: Float[Array, "*shape"]
    persistence: Float[Array, "*shape"]


def memory_features(
    memory: LeafMemory,
    leaves: LeafStatistics,
    fan_ins: Float[np.ndarray, " leaves"],
    history: LossHistory,
    num_steps: chex.Numeric | None,
    config: AlphaOptConfig,
) -> Float[Array, "leaves features"]:
    """The features named in `MEMORY_FEATURES`, of every leaf.

    Args:
      memory: The memory, with this step in it.
      leaves: Statistics of the leaves, each `float32[leaves]`.
      fan_ins: Of each leaf, `float32[leaves]`, as `fan_in` gives it.
      history: The losses seen, this step's among them.
      num_steps: Planned number of updates; None, or a number that is not positive, where it is
        not known.
      config: The constants.

    Returns:
      `float32[leaves, len(MEMORY_FEATURES)]`.
    """
    growth = jnp.log((leaves.second_moment + _TINY) / (memory.first_second_moment + _TINY))
    noise = (1.0 - config.gradient_decay) / (1.0 + config.gradient_decay)
    deviation = jnp.sqrt(history.noise) + _TINY
    known, horizon = _horizon(num_steps)
    of_all = (
        _magnify(jnp.mean(memory.persistence)),
        _magnify(jnp.mean(memory.slow_persistence)),
        (history.fast - history.medium) / deviation,
        (history.fast - history.lowest) / deviation,
        0.5 * np.log(len(fan_ins) / 6.0),
        known,
        known * (0.5 * jnp.log(horizon) - 3.0),
    )
    model, slow_model, trend, excess, depth, known, duration = (
        jnp.full_like(growth, each) for each in of_all
    )
    features = (
        _magnify(memory.persistence),
        _magnify(memory.slow_persistence),
        model,
        slow_model,
        jnp.log((memory.consistency + 1e-3) / noise),
        memory.log_rate,
        0.15 * growth,
        jnp.log(leaves.scale / memory.first_scale),
        trend,
        excess,
        0.5 * jnp.log(fan_ins / 16.0),
        depth,
        known,
        duration,
    )
    return _squash(jnp.stack(features, axis=-1))


def fan_in(shape: Sequence[int]) -> int:
    """Inputs of a unit of a leaf: the product of all axes but the last; 1 for vectors."""
    return max(math.prod(shape[:-1]), 1)


def schedule(
    step: Float[Array, ""], num_steps: chex.Numeric | None, anytime_steps: chex.Numeric
) -> Float[Array, ""]:
    """The factor by which time scales every rate.

    The environment's own schedule: what is left for the agent is how high the rates are, not that
    they must fall. Where the horizon is known they fall linearly to its end, which is close to the
    best one on most tasks (Defazio et al. 2023, "When, why and how much? Adaptive learning rate
    scheduling by refinement"); and, since a longer training bears lower rates, with the square root
    of time after a thousand steps. Where it is not known, they fall with the square root of time
    alone, which loses little whenever the training ends (Zinkevich 2003, "Online convex programming
    and generalized infinitesimal gradient ascent").

    Args:
      step: This update's number, from 1, `float32[]`.
      num_steps: As in `memory_features`.
      anytime_steps: As in `agent.Agent`.

    Returns:
      `float32[]`, `(1 - (step - 1) / num_steps) / sqrt(1 + (step - 1) / 1000)` where the horizon is
      known; past it it stays what it was at the last step. Else
      `1 / sqrt(1 + (step - 1) / anytime_steps)`.

    Example:
      >>> float(schedule(jnp.asarray(3001.0), 6000, 30.0))
      0.25
      >>> float(schedule(jnp.asarray(91.0), None, 30.0))
      0.5
    """
    known, horizon = _horizon(num_steps)
    elapsed = step - 1.0
    planned = jnp.minimum(elapsed, horizon - 1.0)
    falling = (1.0 - planned / horizon) / jnp.sqrt(1.0 + planned / _LONG_RUN)
    anytime = 1.0 / jnp.sqrt(1.0 + elapsed / anytime_steps)
    return jnp.where(known > 0, falling, anytime)


def _horizon(num_steps: chex.Numeric | None) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Whether the horizon is known, 0 or 1, and the horizon, at least 1; both `float32[]`."""
    steps = jnp.asarray(0 if num_steps is None else num_steps).astype(jnp.float32)
    return (steps > 0).astype(jnp.float32), jnp.maximum(steps, 1.0)


def accumulate(
    param: Float[Array, "*shape"],
    grad: Float[Array, "*shape"],
    first_moment: Float[Array, "*shape"],
    second_moment: Float[Array, "*shape"],
    config: AlphaOptConfig,
) -> Coordinates:
    """Adds a gradient to the moving averages of one leaf."""
    first_decay, second_decay = config.gradient_decay, config.squared_gradient_decay
    return Coordinates(
        param,
        grad,
        first_decay * first_moment + (1.0 - first_decay) * grad,
        second_decay * second_moment + (1.0 - second_decay) * jnp.square(grad),
    )


def normalize(
    coordinates: Coordinates, step: Float[Array, ""], config: AlphaOptConfig
) -> Normalized:
    """Puts gradient and momentum in units of the gradient's own root mean square.

    Args:
      coordinates: Gradients and their moving averages.
      step: Number of gradients averaged, `float32[]`, at least 1.
      config: Gives the decays of both averages and what is added to the root that divides.

    Returns:
      `Normalized` arrays of the coordinates' shape.
    """
    return normalize_with(coordinates, *start_corrections(step, config), config)


def start_corrections(
    step: Float[Array, ""], config: AlphaOptConfig
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """What first and second moments are multiplied by since they began at zero; `float32[]`."""
    return (
        1.0 / (1.0 - config.gradient_decay**step),
        1.0 / (1.0 - config.squared_gradient_decay**step),
    )


def normalize_with(
    coordinates: Coordinates,
    momentum_scale: Float[Array, ""],
    second_moment_scale: Float[Array, ""],
    config: AlphaOptConfig,
) -> Normalized:
    """`normalize`, where what `start_corrections` gives was computed before."""
    second = coordinates.second_moment * second_moment_scale
    inverse_root = 1.0 / (jnp.sqrt(second) + config.epsilon)
    momentum = coordinates.first_moment * (inverse_root * momentum_scale)
    return Normalized(coordinates.grad * inverse_root, momentum, second)


def averaged_for_statistics(
    param: Float[Array, "*shape"], normalized: Normalized
) -> tuple[Float[Array, "*shape"], ...]:
    """What `statistics_of_means` takes the means of, each of the parameter's shape."""
    return (
        jnp.square(param),
        normalized.second_moment,
        jnp.square(normalized.momentum),
        normalized.gradient * normalized.momentum,
        jnp.square(normalized.gradient),
    )


def statistics_of_means(
    means: Float[Array, " averages *shape"] | Sequence[Float[Array, "*shape"]],
    step: Float[Array, ""],
    config: AlphaOptConfig,
) -> LeafStatistics:
    """From means over leaves of each of `averaged_for_statistics`, any shape, to statistics."""
    square, second_moment, consistency, agreement, energy = means
    own = (1.0 - config.gradient_decay) / (1.0 - config.gradient_decay**step)
    return LeafStatistics(
        scale=jnp.maximum(jnp.sqrt(square), config.minimum_scale),
        second_moment=second_moment,
        consistency=consistency,
        agreement=agreement,
        persistence=agreement - own * energy,
    )


def coordinate_features(
    param: Float[Array, "*shape"], normalized: Normalized, leaf: LeafStatistics
) -> tuple[Float[Array, "*shape"], ...]:
    """The features named in `COORDINATE_FEATURES`, each of the parameter's shape."""
    gradient, momentum = _squash(normalized.gradient), _squash(normalized.momentum)
    relative_size = (normalized.second_moment + _TINY) / (leaf.second_moment + _TINY)
    return (
        gradient,
        momentum,
        gradient * momentum,
        _squash(0.15 * jnp.log(relative_size)),
        _squash(param / leaf.scale),
    )


def context_features(
    leaves: LeafStatistics,
    is_matrix: Float[np.ndarray, " leaves"],
    history: LossHistory,
    step: Float[Array, ""],
    num_steps: chex.Numeric | None,
) -> Float[Array, "leaves features"]:
    """The features named in `CONTEXT_FEATURES`, of every leaf.

    Args:
      leaves: Statistics of the leaves, each `float32[leaves]`.
      is_matrix: 1 for leaves of two or more axes, else 0; `float32[leaves]`.
      history: The losses seen.
      step: This update's number, from 1, `float32[]`.
      num_steps: As in `memory_features`; the last two features are zero without it.

    Returns:
      `float32[leaves, len(CONTEXT_FEATURES)]`.
    """
    trend = (history.fast - history.slow) / (jnp.sqrt(history.spread) + _TINY)
    known, horizon = _horizon(num_steps)
    progress = jnp.minimum(step / horizon, 1.0)
    to_go, end = known * (2.0 * progress - 1.0), known * jnp.exp(-8.0 * (1.0 - progress))
    of_all = (jnp.clip(trend, -2.0, 2.0), jnp.tanh(jnp.log(step) / 3.0 - 1.0), to_go, end)
    features = (
        3.0 * leaves.consistency,
        3.0 * leaves.agreement,
        jnp.asarray(is_matrix, jnp.float32),
        0.2 * jnp.log(leaves.scale),
        *(jnp.full_like(leaves.scale, each) for each in of_all),
    )
    return _squash(jnp.stack(features, axis=-1))


def _squash(feature: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    return jnp.clip(feature, -3.0, 3.0)


def _magnify(persistence: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Within ±3; what tells a good rate from one too high is a hundredth more or less."""
    return 3.0 * persistence / jnp.sqrt(jnp.abs(persistence) + 0.01)

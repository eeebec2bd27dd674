"""Observation: the parameter, its gradient, their history, the loss and the time.

An observation has three parts. *Coordinate features* differ between the parameters of a leaf, so
there are few, computed from the parameter, its gradient and Adam's two moments. *Context features*
and *history features* are shared by all parameters of a leaf: its present statistics, and moving
averages over earlier steps with the horizon. Features are invariant to the scale of the loss and,
except for the logarithm of a leaf's scale, to the scale of a leaf. A shift of the loss changes only
the features of its trend.

Meaning and order of the features are the *observation contract*. An agent is valid for the contract
that it was trained with: raise `CONTRACT_VERSION` with any change of a feature.
"""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from alphaopt_jax._agent import differentiable
from alphaopt_jax._agent import statistics as statistics_lib
from alphaopt_jax._agent.history import History
from alphaopt_jax._agent.leaves import Leaves
from alphaopt_jax._agent.schedule import Clock
from alphaopt_jax._agent.statistics import Coordinates, LeafStatistics, Normalized
from alphaopt_jax.config import StepConfig

CONTRACT_VERSION = 3

COORDINATE_FEATURES = (
    "gradient",
    "momentum",
    "gradient times momentum",
    "log of the gradient's size relative to its leaf",
    "parameter relative to its leaf",
)
CONTEXT_FEATURES = (
    "energy of the leaf's momentum",
    "correlation of the leaf's gradient and momentum",
    "is a matrix",
    "log scale of the leaf",
    "trend of the loss",
    "log time",
    "time to go",
    "nearness of the end",
)
HISTORY_FEATURES = (
    "autocorrelation of the leaf's gradients",
    "slow average of the autocorrelation",
    "autocorrelation of the whole model's gradients",
    "slow average of the whole model's autocorrelation",
    "log of the momentum's energy relative to noise",
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
NUM_FEATURES = NUM_DIRECT_FEATURES + len(HISTORY_FEATURES)


def leaf_feature(name: str) -> int:
    """Index of a feature among those of a leaf, context before history.

    Example:
      >>> leaf_feature("is a matrix")
      2
    """
    return (CONTEXT_FEATURES + HISTORY_FEATURES).index(name)


RECENT_LOG_RATE = leaf_feature("recent log rate of the leaf")
"""Index of a leaf's recent log rate among its features."""


class Observation(NamedTuple):
    """The observation of a model of L leaves at one step.

    Attributes:
      coordinates: Parameters, gradients and moments, in the layout of the leaves.
      normalized: Gradients and momenta in units of their root mean square.
      statistics: Of the leaves, each `float32[L]`.
      context: `float32[L, C]`, the features named in `CONTEXT_FEATURES`.
      history_features: `float32[L, K]`, the features named in `HISTORY_FEATURES`.
      history: The history, this step included.
    """

    coordinates: Coordinates
    normalized: Normalized
    statistics: LeafStatistics
    context: Float[Array, "leaves context"]
    history_features: Float[Array, "leaves history"]
    history: History

    @property
    def leaf_features(self) -> Float[Array, "leaves features"]:
        """All features shared by a leaf's parameters, `float32[L, C + K]`."""
        return jnp.concatenate([self.context, self.history_features], axis=-1)


def observe(
    coordinates: Coordinates,
    leaves: Leaves,
    history: History,
    clock: Clock,
    config: StepConfig,
) -> Observation:
    """Observes all leaves.

    Args:
      coordinates: Parameters, gradients and moments, this step's gradient included.
      leaves: Their layout.
      history: The history before this step; its loss history already holds this step's loss.
      clock: The time.
      config: The constants.

    Returns:
      The observation, with the updated history.
    """
    corrections = statistics_lib.bias_corrections(clock.step, config)
    normalized = statistics_lib.normalize(coordinates, corrections, config)
    means = leaves.means(statistics_lib.summands(coordinates.param, normalized))
    statistics = statistics_lib.statistics_of_means(means, clock.step, config)
    history = history._replace(leaves=history.leaves.update(statistics, clock.step))
    return Observation(
        coordinates=coordinates,
        normalized=normalized,
        statistics=statistics,
        context=context_features(statistics, leaves, history, clock),
        history_features=history_features(statistics, leaves, history, clock, config),
        history=history,
    )


def coordinate_features(
    param: Float[Array, "*shape"], normalized: Normalized, leaf: LeafStatistics
) -> tuple[Float[Array, "*shape"], ...]:
    """The features named in `COORDINATE_FEATURES`, each of the parameter's shape."""
    gradient, momentum = _squash(normalized.gradient), _squash(normalized.momentum)
    return (
        gradient,
        momentum,
        gradient * momentum,
        _squash(0.15 * differentiable.log_ratio(normalized.second_moment, leaf.second_moment)),
        _squash(param / leaf.scale),
    )


def context_features(
    statistics: LeafStatistics, leaves: Leaves, history: History, clock: Clock
) -> Float[Array, "leaves features"]:
    """The features named in `CONTEXT_FEATURES`.

    Args:
      statistics: Of the leaves, each `float32[leaves]`.
      leaves: Their layout.
      history: The history, this step included.
      clock: The time; with an unknown horizon the last two features are zero.

    Returns:
      `float32[leaves, len(CONTEXT_FEATURES)]`.
    """
    loss = history.loss
    trend = differentiable.in_deviations(loss.fast - loss.slow, loss.spread)
    known, horizon = clock.horizon()
    progress = jnp.minimum(clock.step / horizon, 1.0)
    to_go, end = known * (2.0 * progress - 1.0), known * jnp.exp(-8.0 * (1.0 - progress))
    shared = (jnp.clip(trend, -2.0, 2.0), jnp.tanh(jnp.log(clock.step) / 3.0 - 1.0), to_go, end)
    features = (
        3.0 * statistics.momentum_energy,
        3.0 * statistics.gradient_momentum_correlation,
        jnp.asarray(leaves.is_matrix, jnp.float32),
        0.2 * jnp.log(statistics.scale),
        *(jnp.full_like(statistics.scale, each) for each in shared),
    )
    return _squash(jnp.stack(features, axis=-1))


def history_features(
    statistics: LeafStatistics,
    leaves: Leaves,
    history: History,
    clock: Clock,
    config: StepConfig,
) -> Float[Array, "leaves features"]:
    """The features named in `HISTORY_FEATURES`.

    Args:
      statistics: Of the leaves, each `float32[leaves]`.
      leaves: Their layout.
      history: The history, this step included.
      clock: The time.
      config: Gives the decay of the first moments.

    Returns:
      `float32[leaves, len(HISTORY_FEATURES)]`.
    """
    past = history.leaves
    growth = differentiable.log_ratio(statistics.second_moment, past.first_second_moment)
    noise = (1.0 - config.gradient_decay) / (1.0 + config.gradient_decay)
    shared = _shared_history_features(history, len(leaves.fan_in), clock)
    model, slow_model, trend, excess, depth, known, duration = (
        jnp.full_like(growth, each) for each in shared
    )
    features = (
        _magnify(past.gradient_autocorrelation),
        _magnify(past.slow_gradient_autocorrelation),
        model,
        slow_model,
        jnp.log((past.momentum_energy + 1e-3) / noise),
        past.log_rate,
        0.15 * growth,
        jnp.log(statistics.scale / past.first_size),
        trend,
        excess,
        0.5 * jnp.log(leaves.fan_in / 16.0),
        depth,
        known,
        duration,
    )
    squashed = _squash(jnp.stack(features, axis=-1))
    recent = HISTORY_FEATURES.index("recent log rate of the leaf")
    return squashed.at[..., recent].set(past.log_rate)  # Bounded by the agent.


def _shared_history_features(
    history: History, num_leaves: int, clock: Clock
) -> tuple[chex.Numeric, ...]:
    """The history features that are the same for all leaves."""
    past, loss = history.leaves, history.loss
    known, horizon = clock.horizon()
    return (
        _magnify(jnp.mean(past.gradient_autocorrelation)),
        _magnify(jnp.mean(past.slow_gradient_autocorrelation)),
        differentiable.in_deviations(loss.fast - loss.medium, loss.noise),
        differentiable.in_deviations(loss.fast - loss.lowest, loss.noise),
        0.5 * np.log(num_leaves / 6.0),
        known,
        known * (0.5 * jnp.log(horizon) - 3.0),
    )


def _squash(feature: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    return jnp.clip(feature, -3.0, 3.0)


def _magnify(autocorrelation: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Magnifies small values: those of a good rate and of one too high differ by about 0.01."""
    return 3.0 * autocorrelation / jnp.sqrt(jnp.abs(autocorrelation) + 0.01)

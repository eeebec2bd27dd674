"""What the agent sees of a whole model, and what it decides: one step without exploration.

The agent decides on two levels. What concerns a leaf as a whole (its statistics, the loss, the
time) it sees in a sample of the leaf, and decides anew at every step. By how much the rate of each
parameter differs from its leaf's is decided at every `AlphaOptConfig.decision_interval`-th step,
and held in between: it changes slowly, and looking at every parameter costs more than moving it.

Here leaves keep their shapes, and with them their sharding. Meta-training, whose models are tiny
and many, does the same on flat vectors: `meta/environment.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float16, Int
import numpy as np

from alphaopt_jax._agent import history as history_lib
from alphaopt_jax._agent import network as network_lib
from alphaopt_jax._agent import observation
from alphaopt_jax._agent import sampling as sampling_lib
from alphaopt_jax.config import AlphaOptConfig

_LARGEST = 6e4  # Of the numbers of float16.
_GRADIENT_STEP = 10.0  # Steps along raw gradients, relative to those along normalized ones.


class Sight(NamedTuple):
    """What the agent sees of a model of L leaves at one step, by a sample of P parameters of each.

    Attributes:
      sample: The sampled parameters, gradients and moments, each `float32[L, P]`.
      normalized: Their gradients and momenta in units of their own root mean square.
      statistics: Of every leaf, each `float32[L]`.
      context: `float32[L, C]`, the features named in `observation.CONTEXT_FEATURES`.
      memory: What every leaf remembers, this step included.
      memory_features: `float32[L, K]`, those named in `observation.MEMORY_FEATURES`.
      history: Moving averages of the loss, this step included.
    """

    sample: observation.Coordinates
    normalized: observation.Normalized
    statistics: observation.LeafStatistics
    context: Float[Array, "leaves context"]
    memory: history_lib.LeafMemory
    memory_features: Float[Array, "leaves memory"]
    history: history_lib.LossHistory


def see(
    sample: observation.Coordinates,
    sampling: sampling_lib.Sampling,
    loss: Float[Array, ""] | None,
    memory: history_lib.LeafMemory,
    history: history_lib.LossHistory,
    step: Float[Array, ""],
    num_steps: chex.Numeric | None,
    config: AlphaOptConfig,
) -> Sight:
    """Observes all leaves.

    Args:
      sample: Sampled parameters, gradients and moments, this step's gradient included.
      sampling: What was sampled, of at least one leaf.
      loss: The loss, `float32[]`, or None.
      memory: What every leaf remembers.
      history: Moving averages of the loss.
      step: This update's number, from 1, `float32[]`.
      num_steps: Planned number of updates; None, or a number that is not positive, where it is
        not known.
      config: The constants.

    Returns:
      What the agent sees, and the memory and history with this step in them.
    """
    if loss is not None:
        history = history_lib.append_loss(history, loss)
    normalized = observation.normalize(sample, step, config)
    means = [
        sampling_lib.means(each, sampling)
        for each in observation.averaged_for_statistics(sample.param, normalized)
    ]
    statistics = observation.statistics_of_means(means, step, config)
    memory = history_lib.remember(
        memory,
        statistics.persistence,
        statistics.consistency,
        statistics.second_moment,
        statistics.scale,
        step,
    )
    is_matrix = np.array([len(shape) > 1 for shape in sampling.shapes], np.float32)
    fan_ins = np.array([observation.fan_in(shape) for shape in sampling.shapes], np.float32)
    return Sight(
        sample=sample,
        normalized=normalized,
        statistics=statistics,
        context=observation.context_features(statistics, is_matrix, history, step, num_steps),
        memory=memory,
        memory_features=observation.memory_features(
            memory, statistics, fan_ins, history, num_steps, config
        ),
        history=history,
    )


def leaf_log_rates(
    agent: chex.ArrayTree,
    network: network_lib.ActorCritic,
    sight: Sight,
    decision: network_lib.LeafDecision,
    sampling: sampling_lib.Sampling,
) -> Float[Array, " leaves"]:
    """The leaves' own log rates, which are decided anew at every step.

    Args:
      agent: Parameters of `network`.
      network: The actor-critic.
      sight: What the agent sees.
      decision: What it decided for the leaves.
      sampling: What it sees this by.

    Returns:
      `float32[L]`: what the leaves' part of the actor gives; of an actor without one, the mean over
      the sampled parameters.
    """
    if network.leaf_hidden:
        return network_lib.bound(decision.log_rate, network.max_log_rate)
    statistics = jax.tree.map(lambda each: each[:, None], sight.statistics)
    log_rates = network_lib.mean_log_rate(
        agent,
        observation.coordinate_features(sight.sample.param, sight.normalized, statistics),
        decision.activation.T[..., None],
        decision.log_rate[:, None],
        network.max_log_rate,
    )
    return sampling_lib.means(log_rates, sampling)


def relative_rates(
    agent: chex.ArrayTree,
    network: network_lib.ActorCritic,
    leaf: observation.Coordinates,
    statistics: observation.LeafStatistics,
    decision: network_lib.LeafDecision,
    leaf_log_rate: Float[Array, "*#leaf"],
    momentum_scale: Float[Array, ""],
    second_moment_scale: Float[Array, ""],
    config: AlphaOptConfig,
) -> Float16[Array, "*leaf"]:
    """By which factor the rate of each parameter differs from its leaf's own.

    Args:
      agent: Parameters of `network`.
      network: The actor-critic.
      leaf: Parameters, gradients and moments of one leaf, or of several, joined.
      statistics: Of this leaf, each `float32[]`, or a shape that broadcasts against the leaf's.
      decision: What was decided for the leaf as a whole: `activation` with the hidden units on the
        leading axis, `log_rate`; each unit's shape as in `statistics`.
      leaf_log_rate: The leaf's own log rate, as of `leaf_log_rates`, likewise.
      momentum_scale: Corrects the first moments for their start, `float32[]`.
      second_moment_scale: Corrects the second moments.
      config: The constants.

    Returns:
      `float16` factors of the leaf's shape.
    """
    normalized = observation.normalize_with(leaf, momentum_scale, second_moment_scale, config)
    log_rate = network_lib.mean_log_rate(
        agent,
        observation.coordinate_features(leaf.param, normalized, statistics),
        decision.activation,
        decision.log_rate,
        network.max_log_rate,
    )
    return relative(log_rate, leaf_log_rate)


def learning_rates(
    log_rates: Float[Array, "*shape"],
    scales: Float[Array, "*shape"],
    multiplier: chex.Numeric,
    schedule: Float[Array, ""],
    config: AlphaOptConfig,
) -> Float[Array, "*shape"]:
    """From actions to learning rates.

    Args:
      log_rates: The actions, `float32`, any shape.
      scales: Scale of the leaf that each belongs to, the same shape.
      multiplier: The user's `learning_rate`, positive, `float32[]`.
      schedule: The factor of `observation.schedule`, `float32[]`.
      config: The constants.

    Returns:
      Positive `float32` rates of the actions' shape; 0 where a scale or an action is no number.
    """
    base = jnp.minimum(multiplier * config.relative_step, config.max_relative_step)
    if config.direction == "gradient":
        base = base * _GRADIENT_STEP
    rates = scales * schedule * base * jnp.exp(log_rates)
    return jnp.where(jnp.isfinite(rates), rates, 0.0)


def relative(
    log_rate: Float[Array, "*shape"], leaf_log_rate: Float[Array, "*#shape"]
) -> Float16[Array, "*shape"]:
    """The factor between a parameter's rate and its leaf's, as it is kept: `float16`.

    It is finite whatever the agent says. Where that is no number, the parameter is not moved.
    """
    factor = jnp.exp(log_rate - leaf_log_rate)
    return jnp.where(jnp.isnan(factor), 0.0, jnp.minimum(factor, _LARGEST)).astype(jnp.float16)


def largest_relative(
    leaf_log_rates: Float[Array | np.ndarray, " leaves"], max_log_rate: chex.Numeric
) -> Float[Array, " leaves"]:
    """What no such factor may exceed now, `float32` of the leaves' shape.

    A factor is held while its leaf's rate changes: their product must not pass the bound of both.
    Where a leaf's rate is no number, it is 0.
    """
    largest = jnp.exp(max_log_rate - leaf_log_rates)
    return jnp.where(jnp.isnan(largest), 0.0, largest)


def looks(updates_made: Int[Array, ""], config: AlphaOptConfig) -> Bool[Array, ""]:
    """Whether every parameter is looked at now, `bool`: at first always, then at intervals."""
    interval = config.decision_interval
    return (updates_made < interval) | (updates_made % interval == 0)

"""Actions: from an observation to the learning rate of every parameter.

The policy acts on two levels. The log rate of a leaf as a whole depends on the leaf's statistics,
the loss and the time, and is decided at every step. The multiplier of each parameter's rate
relative to its leaf's is refreshed at every `StepConfig.refresh_interval`-th step and held in
between: it changes slowly, and a pass over every parameter costs more than the update.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import chex
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float16, Int
import numpy as np

from alphaopt_jax._agent import network, observation
from alphaopt_jax._agent.leaves import Leaves
from alphaopt_jax._agent.network import LeafDecision, Policy
from alphaopt_jax._agent.observation import Observation
from alphaopt_jax._agent.statistics import LeafStatistics, Normalized
from alphaopt_jax.config import AgentConfig, StepConfig

_MAX_FLOAT16 = 6e4
_GRADIENT_STEP = 10.0  # Rates of raw gradients, relative to those of Adam's direction.


_MAX_LOG_RATE = 3.5
"""Largest log rate relative to the largest base rate: a step of 1.7 times the size of a leaf."""


class RateFactors(NamedTuple):
    """Factors of all learning rates.

    Attributes:
      multiplier: The user's `learning_rate`, positive, `float32[]`.
      schedule: The factor from `Clock.schedule`, times the backoff, `float32[]`.
    """

    multiplier: chex.Numeric
    schedule: Float[Array, ""]


class Action(NamedTuple):
    """The action for L leaves.

    Attributes:
      log_rates: Of the leaves, `float32[L]`.
      decision: The leaves' part of the actor, from which the parameters' own rates follow.
    """

    log_rates: Float[Array, " leaves"]
    decision: LeafDecision


class LeafRates(NamedTuple):
    """Learning rates of L leaves, and the bound on the multipliers of their parameters.

    Attributes:
      rates: Positive rates, `float32[L]`.
      max_multipliers: Upper bound on each leaf's rate multipliers, `float32[L]`. A multiplier is
        held while its leaf's rate changes; their product must not exceed the largest log rate.
    """

    rates: Float[Array, " leaves"]
    max_multipliers: Float[Array, " leaves"]

    def applied(
        self,
        multipliers: Float16[Array, "*shape"],
        leaf: Int[Array | np.ndarray, "*#shape"] | int | None = None,
    ) -> Float[Array, "*shape"]:
        """The rate applied to each parameter.

        Args:
          multipliers: Rate multipliers, any shape.
          leaf: Index of the leaf, one for all or one for each multiplier; None if these are the
            rates of one leaf, `float32[]`.

        Returns:
          `float32` rates of the multipliers' shape.

        Example:
          >>> rates = LeafRates(jnp.array([0.1, 0.2]), jnp.array([4.0, 2.0]))
          >>> applied = rates.applied(jnp.array([1.0, 3.0], jnp.float16), 1)
          >>> [f"{rate:.1f}" for rate in applied]
          ['0.2', '0.4']
        """
        rates, most = self if leaf is None else (self.rates[leaf], self.max_multipliers[leaf])
        return rates * jnp.minimum(multipliers.astype(jnp.float32), most)


def decide(policy: Policy, observed: Observation, leaves: Leaves) -> Action:
    """Decides the leaves' log rates.

    Args:
      policy: The policy.
      observed: The observation.
      leaves: Its layout.

    Returns:
      The action. An actor without a leaf trunk gives the mean over the leaf's parameters.
    """
    decision = network.decide_leaves(policy, observed.context, observed.history_features)
    if policy.config.leaf_hidden:
        log_rates = network.bound(decision.log_rate, policy.config.max_log_rate)
    else:
        own = parameter_log_rates(
            policy,
            observed.coordinates.param,
            observed.normalized,
            LeafStatistics(*(leaves.expand(each) for each in observed.statistics)),
            LeafDecision(leaves.expand(decision.activation.T), leaves.expand(decision.log_rate)),
        )
        (log_rates,) = leaves.means([own])
    return Action(log_rates, decision)


def parameter_log_rates(
    policy: Policy,
    param: Float[Array, "*leaf"],
    normalized: Normalized,
    statistics: LeafStatistics,
    decision: LeafDecision,
) -> Float[Array, "*leaf"]:
    """Log rates of single parameters.

    Args:
      policy: The policy.
      param: The parameters, any shape.
      normalized: Their gradients and momenta.
      statistics: Of their leaves, in shapes that broadcast against the parameters.
      decision: Of their leaves, likewise; `activation` with the hidden units on the leading axis.

    Returns:
      `float32` log rates of the parameters' shape.
    """
    features = observation.coordinate_features(param, normalized, statistics)
    return network.mean_log_rate(policy, features, decision.activation, decision.log_rate)


def learning_rates(
    log_rates: Float[Array, "*shape"],
    scales: Float[Array, "*shape"],
    factors: RateFactors,
    agent: AgentConfig,
    config: StepConfig,
) -> Float[Array, "*shape"]:
    """Learning rates from log rates, bounded so that no step is much larger than its leaf.

    An agent whose log rates reach farther can make up for a small `learning_rate`, and does no harm
    at the usual one.

    Args:
      log_rates: Actions, any shape.
      scales: Root mean squares of their leaves, likewise.
      factors: Factors of all rates.
      agent: Gives the update direction.
      config: Gives the size of a step.

    Returns:
      `float32` rates of the same shape; 0 where a log rate or a scale is not finite.
    """
    scheduled = scales * factors.schedule
    unit = _GRADIENT_STEP if agent.update_direction == "gradient" else 1.0
    rates = scheduled * (base_step(factors, config) * unit) * jnp.exp(log_rates)
    largest = np.float32(math.exp(_MAX_LOG_RATE)) * (scheduled * (config.max_relative_step * unit))
    return jnp.where(jnp.isfinite(rates), jnp.minimum(rates, largest), 0.0)


def base_step(factors: RateFactors, config: StepConfig) -> Float[Array, ""]:
    """Size of a step for a log rate of zero, relative to the leaf, without the schedule."""
    return jnp.minimum(factors.multiplier * config.relative_step, config.max_relative_step)


def rate_multipliers(
    log_rates: Float[Array, "*shape"], leaf_log_rates: Float[Array, "*#shape"]
) -> Float16[Array, "*shape"]:
    """Each parameter's rate, relative to its leaf's, in the stored type `float16`.

    The multiplier is finite for any agent. It is 0 where the log rate is NaN, so that the parameter
    does not move.
    """
    multiplier = jnp.exp(log_rates - leaf_log_rates)
    return jnp.where(jnp.isnan(multiplier), 0.0, jnp.minimum(multiplier, _MAX_FLOAT16)).astype(
        jnp.float16
    )


def max_multipliers(
    leaf_log_rates: Float[Array, " leaves"], max_log_rate: chex.Numeric
) -> Float[Array, " leaves"]:
    """Upper bound on each leaf's rate multipliers, `float32[leaves]`; 0 for a rate of NaN."""
    largest = jnp.exp(max_log_rate - leaf_log_rates)
    return jnp.where(jnp.isnan(largest), 0.0, largest)


def should_refresh(updates_made: Int[Array, ""], config: StepConfig) -> Bool[Array, ""]:
    """True at each of the first steps, then at intervals."""
    interval = config.refresh_interval
    return (updates_made < interval) | (updates_made % interval == 0)

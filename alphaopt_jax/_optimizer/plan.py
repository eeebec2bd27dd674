"""The plan of a step: everything but the arithmetic per parameter and the rounds of learning.

It is computed in one conditional, which a step with a non-finite gradient skips.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import chex
import jax.numpy as jnp
from jaxtyping import Array, Int
import numpy as np
import optax

from alphaopt_jax._agent import action, network, observation, rotation, sampling, statistics
from alphaopt_jax._agent.action import Action, LeafRates, RateFactors
from alphaopt_jax._agent.network import LeafDecision, Policy
from alphaopt_jax._agent.observation import Observation
from alphaopt_jax._agent.sampling import Sampling
from alphaopt_jax._agent.schedule import Clock
from alphaopt_jax._agent.statistics import BiasCorrections, LeafStatistics
from alphaopt_jax._learning import levels, online
from alphaopt_jax._optimizer import averages, safeguards, units
from alphaopt_jax._optimizer import layout as layouts
from alphaopt_jax._optimizer.layout import Layout
from alphaopt_jax._optimizer.state import AlphaOptState
from alphaopt_jax.config import AlphaOptConfig


class StepSpec(NamedTuple):
    """The constants of every step.

    Attributes:
      num_steps: As in `transform.alphaopt`.
      config: All constants, with those of the agent in use.
      backoff: Whether a loss that rises lowers all rates.
    """

    num_steps: chex.Numeric | None
    config: AlphaOptConfig
    backoff: bool


class Scaling(NamedTuple):
    """The effect of the user's arguments on the agent's rates.

    Attributes:
      multiplier: Factor of the rates, positive, a scalar.
      sign: Sign of the updates, a scalar: -1 for descent.
      decays: Weight decay of each leaf, or None.
    """

    multiplier: chex.Numeric
    sign: chex.Numeric
    decays: Sequence[chex.Numeric] | None


class Inputs(NamedTuple):
    """The inputs of a step with L leaves.

    Attributes:
      grads: Gradients, in the coordinates of the step, a list of stacks.
      own_grads: Gradients in the parameters' own coordinates, a list of stacks.
      params: Parameters, a list of stacks.
      loss: `float32[]`, or None.
      sizes: Of the gradients.
      scaling: The user's arguments.
    """

    grads: list[chex.Array]
    own_grads: list[chex.Array]
    params: list[chex.Array]
    loss: chex.Array | None
    sizes: units.Sizes
    scaling: Scaling


class Coefficients(NamedTuple):
    """The scalars of the arithmetic per parameter; a skipped step has those of no change.

    Attributes:
      finite: Whether gradients and loss are finite, `bool[]`.
      refreshes: Whether the rate multipliers are refreshed, `bool[]`.
      first_decay: Decay of the first moments, `float32[]` like all that follow.
      first_weight: Weight of the gradients in them.
      second_decay: Decay of the second moments.
      second_weight: Weight of the squared gradients in them.
      corrections: Bias corrections of both moments.
      average_weight: Weight of the parameters in their average.
      gradient_factors: Factor of each leaf's gradients, `[L]`, of the type of
        `AlphaOptState.inverse_units`.
      unit_changes: Factor of each leaf's first moments, `float32[L]`, where the units of gradients
        may change; else None.
    """

    finite: chex.Array
    refreshes: chex.Array
    first_decay: chex.Array
    first_weight: chex.Array
    second_decay: chex.Array
    second_weight: chex.Array
    corrections: BiasCorrections
    average_weight: chex.Array
    gradient_factors: chex.Array
    unit_changes: chex.Array | None


class StepPlan(NamedTuple):
    """Everything in a step except the arithmetic per parameter, for L leaves.

    Attributes:
      coefficients: The scalars.
      rates: Learning rates of the leaves.
      sign: Sign of the updates, `float32[]`.
      decays: Weight decay of each leaf, `float32[L]`, or None.
      action: The leaves' action.
      statistics: Each `float32[L]`.
      experience: What the step adds to the rollout of a learning agent, else None.
      state: The new state, without the trees shaped like the parameters, and without a rollout.
    """

    coefficients: Coefficients
    rates: LeafRates
    sign: chex.Array
    decays: chex.Array | None
    action: Action
    statistics: LeafStatistics
    experience: online.Experience | None
    state: AlphaOptState


def plan_step(spec: StepSpec, layout: Layout, inputs: Inputs, state: AlphaOptState) -> StepPlan:
    """Computes everything in a step except the arithmetic per parameter."""
    config, sampled = spec.config, layout.sampled
    multiplier = jnp.asarray(inputs.scaling.multiplier).astype(jnp.float32)
    number = state.updates_made.astype(jnp.float32) + 1.0
    clock = Clock(number, spec.num_steps, config.agent.inverse_sqrt_steps)
    policy = Policy(network.unflatten(state.agent), config.agent)

    # Observe.
    change = units.change(inputs.sizes, state.inverse_units, state.safeguards.mean_square_grads)
    state = _in_new_units(state, change, sampled, config)
    gradient_factors, guarded = safeguards.bound_gradients(
        state.safeguards, change.mean_squares, number, config
    )
    gradient_factors = gradient_factors.astype(change.scales.dtype) * change.scales
    history = state.history
    if inputs.loss is not None:
        history = history._replace(loss=history.loss.append(inputs.loss))
    if inputs.loss is not None and spec.backoff:
        guarded = safeguards.watch_loss(
            guarded, inputs.loss, state.history.loss.fast, history.loss.fast
        )
    coordinates = statistics.accumulate(
        sampling.finite(
            sampling.read(inputs.params, sampled, layout.stacks).astype(jnp.float32), sampled
        ),
        units.rescaled(
            sampling.read(inputs.grads, sampled, layout.stacks), gradient_factors[:, None]
        ),
        state.sampled_moments[0],
        state.sampled_moments[1],
        config,
    )
    observed = observation.observe(coordinates, sampled, history, clock, config)

    # Decide.
    decided = action.decide(policy, observed, sampled)
    factors = RateFactors(multiplier, clock.schedule() * guarded.backoff)
    log_rates, learner = decided.log_rates, state.learner
    if learner is not None:
        grads = coordinates.grad
        if config.agent.block_size:
            own = sampling.read(inputs.own_grads, sampled, layout.stacks)
            grads = units.rescaled(own, gradient_factors[:, None])
        new_levels = levels.update(
            learner.levels,
            levels.Sampled(coordinates.param, grads, change.scales),
            levels.Circumstances(
                number,
                action.base_step(factors, config) / config.relative_step,
                guarded.backoff < 1.0,
            ),
            sampled,
            config.learning.level_change,
        )
        learner = learner._replace(levels=new_levels)
        log_rates = log_rates + new_levels.levels
    rates = LeafRates(
        action.learning_rates(log_rates, observed.statistics.scale, factors, config.agent, config),
        action.max_multipliers(decided.log_rates, config.agent.max_log_rate),
    )

    # Explore; `step` adds the experience to the rollout and lets the agent learn.
    experience = None
    if learner is not None and any(sampled.counts):
        record = online.Step(
            slot=state.updates_made % config.learning.rollout_length,
            loss=inputs.loss,
            observed=observed,
            leaf_log_rates=decided.log_rates,
            rates=rates,
            directions=_sampled_directions(observed, change.scales, sampled, config),
            inverse_units=change.scales,
        )
        exploration = online.exploration_of(sampled, config.learning)
        learner, experience = online.act(learner, policy, record, exploration)

    history = observed.history
    return StepPlan(
        coefficients=_coefficients(state, clock, gradient_factors, change, config),
        rates=rates,
        sign=jnp.asarray(inputs.scaling.sign).astype(jnp.float32),
        decays=_stack(inputs.scaling.decays),
        action=decided,
        statistics=observed.statistics,
        experience=experience,
        state=_without_trees(state)._replace(
            updates_made=next_number(state.updates_made, config),
            skipped_in_a_row=jnp.zeros_like(state.skipped_in_a_row),
            leaf_rates=rates.rates,
            leaf_log_rates=decided.log_rates,
            sampled_moments=jnp.stack([coordinates.first_moment, coordinates.second_moment]),
            inverse_units=change.scales,
            history=history._replace(leaves=history.leaves.add_log_rates(decided.log_rates)),
            safeguards=guarded,
            learner=_without_rollout(learner),
        ),
    )


def skip_step(spec: StepSpec, layout: Layout, inputs: Inputs, state: AlphaOptState) -> StepPlan:
    """Changes nothing except the count of skipped steps."""
    sampled = layout.sampled
    zero, one = jnp.zeros((), jnp.float32), jnp.ones((), jnp.float32)
    none = jnp.zeros((len(sampled.shapes),), jnp.float32)
    hidden = jnp.zeros((*none.shape, spec.config.agent.actor_hidden), jnp.float32)
    experience = None
    if state.learner is not None and any(sampled.counts):
        exploration = online.exploration_of(sampled, spec.config.learning)
        experience = online.no_experience(exploration)
    ones = jnp.ones_like(none)
    return StepPlan(
        coefficients=Coefficients(
            finite=jnp.asarray(False),
            refreshes=jnp.asarray(False),
            first_decay=one,
            first_weight=zero,
            second_decay=one,
            second_weight=zero,
            corrections=BiasCorrections(zero, one),
            average_weight=zero,
            gradient_factors=ones.astype(state.inverse_units.dtype),
            unit_changes=ones if units.may_change(state.inverse_units) else None,
        ),
        rates=LeafRates(none, none),
        sign=one,
        decays=_stack(inputs.scaling.decays),
        action=Action(none, LeafDecision(hidden, none)),
        statistics=LeafStatistics(*(none for _ in LeafStatistics._fields)),
        experience=experience,
        state=_without_trees(state)._replace(
            updates_skipped=optax.safe_increment(state.updates_skipped),
            skipped_in_a_row=optax.safe_increment(state.skipped_in_a_row),
        ),
    )


def _in_new_units(
    state: AlphaOptState, change: units.Change, sampled: Sampling, config: AlphaOptConfig
) -> AlphaOptState:
    """The state with all that is in units of gradients, but its trees of moments, in new ones."""
    if not units.may_change(change.scales):
        return state
    factors, squares = change.factors, jnp.square(change.factors)
    learner = state.learner
    if learner is not None:
        explorers = online.exploration_of(sampled, config.learning).leaf_of
        learner = learner._replace(
            explorer_gradients=factors[explorers] * learner.explorer_gradients
        )
    leaves = state.history.leaves
    first = jnp.minimum(squares * leaves.first_second_moment, float(jnp.finfo(jnp.float32).max))
    guarded = state.safeguards
    return state._replace(
        sampled_moments=jnp.stack([factors, squares])[:, :, None] * state.sampled_moments,
        history=state.history._replace(leaves=leaves._replace(first_second_moment=first)),
        safeguards=guarded._replace(mean_square_grads=squares * guarded.mean_square_grads),
        learner=learner,
    )


def _coefficients(
    state: AlphaOptState,
    clock: Clock,
    gradient_factors: chex.Array,
    change: units.Change,
    config: AlphaOptConfig,
) -> Coefficients:
    return Coefficients(
        finite=jnp.asarray(True),
        refreshes=action.should_refresh(state.updates_made, config),
        first_decay=jnp.asarray(config.gradient_decay, jnp.float32),
        first_weight=jnp.asarray(1.0 - config.gradient_decay, jnp.float32),
        second_decay=jnp.asarray(config.squared_gradient_decay, jnp.float32),
        second_weight=jnp.asarray(1.0 - config.squared_gradient_decay, jnp.float32),
        corrections=statistics.bias_corrections(clock.step, config),
        average_weight=averages.weight(state.updates_made),
        gradient_factors=gradient_factors,
        unit_changes=change.factors if units.may_change(change.scales) else None,
    )


def _sampled_directions(
    observed: Observation, scales: chex.Array, sampled: Sampling, config: AlphaOptConfig
) -> chex.Array:
    """The vectors that the rates of the sampled parameters multiply, `float32[L, P]`."""
    if config.agent.update_direction == "gradient":
        return observed.coordinates.grad / scales.astype(jnp.float32)[:, None]
    momentum = observed.normalized.momentum
    if not config.agent.block_size:
        return momentum
    rotated = layouts.rotation_of(sampled.shapes, config).is_rotated[:, None] > 0
    return jnp.where(rotated, rotation.bounded(momentum), momentum)


def next_number(updates_made: Int[Array, ""], config: AlphaOptConfig) -> Int[Array, ""]:
    """Counts a step. At the end of `int32` the last numbers repeat, so that intervals go on."""
    period = config.refresh_interval * config.learning.rollout_length
    last = np.iinfo(np.int32).max
    return jnp.where(updates_made == last, last - period + 1, updates_made + 1)


def _without_trees(state: AlphaOptState) -> AlphaOptState:
    """The state without the trees shaped like the parameters, and without a rollout."""
    return state._replace(
        gradient_average=(),
        squared_gradient_average=(),
        average=(),
        rate_multipliers=(),
        bases=None,
        learner=_without_rollout(state.learner),
    )


def _without_rollout(learner: online.LearnerState | None) -> online.LearnerState | None:
    """The learner without its large arrays, which no conditional should copy."""
    return None if learner is None else learner._replace(rollout=())  # type: ignore[arg-type]


def _stack(values: Sequence[chex.Numeric] | None) -> chex.Array | None:
    return (
        None if values is None else jnp.stack([jnp.asarray(each, jnp.float32) for each in values])
    )

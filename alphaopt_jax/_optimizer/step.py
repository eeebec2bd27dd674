"""One step of the optimizer: observe, decide, learn, compute the rates, apply them.

Everything small (the sample, the leaves' decisions, learning) is computed in one conditional, which
a step with a non-finite gradient skips. This is also what makes a step cheap: compilers copy the
computation of a scalar into every loop over parameters that uses it, but not the result of a
conditional. The remaining work per parameter is Adam's, one multiplication, and the periodic
refresh of the rate multipliers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from alphaopt_jax._agent import action, conditional, observation, sampling, statistics
from alphaopt_jax._agent.action import Action, LeafRates
from alphaopt_jax._agent.network import LeafDecision, Policy
from alphaopt_jax._agent.observation import Observation
from alphaopt_jax._agent.sampling import Sampling
from alphaopt_jax._agent.schedule import Clock
from alphaopt_jax._agent.statistics import BiasCorrections, Coordinates, LeafStatistics
from alphaopt_jax._learning import online
from alphaopt_jax._optimizer import coordinate_rates, safeguards, stochastic_rounding, units
from alphaopt_jax._optimizer.coordinate_rates import LeafInputs
from alphaopt_jax._optimizer.state import AlphaOptState
from alphaopt_jax.config import AlphaOptConfig


class StepSpec(NamedTuple):
    """The constants of every step.

    Attributes:
      num_steps: As in `transform.alphaopt`.
      config: All constants, with those of the agent in use.
    """

    num_steps: chex.Numeric | None
    config: AlphaOptConfig


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


class _Inputs(NamedTuple):
    """The inputs of a step with L leaves.

    Attributes:
      grads: Gradients.
      params: Parameters.
      loss: `float32[]`, or None.
      finite: Whether the loss is finite in its own type, `bool[]`.
      sizes: Of the gradients.
      scaling: The user's arguments.
    """

    grads: list[chex.Array]
    params: list[chex.Array]
    loss: chex.Array | None
    finite: chex.Array
    sizes: units.Sizes
    scaling: Scaling


class _Coefficients(NamedTuple):
    """The scalars of the arithmetic per parameter; a skipped step has those of no change.

    Attributes:
      finite: Whether gradients and loss are finite, `bool[]`.
      refreshes: Whether the rate multipliers are refreshed, `bool[]`.
      first_decay: Decay of the first moments, `float32[]` like all that follow.
      first_weight: Weight of the gradients in them.
      second_decay: Decay of the second moments.
      second_weight: Weight of the squared gradients in them.
      corrections: Bias corrections of both moments.
      gradient_factors: Factor of each leaf's gradients, one scalar for each, of the type of
        `AlphaOptState.gradient_scales`.
      unit_changes: Factor of each leaf's first moments, one `float32[]` for each, where the units
        of gradients may change; else None.
    """

    finite: chex.Array
    refreshes: chex.Array
    first_decay: chex.Array
    first_weight: chex.Array
    second_decay: chex.Array
    second_weight: chex.Array
    corrections: BiasCorrections
    gradient_factors: tuple[chex.Array, ...]
    unit_changes: tuple[chex.Array, ...] | None


class _StepPlan(NamedTuple):
    """Everything in a step except the arithmetic per parameter, for L leaves.

    Attributes:
      coefficients: The scalars.
      numbers: Indices of the leaves, from 0, each `int32[]`. The results of a conditional are no
        constants to a compiler, so leaves of one shape share one compiled program.
      rates: Learning rates of the leaves.
      sign: Sign of the updates, `float32[]`.
      decays: Weight decay of each leaf, `float32[L]`, or None.
      action: The leaves' action.
      statistics: Each `float32[L]`.
      state: The new state, without the trees shaped like the parameters.
    """

    coefficients: _Coefficients
    numbers: tuple[chex.Array, ...]
    rates: LeafRates
    sign: chex.Array
    decays: chex.Array | None
    action: Action
    statistics: LeafStatistics
    state: AlphaOptState


def step(
    spec: StepSpec,
    updates: optax.Updates,
    state: AlphaOptState,
    params: optax.Params,
    value: chex.Numeric | None,
    scaling: Scaling,
) -> tuple[optax.Updates, AlphaOptState]:
    """One step of the environment and of the agent.

    Args:
      spec: Constants.
      updates: Gradients, a tree of real arrays.
      state: The state.
      params: Parameters, shaped like the gradients.
      value: The loss, a scalar, or None.
      scaling: The user's arguments.

    Returns:
      The updates, shaped and typed like the gradients, and the new state.
    """
    config = spec.config
    grads, structure = jax.tree.flatten(updates)
    if not grads:
        return updates, state._replace(updates_made=_next(state.updates_made, config))
    loss, finite = None, jnp.asarray(True)
    if value is not None:
        loss, finite = units.compressed_loss(value)
    sampled = sampling.of_shapes([leaf.shape for leaf in grads])
    arguments = (grads, jax.tree.leaves(params), loss, finite, scaling, state)
    arguments = conditional.varying_like(arguments, arguments)
    grads, leaves, loss, finite, scaling, state = arguments
    sizes = units.measure(grads, state.gradient_scales, state.updates_made, state.skipped_in_a_row)
    inputs = _Inputs(grads, leaves, loss, finite, sizes, scaling)
    plan = jax.lax.cond(
        _all_finite(inputs),
        lambda: conditional.varying_like(_plan_step(spec, sampled, inputs, state), inputs),
        lambda: conditional.varying_like(_skip_step(spec, sampled, inputs, state), inputs),
    )

    leaves = _accumulate(plan.coefficients, inputs, state)
    multipliers = _multipliers(plan, leaves, sampled, state, config)
    steps = [
        _apply(plan, index, leaf, multiplier, config)
        for index, (leaf, multiplier) in enumerate(zip(leaves, multipliers, strict=True))
    ]

    def like_state(leaves: Sequence[chex.Array]) -> chex.ArrayTree:
        return jax.tree.unflatten(jax.tree.structure(state.gradient_average), leaves)

    new_state = plan.state._replace(
        gradient_average=like_state([leaf.first_moment for leaf in leaves]),
        squared_gradient_average=like_state([leaf.second_moment for leaf in leaves]),
        rate_multipliers=like_state(multipliers),
    )
    return jax.tree.unflatten(structure, steps), new_state


def _plan_step(
    spec: StepSpec, sampled: Sampling, inputs: _Inputs, state: AlphaOptState
) -> _StepPlan:
    """Computes everything in a step except the arithmetic per parameter."""
    config = spec.config
    multiplier = jnp.asarray(inputs.scaling.multiplier).astype(jnp.float32)
    number = state.updates_made.astype(jnp.float32) + 1.0
    clock = Clock(number, spec.num_steps, config.agent.inverse_sqrt_steps)
    policy = Policy(state.agent, config.agent)

    # Observe.
    change = units.change(inputs.sizes, state.gradient_scales, state.safeguards.mean_square_grads)
    state = _in_new_units(state, change, sampled, config)
    gradient_factors, guarded = safeguards.bound_gradients(
        state.safeguards, change.mean_squares, number, config
    )
    gradient_factors = gradient_factors.astype(change.scales.dtype) * change.scales
    history = state.history
    if inputs.loss is not None:
        history = history._replace(loss=history.loss.append(inputs.loss))
        guarded = safeguards.watch_loss(
            guarded, inputs.loss, state.history.loss.fast, history.loss.fast
        )
    coordinates = statistics.accumulate(
        sampling.finite(sampling.read(inputs.params, sampled).astype(jnp.float32), sampled),
        units.rescaled(sampling.read(inputs.grads, sampled), gradient_factors[:, None]),
        state.sampled_moments[0],
        state.sampled_moments[1],
        config,
    )
    observed = observation.observe(coordinates, sampled, history, clock, config)

    # Decide.
    decided = action.decide(policy, observed, sampled)
    base = action.base_rates(
        observed.statistics.scale,
        multiplier,
        clock.schedule() * guarded.backoff,
        config.agent,
        config,
    )
    rates = LeafRates(
        action.learning_rates(decided.log_rates, base),
        action.max_multipliers(decided.log_rates, config.agent.max_log_rate),
    )

    # Learn.
    learner, agent = state.learner, state.agent
    if learner is not None and any(sampled.counts):
        record = online.Step(
            slot=state.updates_made % config.learning.rollout_length,
            loss=inputs.loss,
            observed=observed,
            leaf_log_rates=decided.log_rates,
            rates=rates,
            directions=_sampled_directions(observed, change.scales, config),
            gradient_scales=change.scales,
        )
        exploration = online.exploration_of(sampled, config.learning)
        agent, learner = online.learn(learner, policy, record, exploration)

    history = observed.history
    return _StepPlan(
        coefficients=_coefficients(state, clock, gradient_factors, change, config),
        numbers=_numbers(sampled),
        rates=rates,
        sign=jnp.asarray(inputs.scaling.sign).astype(jnp.float32),
        decays=_stack(inputs.scaling.decays),
        action=decided,
        statistics=observed.statistics,
        state=_without_trees(state)._replace(
            updates_made=_next(state.updates_made, config),
            skipped_in_a_row=jnp.zeros_like(state.skipped_in_a_row),
            agent=agent,
            leaf_rates=rates.rates,
            leaf_log_rates=decided.log_rates,
            sampled_moments=jnp.stack([coordinates.first_moment, coordinates.second_moment]),
            gradient_scales=change.scales,
            history=history._replace(leaves=history.leaves.add_log_rates(decided.log_rates)),
            safeguards=guarded,
            learner=learner,
        ),
    )


def _skip_step(
    spec: StepSpec, sampled: Sampling, inputs: _Inputs, state: AlphaOptState
) -> _StepPlan:
    """Changes nothing except the count of skipped steps."""
    zero, one = jnp.zeros((), jnp.float32), jnp.ones((), jnp.float32)
    none = jnp.zeros((len(sampled.shapes),), jnp.float32)
    hidden = jnp.zeros((*none.shape, spec.config.agent.actor_hidden), jnp.float32)
    changes = (one,) * len(sampled.shapes) if units.may_change(state.gradient_scales) else None
    return _StepPlan(
        coefficients=_Coefficients(
            finite=jnp.asarray(False),
            refreshes=jnp.asarray(False),
            first_decay=one,
            first_weight=zero,
            second_decay=one,
            second_weight=zero,
            corrections=BiasCorrections(zero, one),
            gradient_factors=(one.astype(state.gradient_scales.dtype),) * len(sampled.shapes),
            unit_changes=changes,
        ),
        numbers=_numbers(sampled),
        rates=LeafRates(none, none),
        sign=one,
        decays=_stack(inputs.scaling.decays),
        action=Action(none, LeafDecision(hidden, none)),
        statistics=LeafStatistics(*(none for _ in LeafStatistics._fields)),
        state=_without_trees(state)._replace(
            updates_skipped=optax.safe_increment(state.updates_skipped),
            skipped_in_a_row=optax.safe_increment(state.skipped_in_a_row),
        ),
    )


def _in_new_units(
    state: AlphaOptState, change: units.Change, sampled: Sampling, config: AlphaOptConfig
) -> AlphaOptState:
    """The state, without its trees of moments, with all that is measured in units of gradients."""
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
) -> _Coefficients:
    return _Coefficients(
        finite=jnp.asarray(True),
        refreshes=action.should_refresh(state.updates_made, config),
        first_decay=jnp.asarray(config.gradient_decay, jnp.float32),
        first_weight=jnp.asarray(1.0 - config.gradient_decay, jnp.float32),
        second_decay=jnp.asarray(config.squared_gradient_decay, jnp.float32),
        second_weight=jnp.asarray(1.0 - config.squared_gradient_decay, jnp.float32),
        corrections=statistics.bias_corrections(clock.step, config),
        gradient_factors=tuple(gradient_factors),
        unit_changes=tuple(change.factors) if units.may_change(change.scales) else None,
    )


def _sampled_directions(
    observed: Observation, scales: chex.Array, config: AlphaOptConfig
) -> chex.Array:
    """The vectors that the rates of the sampled parameters multiply, `float32[L, P]`."""
    if config.agent.update_direction == "gradient":
        return observed.coordinates.grad / scales.astype(jnp.float32)[:, None]
    return observed.normalized.momentum


def _accumulate(
    coefficients: _Coefficients, inputs: _Inputs, state: AlphaOptState
) -> list[Coordinates]:
    """The leaves with their new moments, in the stored type."""
    seed = state.updates_made.astype(jnp.uint32)
    averages = jax.tree.leaves(state.gradient_average)
    squares = jax.tree.leaves(state.squared_gradient_average)
    leaves = []
    for index, (param, grad) in enumerate(zip(inputs.params, inputs.grads, strict=True)):
        scaled = units.rescaled(grad, coefficients.gradient_factors[index])
        scaled = jnp.where(coefficients.finite, scaled, 0.0)
        first_decay, second_decay = coefficients.first_decay, coefficients.second_decay
        if coefficients.unit_changes is not None:
            change = coefficients.unit_changes[index]
            first_decay, second_decay = first_decay * change, second_decay * jnp.square(change)
        average, square = (each[index].astype(jnp.float32) for each in (averages, squares))
        first = first_decay * average + coefficients.first_weight * scaled
        second = second_decay * square + coefficients.second_weight * jnp.square(scaled)
        leaves.append(
            Coordinates(
                param,
                grad,
                stochastic_rounding.to_dtype(first, averages[index].dtype, 2 * seed),
                stochastic_rounding.to_dtype(second, squares[index].dtype, 2 * seed + 1),
            )
        )
    return leaves


def _multipliers(
    plan: _StepPlan,
    leaves: list[Coordinates],
    sampled: Sampling,
    state: AlphaOptState,
    config: AlphaOptConfig,
) -> list[chex.Array]:
    """The rate multipliers of all parameters, refreshed or held, with those of the explorers."""
    held = jax.tree.leaves(state.rate_multipliers)
    policy = Policy(state.agent, config.agent)
    leaf_inputs = LeafInputs(
        plan.numbers,
        plan.statistics,
        plan.action,
        plan.coefficients.corrections,
        plan.state.gradient_scales,
    )
    multipliers = conditional.cond(
        plan.coefficients.refreshes,
        lambda: coordinate_rates.refresh(policy, leaves, leaf_inputs, config),
        lambda: held,
    )
    if plan.state.learner is None:
        return multipliers
    exploration = online.exploration_of(sampled, config.learning)
    return online.write_multipliers(plan.state.learner, multipliers, exploration)


def _apply(
    plan: _StepPlan, index: int, leaf: Coordinates, multiplier: chex.Array, config: AlphaOptConfig
) -> chex.Array:
    """The update of one leaf, in the gradient's type."""
    number, coefficients = plan.numbers[index], plan.coefficients
    if config.agent.update_direction == "gradient":
        scale = plan.state.gradient_scales[number].astype(jnp.float32)
        direction = units.rescaled(leaf.grad, coefficients.gradient_factors[index]) / scale
        direction = jnp.where(coefficients.finite, direction, 0.0)
    else:
        leaf32 = Coordinates(*(each.astype(jnp.float32) for each in leaf))
        direction = statistics.normalize(leaf32, coefficients.corrections, config).momentum
    if plan.decays is not None:
        param = leaf.param.astype(jnp.float32)
        direction = direction + plan.decays[number] * jnp.where(jnp.isfinite(param), param, 0.0)
    change = plan.sign * plan.rates.applied(multiplier, number) * direction
    return _within_range(change, leaf.param).astype(leaf.grad.dtype)


def _numbers(sampled: Sampling) -> tuple[chex.Array, ...]:
    return tuple(jnp.asarray(number, jnp.int32) for number in range(len(sampled.shapes)))


def _within_range(change: chex.Array, param: chex.Array) -> chex.Array:
    """The change, clipped so that the parameter stays within the range of its type."""
    largest = float(jnp.finfo(param.dtype).max)
    if largest > 1e18:  # The squares of such parameters overflow in float32: they are not moved.
        return change
    param = param.astype(jnp.float32)
    param = jnp.where(jnp.isfinite(param), param, 0.0)
    return jnp.clip(change, -largest - param, largest - param)


def _next(updates_made: chex.Array, config: AlphaOptConfig) -> chex.Array:
    """Counts a step. At the end of `int32` the last numbers repeat, so that intervals go on."""
    period = config.refresh_interval * config.learning.rollout_length
    last = np.iinfo(np.int32).max
    return jnp.where(updates_made == last, last - period + 1, updates_made + 1)


def _without_trees(state: AlphaOptState) -> AlphaOptState:
    """The state without the trees shaped like the parameters."""
    return state._replace(gradient_average=(), squared_gradient_average=(), rate_multipliers=())


def _all_finite(inputs: _Inputs) -> chex.Array:
    """True if the loss and every leaf's mean squared gradient are finite."""
    # A sum is finite only if all its terms are, and cheaper than a test of each term.
    return inputs.finite & jnp.all(jnp.isfinite(inputs.sizes.mean_squares))


def _stack(values: Sequence[chex.Numeric] | None) -> chex.Array | None:
    return (
        None if values is None else jnp.stack([jnp.asarray(each, jnp.float32) for each in values])
    )

"""One step of the optimizer: observe, decide, learn, compute the rates, apply them.

Everything small (the sample, the leaves' decisions, learning) is computed in one conditional, which
a step with a non-finite gradient skips. The conditional also makes a step cheap: compilers copy the
computation of a scalar into every loop over parameters that uses it, but not the result of a
conditional. The work per parameter is Adam's, one multiplication, the periodic refresh of the rate
multipliers and, in rotated coordinates, the rotation.
"""

from __future__ import annotations

from collections.abc import Sequence
import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import optax

from alphaopt_jax._agent import conditional, network, rotation, statistics
from alphaopt_jax._agent import stacks as stacks_lib
from alphaopt_jax._agent.action import LeafRates
from alphaopt_jax._agent.network import Policy
from alphaopt_jax._agent.sampling import Sampling
from alphaopt_jax._agent.statistics import Coordinates
from alphaopt_jax._learning import online
from alphaopt_jax._optimizer import (
    averages,
    checks,
    coordinate_rates,
    frames,
    stochastic_rounding,
    units,
)
from alphaopt_jax._optimizer import layout as layouts
from alphaopt_jax._optimizer import plan as plan_lib
from alphaopt_jax._optimizer.coordinate_rates import LeafInputs
from alphaopt_jax._optimizer.layout import Layout
from alphaopt_jax._optimizer.plan import Inputs, Scaling, StepPlan, StepSpec
from alphaopt_jax._optimizer.state import AlphaOptState
from alphaopt_jax.config import AlphaOptConfig


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
        return updates, state._replace(
            updates_made=plan_lib.next_number(state.updates_made, config)
        )
    loss, finite = None, jnp.asarray(True)
    if value is not None:
        loss, finite = units.compressed_loss(value)
    arguments = (grads, jax.tree.leaves(params), loss, finite, scaling, state)
    arguments = conditional.varying_like(arguments, arguments)
    grads, own_params, loss, finite, scaling, state = arguments
    moments = (state.gradient_average, state.squared_gradient_average)
    stacks = layouts.stacks_of(grads, own_params, *(jax.tree.leaves(each) for each in moments))
    stacked_grads = stacks_lib.stack(stacks, grads)
    number, skipped = state.updates_made, state.skipped_in_a_row
    sizes = units.measure(stacks, stacked_grads, state.inverse_units, number, skipped)
    finite = _all_finite(finite, sizes)
    always = state.updates_made >= 0  # Always true, but traced, so XLA does not fold it.
    layout = layouts.layout_of(stacks, [leaf.shape for leaf in grads], always, config)
    # Here, where it costs nothing once the step is compiled.
    checks.check_bases(state.bases, layout.blocks if config.agent.block_size else None)
    turned = frames.turn(layout, stacked_grads, sizes, finite, state, config)
    state = _in_coordinates(state, turned)
    stacked_params = stacks_lib.stack(stacks, own_params)
    inputs = Inputs(turned.grads, stacked_grads, stacked_params, loss, sizes, scaling)
    plan = jax.lax.cond(
        finite,
        lambda: conditional.varying_like(plan_lib.plan_step(spec, layout, inputs, state), inputs),
        lambda: conditional.varying_like(plan_lib.skip_step(spec, layout, inputs, state), inputs),
    )
    plan = plan._replace(state=_learn(plan, layout.sampled, state, config))

    scalars = _scalars(plan, layout)
    before = stacks_lib.stack(stacks, jax.tree.leaves(state.squared_gradient_average))
    leaves = list(map(Coordinates, stacked_params, turned.grads, turned.first_moments, before))
    leaves = _accumulate(plan, layout, scalars, leaves, state.updates_made)
    multipliers = _multipliers(plan, layout, leaves, state, config)
    changes = _changes(plan, layout, scalars, leaves, multipliers, config)
    if turned.bases is not None:
        changes = rotation.rotate_back(layout.blocks, turned.bases, changes, layout.starts)
    steps = _updates(plan, layout, scalars, stacked_params, changes)
    updates, first, second = (
        stacks_lib.unstack(stacks, arrays, layout.places)
        for arrays in (
            [step.astype(grad.dtype) for step, grad in zip(steps, stacked_grads, strict=True)],
            [leaf.first_moment for leaf in leaves],
            [leaf.second_moment for leaf in leaves],
        )
    )

    def like_state(leaves: Sequence[chex.Array]) -> chex.ArrayTree:
        return jax.tree.unflatten(jax.tree.structure(state.gradient_average), leaves)

    averaged = None if state.average is None else like_state(_average(plan, own_params, state))
    new_state = plan.state._replace(
        gradient_average=like_state(first),
        squared_gradient_average=like_state(second),
        average=averaged,
        rate_multipliers=None if multipliers is None else like_state(multipliers),
        bases=turned.bases,
    )
    return jax.tree.unflatten(structure, updates), new_state


def _learn(
    plan: StepPlan, sampled: Sampling, state: AlphaOptState, config: AlphaOptConfig
) -> AlphaOptState:
    """The new state of the plan, with the agent and the rollout after the step."""
    learner = plan.state.learner
    if learner is None or state.learner is None:
        return plan.state
    learner = learner._replace(rollout=state.learner.rollout)
    if plan.experience is None:
        return plan.state._replace(learner=learner)
    policy = Policy(network.unflatten(state.agent), config.agent)
    slot = state.updates_made % config.learning.rollout_length
    when = online.When(slot, plan.coefficients.finite)
    exploration = online.exploration_of(sampled, config.learning)
    agent, learner = online.learn(learner, policy, plan.experience, when, exploration)
    return plan.state._replace(agent=agent, learner=learner)


def _all_finite(loss_is_finite: chex.Array, sizes: units.Sizes) -> chex.Array:
    """True if the loss and every leaf's mean squared gradient are finite."""
    # A sum is finite only if all its terms are, and cheaper than a test of each term.
    return loss_is_finite & jnp.all(jnp.isfinite(sizes.mean_squares))


def _in_coordinates(state: AlphaOptState, turned: frames.Turned) -> AlphaOptState:
    """The state with the sampled first moments in the coordinates of this step."""
    if turned.bases is None:
        return state
    sampled = jnp.stack([turned.sampled_first_moments, state.sampled_moments[1]])
    return state._replace(sampled_moments=sampled)


class _Scalars(NamedTuple):
    """Per-leaf scalars of the moments and the update.

    Attributes:
      gradient_factor: Factor of the gradients.
      unit_change: Factor of the first moments, where the units of gradients may change; else None.
      inverse_unit: As in `AlphaOptState`.
      decay: Weight decay, or None.
      rates: The learning rate.
    """

    gradient_factor: Float[Array, "..."]
    unit_change: Float[Array, "..."] | None
    inverse_unit: Float[Array, "..."]
    decay: Float[Array, "..."] | None
    rates: LeafRates


def _scalars(plan: StepPlan, layout: Layout) -> list[_Scalars]:
    """The scalars of all leaves, a list of stacks."""
    vectors = _Scalars(
        plan.coefficients.gradient_factors,
        plan.coefficients.unit_changes,
        plan.state.inverse_units,
        plan.decays,
        plan.rates,
    )
    return stacks_lib.spread(layout.stacks, vectors, layout.numbers)


def _accumulate(
    plan: StepPlan,
    layout: Layout,
    scalars: list[_Scalars],
    leaves: list[Coordinates],
    updates_made: chex.Array,
) -> list[Coordinates]:
    """The leaves with their new moments in the stored type, a list of stacks."""
    coefficients, seed = plan.coefficients, updates_made.astype(jnp.uint32)

    def accumulated(scalars: _Scalars, leaf: Coordinates) -> Coordinates:
        scaled = units.rescaled(leaf.grad, scalars.gradient_factor)
        scaled = jnp.where(coefficients.finite, scaled, 0.0)
        first_decay, second_decay = coefficients.first_decay, coefficients.second_decay
        if scalars.unit_change is not None:
            first_decay = first_decay * scalars.unit_change
            second_decay = second_decay * jnp.square(scalars.unit_change)
        average, square = (
            each.astype(jnp.float32) for each in (leaf.first_moment, leaf.second_moment)
        )
        first = first_decay * average + coefficients.first_weight * scaled
        second = second_decay * square + coefficients.second_weight * jnp.square(scaled)
        return Coordinates(
            leaf.param,
            leaf.grad,
            stochastic_rounding.to_dtype(first, leaf.first_moment.dtype, 2 * seed),
            stochastic_rounding.to_dtype(second, leaf.second_moment.dtype, 2 * seed + 1),
        )

    functions = [accumulated] * len(scalars)
    return stacks_lib.for_each(layout.stacks, functions, scalars, leaves)


def _multipliers(
    plan: StepPlan,
    layout: Layout,
    leaves: list[Coordinates],
    state: AlphaOptState,
    config: AlphaOptConfig,
) -> list[chex.Array] | None:
    """The rate multipliers of each leaf's parameters, refreshed or held, with the explorers'."""
    if state.rate_multipliers is None:
        return None
    held = jax.tree.leaves(state.rate_multipliers)
    policy = Policy(network.unflatten(state.agent), config.agent)
    leaf_inputs = LeafInputs(
        layout,
        plan.statistics,
        plan.action,
        plan.coefficients.corrections,
        plan.state.inverse_units,
    )
    multipliers = conditional.cond(
        plan.coefficients.refreshes,
        lambda: coordinate_rates.refresh(policy, leaves, leaf_inputs, config),
        lambda: held,
    )
    if plan.state.learner is None:
        return multipliers
    exploration = online.exploration_of(layout.sampled, config.learning)
    return online.write_multipliers(plan.state.learner, multipliers, exploration)


def _average(
    plan: StepPlan, params: Sequence[chex.Array], state: AlphaOptState
) -> list[chex.Array]:
    """The averages of the leaves with the parameters before this step."""
    weight = plan.coefficients.average_weight
    return [
        averages.update(average, param, weight)
        for average, param in zip(jax.tree.leaves(state.average), params, strict=True)
    ]


def _changes(
    plan: StepPlan,
    layout: Layout,
    scalars: list[_Scalars],
    leaves: list[Coordinates],
    multipliers: list[chex.Array] | None,
    config: AlphaOptConfig,
) -> list[chex.Array]:
    """The changes in the coordinates of the step, a list of stacks, in float32."""
    if multipliers is None:
        multipliers = [jnp.ones((), jnp.float16)] * len(layout.sampled.shapes)
    coefficients = plan.coefficients

    def change(
        is_rotated: bool, own: _Scalars, leaf: Coordinates, multiplier: chex.Array
    ) -> chex.Array:
        if config.agent.update_direction == "gradient":
            scale = own.inverse_unit.astype(jnp.float32)
            direction = units.rescaled(leaf.grad, own.gradient_factor) / scale
            direction = jnp.where(coefficients.finite, direction, 0.0)
        else:
            leaf32 = Coordinates(*(each.astype(jnp.float32) for each in leaf))
            direction = statistics.normalize(leaf32, coefficients.corrections, config).momentum
            if is_rotated:
                direction = rotation.bounded(direction)
        if own.decay is not None and not is_rotated:
            direction = direction + own.decay * _finite(leaf.param)
        return plan.sign * own.rates.applied(multiplier) * direction

    functions = [functools.partial(change, bool(sides)) for sides in layout.blocks.sides]
    factors = stacks_lib.stack(layout.stacks, multipliers)
    return stacks_lib.for_each(layout.stacks, functions, scalars, leaves, factors)


def _updates(
    plan: StepPlan,
    layout: Layout,
    scalars: list[_Scalars],
    params: list[chex.Array],
    changes: list[chex.Array],
) -> list[chex.Array]:
    """The updates, given the changes in the parameters' own coordinates; lists of stacks."""

    def update(
        is_rotated: bool, own: _Scalars, param: chex.Array, change: chex.Array
    ) -> chex.Array:
        if own.decay is not None and is_rotated:
            change = change + plan.sign * own.decay * own.rates.rates * _finite(param)
        return _within_range(change, param)

    functions = [functools.partial(update, bool(sides)) for sides in layout.blocks.sides]
    return stacks_lib.for_each(layout.stacks, functions, scalars, params, changes)


def _finite(param: chex.Array) -> chex.Array:
    """The parameter in float32; 0 where it is not finite."""
    param = param.astype(jnp.float32)
    return jnp.where(jnp.isfinite(param), param, 0.0)


def _within_range(change: chex.Array, param: chex.Array) -> chex.Array:
    """The change, clipped so that the parameter stays within the range of its type."""
    largest = float(jnp.finfo(param.dtype).max)
    if largest > 1e18:  # The squares of such parameters overflow in float32: they are not moved.
        return change
    param = param.astype(jnp.float32)
    param = jnp.where(jnp.isfinite(param), param, 0.0)
    return jnp.clip(change, -largest - param, largest - param)

"""One step of the optimizer: observe, decide, learn, compute the rates, apply them.

Everything small (the sample, the leaves' decisions, learning) is computed in one conditional, which
a step with a non-finite gradient skips. This is also what makes a step cheap: compilers copy the
computation of a scalar into every loop over parameters that uses it, but not the result of a
conditional. The remaining work per parameter is Adam's, one multiplication, and the periodic
refresh of the rate multipliers.
"""

from __future__ import annotations

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import optax

from alphaopt_jax._agent import conditional, network, rotation, sampling, statistics
from alphaopt_jax._agent.network import Policy
from alphaopt_jax._agent.sampling import Sampling
from alphaopt_jax._agent.statistics import Coordinates
from alphaopt_jax._learning import online
from alphaopt_jax._optimizer import (
    averages,
    coordinate_rates,
    frames,
    stochastic_rounding,
    units,
)
from alphaopt_jax._optimizer import plan as plan_lib
from alphaopt_jax._optimizer.coordinate_rates import LeafInputs
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
    sampled = sampling.of_shapes([leaf.shape for leaf in grads])
    arguments = (grads, jax.tree.leaves(params), loss, finite, scaling, state)
    arguments = conditional.varying_like(arguments, arguments)
    grads, leaves, loss, finite, scaling, state = arguments
    sizes = units.measure(grads, state.inverse_units, state.updates_made, state.skipped_in_a_row)
    finite = _all_finite(finite, sizes)
    dtypes = [leaf.dtype for leaf in grads]
    blocks = frames.rotation_of(sampled.shapes, config)
    turned = frames.turn(blocks, grads, sizes, finite, sampled, state, config)
    state = _in_coordinates(state, turned)
    inputs = Inputs(turned.grads, leaves, loss, sizes, scaling, turned.numbers)
    plan = jax.lax.cond(
        finite,
        lambda: conditional.varying_like(plan_lib.plan_step(spec, sampled, inputs, state), inputs),
        lambda: conditional.varying_like(plan_lib.skip_step(spec, sampled, inputs, state), inputs),
    )
    plan = plan._replace(state=_learn(plan, sampled, state, config))

    averaged = _average(plan, inputs, state)
    leaves = _accumulate(plan, inputs, state)
    multipliers = _multipliers(plan, inputs, leaves, sampled, state, config)
    steps = [
        _change(plan, number, leaf, multiplier, bool(sides), config)
        for number, leaf, multiplier, sides in zip(
            inputs.numbers, leaves, multipliers, blocks.sides, strict=True
        )
    ]
    if turned.bases is not None:
        steps = rotation.rotate_back(blocks, turned.bases, steps, turned.starts)
    steps = [
        _apply(plan, number, leaf.param, change, bool(sides)).astype(dtype)
        for number, leaf, change, sides, dtype in zip(
            inputs.numbers, leaves, steps, blocks.sides, dtypes, strict=True
        )
    ]

    def like_state(leaves: Sequence[chex.Array]) -> chex.ArrayTree:
        return jax.tree.unflatten(jax.tree.structure(state.gradient_average), leaves)

    new_state = plan.state._replace(
        gradient_average=like_state([leaf.first_moment for leaf in leaves]),
        squared_gradient_average=like_state([leaf.second_moment for leaf in leaves]),
        average=None if state.average is None else like_state(averaged),
        rate_multipliers=None if state.rate_multipliers is None else like_state(multipliers),
        bases=turned.bases,
    )
    return jax.tree.unflatten(structure, steps), new_state


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
    """The state with its first moments in the coordinates of this step."""
    if turned.bases is None:
        return state
    structure = jax.tree.structure(state.gradient_average)
    return state._replace(
        gradient_average=jax.tree.unflatten(structure, turned.first_moments),
        sampled_moments=jnp.stack([turned.sampled_first_moments, state.sampled_moments[1]]),
    )


def _accumulate(plan: StepPlan, inputs: Inputs, state: AlphaOptState) -> list[Coordinates]:
    """The leaves with their new moments, in the stored type."""
    coefficients = plan.coefficients
    seed = state.updates_made.astype(jnp.uint32)
    averages = jax.tree.leaves(state.gradient_average)
    squares = jax.tree.leaves(state.squared_gradient_average)
    leaves = []
    for index, (param, grad) in enumerate(zip(inputs.params, inputs.grads, strict=True)):
        number = inputs.numbers[index]
        scaled = units.rescaled(grad, coefficients.gradient_factors[number])
        scaled = jnp.where(coefficients.finite, scaled, 0.0)
        first_decay, second_decay = coefficients.first_decay, coefficients.second_decay
        if coefficients.unit_changes is not None:
            change = coefficients.unit_changes[number]
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
    plan: StepPlan,
    inputs: Inputs,
    leaves: list[Coordinates],
    sampled: Sampling,
    state: AlphaOptState,
    config: AlphaOptConfig,
) -> list[chex.Array]:
    """The rate multipliers of all parameters, refreshed or held, with those of the explorers."""
    if state.rate_multipliers is None:
        return [jnp.ones((), jnp.float16)] * len(leaves)
    held = jax.tree.leaves(state.rate_multipliers)
    policy = Policy(network.unflatten(state.agent), config.agent)
    leaf_inputs = LeafInputs(
        inputs.numbers,
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
    exploration = online.exploration_of(sampled, config.learning)
    return online.write_multipliers(plan.state.learner, multipliers, exploration)


def _average(plan: StepPlan, inputs: Inputs, state: AlphaOptState) -> list[chex.Array]:
    """The averages with the parameters before this step; none for a known number of steps."""
    if state.average is None:
        return []
    weight = plan.coefficients.average_weight
    return [
        averages.update(average, param, weight)
        for average, param in zip(jax.tree.leaves(state.average), inputs.params, strict=True)
    ]


def _change(
    plan: StepPlan,
    number: chex.Array,
    leaf: Coordinates,
    multiplier: chex.Array,
    is_rotated: bool,
    config: AlphaOptConfig,
) -> chex.Array:
    """The change of one leaf in the coordinates of the step, in float32."""
    coefficients = plan.coefficients
    if config.agent.update_direction == "gradient":
        scale = plan.state.inverse_units[number].astype(jnp.float32)
        direction = units.rescaled(leaf.grad, coefficients.gradient_factors[number]) / scale
        direction = jnp.where(coefficients.finite, direction, 0.0)
    else:
        leaf32 = Coordinates(*(each.astype(jnp.float32) for each in leaf))
        direction = statistics.normalize(leaf32, coefficients.corrections, config).momentum
        if is_rotated:
            direction = jnp.clip(direction, -rotation.MAX_DIRECTION, rotation.MAX_DIRECTION)
    if plan.decays is not None and not is_rotated:
        direction = direction + plan.decays[number] * _finite(leaf.param)
    return plan.sign * plan.rates.applied(multiplier, number) * direction


def _apply(
    plan: StepPlan, number: chex.Array, param: chex.Array, change: chex.Array, is_rotated: bool
) -> chex.Array:
    """The update of one leaf, in the parameters' own coordinates."""
    if plan.decays is not None and is_rotated:
        decay = plan.decays[number] * plan.rates.rates[number]
        change = change + plan.sign * decay * _finite(param)
    return _within_range(change, param)


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

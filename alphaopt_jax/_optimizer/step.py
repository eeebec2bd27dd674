"""One step of the optimizer: observe, decide, move; then credit and learn.

What is small (the sample, the leaves' decisions, all that concerns learning) is computed in one
conditional, which a step with a non-finite gradient skips. That is also what makes a step cheap:
compilers copy the computation of a scalar into every loop over parameters that uses it, but not
what comes out of a conditional. What is left for every parameter is Adam's work, a multiplication,
and, now and then, a look at it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from alphaopt_jax._agent import action, history, observation
from alphaopt_jax._agent import network as network_lib
from alphaopt_jax._agent import sampling as sampling_lib
from alphaopt_jax._learning import online
from alphaopt_jax._optimizer import (
    complex_numbers,
    coordinate_rates,
    safeguards,
    stochastic_rounding,
)
from alphaopt_jax._optimizer.state import AlphaOptState
from alphaopt_jax.config import AlphaOptConfig


class Design(NamedTuple):
    """What a step is made with; everything here is constant.

    Attributes:
      network: The actor-critic.
      anytime_steps: As in `agent.Agent`.
      num_steps: As in `transform.alphaopt`.
      config: The constants.
    """

    network: network_lib.ActorCritic
    anytime_steps: float
    num_steps: chex.Numeric | None
    config: AlphaOptConfig


class _Pace(NamedTuple):
    """The scalars that every parameter's arithmetic needs, so that a skipped step is none.

    Attributes:
      usable: Whether the gradients and the loss are finite, `bool[]`.
      looks: Whether every parameter is looked at, `bool[]`.
      first_decay: What is kept of the first moments, `float32[]` as all others.
      first_weight: What is added of the gradients.
      second_decay: What is kept of the second moments.
      second_weight: What is added of the squared gradients.
      momentum_scale: Corrects the first moments for their start.
      second_moment_scale: Corrects the second moments.
      gradient_factors: What each leaf's gradients are multiplied by, one `float32[]` for each.
    """

    usable: chex.Array
    looks: chex.Array
    first_decay: chex.Array
    first_weight: chex.Array
    second_decay: chex.Array
    second_weight: chex.Array
    momentum_scale: chex.Array
    second_moment_scale: chex.Array
    gradient_factors: tuple[chex.Array, ...]


class _Plan(NamedTuple):
    """What is decided for L leaves.

    Attributes:
      pace: The scalars.
      numbers: Of the leaves, from 0, each `int32[]`. What comes out of a conditional is no constant
        to a compiler: so leaves of one shape are computed by one program, compiled once.
      rates: Of the leaves, positive, `float32[L]`.
      largest_factors: What no parameter's rate relative to its leaf's exceeds, `float32[L]`.
      sign: Of the user's `learning_rate`, `float32[]`.
      decays: The leaves' weight decay, `float32[L]`, or None.
      decision: `[L, H]` and `[L]`, what the leaves' parameters need of it.
      statistics: Each `float32[L]`.
      state: The new state, without what is shaped like the parameters.
    """

    pace: _Pace
    numbers: tuple[chex.Array, ...]
    rates: chex.Array
    largest_factors: chex.Array
    sign: chex.Array
    decays: chex.Array | None
    decision: network_lib.LeafDecision
    statistics: observation.LeafStatistics
    state: AlphaOptState


def step(
    design: Design,
    updates: optax.Updates,
    state: AlphaOptState,
    params: optax.Params,
    value: chex.Numeric | None,
    multiplier: chex.Numeric,
    decays: Sequence[chex.Numeric] | None,
) -> tuple[optax.Updates, AlphaOptState]:
    """One step of the environment and of the agent.

    Args:
      design: Constants.
      updates: Gradients.
      state: The state.
      params: Parameters, shaped like the gradients.
      value: The loss, a scalar, or None.
      multiplier: What the agent's rates are multiplied by, a scalar; negative to descend.
      decays: Weight decay of every leaf, or None.

    Returns:
      The updates, shaped and typed like the gradients, and the new state.
    """
    config = design.config
    split_updates, split_params = complex_numbers.split(updates), complex_numbers.split(params)
    grads, structure = jax.tree.flatten(split_updates)
    if not grads:
        return updates, state._replace(updates_made=_next(state.updates_made, config))
    param_leaves = jax.tree.leaves(split_params)
    loss = None if value is None else jnp.asarray(value).astype(jnp.float32).reshape(())

    sampling = sampling_lib.of_shapes([leaf.shape for leaf in grads])
    energies = _energies(grads)
    plan = jax.lax.cond(
        _all_usable(energies, loss),
        lambda: _decide(
            design,
            sampling,
            grads,
            energies,
            param_leaves,
            state,
            loss,
            multiplier,
            decays,
        ),
        lambda: _stand_still(design, sampling, state, decays),
    )
    pace = plan.pace

    # Each leaf's moments.
    averages = jax.tree.leaves(state.gradient_average)
    squares = jax.tree.leaves(state.squared_gradient_average)
    seed = state.updates_made.astype(jnp.uint32)
    moments = [
        _accumulate(pace, *leaf, seed)
        for leaf in zip(pace.gradient_factors, grads, averages, squares, strict=True)
    ]
    leaves = [
        observation.Coordinates(param, grad, first, second)
        for param, grad, (first, second) in zip(param_leaves, grads, moments, strict=True)
    ]

    # Each parameter's rate relative to its leaf's, looked at or held.
    relative = jax.tree.leaves(state.relative_rates)
    relative = jax.lax.cond(
        pace.looks,
        lambda: coordinate_rates.look(
            state.agent,
            design.network,
            leaves,
            plan.numbers,
            plan.statistics,
            plan.decision,
            plan.state.leaf_log_rates,
            pace.momentum_scale,
            pace.second_moment_scale,
            config,
        ),
        lambda: relative,
    )
    if plan.state.learner is not None:
        relative = online.write_rates(plan.state.learner, relative, sampling, config)

    # The step.
    steps = []
    for index, (leaf, factor) in enumerate(zip(leaves, relative, strict=True)):
        number = plan.numbers[index]
        if config.direction is None:
            direction = observation.normalize_with(
                _float32(leaf), pace.momentum_scale, pace.second_moment_scale, config
            ).momentum
        else:
            direction = pace.gradient_factors[index] * leaf.grad.astype(jnp.float32)
            direction = jnp.where(pace.usable, direction, 0.0)
        if plan.decays is not None:
            direction = direction + plan.decays[number] * leaf.param.astype(jnp.float32)
        factor = jnp.minimum(factor.astype(jnp.float32), plan.largest_factors[number])
        rate = plan.sign * plan.rates[number] * factor
        change = _within_range(rate * direction, leaf.param)
        steps.append(change.astype(leaf.grad.dtype))

    def like_state(leaves: Sequence[chex.Array]) -> chex.ArrayTree:
        return jax.tree.unflatten(jax.tree.structure(state.gradient_average), leaves)

    new_state = plan.state._replace(
        gradient_average=like_state([leaf.first_moment for leaf in leaves]),
        squared_gradient_average=like_state([leaf.second_moment for leaf in leaves]),
        relative_rates=like_state(relative),
    )
    return complex_numbers.merge(jax.tree.unflatten(structure, steps)), new_state


def _decide(
    design: Design,
    sampling: sampling_lib.Sampling,
    grads: Sequence[chex.Array],
    energies: chex.Array,
    params: Sequence[chex.Array],
    state: AlphaOptState,
    loss: chex.Array | None,
    multiplier: chex.Numeric,
    decays: Sequence[chex.Numeric] | None,
) -> _Plan:
    """All that is decided at a step but for looking at every parameter."""
    config, network = design.config, design.network
    multiplier = jnp.asarray(multiplier).astype(jnp.float32)
    number = state.updates_made.astype(jnp.float32) + 1.0
    momentum_scale, second_moment_scale = observation.start_corrections(number, config)

    # Observe.
    gradient_factors, guarded = safeguards.bound_gradients(state.guard, energies, number, config)
    sample = observation.accumulate(
        sampling_lib.read(params, sampling),
        gradient_factors[:, None] * sampling_lib.read(grads, sampling),
        state.sampled_moments[0],
        state.sampled_moments[1],
        config,
    )
    sight = action.see(
        sample,
        sampling,
        loss,
        state.leaf_memory,
        state.loss_history,
        number,
        design.num_steps,
        config,
    )

    if loss is not None:
        guarded = safeguards.watch_loss(guarded, loss, state.loss_history.fast, sight.history.fast)

    # Act.
    decision = network_lib.decide_leaves(state.agent, sight.context, sight.memory_features, network)
    leaf_log_rates = action.leaf_log_rates(state.agent, network, sight, decision, sampling)
    schedule = observation.schedule(number, design.num_steps, design.anytime_steps)
    leaf_rates = action.learning_rates(
        leaf_log_rates,
        sight.statistics.scale,
        jnp.abs(multiplier),
        schedule * guarded.brake,
        config,
    )

    # Learn, from the steps before this one.
    learner, agent = state.learner, state.agent
    if learner is not None and any(sampling.counts):
        slot = state.updates_made % config.rollout_length
        moved = sight.normalized.momentum if config.direction is None else sample.grad
        learner = online.reward(learner, sample.grad, sampling, loss, slot, config)
        learner = online.explore(
            learner, agent, network, sight, sampling, leaf_log_rates, slot, config
        )
        learner = online.note_steps(learner, leaf_rates, moved, sampling, config)
        agent, learner = online.learn_when_full(learner, agent, network, sampling, slot, config)

    pace = _Pace(
        usable=jnp.asarray(True),
        looks=action.looks(state.updates_made, config),
        first_decay=jnp.asarray(config.gradient_decay, jnp.float32),
        first_weight=jnp.asarray(1.0 - config.gradient_decay, jnp.float32),
        second_decay=jnp.asarray(config.squared_gradient_decay, jnp.float32),
        second_weight=jnp.asarray(1.0 - config.squared_gradient_decay, jnp.float32),
        momentum_scale=momentum_scale,
        second_moment_scale=second_moment_scale,
        gradient_factors=tuple(gradient_factors),
    )
    new_state = _small(state)._replace(
        updates_made=_next(state.updates_made, config),
        agent=agent,
        leaf_rates=leaf_rates,
        leaf_log_rates=leaf_log_rates,
        sampled_moments=jnp.stack([sample.first_moment, sample.second_moment]),
        leaf_memory=history.remember_rates(sight.memory, leaf_log_rates),
        loss_history=sight.history,
        guard=guarded,
        learner=learner,
    )
    return _Plan(
        pace=pace,
        numbers=_numbers(sampling),
        rates=leaf_rates,
        largest_factors=action.largest_relative(leaf_log_rates, network.max_log_rate),
        sign=jnp.sign(multiplier),
        decays=_stack(decays),
        decision=decision,
        statistics=sight.statistics,
        state=new_state,
    )


def _stand_still(
    design: Design,
    sampling: sampling_lib.Sampling,
    state: AlphaOptState,
    decays: Sequence[chex.Numeric] | None,
) -> _Plan:
    """Changes nothing but the count of skipped steps."""
    zero, one = jnp.zeros((), jnp.float32), jnp.ones((), jnp.float32)
    none = jnp.zeros((len(sampling.shapes),), jnp.float32)
    return _Plan(
        pace=_Pace(
            jnp.asarray(False),
            jnp.asarray(False),
            one,
            zero,
            one,
            zero,
            zero,
            one,
            (one,) * len(sampling.shapes),
        ),
        numbers=_numbers(sampling),
        rates=none,
        largest_factors=none,
        sign=one,
        decays=_stack(decays),
        decision=network_lib.LeafDecision(
            jnp.zeros((*none.shape, design.network.actor_hidden), jnp.float32), none
        ),
        statistics=observation.LeafStatistics(*(none for _ in observation.LeafStatistics._fields)),
        state=_small(state)._replace(updates_skipped=optax.safe_increment(state.updates_skipped)),
    )


def _numbers(sampling: sampling_lib.Sampling) -> tuple[chex.Array, ...]:
    return tuple(jnp.asarray(number, jnp.int32) for number in range(len(sampling.shapes)))


def _within_range(change: chex.Array, param: chex.Array) -> chex.Array:
    """The change, cut where the parameter's type could not hold what it leads to."""
    largest = float(jnp.finfo(param.dtype).max)
    if largest > 1e18:  # A leaf so large that float32 cannot hold its squares is not moved.
        return change
    param = param.astype(jnp.float32)
    return jnp.clip(change, -largest - param, largest - param)


def _next(updates_made: chex.Array, config: AlphaOptConfig) -> chex.Array:
    """Counts a step. At the end of `int32` the last numbers repeat, so that intervals go on."""
    last, period = np.iinfo(np.int32).max, config.decision_interval * config.rollout_length
    return jnp.where(updates_made == last, last - period + 1, updates_made + 1)


def _small(state: AlphaOptState) -> AlphaOptState:
    """The state without what is shaped like the parameters."""
    return state._replace(gradient_average=(), squared_gradient_average=(), relative_rates=())


def _accumulate(
    pace: _Pace,
    factor: chex.Array,
    grad: chex.Array,
    first: chex.Array,
    second: chex.Array,
    seed: chex.Array,
) -> tuple[chex.Array, chex.Array]:
    """Both moments of one leaf, in the type in which they are kept."""
    grad = jnp.where(pace.usable, factor * grad.astype(jnp.float32), 0.0)
    new_first = pace.first_decay * first + pace.first_weight * grad
    new_second = pace.second_decay * second + pace.second_weight * jnp.square(grad)
    return (
        stochastic_rounding.to_dtype(new_first, first.dtype, 2 * seed),
        stochastic_rounding.to_dtype(new_second, second.dtype, 2 * seed + 1),
    )


def _energies(grads: Sequence[chex.Array]) -> chex.Array:
    """Mean squared gradient of every leaf, `float32[L]`."""
    return jnp.stack(
        [
            jnp.sum(jnp.square(leaf.astype(jnp.float32))) / np.float32(max(leaf.size, 1))
            for leaf in grads
        ]
    )


def _all_usable(energies: chex.Array, loss: chex.Array | None) -> chex.Array:
    """Whether everything is finite, the squares that the second moments take included."""
    # A sum is finite only where all its terms are, and cheaper than asking each one.
    finite = jnp.all(jnp.isfinite(energies))
    return finite if loss is None else finite & jnp.isfinite(loss)


def _float32(leaf: observation.Coordinates) -> observation.Coordinates:
    return observation.Coordinates(*(each.astype(jnp.float32) for each in leaf))


def _stack(values: Sequence[chex.Numeric] | None) -> chex.Array | None:
    return (
        None if values is None else jnp.stack([jnp.asarray(each, jnp.float32) for each in values])
    )

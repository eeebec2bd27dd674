"""The environment of meta-training: one task being optimized, in intervals of held exploration.

Everything here concerns one member of a population; `_population.py` runs many with `vmap`. A step
runs the optimizer's own arithmetic on one flat vector in place of a pytree: the models are tiny,
and this compiles and runs several times faster.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import chex
import jax
from jax import flatten_util
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key
import numpy as np

from alphaopt_jax._agent import action, observation, rotation
from alphaopt_jax._agent import statistics as statistics_lib
from alphaopt_jax._agent.action import Action, RateFactors
from alphaopt_jax._agent.history import History
from alphaopt_jax._agent.leaves import FlatLeaves, leaf_of
from alphaopt_jax._agent.network import LeafDecision, Policy
from alphaopt_jax._agent.observation import Observation
from alphaopt_jax._agent.rotation import Bases
from alphaopt_jax._agent.schedule import Clock
from alphaopt_jax._learning import explorers, reward
from alphaopt_jax._learning.online import KEY_IMPL
from alphaopt_jax._optimizer import averages
from alphaopt_jax.meta._episode import EnvState, Interval, LossAndGrads, Model, Noise, Outcome
from alphaopt_jax.meta.config import MetaConfig
from alphaopt_jax.tasks.task import Family, Task


class _Setting(NamedTuple):
    """The parts of an interval that all its steps share."""

    task: Task
    model: Model
    policy: Policy
    interval: Interval
    config: MetaConfig


class _Acted(NamedTuple):
    """A step's actions.

    Attributes:
      action: The leaves' action, without noise.
      log_multipliers: `float32[N]`, without noise.
      log_rates: `float32[N]`, with noise.
      features: Coordinate features of the explorers, each `float32[M]`.
    """

    action: Action
    log_multipliers: chex.Array
    log_rates: chex.Array
    features: tuple[chex.Array, ...]


NUM_LEAF_OBSERVATIONS = observation.NUM_FEATURES - observation.NUM_COORDINATE_FEATURES + 4
"""Features of a leaf, and four that only the leaf critic observes: the true time and loss."""

_MAX_REWARD = 5.0
_MAX_GROWTH = 1e6
"""Largest loss of an episode, relative to its first."""
_MAX_PARAM = 1e12
"""Largest parameter of an episode: that of a dead unit may grow without an effect on the loss."""
_REWARD_BATCHES = 4
"""Batches that the loss at averaged parameters is measured on."""
_REWARD_STREAM = 1_000_003
_TINY = 1e-30  # Keeps the logarithm finite for a loss that is zero from the start.


def model_of(family: Family, config: MetaConfig) -> Model:
    """Returns the layout of a family's parameters, without computing any."""
    params = jax.eval_shape(lambda: family.draw(jax.random.key(0)).init(jax.random.key(0)))
    leaves, shapes = FlatLeaves.of(params), [leaf.shape for leaf in jax.tree.leaves(params)]
    return Model(
        leaves,
        rotation.of_shapes(shapes, config.agent.block_size),
        explorers.allocate(leaves.sizes, leaves.sizes, config.num_explorers),
    )


def reset(
    family: Family,
    instance: Any,
    key: Key[Array, ""],
    num_steps: Float[Array, ""],
    config: MetaConfig,
) -> EnvState:
    """Begins an episode. Consumes `key`.

    Args:
      family: The family of the task.
      instance: The task's instance.
      key: For its initial parameters and all its batches.
      num_steps: As in `EnvState`.
      config: The constants.

    Returns:
      The state before the first step.
    """
    task = family.task(instance)
    init_key, batch_key, key = jax.random.split(key, 3)
    params = task.init(init_key)
    flat, _ = flatten_util.ravel_pytree(params)
    measured = _loss_and_grads(task, flat, batch_key)
    rewarded = _rewarded(task, flat, measured, batch_key, config)
    return EnvState(
        instance=instance,
        key_data=jax.random.key_data(key),
        params=flat,
        average=flat,
        bases=rotation.init(model_of(family, config).rotation),
        gradient_average=jnp.zeros_like(flat),
        squared_gradient_average=jnp.zeros_like(flat),
        log_multipliers=jnp.zeros_like(flat),
        history=History.empty(len(jax.tree.leaves(params))),
        step=jnp.zeros((), jnp.float32),
        num_steps=jnp.asarray(num_steps, jnp.float32),
        multiplier=jnp.ones((), jnp.float32),
        first_loss=measured.loss,
        measured=measured,
        rewarded_loss=rewarded.loss,
    )


def run_interval(
    family: Family, policy: Policy, state: EnvState, interval: Interval, config: MetaConfig
) -> tuple[EnvState, Outcome]:
    """Optimizes for one interval with the same exploration noise.

    Args:
      family: The family of the task.
      policy: The agent.
      state: The task being optimized.
      interval: The interval.
      config: The constants.

    Returns:
      The state after the interval, and its outcome.
    """
    model = model_of(family, config)
    count = interval.positions.size
    if not count:
        model = model._replace(explorers=(0,) * len(model.explorers))
    outcome = Outcome(
        observations=jnp.zeros((count, observation.NUM_FEATURES), jnp.float32),
        leaf_observations=jnp.zeros((len(model.explorers), NUM_LEAF_OBSERVATIONS), jnp.float32),
        leaf_rewards=jnp.zeros((len(model.explorers),), jnp.float32),
        explorer_rewards=jnp.zeros((count,), jnp.float32),
        loss=state.measured.loss,
    )
    setting = _Setting(family.task(state.instance), model, policy, interval, config)

    def body(index: chex.Array, carry: tuple[EnvState, Outcome]) -> tuple[EnvState, Outcome]:
        return _step(setting, *carry, index)

    # The instance can hold whole data sets: it stays outside of the loop's carry.
    light = state._replace(instance=())
    light, outcome = jax.lax.fori_loop(0, interval.length, body, (light, outcome))
    if config.reward_every == "interval":
        light, outcome = _reward_interval(setting, state, light, outcome)
    return light._replace(instance=state.instance), outcome


def frozen_interval(num_leaves: int, num_steps: Int[Array, ""]) -> Interval:
    """An interval without exploration that lasts a whole episode."""
    return Interval(
        positions=jnp.zeros((0,), jnp.int32),
        noise=Noise(jnp.zeros(num_leaves), jnp.zeros(0)),
        length=num_steps,
        observed=jnp.zeros((), jnp.int32),
        first_step=jnp.zeros((), jnp.int32),
        horizon=num_steps.astype(jnp.float32),
    )


def _step(
    setting: _Setting, state: EnvState, outcome: Outcome, index: chex.Array
) -> tuple[EnvState, Outcome]:
    """One step of the task; adds its rewards to the interval's outcome."""
    task, config = setting.task, setting.config
    key, batch_key = jax.random.split(jax.random.wrap_key_data(state.key_data, impl=KEY_IMPL))
    turned = _turn(setting, state, index)
    observed, clock = _observe(setting, turned)
    acted = _act(setting, observed, state, index)
    change = _change(setting, observed, acted, clock, turned)

    params = state.params + change
    average = averages.update(state.average, params, averages.weight(clock.step))
    measured = _loss_and_grads(task, params, batch_key)
    if config.reward_every == "interval":
        rewarded = measured._replace(loss=state.rewarded_loss)
        leaf_rewards = jnp.zeros_like(outcome.leaf_rewards)
        explorer_rewards = jnp.zeros_like(outcome.explorer_rewards)
    else:
        at_average = _at_average(setting, state, index + 1)
        point = jnp.where(at_average, average, params)
        rewarded = _rewarded(task, point, measured, batch_key, config)
        moved = jnp.where(at_average, average - state.average, change)
        leaf_rewards, explorer_rewards = _rewards(setting, state, rewarded, moved)
    outcome = _record_observations(setting, state, observed, acted, outcome, index)

    leaf_log_rates = acted.action.log_rates + setting.interval.noise.leaves
    history = observed.history
    new = EnvState(
        instance=state.instance,
        key_data=jax.random.key_data(key),
        params=params,
        average=average,
        bases=turned.bases,
        gradient_average=observed.coordinates.first_moment,
        squared_gradient_average=observed.coordinates.second_moment,
        log_multipliers=acted.log_multipliers,
        history=history._replace(leaves=history.leaves.add_log_rates(leaf_log_rates)),
        step=clock.step,
        num_steps=state.num_steps,
        multiplier=state.multiplier,
        first_loss=state.first_loss,
        measured=measured,
        rewarded_loss=rewarded.loss,
    )
    # A step to a non-finite state, or to a loss whose gradients will soon be none, is not made, and
    # has the worst possible reward.
    grown = measured.loss > _MAX_GROWTH * (jnp.abs(state.first_loss) + 1.0)
    grown |= jnp.max(jnp.abs(params)) > _MAX_PARAM
    finite = _all_finite(new) & ~grown
    stay = state._replace(key_data=new.key_data, step=clock.step)
    new = jax.tree.map(lambda moved, old: jnp.where(finite, moved, old), new, stay)
    outcome = _add(outcome, leaf_rewards, explorer_rewards, finite)
    return new, outcome._replace(loss=new.measured.loss)


def _turn(setting: _Setting, state: EnvState, index: chex.Array) -> EnvState:
    """The state with gradients and first moments in the coordinates of this step."""
    blocks, leaves = setting.model.rotation, setting.model.leaves
    if not blocks.is_any_rotated:
        return state
    number, grads = state.step + 1.0, state.measured.grads
    (mean_squares,) = leaves.means([jnp.square(grads)])
    scaled = grads * leaves.expand(jax.lax.rsqrt(jnp.maximum(mean_squares, _TINY)))
    starts = blocks.starts
    parts = [functools.partial(jnp.asarray, part) for part in _split(blocks, scaled)]
    seen = rotation.add_gradients(blocks, state.bases, parts, number, starts)

    def refresh() -> tuple[Bases, chex.Array]:
        new = rotation.refreshed(blocks, seen, number)
        turns = rotation.changes(state.bases, new)
        moments = _split(blocks, state.gradient_average)
        return new, _join(rotation.rotate(blocks, turns, moments, starts))

    due = action.should_refresh(setting.interval.first_step + index, setting.config.step)
    bases, average = jax.lax.cond(due, refresh, lambda: (seen, state.gradient_average))
    rotated = _join(rotation.rotate(blocks, bases, _split(blocks, grads), starts))
    return state._replace(
        bases=bases, gradient_average=average, measured=state.measured._replace(grads=rotated)
    )


def _split(blocks: rotation.Rotation, flat: chex.Array) -> list[chex.Array]:
    """The leaves of flat parameters."""
    sizes = [math.prod(shape) for shape in blocks.shapes]
    parts = jnp.split(flat, np.cumsum(sizes)[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, blocks.shapes, strict=True)]


def _join(leaves: list[chex.Array]) -> chex.Array:
    return jnp.concatenate([leaf.reshape(-1) for leaf in leaves])


def _observe(setting: _Setting, state: EnvState) -> tuple[Observation, Clock]:
    """The observation at this step, and its time."""
    config = setting.config
    loss, grads = state.measured
    clock = Clock(state.step + 1.0, state.num_steps, config.agent.inverse_sqrt_steps)
    coordinates = statistics_lib.accumulate(
        state.params, grads, state.gradient_average, state.squared_gradient_average, config.step
    )
    history = state.history._replace(loss=state.history.loss.append(loss))
    leaves = setting.model.leaves
    return observation.observe(coordinates, leaves, history, clock, config.step), clock


def _act(setting: _Setting, observed: Observation, state: EnvState, index: chex.Array) -> _Acted:
    """The actions at this step, with the interval's exploration noise."""
    model, policy, interval = setting.model, setting.policy, setting.interval
    leaves = model.leaves
    decided = action.decide(policy, observed, leaves)
    expanded = jax.tree.map(leaves.expand, observed.statistics)

    def refresh() -> chex.Array:
        decision = LeafDecision(
            leaves.expand(decided.decision.activation.T), leaves.expand(decided.decision.log_rate)
        )
        own = action.parameter_log_rates(
            policy, observed.coordinates.param, observed.normalized, expanded, decision
        )
        return own - leaves.expand(decided.log_rates)

    refreshes = action.should_refresh(interval.first_step + index, setting.config.step)
    log_multipliers = jax.lax.cond(refreshes, refresh, lambda: state.log_multipliers)
    # The explorers' actions are refreshed at every step.
    everything = (observed.coordinates.param, observed.normalized, expanded)
    param, normalized, statistics = jax.tree.map(lambda each: each[interval.positions], everything)
    owners = leaf_of(model.explorers)
    decision = LeafDecision(
        decided.decision.activation[owners].T, decided.decision.log_rate[owners]
    )
    own = action.parameter_log_rates(policy, param, normalized, statistics, decision)
    explored = own - decided.log_rates[owners] + interval.noise.explorers
    log_rates = leaves.expand(decided.log_rates + interval.noise.leaves)
    log_rates = log_rates + log_multipliers.at[interval.positions].set(explored)
    features = observation.coordinate_features(param, normalized, statistics)
    return _Acted(decided, log_multipliers, log_rates, features)


def _change(
    setting: _Setting, observed: Observation, acted: _Acted, clock: Clock, state: EnvState
) -> chex.Array:
    """The change of all parameters in their own coordinates, `float32[N]`."""
    config, leaves = setting.config, setting.model.leaves
    scales = leaves.expand(observed.statistics.scale)
    factors = RateFactors(state.multiplier, clock.schedule())
    # Exploration may exceed the bound on log rates, so that an action at the bound has neighbours
    # on both sides. The size of a step is bounded, as that of a leaf is in a user's training.
    rates = action.learning_rates(acted.log_rates, scales, factors, config.agent, config.step)
    if config.agent.update_direction == "gradient":
        direction = observed.coordinates.grad
    else:
        direction = observed.normalized.momentum
    blocks = setting.model.rotation
    if blocks.is_any_rotated:
        is_rotated = leaves.expand(jnp.asarray(blocks.is_rotated)) > 0
        direction = jnp.where(is_rotated, rotation.bounded(direction), direction)
    change = -rates * direction
    if blocks.is_any_rotated:
        turned = _split(blocks, change)
        change = _join(rotation.rotate_back(blocks, state.bases, turned, blocks.starts))
    if setting.task.rate_factors is not None:
        change = change * flatten_util.ravel_pytree(setting.task.rate_factors)[0]
    return change


def _at_average(setting: _Setting, state: EnvState, steps: chex.Numeric) -> chex.Array:
    """Whether the loss after some steps of the interval is that at the averaged parameters.

    Where the horizon is hidden the average is what a user evaluates. Where it is known the last
    parameters are; before the end the average hides noise, which no longer matters at the end.
    """
    if not setting.config.reward_averages:
        return jnp.asarray(False)
    interval = setting.interval
    is_end = interval.first_step + steps >= interval.horizon
    return (state.num_steps <= 0) | ~is_end


def _record_observations(
    setting: _Setting,
    state: EnvState,
    observed: Observation,
    acted: _Acted,
    outcome: Outcome,
    index: chex.Array,
) -> Outcome:
    """Records the observations of the explorers and of the leaf critic, each at its step."""
    interval, of_leaves = setting.interval, observed.leaf_features
    owners = leaf_of(setting.model.explorers)

    def of_explorers() -> chex.Array:
        coordinate = jnp.stack(acted.features, axis=-1)
        return jnp.concatenate([coordinate, of_leaves[owners]], axis=-1)

    return outcome._replace(
        observations=jax.lax.cond(
            index == interval.observed, of_explorers, lambda: outcome.observations
        ),
        leaf_observations=jax.lax.cond(
            index == 0,
            lambda: _leaf_observations(setting, state, observed),
            lambda: outcome.leaf_observations,
        ),
    )


def _reward_interval(
    setting: _Setting, before: EnvState, now: EnvState, outcome: Outcome
) -> tuple[EnvState, Outcome]:
    """Rewards the interval as a whole, by one evaluation at its end."""
    key = jax.random.wrap_key_data(now.key_data, impl=KEY_IMPL)
    at_average = _at_average(setting, before, setting.interval.length)
    point = jnp.where(at_average, now.average, now.params)
    rewarded = _rewarded(setting.task, point, now.measured, key, setting.config)
    change = jnp.where(at_average, now.average - before.average, now.params - before.params)
    leaf_rewards, explorer_rewards = _rewards(setting, before, rewarded, change)
    finite = _all_finite((rewarded.loss, leaf_rewards, explorer_rewards))
    return now._replace(rewarded_loss=jnp.where(finite, rewarded.loss, now.rewarded_loss)), _add(
        outcome, leaf_rewards, explorer_rewards, finite
    )


def _add(
    outcome: Outcome, leaf_rewards: chex.Array, explorer_rewards: chex.Array, finite: chex.Array
) -> Outcome:
    """The outcome with more rewards; a non-finite step has the worst possible reward."""
    return outcome._replace(
        leaf_rewards=outcome.leaf_rewards + jnp.where(finite, leaf_rewards, -_MAX_REWARD),
        explorer_rewards=outcome.explorer_rewards + jnp.where(finite, explorer_rewards, 0.0),
    )


def _rewards(
    setting: _Setting, state: EnvState, rewarded: LossAndGrads, change: chex.Array
) -> tuple[chex.Array, chex.Array]:
    """Each leaf's and each explorer's part of the decrease of the log loss.

    Only the gradient at the end is used: its batch is independent of the step, so that noise
    favours no rate. The error of the end-point rule is shared equally by the leaves, so that their
    parts add up to the decrease.
    """
    config, positions = setting.config, setting.interval.positions
    membership = setting.model.leaves.membership
    before, after = (
        floored(loss, state.first_loss, config) for loss in (state.rewarded_loss, rewarded.loss)
    )
    decrease = jnp.log(before) - jnp.log(after)
    num_leaves = membership.shape[1]
    if config.reward == "shared":
        total = jnp.clip(decrease, -_MAX_REWARD, _MAX_REWARD)
        return jnp.full((num_leaves,), total), jnp.full(positions.shape, total)
    parts = reward.divided(
        state.measured.grads, rewarded.grads, change, previous_gradient_weight=0.0
    ) / (0.5 * (before + after))
    leaf_parts = parts @ membership
    leaf_parts = leaf_parts + (decrease - jnp.sum(leaf_parts)) / num_leaves
    leaf_parts = jnp.clip(leaf_parts, -_MAX_REWARD, _MAX_REWARD)
    others = jnp.sum(leaf_parts) - leaf_parts
    return leaf_parts + config.team_weight * others, parts[positions]


def floored(
    loss: Float[Array, "*shape"], first_loss: Float[Array, "*shape"], config: MetaConfig
) -> Float[Array, "*shape"]:
    """A positive loss, for its logarithm: a share of the first loss is added.

    Rounding can make a cross-entropy close to zero negative, which counts as zero.
    """
    return jnp.maximum(loss, 0.0) + config.loss_floor * first_loss + _TINY


def _leaf_observations(setting: _Setting, state: EnvState, observed: Observation) -> chex.Array:
    """The leaf critic's observation: the actor's features of a leaf, the true time and loss."""
    of_leaves, horizon = observed.leaf_features, setting.interval.horizon
    before, recent, now = (
        jnp.log(floored(loss, state.first_loss, setting.config))
        for loss in (state.first_loss, observed.history.loss.fast, state.measured.loss)
    )
    truth = jnp.stack(
        [
            2.0 * state.step / horizon - 1.0,
            0.5 * jnp.log(horizon) - 3.0,
            0.3 * (recent - before),
            0.3 * (now - before),
        ]
    )
    truth = jnp.broadcast_to(jnp.clip(truth, -5.0, 5.0), (of_leaves.shape[0], truth.size))
    return jnp.concatenate([of_leaves, truth], axis=-1)


def unflatten(task: Task, flat: Float[Array, " parameters"]) -> chex.ArrayTree:
    """Returns flat parameters, `float32[N]`, as the pytree that the task's loss takes."""
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    _, unravel = flatten_util.ravel_pytree(
        jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    )
    return unravel(flat)


def _loss_and_grads(task: Task, flat: chex.Array, key: chex.PRNGKey) -> LossAndGrads:
    """Loss and gradients on a batch, for flat parameters."""
    batch = task.batch(key)
    loss = lambda flat: task.loss(unflatten(task, flat), batch)  # noqa: E731
    return LossAndGrads(*jax.value_and_grad(loss)(flat))


def _rewarded(
    task: Task,
    flat: chex.Array,
    measured: LossAndGrads,
    batch_key: chex.PRNGKey,
    config: MetaConfig,
) -> LossAndGrads:
    """The rewarded loss with its gradients; `measured` is that of the batch with this key."""
    # A number that no `split` gives: small ones are those of the keys that batches are drawn with.
    reward_key = jax.random.fold_in(batch_key, _REWARD_STREAM)
    reward_loss = task.reward_loss
    if reward_loss is not None:
        loss = lambda flat: reward_loss(unflatten(task, flat), reward_key)  # noqa: E731
        return LossAndGrads(*jax.value_and_grad(loss)(flat))
    if not config.reward_averages:
        return measured
    keys = jax.random.split(reward_key, _REWARD_BATCHES)
    found = jax.vmap(lambda key: _loss_and_grads(task, flat, key))(keys)
    return LossAndGrads(*(jnp.mean(each, axis=0) for each in found))


def _all_finite(tree: chex.ArrayTree) -> chex.Array:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))

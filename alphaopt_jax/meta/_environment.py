"""The environment of meta-training: one task being optimised, in intervals of held exploration.

Everything here is about one member of a population; `population.py` runs many under `vmap`. The
step is the optimizer's own (a test holds them together), computed on one flat vector in place of
a tree, since the models are tiny: this compiles and runs several times faster.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import chex
import jax
from jax import flatten_util
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int, Key, UInt32
import numpy as np

from alphaopt_jax._agent import action, observation
from alphaopt_jax._agent import history as history_lib
from alphaopt_jax._agent import network as network_lib
from alphaopt_jax._learning import explorers, reward
from alphaopt_jax.meta.config import MetaConfig
from alphaopt_jax.tasks.task import Family, Task


class Measure(NamedTuple):
    """Loss and gradients on one batch.

    Attributes:
      loss: `float32[]`.
      grads: `float32[N]`.
    """

    loss: Float[Array, ""]
    grads: Float[Array, " parameters"]


class Member(NamedTuple):
    """One task being optimised.

    Attributes:
      instance: What tells the task from others of its family.
      key_data: `uint32[2]`, from which its batches are drawn.
      params: `float32[N]`, its parameters, one leaf after the other.
      gradient_average: `float32[N]`, first moments of the gradients.
      squared_gradient_average: `float32[N]`, second moments.
      relative_log_rates: `float32[N]`, by how much the log rate of each parameter differed from
        its leaf's when they were last looked at.
      leaf_memory: What every leaf remembers.
      loss_history: Moving averages of the loss.
      step: `float32[]`, steps made.
      num_steps: `float32[]`, steps planned, or 0 where the agent is not told.
      first_loss: `float32[]`, the loss at the start.
      measure: Loss and gradients here. They judge the step that led here, and since their batch
        is fresh they flatter no rate; then the next step is made from them.
      judged_loss: `float32[]`, the loss here that rewards are the decrease of: `measure`'s, unless
        the task has another.
    """

    instance: Any
    key_data: UInt32[Array, "2"]
    params: Float[Array, " parameters"]
    gradient_average: Float[Array, " parameters"]
    squared_gradient_average: Float[Array, " parameters"]
    relative_log_rates: Float[Array, " parameters"]
    leaf_memory: history_lib.LeafMemory
    loss_history: history_lib.LossHistory
    step: Float[Array, ""]
    num_steps: Float[Array, ""]
    first_loss: Float[Array, ""]
    measure: Measure
    judged_loss: Float[Array, ""]


class Layout(NamedTuple):
    """How the leaves of a family's parameters lie in one flat vector; everything is static.

    Attributes:
      sizes: Number of parameters of each leaf.
      is_matrix: Whether each leaf has two or more axes, `float32[leaves]`.
      fan_in: Inputs of a unit of each leaf, `float32[leaves]`.
      membership: `float32[N, leaves]`, 1 where a parameter belongs to a leaf.
      explorers: Number of explorers in each leaf.
    """

    sizes: tuple[int, ...]
    is_matrix: Float32[np.ndarray, " leaves"]
    fan_in: Float32[np.ndarray, " leaves"]
    membership: Float32[np.ndarray, "parameters leaves"]
    explorers: tuple[int, ...]


class Noise(NamedTuple):
    """Exploration during one interval.

    Attributes:
      leaves: `float32[leaves]`, added to the log rates of all parameters of a leaf.
      explorers: `float32[M]`, added to the log rates of the explorers.
    """

    leaves: Float[Array, " leaves"]
    explorers: Float[Array, " explorers"]


class Outcome(NamedTuple):
    """What was seen during an interval, and what came of it.

    Attributes:
      observations: `float32[M, NUM_FEATURES]`, the explorers', at a step that was chosen before.
      leaf_observations: `float32[leaves, C]`, what the leaves' critic sees at the first step.
      leaf_rewards: `float32[leaves]`, each leaf's part of the decrease of the log loss.
      explorer_rewards: `float32[M]`, each explorer's part.
      loss: `float32[]`, at the end.
    """

    observations: Float[Array, "explorers features"]
    leaf_observations: Float[Array, "leaves observed"]
    leaf_rewards: Float[Array, " leaves"]
    explorer_rewards: Float[Array, " explorers"]
    loss: Float[Array, ""]


NUM_LEAF_OBSERVATIONS = observation.NUM_FEATURES - observation.NUM_COORDINATE_FEATURES + 4
"""Context and memory of a leaf, and what only the critic may see: the truth about time and loss."""

_MAX_REWARD = 5.0
_TINY = 1e-30  # Keeps the logarithm of a loss finite that was zero from the start.


def layout(family: Family, config: MetaConfig) -> Layout:
    """Returns the layout of a family's parameters, without computing any."""
    leaves = jax.tree.leaves(
        jax.eval_shape(lambda: family.draw(jax.random.key(0)).init(jax.random.key(0)))
    )
    sizes = tuple(leaf.size for leaf in leaves)
    leaf_of = explorers.leaf_of(sizes)
    return Layout(
        sizes=sizes,
        is_matrix=np.array([leaf.ndim > 1 for leaf in leaves], np.float32),
        fan_in=np.array([observation.fan_in(leaf.shape) for leaf in leaves], np.float32),
        membership=np.eye(len(sizes), dtype=np.float32)[leaf_of],
        explorers=explorers.allocate(sizes, sizes, config.num_explorers),
    )


def reset(
    family: Family, instance: Any, key: Key[Array, ""], num_steps: Float[Array, ""]
) -> Member:
    """Begins an episode. Consumes `key`.

    Args:
      family: The family of the task.
      instance: The task's instance.
      key: For its initial parameters and all its batches.
      num_steps: As in `Member`.

    Returns:
      The member before its first step.
    """
    task = family.task(instance)
    init_key, batch_key, key = jax.random.split(key, 3)
    params = task.init(init_key)
    flat, _ = flatten_util.ravel_pytree(params)
    measure = _loss_and_grads(task, flat, batch_key)
    return Member(
        instance=instance,
        key_data=jax.random.key_data(key),
        params=flat,
        gradient_average=jnp.zeros_like(flat),
        squared_gradient_average=jnp.zeros_like(flat),
        relative_log_rates=jnp.zeros_like(flat),
        leaf_memory=history_lib.empty_leaf_memory(len(jax.tree.leaves(params))),
        loss_history=history_lib.empty_loss_history(),
        step=jnp.zeros((), jnp.float32),
        num_steps=jnp.asarray(num_steps, jnp.float32),
        first_loss=measure.loss,
        measure=measure,
        judged_loss=_judge(task, flat, measure, batch_key).loss,
    )


def run_interval(
    family: Family,
    network: network_lib.ActorCritic,
    agent: chex.ArrayTree,
    member: Member,
    positions: Int[Array, " explorers"] | None,
    noise: Noise,
    length: Int[Array, ""],
    observed: Int[Array, ""],
    first_step: Int[Array, ""],
    horizon: Float[Array, ""],
    config: MetaConfig,
) -> tuple[Member, Outcome]:
    """Optimizes for `length` steps under the same exploration noise.

    Args:
      family: The family of the task.
      network: The actor-critic.
      agent: Its parameters.
      member: The task being optimised.
      positions: `int32[M]`, where the explorers lie in the flat parameters; None if there are none.
      noise: The exploration.
      length: `int32[]`, steps to make.
      observed: `int32[]`, the one of these steps, from 0, whose observations are noted.
      first_step: `int32[]`, steps made before, as in `member`; given apart since it is the same for
        a whole population, so that where none of it looks at every parameter nobody computes it.
      horizon: `float32[]`, the true length of the episode.
      config: The constants.

    Returns:
      The member after these steps, and what happened.
    """
    model = layout(family, config)
    if positions is None:
        model = model._replace(explorers=(0,) * len(model.sizes))
        positions = jnp.zeros((0,), jnp.int32)
    outcome = Outcome(
        observations=jnp.zeros((positions.size, observation.NUM_FEATURES), jnp.float32),
        leaf_observations=jnp.zeros((len(model.sizes), NUM_LEAF_OBSERVATIONS), jnp.float32),
        leaf_rewards=jnp.zeros((len(model.sizes),), jnp.float32),
        explorer_rewards=jnp.zeros(positions.shape, jnp.float32),
        loss=member.measure.loss,
    )

    task = family.task(member.instance)

    def body(index: chex.Array, carry: tuple[Member, Outcome]) -> tuple[Member, Outcome]:
        return _step(
            task,
            network,
            agent,
            *carry,
            positions,
            noise,
            index == 0,
            index == observed,
            action.looks(first_step + index, config.optimizer),
            horizon,
            model,
            config,
        )

    # The instance can hold whole data sets: it stays outside of what the loop carries.
    light = member._replace(instance=())
    light, outcome = jax.lax.fori_loop(0, length, body, (light, outcome))
    if config.judged == "interval":
        light, outcome = _reward_interval(task, member, light, outcome, positions, model, config)
    return light._replace(instance=member.instance), outcome


def _step(
    task: Task,
    network: network_lib.ActorCritic,
    agent: chex.ArrayTree,
    member: Member,
    outcome: Outcome,
    positions: chex.Array,
    noise: Noise,
    is_first: chex.Array,
    is_observed: chex.Array,
    looks: chex.Array,
    horizon: chex.Array,
    model: Layout,
    config: MetaConfig,
) -> tuple[Member, Outcome]:
    """One step of the task; adds its rewards to the interval's outcome."""
    key, batch_key = jax.random.split(jax.random.wrap_key_data(member.key_data))
    loss, grads = member.measure
    number = member.step + 1.0

    # Observe.
    coordinates = observation.accumulate(
        member.params,
        grads,
        member.gradient_average,
        member.squared_gradient_average,
        config.optimizer,
    )
    normalized = observation.normalize(coordinates, number, config.optimizer)
    statistics = _leaf_statistics(member.params, normalized, number, model, config)
    of_leaf = jax.tree.map(lambda values: _spread(values, model), statistics)
    history = history_lib.append_loss(member.loss_history, loss)
    leaf_memory = history_lib.remember(
        member.leaf_memory,
        statistics.persistence,
        statistics.consistency,
        statistics.second_moment,
        statistics.scale,
        number,
    )
    context = observation.context_features(
        statistics, model.is_matrix, history, number, member.num_steps
    )
    memory_features = observation.memory_features(
        leaf_memory, statistics, model.fan_in, history, member.num_steps, config.optimizer
    )

    # Act.
    decisions = network_lib.decide_leaves(agent, context, memory_features, network)
    leaf_log_rates = network_lib.bound(decisions.log_rate, network.max_log_rate)

    def look() -> chex.Array:
        """By how much each parameter's log rate differs from its leaf's."""
        own = network_lib.mean_log_rate(
            agent,
            observation.coordinate_features(member.params, normalized, of_leaf),
            _spread(decisions.activation.T, model),
            _spread(decisions.log_rate, model),
            network.max_log_rate,
        )
        return own - _spread(leaf_log_rates, model)

    relative = jax.lax.cond(looks, look, lambda: member.relative_log_rates)
    # Explorers are looked at at every step.
    at_explorers = (member.params, normalized, of_leaf)
    param, own_normalized, own_leaf = jax.tree.map(lambda each: each[positions], at_explorers)
    features = observation.coordinate_features(param, own_normalized, own_leaf)
    explorers_leaf = explorers.leaf_of(model.explorers)
    own_log_rates = network_lib.mean_log_rate(
        agent,
        features,
        decisions.activation[explorers_leaf].T,
        decisions.log_rate[explorers_leaf],
        network.max_log_rate,
    )
    explored = own_log_rates - leaf_log_rates[explorers_leaf] + noise.explorers
    log_rates = _spread(leaf_log_rates + noise.leaves, model) + relative.at[positions].set(explored)

    # Step.
    schedule = observation.schedule(number, member.num_steps, config.anytime_steps)
    rates = action.learning_rates(
        log_rates, of_leaf.scale, jnp.ones(()), schedule, config.optimizer
    )
    if task.rate_factors is not None:
        rates = rates * flatten_util.ravel_pytree(task.rate_factors)[0]
    change = -rates * (grads if config.optimizer.direction == "gradient" else normalized.momentum)
    params = member.params + change
    measure = _loss_and_grads(task, params, batch_key)
    if config.judged == "interval":
        judged = measure._replace(loss=member.judged_loss)
        leaf_rewards = jnp.zeros_like(outcome.leaf_rewards)
        explorer_rewards = jnp.zeros_like(outcome.explorer_rewards)
    else:
        judged = _judge(task, params, measure, batch_key)
        leaf_rewards, explorer_rewards = _rewards(member, judged, change, positions, model, config)

    of_leaves = jnp.concatenate([context, memory_features], axis=-1)

    def observe() -> chex.Array:
        coordinate = jnp.stack(features, axis=-1)
        return jnp.concatenate([coordinate, of_leaves[explorers_leaf]], axis=-1)

    observations = jax.lax.cond(is_observed, observe, lambda: outcome.observations)
    leaf_observations = jax.lax.cond(
        is_first,
        lambda: _leaf_observations(member, of_leaves, history.fast, horizon, config),
        lambda: outcome.leaf_observations,
    )
    new = Member(
        instance=member.instance,
        key_data=jax.random.key_data(key),
        params=params,
        gradient_average=coordinates.first_moment,
        squared_gradient_average=coordinates.second_moment,
        relative_log_rates=relative,
        leaf_memory=history_lib.remember_rates(leaf_memory, leaf_log_rates + noise.leaves),
        loss_history=history,
        step=number,
        num_steps=member.num_steps,
        first_loss=member.first_loss,
        measure=measure,
        judged_loss=judged.loss,
    )
    # A step that breaks the task is not made, and costs the most that a step can.
    finite = _all_finite((params, measure, judged))
    stay = member._replace(key_data=new.key_data, step=number)
    new = jax.tree.map(lambda moved, old: jnp.where(finite, moved, old), new, stay)
    outcome = _add(outcome, leaf_rewards, explorer_rewards, finite)
    return new, outcome._replace(
        observations=observations, leaf_observations=leaf_observations, loss=new.measure.loss
    )


def _spread(values: chex.Array, model: Layout) -> chex.Array:
    """From one value for each leaf, `[..., leaves]`, to one for each parameter, `[..., N]`."""
    return values @ model.membership.T  # Exact, and much faster on CPU than indexing.


def _leaf_statistics(
    params: chex.Array,
    normalized: observation.Normalized,
    step: chex.Array,
    model: Layout,
    config: MetaConfig,
) -> observation.LeafStatistics:
    """Statistics of all leaves at once; every field is `float32[leaves]`."""
    averaged = jnp.stack(observation.averaged_for_statistics(params, normalized))
    means = averaged @ (model.membership / np.array(model.sizes, np.float32))
    return observation.statistics_of_means(means, step, config.optimizer)


def _reward_interval(
    task: Task,
    before: Member,
    now: Member,
    outcome: Outcome,
    positions: chex.Array,
    model: Layout,
    config: MetaConfig,
) -> tuple[Member, Outcome]:
    """Rewards what an interval as a whole has brought; where it ends is looked at once."""
    key = jax.random.wrap_key_data(now.key_data)
    judged = _judge(task, now.params, now.measure, key)
    change = now.params - before.params
    leaf_rewards, explorer_rewards = _rewards(before, judged, change, positions, model, config)
    finite = _all_finite((judged.loss, leaf_rewards, explorer_rewards))
    return now._replace(judged_loss=jnp.where(finite, judged.loss, now.judged_loss)), _add(
        outcome, leaf_rewards, explorer_rewards, finite
    )


def _add(
    outcome: Outcome, leaf_rewards: chex.Array, explorer_rewards: chex.Array, finite: chex.Array
) -> Outcome:
    """The outcome with more rewards; what broke the task costs the most that a step can."""
    return outcome._replace(
        leaf_rewards=outcome.leaf_rewards + jnp.where(finite, leaf_rewards, -_MAX_REWARD),
        explorer_rewards=outcome.explorer_rewards + jnp.where(finite, explorer_rewards, 0.0),
    )


def _rewards(
    member: Member,
    judged: Measure,
    change: chex.Array,
    positions: chex.Array,
    model: Layout,
    config: MetaConfig,
) -> tuple[chex.Array, chex.Array]:
    """Each leaf's and each explorer's part of the decrease of the log loss over steps.

    Only the gradient where they end is used, whose batch is not the one that the last was made
    from, so that noise flatters no rate. What the end-point rule misses is shared by the leaves
    equally, so that their parts add up to the decrease.
    """
    before, after = (
        floored(loss, member.first_loss, config) for loss in (member.judged_loss, judged.loss)
    )
    decrease = jnp.log(before) - jnp.log(after)
    num_leaves = len(model.sizes)
    if config.credit == "shared":
        total = jnp.clip(decrease, -_MAX_REWARD, _MAX_REWARD)
        return jnp.full((num_leaves,), total), jnp.full(positions.shape, total)
    parts = reward.divided(
        member.measure.grads, judged.grads, change, previous_gradient_weight=0.0
    ) / (0.5 * (before + after))
    leaf_parts = parts @ model.membership
    leaf_parts = leaf_parts + (decrease - jnp.sum(leaf_parts)) / num_leaves
    leaf_parts = jnp.clip(leaf_parts, -_MAX_REWARD, _MAX_REWARD)
    others = jnp.sum(leaf_parts) - leaf_parts
    return leaf_parts + config.team_share * others, parts[positions]


def floored(
    loss: Float[Array, "*shape"], first_loss: Float[Array, "*shape"], config: MetaConfig
) -> Float[Array, "*shape"]:
    """A loss whose logarithm can be taken, by a share of the first one above what it was.

    Rounding can put a cross-entropy that is as good as zero below it, which counts as zero.
    """
    return jnp.maximum(loss, 0.0) + config.loss_floor * first_loss + _TINY


def _leaf_observations(
    member: Member,
    of_leaves: chex.Array,
    recent_loss: chex.Array,
    horizon: chex.Array,
    config: MetaConfig,
) -> chex.Array:
    """What the leaves' critic sees: all that the actor does, and the truth about time and loss."""
    before, recent, now = (
        jnp.log(floored(loss, member.first_loss, config))
        for loss in (member.first_loss, recent_loss, member.measure.loss)
    )
    truth = jnp.stack(
        [
            2.0 * member.step / horizon - 1.0,
            0.5 * jnp.log(horizon) - 3.0,
            0.3 * (recent - before),
            0.3 * (now - before),
        ]
    )
    truth = jnp.broadcast_to(jnp.clip(truth, -5.0, 5.0), (of_leaves.shape[0], truth.size))
    return jnp.concatenate([of_leaves, truth], axis=-1)


def unflatten(task: Task, flat: Float[Array, " parameters"]) -> chex.ArrayTree:
    """Returns a task's parameters, `float32[N]`, as the pytree that its loss takes."""
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    _, unravel = flatten_util.ravel_pytree(
        jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    )
    return unravel(flat)


def _loss_and_grads(task: Task, flat: chex.Array, key: chex.PRNGKey) -> Measure:
    """Loss and gradients on a batch, of parameters that lie flat."""
    batch = task.batch(key)
    return Measure(*jax.value_and_grad(lambda flat: task.loss(unflatten(task, flat), batch))(flat))


def _judge(task: Task, flat: chex.Array, measure: Measure, batch_key: chex.PRNGKey) -> Measure:
    """Loss and gradients that rewards come from, where `measure` is of the batch of that key."""
    reward_loss = task.reward_loss
    if reward_loss is None:
        return measure
    key = jax.random.fold_in(batch_key, 1)
    return Measure(*jax.value_and_grad(lambda flat: reward_loss(unflatten(task, flat), key))(flat))


def _all_finite(tree: chex.ArrayTree) -> chex.Array:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))

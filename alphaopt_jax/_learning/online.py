"""Learning within a training: explorers act with noise, are rewarded, and train the agent.

The explorers stay the same for a rollout of `LearningConfig.rollout_length` steps. The reward of a
step is known one step later, with the next gradient. The last step of a rollout has no noise,
because new explorers are drawn before its reward is known.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float16, Int, Int32, Key, UInt32
import numpy as np
import optax

from alphaopt_jax._agent import action, conditional, network, observation, sampling
from alphaopt_jax._agent.leaves import leaf_of
from alphaopt_jax._agent.network import Policy
from alphaopt_jax._agent.observation import Observation
from alphaopt_jax._agent.sampling import Sampling
from alphaopt_jax._agent.statistics import Normalized
from alphaopt_jax._learning import explorers, levels, ppo, reward
from alphaopt_jax.config import LearningConfig

_MIN_SCALE = 1e-30  # Lower bound on the scale that rewards are divided by before their sum.
_LARGEST = float(np.finfo(np.float32).max)
KEY_IMPL = "threefry2x32"
"""Implementation of the random keys in the state, independent of the default of the process."""


class LearnerState(NamedTuple):
    """State of a learning agent. M explorers, rollouts of T steps.

    Attributes:
      key_data: `uint32[2]`, the random key.
      prior: Parameters of the initial policy as arrays, or None without a KL penalty.
      agent_optimizer: State of the agent's optimizer.
      explorers: `int32[M]`, indices of the explorers among the sampled parameters of their leaves.
      explorer_multipliers: `float16[M]`, their rate multipliers.
      rollout: The rollout so far.
      explorer_steps: `float32[M]`, the last change of their parameters.
      explorer_gradients: `float32[M]`, their gradients before that change.
      loss: `float32[]`, the loss before that change; 0 if none was given.
      loss_given: `float32[]`, 1 if it was given, else 0.
      reward: `float32[]`, estimated decrease of the loss by the last step, from the explorers.
      losses: Losses of the last round of learning.
      rounds: `int32[]`, rounds of learning.
      levels: The leaves' levels.
    """

    key_data: UInt32[Array, "2"]
    prior: ppo.Arrays | None
    agent_optimizer: optax.OptState
    explorers: Int32[Array, " explorers"]
    explorer_multipliers: Float16[Array, " explorers"]
    rollout: ppo.Rollout
    explorer_steps: Float[Array, " explorers"]
    explorer_gradients: Float[Array, " explorers"]
    loss: Float[Array, ""]
    loss_given: Float[Array, ""]
    reward: Float[Array, ""]
    losses: ppo.Losses
    rounds: Int32[Array, ""]
    levels: levels.LevelState


class Exploration(NamedTuple):
    """The constants of exploration in one model; everything is static.

    Attributes:
      sampling: The sample of each leaf.
      counts: Number of explorers of each leaf.
      config: The constants of learning.
    """

    sampling: Sampling
    counts: tuple[int, ...]
    config: LearningConfig

    @property
    def leaf_of(self) -> Int32[np.ndarray, " explorers"]:
        """Leaf of each explorer, `int32[M]`."""
        return leaf_of(self.counts)


class Step(NamedTuple):
    """One step of the optimizer, as the learner receives it.

    Attributes:
      slot: Position of the step in the rollout, `int32[]`.
      loss: The loss before the step, `float32[]`, or None.
      observed: The observation.
      leaf_log_rates: The leaves' log rates, `float32[L]`.
      rates: The leaves' learning rates.
      directions: The vectors that rates multiply, for all sampled parameters, `float32[L, P]`. An
        ascent direction; the sign of the step is that of a descent further down the chain.
      inverse_units: Factor contained in each leaf's gradients, `[L]`, `float32` or `float64`.
    """

    slot: Int[Array, ""]
    loss: Float[Array, ""] | None
    observed: Observation
    leaf_log_rates: Float[Array, " leaves"]
    rates: action.LeafRates
    directions: Float[Array, "leaves samples"]
    inverse_units: Float[Array, " leaves"]


class When(NamedTuple):
    """The position of a step in the rollout.

    Attributes:
      slot: Its number in the rollout, `int32[]`.
      counts: `bool[]`, False for a skipped step, which adds nothing.
    """

    slot: Int[Array, ""]
    counts: Bool[Array, ""]


def exploration_of(sampling: Sampling, config: LearningConfig) -> Exploration:
    """Allocates the explorers of a model."""
    counts = explorers.allocate(sampling.sizes, sampling.counts, config.num_explorers)
    return Exploration(sampling, counts, config)


def init(agent: ppo.Arrays, exploration: Exploration, key: Key[Array, ""]) -> LearnerState:
    """Returns the state before the first step. Consumes `key`, of the implementation `KEY_IMPL`."""
    config, count = exploration.config, sum(exploration.counts)
    return LearnerState(
        key_data=jax.random.key_data(key),
        # A copy: a donated state must not hold one array in two places.
        prior=jax.tree.map(jnp.array, agent) if config.kl_weight else None,
        agent_optimizer=ppo.agent_optimizer(config.ppo).init(agent),
        explorers=jnp.zeros((count,), jnp.int32),
        explorer_multipliers=jnp.zeros((count,), jnp.float16),
        rollout=ppo.empty_rollout(config.rollout_length, count, observation.NUM_FEATURES),
        explorer_steps=jnp.zeros((count,), jnp.float32),
        explorer_gradients=jnp.zeros((count,), jnp.float32),
        loss=jnp.zeros((), jnp.float32),
        loss_given=jnp.zeros((), jnp.float32),
        reward=jnp.zeros((), jnp.float32),
        losses=ppo.Losses(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32)),
        rounds=jnp.zeros((), jnp.int32),
        levels=levels.init(exploration.sampling),
    )


class Experience(NamedTuple):
    """One step's entries of a rollout of M explorers.

    Attributes:
      observations: `float32[M, NUM_FEATURES]`.
      actions: `float32[M]`, the log rates, noise included.
      means: `float32[M]`, the log rates without noise.
      rewards: `float32[M]`, for the actions of the step before.
    """

    observations: Float[Array, "explorers features"]
    actions: Float[Array, " explorers"]
    means: Float[Array, " explorers"]
    rewards: Float[Array, " explorers"]


def act(
    state: LearnerState, policy: Policy, step: Step, exploration: Exploration
) -> tuple[LearnerState, Experience]:
    """Rewards the last step and explores in this one.

    Args:
      state: The learner; its rollout is neither read nor written.
      policy: The agent.
      step: The step.
      exploration: The constants.

    Returns:
      The learner, and the step's entries of the rollout, for `learn`.
    """
    state, rewards = reward_explorers(state, step, exploration)
    state, features, actions, means = explore(state, policy, step, exploration)
    state = record_steps(state, step, exploration)
    return state, Experience(features, actions, means, rewards)


def no_experience(exploration: Exploration) -> Experience:
    """The experience of a skipped step."""
    none = jnp.zeros((sum(exploration.counts),), jnp.float32)
    observations = jnp.zeros((*none.shape, observation.NUM_FEATURES), jnp.float32)
    return Experience(observations, none, none, none)


def learn(
    state: LearnerState,
    policy: Policy,
    experience: Experience,
    when: When,
    exploration: Exploration,
) -> tuple[ppo.Arrays, LearnerState]:
    """Adds a step to the rollout, and trains the agent if the rollout is full.

    Args:
      state: The learner.
      policy: The agent.
      experience: The step's entries.
      when: The position of the step.
      exploration: The constants.

    Returns:
      The agent's parameters as arrays, and the learner.
    """
    state = state._replace(rollout=_add(state.rollout, experience, when))
    return maybe_update(state, policy, when, exploration)


def _add(rollout: ppo.Rollout, experience: Experience, when: When) -> ppo.Rollout:
    def put(rows: Array, row: Array, slot: Array) -> Array:
        # Selects a row and not the whole array, which `jax.vmap` would copy at every step.
        return rows.at[slot].set(jnp.where(when.counts, row, rows[slot]))

    return ppo.Rollout(
        observations=put(rollout.observations, experience.observations, when.slot),
        actions=put(rollout.actions, experience.actions, when.slot),
        means=put(rollout.means, experience.means, when.slot),
        # At slot 0 this writes into the rollout's last row, which is never read.
        rewards=put(rollout.rewards, experience.rewards, when.slot - 1),
    )


def reward_explorers(
    state: LearnerState, step: Step, exploration: Exploration
) -> tuple[LearnerState, Float[Array, " explorers"]]:
    """The explorers' rewards for the previous step, `float32[M]`."""
    counts, config = exploration.counts, exploration.config
    sizes = np.array(exploration.sampling.sizes)
    parts = reward.divided(
        state.explorer_gradients,
        explorers.take(step.observed.coordinates.grad, state.explorers, counts),
        state.explorer_steps,
        config.previous_gradient_weight,
    )
    represented = (sizes / np.maximum(counts, 1))[exploration.leaf_of].astype(np.float32)
    # Relative to one of them: in double precision they can exceed the range of float32.
    unit = jnp.max(step.inverse_units)
    scales = (step.inverse_units / unit).astype(jnp.float32)[exploration.leaf_of]
    scales = jnp.maximum(scales, _MIN_SCALE)
    total = jnp.sum(parts / scales * represented)
    team = min(config.team_weight / max(sum(exploration.sampling.sizes), 1), 1.0)
    parts = (1.0 - team) * parts + team * total * scales
    total = jnp.clip(total.astype(unit.dtype) / unit, -_LARGEST, _LARGEST).astype(jnp.float32)
    if config.reward == "shared":
        total = jnp.zeros((), jnp.float32)
        if step.loss is not None:
            total = state.loss_given * reward.shared(state.loss, step.loss)
        parts = jnp.broadcast_to(total, parts.shape)
    state = state._replace(
        reward=total,
        loss=jnp.zeros((), jnp.float32) if step.loss is None else step.loss,
        loss_given=jnp.full((), step.loss is not None, jnp.float32),
    )
    return state, parts


def explore(
    state: LearnerState, policy: Policy, step: Step, exploration: Exploration
) -> tuple[
    LearnerState,
    Float[Array, "explorers features"],
    Float[Array, " explorers"],
    Float[Array, " explorers"],
]:
    """Draws new explorers at the start of a rollout, and their noisy actions at every step.

    Returns:
      The learner; observations, actions and means as in `Experience`.
    """
    counts, config = exploration.counts, exploration.config
    key = jax.random.wrap_key_data(state.key_data, impl=KEY_IMPL)
    key, draw_key, noise_key = jax.random.split(key, 3)
    drawn = explorers.draw(draw_key, exploration.sampling.counts, counts)
    positions = jnp.where(step.slot == 0, drawn, state.explorers)
    features = _observations(step.observed, positions, exploration)
    mean, _ = policy.network.apply({"params": policy.params}, features)
    deviation = jnp.where(step.slot == config.rollout_length - 1, 0.0, config.action_std)
    actions = mean + deviation * jax.random.normal(noise_key, mean.shape, jnp.float32)
    leaf_log_rates = step.leaf_log_rates[exploration.leaf_of]
    state = state._replace(
        key_data=jax.random.key_data(key),
        explorers=positions,
        explorer_multipliers=action.rate_multipliers(actions, leaf_log_rates),
        explorer_gradients=explorers.take(step.observed.coordinates.grad, positions, counts),
    )
    return state, features, actions, mean


def record_steps(state: LearnerState, step: Step, exploration: Exploration) -> LearnerState:
    """Records the change of the explorers' parameters by this step, as it is applied."""
    rates = step.rates.applied(state.explorer_multipliers, exploration.leaf_of)
    direction = explorers.take(step.directions, state.explorers, exploration.counts)
    return state._replace(explorer_steps=-rates * direction)


def maybe_update(
    state: LearnerState, policy: Policy, when: When, exploration: Exploration
) -> tuple[ppo.Arrays, LearnerState]:
    """Trains the agent at the last step of a rollout; changes nothing at the other steps."""
    config = exploration.config

    def update() -> tuple[ppo.Arrays, LearnerState]:
        arrays, optimizer, losses = ppo.learn(
            policy, state.prior, state.agent_optimizer, state.rollout, exploration.counts, config
        )
        return arrays, state._replace(
            agent_optimizer=optimizer, losses=losses, rounds=state.rounds + 1
        )

    due = when.counts & (when.slot == config.rollout_length - 1)
    return conditional.cond(due, update, lambda: (network.flatten(policy.params), state))


def write_multipliers(
    state: LearnerState, multipliers: list[Float16[Array, "..."]], exploration: Exploration
) -> list[Float16[Array, "..."]]:
    """Writes the explorers' rate multipliers into those of the leaves."""
    return sampling.write(
        multipliers,
        state.explorers,
        state.explorer_multipliers,
        exploration.counts,
        exploration.sampling,
    )


def _observations(
    observed: Observation, positions: Int[Array, " explorers"], exploration: Exploration
) -> Float[Array, "explorers features"]:
    """The explorers' observations, `float32[M, NUM_FEATURES]`."""
    leaves, counts = exploration.leaf_of, exploration.counts
    param = explorers.take(observed.coordinates.param, positions, counts)
    normalized = Normalized(
        *(explorers.take(each, positions, counts) for each in observed.normalized)
    )
    statistics = jax.tree.map(lambda values: values[leaves], observed.statistics)
    coordinate = observation.coordinate_features(param, normalized, statistics)
    features = (
        jnp.stack(coordinate, axis=-1),
        observed.context[leaves],
        observed.history_features[leaves],
    )
    return jnp.concatenate(features, axis=-1)

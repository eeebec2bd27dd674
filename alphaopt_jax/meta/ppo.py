"""Proximal policy optimization over a population of tasks, at the level of leaves and coordinates.

The *leaf level* learns the level of a leaf's rates, from returns that reach to the end of the
episode. Its advantage is relative to the copies of the same task, which differ only in their
exploration, on top of a critic that observes the true time and loss. The *coordinate level* learns
how the rates differ within a leaf, from the parameters' own rewards. The part common to all
parameters of a leaf is removed from it, since individual rewards have a short-horizon bias in the
level of the rates (Wu et al. 2018).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import functools
from typing import Any, NamedTuple

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int, Key
import numpy as np
import optax

from alphaopt_jax._agent import agent as agent_lib
from alphaopt_jax._agent import network as network_lib
from alphaopt_jax._agent.leaves import leaf_of
from alphaopt_jax._agent.network import Policy
from alphaopt_jax._learning import ppo as ppo_lib
from alphaopt_jax.meta import _environment as environment
from alphaopt_jax.meta import _episode as episode
from alphaopt_jax.meta import _exploration as exploration
from alphaopt_jax.meta import _population as population
from alphaopt_jax.meta import method
from alphaopt_jax.meta.config import MetaConfig
from alphaopt_jax.tasks.task import Family

_MAX_ADVANTAGE = 4.0
_SCALE_WEIGHT = 0.1


class LeafCritic(nn.Module):
    """Expected return of a leaf, in units of the family's usual reward."""

    hidden: int

    @nn.compact
    def __call__(self, observations: Float[Array, "*batch observed"]) -> Float[Array, "*batch"]:
        """From `float32[..., NUM_LEAF_OBSERVATIONS]` to `float32[...]`."""
        hidden = nn.tanh(nn.Dense(self.hidden)(observations))
        hidden = nn.tanh(nn.Dense(self.hidden)(hidden))
        return nn.Dense(1, kernel_init=nn.initializers.zeros)(hidden)[..., 0]


class LearnerState(NamedTuple):
    """State of meta-training by PPO.

    Attributes:
      agent: Parameters of the actor-critic.
      averaged_agent: Their average over the last rounds, for validation and saving.
      leaf_critic: Parameters of `LeafCritic`.
      optimizer: State of Adam for both.
      rounds: `int32[]`, rounds so far.
    """

    agent: chex.ArrayTree
    averaged_agent: chex.ArrayTree
    leaf_critic: chex.ArrayTree
    optimizer: optax.OptState
    rounds: Int[Array, ""]


class Scales(NamedTuple):
    """Running scales of one family, for advantages of all families in the same units.

    Attributes:
      reward: `float32[]`, root mean square of the leaves' rewards; 0 before the first.
      advantage: `float32[]`, root mean square of the advantages of one interval; 0 before the
        first.
      rollout_advantage: `float32[]`, the same for whole rollouts.
    """

    reward: Float[Array, ""]
    advantage: Float[Array, ""]
    rollout_advantage: Float[Array, ""]


class Batch(NamedTuple):
    """One round of training data; every field has leading axes `[R, B]`, or `[1, B]` if stated.

    Attributes:
      observations: `[R, B, M, NUM_FEATURES]`.
      leaf_observations: `[R, B, leaves, NUM_LEAF_OBSERVATIONS]`.
      means: `[R, B, M]`, the mean log rates during the rollout.
      noise: The noise added to them.
      leaf_advantages: `[R, B, leaves]`; 0 for members that do not explore independently.
      common_advantages: `[1, B]`, of a whole rollout; 0 for members without common noise.
      held_advantages: `[1, B]`, likewise; 0 for members without held noise.
      leaf_returns: `[R, B, leaves]`.
      advantages: `[R, B, M]`.
      returns: `[R, B, M]`.
    """

    observations: Float[Array, "intervals members explorers features"]
    leaf_observations: Float[Array, "intervals members leaves observed"]
    means: Float[Array, "intervals members explorers"]
    noise: episode.Noise
    leaf_advantages: Float[Array, "intervals members leaves"]
    common_advantages: Float[Array, "1 members"]
    held_advantages: Float[Array, "1 members"]
    leaf_returns: Float[Array, "intervals members leaves"]
    advantages: Float[Array, "intervals members explorers"]
    returns: Float[Array, "intervals members explorers"]


def init(key: Key[Array, ""], config: MetaConfig) -> LearnerState:
    """Returns an untrained agent with its critics. Consumes `key`."""
    agent_key, critic_key = jax.random.split(key)
    agent = network_lib.init_params(agent_key, network_lib.make_network(config.agent))
    observations = jnp.zeros((1, environment.NUM_LEAF_OBSERVATIONS))
    critic = LeafCritic(config.leaf_critic_hidden).init(critic_key, observations)["params"]
    optimizer = _optimizer().init((agent, critic))
    return LearnerState(agent, agent, critic, optimizer, jnp.zeros((), jnp.int32))


def ppo(config: MetaConfig, start: agent_lib.Agent | None = None) -> method.Method:
    """Returns meta-training by proximal policy optimization.

    Args:
      config: The constants.
      start: An agent to continue from; a fresh one by default.

    Raises:
      ValueError: `start` has other network sizes or bounds than `config.agent`.
    """
    for name in ("actor_hidden", "leaf_hidden", "critic_hidden", "max_log_rate"):
        if start is not None and getattr(start.config, name) != getattr(config.agent, name):
            raise ValueError(
                f"The agent to continue from has {name}={getattr(start.config, name)}, but"
                f" `config.agent` has {getattr(config.agent, name)}."
            )

    def begin(key: chex.PRNGKey) -> LearnerState:
        learner = init(key, config)
        if start is None:
            return learner
        agent = jax.tree.map(jnp.asarray, dict(start.params))
        return learner._replace(agent=agent, averaged_agent=jax.tree.map(jnp.array, agent))

    return method.Method(
        name="ppo" if start is None else f"ppo from {agent_lib.digest(start)}",
        init=begin,
        init_family=lambda: Scales(*(jnp.zeros((), jnp.float32) for _ in Scales._fields)),
        make_round=lambda family: make_round(family, config),
    )


def make_round(family: Family, config: MetaConfig) -> method.Round:
    """Returns one round of meta-training on a family, to be jitted.

    Args:
      family: The family.
      config: The constants.
    """
    counts = environment.model_of(family, config).explorers

    def one_round(
        learner: LearnerState,
        state: method.FamilyState,
        key: chex.PRNGKey,
        learning_rate: chex.Numeric,
    ) -> tuple[LearnerState, method.FamilyState, dict[str, chex.Array]]:
        rollout_key, learn_key = jax.random.split(key)
        policy = Policy(learner.agent, config.agent)
        episodes, rollout = population.run_rollout(
            family, policy, state.population, rollout_key, config
        )
        batch, scales = _prepare(learner, rollout, counts, state.method_state, config)
        learn = functools.partial(_learn, counts=counts, config=config)
        learner, losses = learn(learner, batch, learn_key, learning_rate)
        metrics = losses | population.metrics(episodes, rollout)
        metrics |= {"log_rate": batch.means.mean(), "reward_scale": scales.reward}
        return learner, method.FamilyState(episodes, scales), metrics

    return one_round


def _prepare(
    learner: LearnerState,
    rollout: population.Rollout,
    counts: tuple[int, ...],
    scales: Scales,
    config: MetaConfig,
) -> tuple[Batch, Scales]:
    """Advantages and returns of both levels."""
    network = network_lib.make_network(config.agent)
    outcomes, last = rollout.outcomes, rollout.last
    observations = jnp.concatenate([outcomes.observations, last.observations[None]])
    means, values = _apply(network, learner.agent, observations)
    leaf_observations = jnp.concatenate([outcomes.leaf_observations, last.leaf_observations[None]])
    leaf_critic = LeafCritic(config.leaf_critic_hidden)
    leaf_values = _apply(leaf_critic, learner.leaf_critic, leaf_observations)
    # The return after the end of an episode is zero.
    goes_on = 1.0 - rollout.ended.astype(jnp.float32)
    values = values.at[-1].multiply(goes_on)
    leaf_values = leaf_values.at[-1].multiply(goes_on)

    reward_scale = _running(scales.reward, _rms(outcomes.leaf_rewards))
    leaf_rewards = outcomes.leaf_rewards / (reward_scale + 1e-8)
    leaf_advantages = _advantages(
        leaf_rewards, leaf_values, config.leaf_discount, config.leaf_gae_lambda
    )
    leaf_returns = leaf_advantages + leaf_values[:-1]
    kinds = exploration.kinds(config)
    leaf_advantages = population.centered(leaf_advantages, config)
    rollout_advantages = leaf_advantages[:1].mean(axis=-1)
    independent = np.flatnonzero(kinds == exploration.INDEPENDENT)
    lasting = np.flatnonzero(kinds != exploration.INDEPENDENT)
    scales = Scales(
        reward_scale,
        _running(scales.advantage, _rms(leaf_advantages[:, independent])),
        _running(scales.rollout_advantage, _rms(rollout_advantages[:, lasting])),
    )
    leaf_advantages = leaf_advantages / (scales.advantage + 1e-8)
    rollout_advantages = rollout_advantages / (scales.rollout_advantage + 1e-8)

    def of_kind(advantages: chex.Array, kind: int) -> chex.Array:
        chosen = (kinds == kind).reshape(-1, *(1,) * (advantages.ndim - 2))
        return jnp.where(chosen, jnp.clip(advantages, -_MAX_ADVANTAGE, _MAX_ADVANTAGE), 0.0)

    rewards = jax.vmap(
        lambda rewards: ppo_lib.normalize_rewards(rewards, counts), in_axes=1, out_axes=1
    )(outcomes.explorer_rewards)
    advantages = _advantages(rewards, values, config.ppo.discount, config.ppo.gae_lambda)
    returns = advantages + values[:-1]
    advantages = population.centered(advantages, config)
    advantages = advantages / (_rms(advantages) + 1e-8)
    batch = Batch(
        observations=outcomes.observations,
        leaf_observations=outcomes.leaf_observations,
        means=means[:-1],
        noise=rollout.noise,
        leaf_advantages=of_kind(leaf_advantages, exploration.INDEPENDENT),
        common_advantages=of_kind(rollout_advantages, exploration.COMMON),
        held_advantages=of_kind(rollout_advantages, exploration.HELD),
        leaf_returns=leaf_returns,
        advantages=jnp.clip(advantages, -_MAX_ADVANTAGE, _MAX_ADVANTAGE),
        returns=returns,
    )
    return batch, scales


def _learn(
    learner: LearnerState,
    batch: Batch,
    key: chex.PRNGKey,
    learning_rate: chex.Numeric,
    *,
    counts: tuple[int, ...],
    config: MetaConfig,
) -> tuple[LearnerState, dict[str, chex.Array]]:
    """Several epochs of PPO over the batch, in minibatches of members."""
    optimizer = _optimizer()
    loss = _make_loss(counts, config)

    def minibatch(carry: Any, members: chex.Array) -> tuple[Any, dict[str, chex.Array]]:
        trained, state = carry
        part = jax.tree.map(lambda leaf: leaf[:, members], batch)
        grads, losses = jax.grad(loss, has_aux=True)(trained, part)
        updates, state = optimizer.update(grads, state, trained)
        updates = optax.tree.scale(-learning_rate, updates)
        return (optax.apply_updates(trained, updates), state), losses

    orders = jax.vmap(lambda key: jax.random.permutation(key, config.population_size))(
        jax.random.split(key, config.ppo.epochs)
    ).reshape(config.ppo.epochs * config.minibatches, -1)
    carry = ((learner.agent, learner.leaf_critic), learner.optimizer)
    ((agent, leaf_critic), state), losses = jax.lax.scan(minibatch, carry, orders)
    weight = method.average_weight(learner.rounds)
    averaged = optax.incremental_update(agent, learner.averaged_agent, weight)
    learner = LearnerState(agent, averaged, leaf_critic, state, learner.rounds + 1)
    return learner, jax.tree.map(lambda each: each[-1], losses)


def _make_loss(
    counts: tuple[int, ...], config: MetaConfig
) -> Callable[..., tuple[chex.Array, dict[str, chex.Array]]]:
    """The loss of agent and leaf critic on a part of a batch, with its terms."""
    network = network_lib.make_network(config.agent)
    owners, averaging = leaf_of(counts), averaging_matrix(counts)
    leaf_std, clip_epsilon = config.leaf_action_std, config.ppo.clip_epsilon

    def loss(
        trained: tuple[chex.ArrayTree, chex.ArrayTree], part: Batch
    ) -> tuple[chex.Array, dict[str, chex.Array]]:
        agent, leaf_critic = trained
        means, values = _apply(network, agent, part.observations)
        shift = means - part.means
        leaf_shift = shift @ averaging.T
        own_shift = shift - leaf_shift[..., owners]
        leaf_loss = ppo_lib.shifted_policy_loss(
            leaf_shift, part.noise.leaves, part.leaf_advantages, leaf_std, clip_epsilon
        )
        for lasting, advantages in (
            (exploration.common_part, part.common_advantages),
            (exploration.held_part, part.held_advantages),
        ):
            noise = lasting(part.noise.leaves)
            advantages = jnp.broadcast_to(advantages[0][:, None], noise.shape)
            leaf_loss += ppo_lib.shifted_policy_loss(
                lasting(leaf_shift), noise, advantages, leaf_std, clip_epsilon
            )
        own_loss = ppo_lib.shifted_policy_loss(
            own_shift, part.noise.explorers, part.advantages, config.action_std, clip_epsilon
        )
        critic = LeafCritic(config.leaf_critic_hidden)
        leaf_values = _apply(critic, leaf_critic, part.leaf_observations)
        leaf_value_loss = optax.losses.huber_loss(leaf_values, part.leaf_returns).mean()
        value_loss = optax.losses.huber_loss(values, part.returns).mean()
        total = (
            leaf_loss
            + config.coordinate_loss_weight * own_loss
            + config.ppo.value_loss_weight * (leaf_value_loss + value_loss)
        )
        return total, {
            "leaf_policy_loss": leaf_loss,
            "policy_loss": own_loss,
            "leaf_value_loss": leaf_value_loss,
            "value_loss": value_loss,
            "shift": jnp.sqrt(jnp.mean(jnp.square(shift))),
        }

    return loss


def averaging_matrix(counts: Sequence[int]) -> Float32[np.ndarray, "leaves explorers"]:
    """Means over the explorers of each leaf, as a matrix `float32[leaves, M]`."""
    owners = leaf_of(counts)
    matrix = np.zeros((len(counts), sum(counts)), np.float32)
    matrix[owners, np.arange(sum(counts))] = 1.0 / np.asarray(counts)[owners]
    return matrix


def _apply(module: nn.Module, params: chex.ArrayTree, observations: chex.Array) -> Any:
    return module.apply({"params": params}, observations)


def _advantages(
    rewards: chex.Array, values: chex.Array, discount: float, gae_lambda: float
) -> chex.Array:
    """`_learning.ppo.advantages` for `[R, B, X]` rewards and `[R + 1, B, X]` values."""
    flat = ppo_lib.advantages(
        rewards.reshape(rewards.shape[0], -1),
        values.reshape(values.shape[0], -1),
        discount,
        gae_lambda,
    )
    return flat.reshape(rewards.shape)


def _running(scale: chex.Array, now: chex.Array) -> chex.Array:
    return jnp.where(scale == 0, now, scale + _SCALE_WEIGHT * (now - scale))


def _rms(values: chex.Array) -> chex.Array:
    return jnp.sqrt(jnp.sum(jnp.square(values)) / max(values.size, 1))


def _optimizer() -> optax.GradientTransformation:
    """Adam without its learning rate, which is an argument of each round.

    Each round trains on one family, and the first moment averages over a dozen of them. The norms
    are bounded separately: the gradient of an inaccurate critic must not clip the actor's.
    """
    labels = ({"actor": "actor", "critic": "critic"}, "leaf critic")
    clip = {label: optax.clip_by_global_norm(0.5) for label in ("actor", "critic", "leaf critic")}
    return optax.chain(optax.partition(clip, labels), optax.scale_by_adam(b1=0.99, eps=1e-5))

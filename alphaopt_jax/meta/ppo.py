"""Proximal policy optimization over a population of tasks, at the level of leaves and coordinates.

The *leaf level* learns how high a leaf's rates should be, from returns that reach to the end of the
episode. Its advantage is measured against the copies of the same task, which differ in nothing but
their exploration, on top of a critic that may see the truth about time and loss. The
*coordinate level* learns how the rates should differ within a leaf, from the parameters' own
rewards; what all parameters of a leaf have in common is taken out of it, since own rewards
are short-sighted about how high rates should be (Wu et al. 2018).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key
import numpy as np
import optax

from alphaopt_jax._agent import agent as agent_lib
from alphaopt_jax._agent import network as network_lib
from alphaopt_jax._learning import explorers
from alphaopt_jax._learning import ppo as ppo_lib
from alphaopt_jax.meta import _environment as environment
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


class Learned(NamedTuple):
    """What meta-training trains.

    Attributes:
      agent: Parameters of the actor-critic.
      averaged_agent: Average of these over the last rounds: less noisy, and what is kept.
      leaf_critic: Parameters of `LeafCritic`.
      optimizer: State of Adam for both.
      rounds: `int32[]`, rounds learned from.
    """

    agent: chex.ArrayTree
    averaged_agent: chex.ArrayTree
    leaf_critic: chex.ArrayTree
    optimizer: optax.OptState
    rounds: Int[Array, ""]


class Scales(NamedTuple):
    """What is usual in a family, to put all of them in the same units.

    Attributes:
      reward: `float32[]`, running root mean square of the leaves' rewards; 0 before the first.
      advantage: `float32[]`, running root mean square of the advantages of their actions in one
        interval; 0 before the first.
      rollout_advantage: `float32[]`, the same of what they did in a whole rollout.
    """

    reward: Float[Array, ""]
    advantage: Float[Array, ""]
    rollout_advantage: Float[Array, ""]


class Batch(NamedTuple):
    """Samples to learn from; every field has leading axes `[R, B]`, or `[1, B]` where it says so.

    Attributes:
      observations: `[R, B, M, NUM_FEATURES]`.
      leaf_observations: `[R, B, leaves, NUM_LEAF_OBSERVATIONS]`.
      means: `[R, B, M]`, the mean log rates when acting.
      noise: What was added to them.
      leaf_advantages: `[R, B, leaves]`, 0 for members that do not explore independently.
      common_advantages: `[1, B]`, of a whole rollout; 0 for those without common exploration.
      held_advantages: `[1, B]`, likewise, for those that hold theirs.
      leaf_returns: `[R, B, leaves]`.
      advantages: `[R, B, M]`.
      returns: `[R, B, M]`.
    """

    observations: Float[Array, "intervals members explorers features"]
    leaf_observations: Float[Array, "intervals members leaves observed"]
    means: Float[Array, "intervals members explorers"]
    noise: environment.Noise
    leaf_advantages: Float[Array, "intervals members leaves"]
    common_advantages: Float[Array, "1 members"]
    held_advantages: Float[Array, "1 members"]
    leaf_returns: Float[Array, "intervals members leaves"]
    advantages: Float[Array, "intervals members explorers"]
    returns: Float[Array, "intervals members explorers"]


def make_network(config: MetaConfig) -> network_lib.ActorCritic:
    """Returns the actor-critic that is trained."""
    return network_lib.ActorCritic(
        config.actor_hidden, config.critic_hidden, config.max_log_rate, config.leaf_hidden
    )


def init(key: Key[Array, ""], config: MetaConfig) -> Learned:
    """Returns an untrained agent with its critics. Consumes `key`."""
    agent_key, critic_key = jax.random.split(key)
    agent = network_lib.init_params(agent_key, make_network(config))
    observations = jnp.zeros((1, environment.NUM_LEAF_OBSERVATIONS))
    critic = LeafCritic(config.leaf_critic_hidden).init(critic_key, observations)["params"]
    optimizer = _optimizer().init((agent, critic))
    return Learned(agent, agent, critic, optimizer, jnp.zeros((), jnp.int32))


def ppo(config: MetaConfig, start: agent_lib.Agent | None = None) -> method.Method:
    """Returns meta-training by proximal policy optimization.

    Args:
      config: The constants.
      start: An agent that goes on learning; by default a fresh one learns.

    Raises:
      ValueError: `start` has other layers than `config` says.
    """
    for name in ("actor_hidden", "leaf_hidden", "critic_hidden", "max_log_rate"):
        if start is not None and getattr(start.network, name) != getattr(config, name):
            raise ValueError(
                f"The agent to start from has {name}={getattr(start.network, name)}, but the config"
                f" says {getattr(config, name)}."
            )

    def begin(key: chex.PRNGKey) -> Learned:
        learned = init(key, config)
        if start is None:
            return learned
        agent = jax.tree.map(jnp.asarray, dict(start.params))
        return learned._replace(agent=agent, averaged_agent=jax.tree.map(jnp.array, agent))

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
    network = make_network(config)
    counts = environment.layout(family, config).explorers

    def one_round(
        learned: Learned,
        state: method.FamilyState,
        key: chex.PRNGKey,
        learning_rate: chex.Numeric,
    ) -> tuple[Learned, method.FamilyState, dict[str, chex.Array]]:
        rollout_key, learn_key = jax.random.split(key)
        episodes, rollout = population.run_rollout(
            family, network, learned.agent, state.population, rollout_key, config
        )
        batch, scales = _prepare(learned, rollout, counts, network, state.method_state, config)
        learned, losses = _learn(learned, batch, counts, network, learn_key, learning_rate, config)
        metrics = losses | population.metrics(episodes, rollout)
        metrics |= {"log_rate": batch.means.mean(), "reward_scale": scales.reward}
        return learned, method.FamilyState(episodes, scales), metrics

    return one_round


def _prepare(
    learned: Learned,
    rollout: population.Rollout,
    counts: tuple[int, ...],
    network: network_lib.ActorCritic,
    scales: Scales,
    config: MetaConfig,
) -> tuple[Batch, Scales]:
    """Advantages and returns of both levels."""
    outcomes, last = rollout.outcomes, rollout.last
    observations = jnp.concatenate([outcomes.observations, last.observations[None]])
    means, values = _apply(network, learned.agent, observations)
    leaf_observations = jnp.concatenate([outcomes.leaf_observations, last.leaf_observations[None]])
    leaf_critic = LeafCritic(config.leaf_critic_hidden)
    leaf_values = _apply(leaf_critic, learned.leaf_critic, leaf_observations)
    # The end of an episode is its end: nothing is gained after it.
    goes_on = 1.0 - rollout.ended.astype(jnp.float32)
    values = values.at[-1].multiply(goes_on)
    leaf_values = leaf_values.at[-1].multiply(goes_on)

    reward_scale = _running(scales.reward, _rms(outcomes.leaf_rewards))
    leaf_rewards = outcomes.leaf_rewards / (reward_scale + 1e-8)
    leaf_advantages = _advantages(
        leaf_rewards, leaf_values, config.leaf_discount, config.leaf_gae_decay
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
    advantages = _advantages(rewards, values, config.discount, config.gae_decay)
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
    learned: Learned,
    batch: Batch,
    counts: tuple[int, ...],
    network: network_lib.ActorCritic,
    key: chex.PRNGKey,
    learning_rate: chex.Numeric,
    config: MetaConfig,
) -> tuple[Learned, dict[str, chex.Array]]:
    """Several passes of PPO over the batch, in minibatches of members."""
    optimizer = _optimizer()
    leaf_of = explorers.leaf_of(counts)
    averaging = np.zeros((len(counts), sum(counts)), np.float32)
    averaging[leaf_of, np.arange(sum(counts))] = 1.0 / np.asarray(counts)[leaf_of]

    def loss(
        trained: tuple[chex.ArrayTree, chex.ArrayTree], part: Batch
    ) -> tuple[chex.Array, dict[str, chex.Array]]:
        agent, leaf_critic = trained
        means, values = _apply(network, agent, part.observations)
        shift = means - part.means
        leaf_shift = shift @ averaging.T
        own_shift = shift - leaf_shift[..., leaf_of]
        leaf_loss = _policy_loss(
            leaf_shift, part.noise.leaves, part.leaf_advantages, config.leaf_exploration, config
        )
        for lasting, advantages in (
            (exploration.common_part, part.common_advantages),
            (exploration.held_part, part.held_advantages),
        ):
            noise = lasting(part.noise.leaves)
            advantages = jnp.broadcast_to(advantages[0][:, None], noise.shape)
            leaf_loss += _policy_loss(
                lasting(leaf_shift), noise, advantages, config.leaf_exploration, config
            )
        own_loss = _policy_loss(
            own_shift, part.noise.explorers, part.advantages, config.exploration, config
        )
        critic = LeafCritic(config.leaf_critic_hidden)
        leaf_values = _apply(critic, leaf_critic, part.leaf_observations)
        leaf_value_loss = optax.losses.huber_loss(leaf_values, part.leaf_returns).mean()
        value_loss = optax.losses.huber_loss(values, part.returns).mean()
        total = (
            leaf_loss
            + config.coordinate_cost * own_loss
            + config.value_cost * (leaf_value_loss + value_loss)
        )
        return total, {
            "leaf_policy_loss": leaf_loss,
            "policy_loss": own_loss,
            "leaf_value_loss": leaf_value_loss,
            "value_loss": value_loss,
            "shift": jnp.sqrt(jnp.mean(jnp.square(shift))),
        }

    def minibatch(carry: Any, members: chex.Array) -> tuple[Any, dict[str, chex.Array]]:
        trained, state = carry
        part = jax.tree.map(lambda leaf: leaf[:, members], batch)
        grads, losses = jax.grad(loss, has_aux=True)(trained, part)
        updates, state = optimizer.update(grads, state, trained)
        updates = optax.tree.scale(-learning_rate, updates)
        return (optax.apply_updates(trained, updates), state), losses

    size = config.groups * config.copies
    orders = jax.vmap(lambda key: jax.random.permutation(key, size))(
        jax.random.split(key, config.epochs)
    ).reshape(config.epochs * config.minibatches, -1)
    carry = ((learned.agent, learned.leaf_critic), learned.optimizer)
    ((agent, leaf_critic), state), losses = jax.lax.scan(minibatch, carry, orders)
    weight = method.average_weight(learned.rounds)
    averaged = optax.incremental_update(agent, learned.averaged_agent, weight)
    learned = Learned(agent, averaged, leaf_critic, state, learned.rounds + 1)
    return learned, jax.tree.map(lambda each: each[-1], losses)


def _apply(module: nn.Module, params: chex.ArrayTree, observations: chex.Array) -> Any:
    return module.apply({"params": params}, observations)


def _policy_loss(
    shift: chex.Array,
    noise: chex.Array,
    advantages: chex.Array,
    deviation: float,
    config: MetaConfig,
) -> chex.Array:
    """PPO's loss where the mean has moved by `shift` since `noise` was added to it."""
    log_ratio = network_lib.log_probability(noise, shift, deviation) - network_lib.log_probability(
        noise, jnp.zeros_like(shift), deviation
    )
    log_ratio = jnp.clip(log_ratio, -10.0, 10.0)
    return ppo_lib.clipped_policy_loss(log_ratio.ravel(), advantages.ravel(), config.clip)


def _advantages(
    rewards: chex.Array, values: chex.Array, discount: float, decay: float
) -> chex.Array:
    """`learning.advantages` for `[R, B, X]` rewards and `[R + 1, B, X]` values."""
    flat = ppo_lib.advantages(
        rewards.reshape(rewards.shape[0], -1), values.reshape(values.shape[0], -1), discount, decay
    )
    return flat.reshape(rewards.shape)


def _running(scale: chex.Array, now: chex.Array) -> chex.Array:
    return jnp.where(scale == 0, now, scale + _SCALE_WEIGHT * (now - scale))


def _rms(values: chex.Array) -> chex.Array:
    return jnp.sqrt(jnp.sum(jnp.square(values)) / max(values.size, 1))


def _optimizer() -> optax.GradientTransformation:
    """Adam but for its learning rate, which is a round's argument.

    Each round is about one family: the first moment reaches over a dozen of them. Critics that are
    still far off must not clip the actor's gradient, so the norms are bounded apart.
    """
    labels = ({"actor": "actor", "critic": "critic"}, "leaf critic")
    clip = {label: optax.clip_by_global_norm(0.5) for label in ("actor", "critic", "leaf critic")}
    return optax.chain(optax.partition(clip, labels), optax.scale_by_adam(b1=0.99, eps=1e-5))

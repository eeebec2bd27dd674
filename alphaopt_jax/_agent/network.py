"""The actor-critic: from an observation to a Gaussian over the log of a learning rate.

One small network is shared by all parameters. It has two implementations. `ActorCritic` takes
observations on a trailing axis, for learning from a few explorers. `mean_log_rate` computes
the same actor for whole leaves, element by element, without an array of
[parameters, hidden units]: the compiler fuses it into the update, and leaves keep their shape and
sharding.
"""

from __future__ import annotations

from collections.abc import Sequence
import functools
from typing import Any, NamedTuple

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from alphaopt_jax._agent import observation
from alphaopt_jax.config import AgentConfig

_MEMORY, _RISE, _DRIFT = 0.35, 0.3, 0.1
"""Initial weights of a leaf's recent log rate and gradient autocorrelation, and a bias.
At an autocorrelation of zero the log rate stays near 0.7."""
_AUTOCORRELATIONS = (
    observation.leaf_feature("autocorrelation of the leaf's gradients"),
    observation.leaf_feature("autocorrelation of the whole model's gradients"),
)


class LeafTrunk(nn.Module):
    """The log rate of a leaf as a whole, and a shift of the actor's hidden units.

    It is evaluated once per leaf, not per parameter, so it may be larger than the actor.
    """

    hidden: int
    actor_hidden: int

    @nn.compact
    def __call__(
        self, features: Float[Array, "*batch features"]
    ) -> tuple[Float[Array, "*batch"], Float[Array, "*batch hidden"]]:
        """From leaf features, `float32[..., C]`, to `float32[...]` and `float32[..., H]`."""
        if not self.actor_hidden:
            return self._recent(features)
        hidden = nn.tanh(nn.Dense(self.hidden, name="first")(features))
        hidden = nn.tanh(nn.Dense(self.hidden, name="second")(hidden))
        small = nn.initializers.zeros
        rate = nn.Dense(1, kernel_init=small, name="log_rate")(hidden)[..., 0]
        shift = nn.Dense(self.actor_hidden, kernel_init=small, use_bias=False, name="shift")(hidden)
        return rate, shift

    def _recent(
        self, features: Float[Array, "*batch features"]
    ) -> tuple[Float[Array, "*batch"], Float[Array, "*batch 0"]]:
        """Log rate as a correction of the recent one.

        A new trunk raises rates while gradients are consistent, as with rates that are too low, and
        lowers them while they alternate.
        """
        first = nn.Dense(self.hidden, kernel_init=_averaging(_AUTOCORRELATIONS, 0.5), name="first")
        second = nn.Dense(self.hidden, kernel_init=_averaging((0,), 1.0), name="second")
        output = nn.Dense(
            1,
            kernel_init=lambda key, shape, dtype: jnp.zeros(shape, dtype).at[0].set(_RISE),
            bias_init=nn.initializers.constant(_DRIFT),
            name="log_rate",
        )
        rate = output(nn.tanh(second(nn.tanh(first(features)))))[..., 0]
        memory = self.param("memory", nn.initializers.constant(_MEMORY), (), jnp.float32)
        rate = rate + memory * features[..., observation.RECENT_LOG_RATE]
        return rate, jnp.zeros((*rate.shape, 0), rate.dtype)


def _averaging(inputs: Sequence[int], weight: float) -> nn.initializers.Initializer:
    """Default initializer; the first unit averages the given inputs."""

    def init(key: chex.PRNGKey, shape: Sequence[int], dtype: Any = jnp.float32) -> chex.Array:
        weights = nn.linear.default_kernel_init(key, shape, dtype)
        first = jnp.zeros(shape[0], dtype).at[jnp.array(inputs)].set(weight / len(inputs))
        return weights.at[:, 0].set(first)

    return init


class Actor(nn.Module):
    """Mean of the log rate, relative to the default rate, within ±`max_log_rate`."""

    hidden: int
    leaf_hidden: int
    max_log_rate: float

    @nn.compact
    def __call__(self, features: Float[Array, "*batch features"]) -> Float[Array, "*batch"]:
        """From `float32[..., NUM_FEATURES]` to `float32[...]`."""
        if not self.hidden:
            trunk = LeafTrunk(self.leaf_hidden, 0, name="leaf")
            leaf_rate, _ = trunk(features[..., observation.NUM_COORDINATE_FEATURES :])
            return bound(leaf_rate, self.max_log_rate)
        direct = features[..., : observation.NUM_DIRECT_FEATURES]
        activation = nn.Dense(self.hidden, name="hidden")(direct)
        leaf_rate = jnp.zeros((), features.dtype)
        if self.leaf_hidden:
            trunk = LeafTrunk(self.leaf_hidden, self.hidden, name="leaf")
            leaf_rate, shift = trunk(features[..., observation.NUM_COORDINATE_FEATURES :])
            activation = activation + shift
        # Zeros: a fresh agent starts from the default rate everywhere.
        output = nn.Dense(1, kernel_init=nn.initializers.zeros, name="output")
        return bound(output(nn.relu(activation))[..., 0] + leaf_rate, self.max_log_rate)


class Critic(nn.Module):
    """Expected return of one parameter."""

    hidden: int

    @nn.compact
    def __call__(self, features: Float[Array, "*batch features"]) -> Float[Array, "*batch"]:
        """From `float32[..., NUM_FEATURES]` to `float32[...]`."""
        direct = features[..., : observation.NUM_DIRECT_FEATURES]
        hidden = nn.tanh(nn.Dense(self.hidden, name="hidden")(direct))
        output = nn.Dense(1, kernel_init=nn.initializers.zeros, name="output")(hidden)
        return output[..., 0]


class ActorCritic(nn.Module):
    """The whole agent.

    Call with observations `float32[..., NUM_FEATURES]`; returns the mean log rate and the value,
    both `float32[...]`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from alphaopt_jax._agent import observation
      >>> network = ActorCritic(actor_hidden=8, critic_hidden=32, max_log_rate=3.0)
      >>> features = jnp.zeros((5, observation.NUM_FEATURES))
      >>> mean, value = network.apply(network.init(jax.random.key(0), features), features)
      >>> mean.shape, value.shape
      ((5,), (5,))
    """

    actor_hidden: int
    critic_hidden: int
    max_log_rate: float
    leaf_hidden: int = 0

    @nn.compact
    def __call__(
        self, features: Float[Array, "*batch features"]
    ) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
        """From `float32[..., NUM_FEATURES]` to mean log rate and value, both `float32[...]`."""
        actor = Actor(self.actor_hidden, self.leaf_hidden, self.max_log_rate, name="actor")
        critic = Critic(self.critic_hidden, name="critic")
        return actor(features), critic(features)


def init_params(key: Key[Array, ""], network: ActorCritic) -> chex.ArrayTree:
    """Returns fresh network parameters, a nested dict of float32 arrays. Consumes `key`."""
    features = jnp.zeros((1, observation.NUM_FEATURES), jnp.float32)
    return network.init(key, features)["params"]


def flatten(params: chex.ArrayTree) -> tuple[Float[Array, "..."], ...]:
    """The arrays of network parameters without their names, as the optimizer's state holds them.

    Rules that shard a model by the names of its arrays, such as `kernel`, must not find the agent.
    """
    return tuple(jax.tree.leaves(params))


def unflatten(arrays: Sequence[Float[Array, "..."]]) -> chex.ArrayTree:
    """Undoes `flatten`.

    Example:
      >>> params = init_params(jax.random.key(0), make_network(AgentConfig(leaf_hidden=4)))
      >>> sorted(unflatten(flatten(params)))
      ['actor', 'critic']
    """
    # Three structures: an actor without a leaf trunk, with one, and a leaf trunk alone.
    for actor_hidden, leaf_hidden in ((1, 0), (1, 1), (0, 1)):
        structure = _structure(AgentConfig(actor_hidden=actor_hidden, leaf_hidden=leaf_hidden))
        if structure.num_leaves == len(arrays):
            return structure.unflatten(arrays)
    raise ValueError(f"No agent has {len(arrays)} arrays of parameters.")


@functools.cache
def _structure(config: AgentConfig) -> jax.tree_util.PyTreeDef:
    network = make_network(config)
    return jax.tree.structure(jax.eval_shape(lambda: init_params(jax.random.key(0), network)))


class Policy(NamedTuple):
    """An actor-critic with its parameters.

    Attributes:
      params: A nested dict of `float32` arrays.
      config: The constants of the agent.
    """

    params: chex.ArrayTree
    config: AgentConfig

    @property
    def network(self) -> ActorCritic:
        """The Flax module of the parameters."""
        return make_network(self.config)


class LeafDecision(NamedTuple):
    """The part of the actor that is computed once per leaf.

    Attributes:
      activation: `float32[leaves, H]`, the leaf's part of the hidden units' input.
      log_rate: `float32[leaves]`, the leaf's part of the output.
    """

    activation: Float[Array, "leaves hidden"]
    log_rate: Float[Array, " leaves"]


def make_network(config: AgentConfig) -> ActorCritic:
    """Returns the Flax module for these constants."""
    return ActorCritic(
        config.actor_hidden, config.critic_hidden, config.max_log_rate, config.leaf_hidden
    )


def decide_leaves(
    policy: Policy,
    context: Float[Array, "leaves context"],
    history: Float[Array, "leaves history"],
) -> LeafDecision:
    """The part of `Actor` that is shared by all parameters of a leaf.

    Args:
      policy: The policy.
      context: `float32[leaves, C]`, the features named in `observation.CONTEXT_FEATURES`.
      history: `float32[leaves, K]`, the features named in `observation.HISTORY_FEATURES`.

    Returns:
      The leaves' decisions.
    """
    actor, config = policy.params["actor"], policy.config
    if not config.actor_hidden:
        trunk = LeafTrunk(config.leaf_hidden, 0)
        features = jnp.concatenate([context, history], axis=-1)
        log_rate, _ = trunk.apply({"params": actor["leaf"]}, features)
        return LeafDecision(jnp.zeros((*log_rate.shape, 0), jnp.float32), log_rate)
    # Features that are constant over a leaf act as a bias of the first layer.
    kernel = actor["hidden"]["kernel"][observation.NUM_COORDINATE_FEATURES :]
    activation = actor["hidden"]["bias"][None, :] + context @ kernel
    if not config.leaf_hidden:
        return LeafDecision(activation, jnp.zeros(context.shape[:-1], jnp.float32))
    trunk = LeafTrunk(config.leaf_hidden, config.actor_hidden)
    features = jnp.concatenate([context, history], axis=-1)
    log_rate, shift = trunk.apply({"params": actor["leaf"]}, features)
    return LeafDecision(activation + shift, log_rate)


def mean_log_rate(
    policy: Policy,
    coordinate_features: Sequence[Float[Array, "*leaf"]],
    activation: Float[Array, "hidden *#leaf"],
    leaf_log_rate: Float[Array, "*#leaf"],
) -> Float[Array, "*leaf"]:
    """`Actor` for whole leaves, element by element.

    Args:
      policy: The policy.
      coordinate_features: One array of the leaf's shape for each coordinate feature.
      activation: `LeafDecision.activation` with the hidden units on the leading axis; the other
        axes broadcast against the leaf's shape.
      leaf_log_rate: `LeafDecision.log_rate`, likewise.

    Returns:
      The mean log rate, an array of the leaf's shape.
    """
    if not policy.config.actor_hidden:
        # Sharded like the leaf, where the sharding is part of the type.
        like = jnp.zeros_like(coordinate_features[0])
        return like + bound(leaf_log_rate, policy.config.max_log_rate)
    hidden, output = policy.params["actor"]["hidden"], policy.params["actor"]["output"]
    total = output["bias"][0] + leaf_log_rate
    for unit in range(activation.shape[0]):
        value = activation[unit]
        for index, feature in enumerate(coordinate_features):
            value = value + hidden["kernel"][index, unit] * feature
        total = total + output["kernel"][unit, 0] * jnp.maximum(value, 0.0)
    return bound(total, policy.config.max_log_rate)


def bound(output: Float[Array, "*shape"], max_log_rate: float) -> Float[Array, "*shape"]:
    """Squashes smoothly into ±`max_log_rate`, with slope 2 at zero."""
    return max_log_rate * jnp.tanh(output * (2.0 / max_log_rate))


def log_probability(
    action: Float[Array, "*shape"], mean: Float[Array, "*shape"], deviation: float
) -> Float[Array, "*shape"]:
    """Log-density of `action` under a Gaussian, element by element."""
    return jax.scipy.stats.norm.logpdf(action, mean, deviation)

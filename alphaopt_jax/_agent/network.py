"""The actor-critic: from an observation to a Gaussian over the log of a learning rate.

One small network is shared by all parameters. It is written twice: `ActorCritic` takes observations
on a trailing axis, as every network does, and is used where it learns, on a few explorers;
`mean_log_rate` computes the same actor for whole leaves without ever holding an array of
[parameters, hidden units], element by element, so that the compiler fuses it into the update, and
any shape and sharding of a leaf stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from alphaopt_jax._agent import observation


class LeafTrunk(nn.Module):
    """What a leaf as a whole decides: its own log rate, and a shift of the actor's hidden units.

    It is evaluated once for a leaf, not for every parameter, so it may be larger than the actor.
    """

    hidden: int
    actor_hidden: int

    @nn.compact
    def __call__(
        self, features: Float[Array, "*batch features"]
    ) -> tuple[Float[Array, "*batch"], Float[Array, "*batch hidden"]]:
        """From context and memory, `float32[..., C]`, to `float32[...]` and `float32[..., H]`."""
        hidden = nn.tanh(nn.Dense(self.hidden, name="first")(features))
        hidden = nn.tanh(nn.Dense(self.hidden, name="second")(hidden))
        small = nn.initializers.zeros
        rate = nn.Dense(1, kernel_init=small, name="log_rate")(hidden)
        shift = nn.Dense(self.actor_hidden, kernel_init=small, use_bias=False, name="shift")(hidden)
        return rate[..., 0], shift


class Actor(nn.Module):
    """Mean of the log rate, relative to the default rate, within ±`max_log_rate`."""

    hidden: int
    leaf_hidden: int
    max_log_rate: float

    @nn.compact
    def __call__(self, features: Float[Array, "*batch features"]) -> Float[Array, "*batch"]:
        """From `float32[..., NUM_FEATURES]` to `float32[...]`."""
        direct = features[..., : observation.NUM_DIRECT_FEATURES]
        activation = nn.Dense(self.hidden, name="hidden")(direct)
        leaf_rate: chex.Numeric = 0.0
        if self.leaf_hidden:
            trunk = LeafTrunk(self.leaf_hidden, self.hidden, name="leaf")
            leaf_rate, shift = trunk(features[..., observation.NUM_COORDINATE_FEATURES :])
            activation = activation + shift
        # A fresh agent starts from the default rate everywhere.
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
      >>> from alphaopt_jax import observation
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


class LeafDecision(NamedTuple):
    """What the actor computes once for each leaf.

    Attributes:
      activation: `float32[leaves, H]`, the part of the hidden units that the leaf decides.
      log_rate: `float32[leaves]`, the leaf's own part of the output.
    """

    activation: Float[Array, "leaves hidden"]
    log_rate: Float[Array, " leaves"]


def decide_leaves(
    params: chex.ArrayTree,
    context: Float[Array, "leaves context"],
    memory: Float[Array, "leaves memory"],
    network: ActorCritic,
) -> LeafDecision:
    """The part of `Actor` that is the same for all parameters of a leaf.

    Args:
      params: Parameters of `network`.
      context: `float32[leaves, C]`, the features named in `observation.CONTEXT_FEATURES`.
      memory: `float32[leaves, K]`, those named in `observation.MEMORY_FEATURES`.
      network: The actor-critic.

    Returns:
      The leaves' decisions.
    """
    actor = params["actor"]
    # What is constant over the leaf is only a bias of the first layer.
    kernel = actor["hidden"]["kernel"][observation.NUM_COORDINATE_FEATURES :]
    activation = actor["hidden"]["bias"] + context @ kernel
    if not network.leaf_hidden:
        return LeafDecision(activation, jnp.zeros(context.shape[:-1], jnp.float32))
    trunk = LeafTrunk(network.leaf_hidden, network.actor_hidden)
    features = jnp.concatenate([context, memory], axis=-1)
    log_rate, shift = trunk.apply({"params": actor["leaf"]}, features)
    return LeafDecision(activation + shift, log_rate)


def mean_log_rate(
    params: chex.ArrayTree,
    coordinate_features: Sequence[Float[Array, "*leaf"]],
    activation: Float[Array, "hidden *#leaf"],
    leaf_log_rate: Float[Array, "*#leaf"],
    max_log_rate: float,
) -> Float[Array, "*leaf"]:
    """`Actor` for a whole leaf, element by element.

    Args:
      params: Parameters of an `ActorCritic`.
      coordinate_features: One array of the leaf's shape for every coordinate feature.
      activation: The leaf's `LeafDecision.activation`, `float32[H]`; of the parameters of several
        leaves `float32[H, ...]`, where what follows H broadcasts with their shape.
      leaf_log_rate: The leaf's `LeafDecision.log_rate`, `float32[]` or likewise.
      max_log_rate: Bound of the result.

    Returns:
      The mean log rate, an array of the leaf's shape.
    """
    hidden, output = params["actor"]["hidden"], params["actor"]["output"]
    total = output["bias"][0] + leaf_log_rate
    for unit in range(activation.shape[0]):
        value = activation[unit]
        for index, feature in enumerate(coordinate_features):
            value = value + hidden["kernel"][index, unit] * feature
        total = total + output["kernel"][unit, 0] * jnp.maximum(value, 0.0)
    return bound(total, max_log_rate)


def bound(output: Float[Array, "*shape"], max_log_rate: float) -> Float[Array, "*shape"]:
    """Squashes smoothly into ±`max_log_rate`, with slope 2 at zero."""
    return max_log_rate * jnp.tanh(output * (2.0 / max_log_rate))


def log_probability(
    action: Float[Array, "*shape"], mean: Float[Array, "*shape"], deviation: float
) -> Float[Array, "*shape"]:
    """Log-density of `action` under a Gaussian, element by element."""
    return jax.scipy.stats.norm.logpdf(action, mean, deviation)

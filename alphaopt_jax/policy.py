"""The actor-critic: from an observation to a Gaussian over the log of a learning rate.

One small network is shared by all parameters. It is written twice: `ActorCritic` takes observations
on a trailing axis, as every network does, and is used where it learns, on a few explorers;
`mean_log_rate` computes the same actor for whole leaves without ever holding an array of
[parameters, hidden units], element by element, so that the compiler fuses it into the update, and
any shape and sharding of a leaf stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp

from alphaopt_jax import observation


class Actor(nn.Module):
    """Mean of the log rate, relative to the default rate, within ±`max_log_rate`."""

    hidden: int
    max_log_rate: float

    @nn.compact
    def __call__(self, features: chex.Array) -> chex.Array:
        """From `float32[..., NUM_FEATURES]` to `float32[...]`."""
        hidden = nn.relu(nn.Dense(self.hidden, name="hidden")(features))
        # A fresh agent starts from the default rate everywhere.
        output = nn.Dense(1, kernel_init=nn.initializers.zeros, name="output")(hidden)
        return _bound(output[..., 0], self.max_log_rate)


class Critic(nn.Module):
    """Expected return of one parameter."""

    hidden: int

    @nn.compact
    def __call__(self, features: chex.Array) -> chex.Array:
        """From `float32[..., NUM_FEATURES]` to `float32[...]`."""
        hidden = nn.tanh(nn.Dense(self.hidden, name="hidden")(features))
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

    @nn.compact
    def __call__(self, features: chex.Array) -> tuple[chex.Array, chex.Array]:
        """From `float32[..., NUM_FEATURES]` to mean log rate and value, both `float32[...]`."""
        actor = Actor(self.actor_hidden, self.max_log_rate, name="actor")
        critic = Critic(self.critic_hidden, name="critic")
        return actor(features), critic(features)


def init_params(key: chex.PRNGKey, network: ActorCritic) -> chex.ArrayTree:
    """Returns fresh network parameters, a nested dict of float32 arrays. Consumes `key`."""
    features = jnp.zeros((1, observation.NUM_FEATURES), jnp.float32)
    return network.init(key, features)["params"]


def mean_log_rate(
    params: chex.ArrayTree,
    coordinate_features: Sequence[chex.Array],
    context: chex.Array,
    max_log_rate: float,
) -> chex.Array:
    """`Actor` for a whole leaf, element by element.

    Args:
      params: Parameters of an `ActorCritic`.
      coordinate_features: One array of the leaf's shape for every coordinate feature.
      context: `float32[C]`, the features that are the same for the whole leaf.
      max_log_rate: Bound of the result.

    Returns:
      The mean log rate, an array of the leaf's shape.
    """
    hidden, output = params["actor"]["hidden"], params["actor"]["output"]
    num_coordinate = len(coordinate_features)
    # The context is constant over the leaf: its part of the first layer is only a bias.
    bias = hidden["bias"] + context @ hidden["kernel"][num_coordinate:]
    total = output["bias"][0]
    for unit in range(bias.shape[0]):
        activation = bias[unit]
        for index, feature in enumerate(coordinate_features):
            activation = activation + hidden["kernel"][index, unit] * feature
        total = total + output["kernel"][unit, 0] * jnp.maximum(activation, 0.0)
    return _bound(total, max_log_rate)


def log_probability(action: chex.Array, mean: chex.Array, deviation: float) -> chex.Array:
    """Log-density of `action` under a Gaussian, element by element."""
    return jax.scipy.stats.norm.logpdf(action, mean, deviation)


def _bound(output: chex.Array, max_log_rate: float) -> chex.Array:
    """Squashes smoothly into ±`max_log_rate`, with slope 2 at zero."""
    return max_log_rate * jnp.tanh(output * (2.0 / max_log_rate))

"""The two implementations of the actor are the same function."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alphaopt_jax._agent import network as network_lib
from alphaopt_jax._agent import observation
from alphaopt_jax._agent.network import Policy
from alphaopt_jax.config import AgentConfig

_PLAIN = AgentConfig(actor_hidden=8, critic_hidden=32, max_log_rate=2.0)
_WITH_TRUNK = AgentConfig(actor_hidden=8, critic_hidden=32, max_log_rate=2.0, leaf_hidden=16)
_NETWORK = network_lib.make_network(_PLAIN)
_NUM_COORDINATE = len(observation.COORDINATE_FEATURES)


def _random_params(seed: int, network=_NETWORK):
    """Parameters with nothing at zero, unlike a fresh agent's output layer."""
    fresh = network_lib.init_params(jax.random.key(seed), network)
    leaves, structure = jax.tree.flatten(fresh)
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    return structure.unflatten(
        [jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    )


@pytest.mark.parametrize("config", [_PLAIN, _WITH_TRUNK], ids=["plain", "with trunk"])
@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 4), (2, 3, 4)])
def test_elementwise_actor_is_the_flax_actor(shape, config):
    network = network_lib.make_network(config)
    params = _random_params(0, network)
    keys = jax.random.split(jax.random.key(3), _NUM_COORDINATE + 1)
    features = [jax.random.normal(key, shape) for key in keys[:-1]]
    context_key, history_key = jax.random.split(keys[-1])
    context = jax.random.normal(context_key, (2, len(observation.CONTEXT_FEATURES)))
    history = jax.random.normal(history_key, (2, len(observation.HISTORY_FEATURES)))

    policy = Policy(params, config)
    decisions = network_lib.decide_leaves(policy, context, history)
    elementwise = network_lib.mean_log_rate(
        policy, features, decisions.activation[1], decisions.log_rate[1]
    )
    of_leaf = jnp.concatenate([context[1], history[1]])
    stacked = jnp.concatenate(
        [jnp.stack(features, axis=-1), jnp.broadcast_to(of_leaf, (*shape, len(of_leaf)))], axis=-1
    )
    expected, _ = network.apply({"params": params}, stacked)

    assert elementwise.shape == shape
    np.testing.assert_allclose(elementwise, expected, rtol=1e-4, atol=1e-5)


def test_a_fresh_agent_chooses_the_default_rate_and_expects_nothing():
    params = network_lib.init_params(jax.random.key(0), _NETWORK)
    features = jax.random.normal(jax.random.key(1), (50, observation.NUM_FEATURES))

    mean, value = _NETWORK.apply({"params": params}, features)

    np.testing.assert_array_equal(mean, 0.0)
    np.testing.assert_array_equal(value, 0.0)


def test_the_log_rate_is_bounded():
    params = jax.tree.map(lambda leaf: 100.0 * leaf, _random_params(5))
    features = jax.random.normal(jax.random.key(1), (50, observation.NUM_FEATURES))

    mean, _ = _NETWORK.apply({"params": params}, features)

    assert jnp.abs(mean).max() <= 2.0
    assert jnp.abs(mean).max() > 1.9


def test_log_probability_by_hand():
    # -½ (1/2)² - log 2 - ½ log 2π, with deviation 2 and a distance of 1.
    expected = -0.125 - np.log(2.0) - 0.5 * np.log(2.0 * np.pi)

    log_probability = network_lib.log_probability(jnp.array(3.0), jnp.array(2.0), 2.0)

    np.testing.assert_allclose(log_probability, expected, rtol=1e-6)


def test_a_new_trunk_raises_rates_while_gradients_agree_and_keeps_the_level_it_found():
    config = AgentConfig(actor_hidden=0, leaf_hidden=8, max_log_rate=6.0)
    policy = Policy(
        network_lib.init_params(jax.random.key(0), network_lib.make_network(config)), config
    )
    context = jnp.zeros((3, len(observation.CONTEXT_FEATURES)))

    def level(autocorrelation, steps=400):
        """The log rate once it no longer changes; its history averages over 10 steps."""
        offset = len(observation.CONTEXT_FEATURES)
        history = jnp.zeros((3, len(observation.HISTORY_FEATURES)))
        for name in ("leaf's", "whole model's"):
            index = observation.leaf_feature(f"autocorrelation of the {name} gradients")
            history = history.at[:, index - offset].set(autocorrelation)

        def step(_, recent):
            observed = history.at[:, observation.RECENT_LOG_RATE - offset].set(recent)
            decision = network_lib.decide_leaves(policy, context, observed)
            log_rate = network_lib.bound(decision.log_rate, config.max_log_rate)
            return recent + 0.1 * (log_rate - recent)

        return float(jax.lax.fori_loop(0, steps, step, jnp.zeros(3))[0])

    assert 0.5 < level(0.0) < 0.9
    assert level(0.5) > 1.0
    assert level(-0.5) < 0.3

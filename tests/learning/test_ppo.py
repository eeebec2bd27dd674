"""Advantages, PPO's loss and a round of learning, against numbers worked out by hand."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alphaopt_jax._agent import network as network_lib
from alphaopt_jax._agent import observation
from alphaopt_jax._agent.network import Policy
from alphaopt_jax._learning import ppo
from alphaopt_jax.config import AgentConfig, LearningConfig

_CONFIG = LearningConfig()
_AGENT = AgentConfig()


def test_advantages_by_hand():
    # discount 0.5, decay 0.5; values 1, 2, 4 (the last is the bootstrap); rewards 3, 5.
    # delta_1 = 5 + 0.5 * 4 - 2 = 5            advantage_1 = 5
    # delta_0 = 3 + 0.5 * 2 - 1 = 3            advantage_0 = 3 + 0.25 * 5 = 4.25
    rewards = jnp.array([[3.0, 0.0], [5.0, 0.0]])
    values = jnp.array([[1.0, 0.0], [2.0, 0.0], [4.0, 0.0]])

    advantages = ppo.advantages(rewards, values, 0.5, 0.5)

    np.testing.assert_allclose(advantages, [[4.25, 0.0], [5.0, 0.0]], rtol=1e-6)


def test_clipped_policy_loss_by_hand():
    # ratio 1.5, advantage  1, clip 0.2: min(1.5, 1.2) = 1.2
    # ratio 0.5, advantage  1:           min(0.5, 0.8) = 0.5
    # ratio 1.5, advantage -1:           min(-1.5, -1.2) = -1.5
    # ratio 0.5, advantage -1:           min(-0.5, -0.8) = -0.8
    # loss = -(1.2 + 0.5 - 1.5 - 0.8) / 4 = 0.15
    # A Gaussian of deviation 1 that moves from 0 to μ changes the log-density of x by μx - ½μ²: at
    # μ = 1 by log 1.5 for x = ½ + log 1.5.
    actions = 0.5 + jnp.log(jnp.array([1.5, 0.5, 1.5, 0.5]))
    samples = ppo.ActionSamples(actions, jnp.zeros(4), jnp.array([1.0, 1.0, -1.0, -1.0]))

    loss = ppo.policy_loss(jnp.ones(4), samples, 1.0, 0.2)

    np.testing.assert_allclose(loss, 0.15, rtol=1e-5)


def test_rewards_are_put_in_units_of_their_own_leaf():
    # First leaf: two explorers, mean square (9 + 16 + 9 + 16) / 4 = 12.5. Second leaf: one, 100.
    rewards = jnp.array([[3.0, -4.0, 10.0], [3.0, 4.0, -10.0]])

    normalized = ppo.normalize_rewards(rewards, (2, 1))

    root = np.sqrt(12.5)
    np.testing.assert_allclose(
        normalized, [[3 / root, -4 / root, 1.0], [3 / root, 4 / root, -1.0]], rtol=1e-6
    )


def test_scale_of_the_rewards_does_not_matter_and_outliers_are_clipped():
    rewards = jax.random.normal(jax.random.key(0), (7, 100)).at[3, 5].set(1e4)

    small = ppo.normalize_rewards(1e-12 * rewards, (60, 40))
    large = ppo.normalize_rewards(1e12 * rewards, (60, 40))

    np.testing.assert_allclose(small, large, rtol=1e-4)
    assert large.max() == 5.0
    np.testing.assert_array_equal(ppo.normalize_rewards(0.0 * rewards, (60, 40)), 0.0)


def _two_armed_rollout(sign: float, key: jax.Array) -> tuple[ppo.Rollout, network_lib.ActorCritic]:
    """Half the actions are larger than the mean, half smaller; the reward is `sign` times that."""
    shape = (_CONFIG.rollout_length, 64)
    arms = jnp.where(jax.random.bernoulli(key, shape=shape), 1.0, -1.0)
    network = network_lib.make_network(_AGENT)
    return ppo.Rollout(
        observations=jnp.ones((*shape, observation.NUM_FEATURES)),
        actions=_CONFIG.action_std * arms,
        means=jnp.zeros(shape),
        rewards=sign * arms,
    ), network


@functools.partial(jax.jit, static_argnames="config")
def _learn(params, prior, state, rollout, config):
    """From and to parameters by name."""
    policy = Policy(params, _AGENT)
    held_to = None if prior is None else network_lib.flatten(prior)
    arrays, state, losses = ppo.learn(policy, held_to, state, rollout, (64,), config)
    return network_lib.unflatten(arrays), state, losses


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_policy_moves_towards_the_arm_that_pays(sign):
    rollout, network = _two_armed_rollout(sign, jax.random.key(1))
    params = network_lib.init_params(jax.random.key(2), network)
    state = ppo.agent_optimizer(_CONFIG.ppo).init(network_lib.flatten(params))

    for _ in range(5):
        params, state, losses = _learn(params, None, state, rollout, _CONFIG)

    mean, _ = network.apply({"params": params}, rollout.observations[0])
    assert (sign * mean > 0.01).all()
    assert np.isfinite(losses.policy_loss)
    assert np.isfinite(losses.value_loss)


def test_nothing_to_learn_from_changes_the_policy_little():
    rollout, network = _two_armed_rollout(0.0, jax.random.key(1))
    params = network_lib.init_params(jax.random.key(2), network)
    state = ppo.agent_optimizer(_CONFIG.ppo).init(network_lib.flatten(params))

    new_params, _, _ = _learn(params, None, state, rollout, _CONFIG)

    mean, _ = network.apply({"params": new_params}, rollout.observations[0])
    np.testing.assert_allclose(mean, 0.0, atol=1e-6)


def test_divergence_by_hand():
    # log N(x; 1, .5) - log N(x; 0, .5), in the mean under the first: (1 - 0)^2 / (2 * .25) = 2.
    divergence = ppo.divergence(jnp.array([1.0, 0.0]), jnp.zeros(2), 0.5)

    np.testing.assert_allclose(divergence, [2.0, 0.0])


@pytest.mark.slow
def test_a_policy_that_is_held_to_another_moves_less_from_it_and_comes_back():
    rollout, network = _two_armed_rollout(1.0, jax.random.key(1))
    prior = network_lib.init_params(jax.random.key(2), network)
    config = dataclasses.replace(_CONFIG, kl_weight=100.0)

    def moved(held_to, config, rollout):
        params, state = prior, ppo.agent_optimizer(config.ppo).init(network_lib.flatten(prior))
        for _ in range(20):
            params, state, _ = _learn(params, held_to, state, rollout, config)
        return network.apply({"params": params}, rollout.observations[0])[0].mean()

    free, held = moved(None, _CONFIG, rollout), moved(prior, config, rollout)

    assert free > 0.05
    assert 0.0 < held < 0.5 * free


@pytest.mark.unchecked
def test_the_last_reward_is_never_read():
    rollout, network = _two_armed_rollout(1.0, jax.random.key(1))
    params = network_lib.init_params(jax.random.key(2), network)
    state = ppo.agent_optimizer(_CONFIG.ppo).init(network_lib.flatten(params))
    poisoned = rollout._replace(rewards=rollout.rewards.at[-1].set(jnp.nan))

    learned = _learn(params, None, state, rollout, _CONFIG)
    from_poisoned = _learn(params, None, state, poisoned, _CONFIG)

    jax.tree.map(np.testing.assert_array_equal, learned, from_poisoned)


def test_passes_share_many_explorers_and_each_learn_from_few():
    many, few = jnp.arange(2 * 4096.0).reshape(2, 4096), jnp.arange(2 * 100.0).reshape(2, 100)

    (shared,), (whole,) = (ppo._parts((each,), epochs=4) for each in (many, few))

    assert shared.shape == (4, 2, 1024)
    # Each pass has every fourth, so that it has some of every leaf.
    np.testing.assert_array_equal(shared[1, 0], np.arange(1, 4096, 4))
    np.testing.assert_array_equal(np.sort(shared[:, 1].ravel()), many[1])
    np.testing.assert_array_equal(whole, few[None])

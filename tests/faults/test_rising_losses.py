"""The backoff is short for a loss that rises for good reasons, and acts if rates raise the loss."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import alphaopt_jax as alphaopt
from benchmarks.robustness import games
from tests.faults import test_hostile_agents as hostile

_WITH, _OFF = alphaopt.alphaopt(), alphaopt.alphaopt(backoff=False)
_CONSTANT = (
    alphaopt.alphaopt(agent=None, learn=False),
    alphaopt.alphaopt(agent=None, learn=False, backoff=False),
)
"""Of a fresh agent, whose rates do not follow the loss: the backoff's own effect is left."""
_SWITCH = 400


def _init():
    first, second = jax.random.split(jax.random.key(2))
    return {
        "first": 0.4 * jax.random.normal(first, (6, 16)),
        "second": 0.2 * jax.random.normal(second, (16, 2)),
    }


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _train(tx, loss_fn, num_steps, params):
    """Losses of a training with `loss_fn(params, step)`, and the backoff of each step."""

    def step(carry, number):
        params, state = carry
        value, grads = jax.value_and_grad(loss_fn)(params, number)
        updates, state = tx.update(grads, state, params, value=value)
        backoff = alphaopt.metrics(state)["backoff"]
        return (optax.apply_updates(params, updates), state), (value, backoff)

    return jax.lax.scan(step, (params, tx.init(params)), jnp.arange(num_steps))[1]


def _regression(factor_of, size_of=lambda number: 1.0):
    """Regression with targets and loss that are scaled from step to step."""
    inputs = jax.random.normal(jax.random.key(0), (64, 6))
    targets = jnp.tanh(inputs @ jax.random.normal(jax.random.key(1), (6, 2)))

    def loss(params, number):
        outputs = jax.nn.leaky_relu(inputs @ params["first"]) @ params["second"]
        return size_of(number) * jnp.mean(jnp.square(outputs - factor_of(number) * targets))

    return loss


def _progress(tx, loss_fn, num_steps):
    """Log of the first loss over the last ones, a mean over 16 starts.

    The last loss of a single training varies by a factor of two with rounding.
    """
    scales = jnp.linspace(0.8, 1.3, 16)
    starts = jax.tree.map(lambda leaf: scales[:, None, None] * leaf, _init())
    losses = jax.vmap(lambda start: _train(tx, loss_fn, num_steps, start)[0])(starts)
    return np.mean(np.log(losses[:, 0] / np.median(losses[:, -40:], axis=1)))


def _after(number, factor):
    return jnp.where(number < _SWITCH, 1.0, factor)


_SWITCHED = _regression(lambda number: _after(number, -30.0))
_RESCALED = _regression(lambda number: 1.0, lambda number: _after(number, 1e10))
_CURRICULUM = _regression(lambda number: 3.0 ** (number // 150))


def test_after_a_task_switch_the_training_is_at_the_usual_pace_within_tens_of_steps():
    losses, backoffs = _train(_WITH, _SWITCHED, 700, _init())
    free, _ = _train(_OFF, _SWITCHED, 700, _init())

    np.testing.assert_array_equal(backoffs[:_SWITCH], 1.0)
    assert backoffs[_SWITCH + 1] < 0.1
    np.testing.assert_array_equal(backoffs[_SWITCH + 60 :], 1.0)
    assert losses[_SWITCH + 80] < 0.2 * losses[_SWITCH]
    # At most 60 steps later than without a backoff, up to a factor of two.
    assert losses[_SWITCH + 110] < 2.0 * free[_SWITCH + 50]
    assert losses[-1] < 2.0 * free[-61]


def test_after_a_loss_is_rescaled_for_ever_the_training_is_as_without_a_backoff():
    of_constant, backoffs = _train(_CONSTANT[0], _RESCALED, 700, _init())
    free_constant, _ = _train(_CONSTANT[1], _RESCALED, 700, _init())

    np.testing.assert_array_equal(backoffs[_SWITCH + 60 :], 1.0)
    assert _progress(_WITH, _RESCALED, 700) > _progress(_OFF, _RESCALED, 700) - np.log(1.1)
    assert of_constant[-1] < 1.1 * free_constant[-1]


def test_stages_of_a_curriculum_cause_a_backoff_for_a_small_part_of_the_time():
    for backed_off, free, factor in ((_WITH, _OFF, 5.0), (*_CONSTANT, 3.0)):
        losses, backoffs = _train(backed_off, _CURRICULUM, 750, _init())
        freely, _ = _train(free, _CURRICULUM, 750, _init())

        assert np.mean(backoffs < 1.0) < 0.2
        # Each stage is at most 60 steps behind, up to a factor; the rates of the pretrained agent
        # follow the loss with the backoff.
        for end in (449, 599, 749):
            assert losses[end] < factor * freely[end - 60]


def test_a_rising_surrogate_of_the_policy_gradient_does_not_stop_a_bandit():
    rewards = jnp.linspace(-1.0, 0.0, 10)

    def surrogate(params, number):
        log_probabilities = jax.nn.log_softmax(params["logits"])
        key = jax.random.fold_in(jax.random.key(0), number)
        actions = jax.random.categorical(key, log_probabilities, shape=(64,))
        # Rewards are negative: their product with log probabilities is positive and grows while
        # bad actions become rare.
        return -jnp.mean(rewards[actions] * log_probabilities[actions])

    params = {"logits": jnp.zeros(10)}
    losses, backoffs = _train(_WITH, surrogate, 1000, params)

    assert losses[0] < -1.0
    assert losses[-1] > -0.1
    assert np.mean(backoffs) > 0.95
    assert np.mean(backoffs < 0.5) < 0.05


@pytest.mark.slow
def test_the_ring_is_found_with_the_loss():
    optimizer = games.GameOptimizer(_WITH, passes_value=True)

    outcome = games.play("ring", optimizer, (0, 1, 2))

    assert (outcome.backed_off < 0.15).all()
    assert np.median(outcome.errors) < 2.0


@pytest.mark.parametrize("size", [1e3, 1e30])
def test_a_spike_of_the_loss_alone_costs_little(size):
    spiked = _regression(lambda number: 1.0, lambda number: jnp.where(number == 100, size, 1.0))

    usual = _progress(_WITH, _regression(lambda number: 1.0), 400)

    assert _progress(_WITH, spiked, 400) > 0.9 * usual


def test_a_divergence_that_lower_rates_cure_is_cured():
    # From step 100 on, gradients point uphill for 60 steps.
    def loss(params, number):
        value = hostile._loss(params)
        sign = jnp.where((number >= 100) & (number < 160), -1.0, 1.0)
        return sign * value + jax.lax.stop_gradient(value - sign * value)

    losses, backoffs = _train(_WITH, loss, 400, hostile._PARAMS)
    free, _ = _train(_OFF, loss, 400, hostile._PARAMS)

    assert np.min(backoffs[100:160]) < 0.05
    assert np.max(losses[100:]) < 1e-3 * np.max(free[100:])
    np.testing.assert_array_equal(backoffs[220:], 1.0)
    assert losses[-1] < 0.01 * np.max(losses)
    assert losses[-1] < 0.1 * free[-1]


@pytest.mark.slow
def test_hostile_agents_are_caught_again_over_two_thousand_steps():
    tx = alphaopt.alphaopt(learn=False)
    cases = [
        (kind, exponent, seed, np.nan)
        for seed, exponent in enumerate(range(-2, 18, 2))
        for kind in ("random", "signs")
    ]
    agents = [hostile._hostile(*case) for case in cases]

    @jax.jit
    @jax.vmap
    def train(agent):
        def step(carry, _):
            params, state = carry
            value, grads = jax.value_and_grad(hostile._loss)(params)
            updates, state = tx.update(grads, state, params, value=value)
            return (optax.apply_updates(params, updates), state), value

        begun = tx.init(hostile._PARAMS)._replace(agent=tuple(jax.tree.leaves(agent)))
        return jax.lax.scan(step, (hostile._PARAMS, begun), None, length=2000)[1]

    losses = np.asarray(train(jax.tree.map(lambda *leaves: np.stack(leaves), *agents)))

    assert (losses.max(axis=1) < 1e3 * losses[:, 0]).all()
    assert (losses[:, -1] < 30.0 * losses[:, 0]).all()


def test_the_backoff_can_be_turned_off_while_the_agent_observes_the_loss():
    losses, backoffs = _train(_OFF, _SWITCHED, 500, _init())

    np.testing.assert_array_equal(backoffs, 1.0)
    assert losses[_SWITCH + 50] < 0.3 * losses[_SWITCH]


def test_without_a_rise_the_switch_changes_nothing():
    task = _regression(lambda number: 1.0)

    losses, backoffs = _train(_WITH, task, 300, _init())

    np.testing.assert_array_equal(backoffs, 1.0)
    np.testing.assert_array_equal(losses, _train(_OFF, task, 300, _init())[0])

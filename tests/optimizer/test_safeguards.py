"""The safeguards bound divergence, and are inactive in ordinary trainings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alphaopt_jax._optimizer import safeguards
from alphaopt_jax.config import AlphaOptConfig

_CONFIG = AlphaOptConfig()


def _backoffs(losses, state=None):
    """The backoff after each loss, and the final state."""
    state = safeguards.init(1) if state is None else state

    def add(carry, loss):
        state, fast = carry
        now = jnp.where(state.losses == 0, loss, 0.9 * fast + 0.1 * loss)
        state = safeguards.watch_loss(state, loss, fast, now)
        return (state, now), state.backoff

    (state, _), backoffs = jax.lax.scan(
        add, (state, jnp.zeros(())), jnp.asarray(losses, jnp.float32)
    )
    return np.asarray(backoffs), state


def _noise(length):
    return np.asarray(jax.random.normal(jax.random.key(0), (length,)))


@pytest.mark.parametrize(
    "losses",
    [
        np.exp(-np.linspace(0.0, 5.0, 300)),
        2.3 * np.exp(-np.linspace(0.0, 3.0, 300)) * (1.0 + 0.3 * _noise(300)),
        -1000.0 + _noise(300),  # Nothing is learned, and the loss is negative.
        np.sin(np.linspace(0.0, 20.0, 300)) + 2.0,
        np.zeros(300),
        np.linspace(1.0, 1.04, 300),
    ],
    ids=["falls", "falls with noise", "noise alone", "swings", "zero", "rises a little"],
)
def test_ordinary_losses_do_not_activate_the_backoff(losses):
    backoffs, _ = _backoffs(losses)

    np.testing.assert_array_equal(backoffs, 1.0)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_a_loss_above_its_start_activates_the_backoff_at_any_scale(scale):
    falling = np.linspace(2.0, 1.0, 100) + 0.05 * _noise(100)
    rising = np.exp(np.linspace(0.0, 4.0, 50))
    backoffs, _ = _backoffs(scale * np.concatenate([falling, rising]))

    np.testing.assert_array_equal(backoffs[:110], 1.0)
    assert (np.diff(backoffs[125:]) < 0).all()
    assert backoffs[-1] < 0.05


def test_the_backoff_relaxes_while_the_loss_falls():
    falling, high = np.linspace(2.0, 1.0, 100), np.full(20, 30.0)
    backoffs, _ = _backoffs(np.concatenate([falling, high, np.linspace(29.0, 3.0, 40)]))

    assert backoffs[119] < 0.01
    assert backoffs[-1] == 1.0


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("noise", [0.0, 3.0])
def test_a_loss_that_stays_high_becomes_the_usual_one_within_sixty_steps(scale, noise):
    high = 30.0 + noise * _noise(2000)
    losses = scale * np.concatenate([np.linspace(2.0, 1.0, 100), high])
    backoffs, state = _backoffs(losses)

    assert backoffs[105] < 0.05
    np.testing.assert_array_equal(backoffs[160:], 1.0)
    assert state.lowest_loss > 10.0 * scale


def test_a_noisy_loss_that_falls_once_rates_are_back_is_not_held_up_by_low_ones():
    """As after steps with gradients of the wrong sign; half were once held up for 150 and more."""

    def add(carry, inputs):
        state, fast, height = carry
        step, noise = inputs
        height = jnp.where(step == 100, 16.0, height)
        loss = height * (1.0 + 0.15 * noise)
        now = jnp.where(state.losses == 0, loss, 0.9 * fast + 0.1 * loss)
        state = safeguards.watch_loss(state, loss, fast, now)
        decay = jnp.where(step < 100, 0.98, 1.0 - 0.05 * state.backoff)
        return (state, now, jnp.maximum(decay * height, 0.8)), loss

    def losses(key):
        begun = (safeguards.init(1), jnp.zeros(()), jnp.full((), 1.6))
        return jax.lax.scan(add, begun, (jnp.arange(400), jax.random.normal(key, (400,))))[1]

    found = np.asarray(jax.jit(jax.vmap(losses))(jax.random.split(jax.random.key(0), 20)))

    assert np.all(np.min(found[:, 100:220], axis=1) < 2.0)


def test_a_loss_rescaled_for_ever_has_a_backoff_for_tens_of_steps():
    losses = np.exp(-np.linspace(0.0, 3.0, 1000)) * (1.0 + 0.1 * _noise(1000))
    backoffs, _ = _backoffs(np.where(np.arange(1000) < 300, 1.0, 1e15) * losses)

    np.testing.assert_array_equal(backoffs[:300], 1.0)
    assert backoffs[305] < 0.01
    np.testing.assert_array_equal(backoffs[360:], 1.0)


def test_a_loss_that_rises_whatever_the_rates_leaves_most_steps_without_a_backoff():
    rising = np.exp(np.linspace(0.0, 20.0, 1000))
    backoffs, _ = _backoffs(np.concatenate([np.linspace(2.0, 1.0, 100), rising]))

    assert np.min(backoffs[:300]) < 0.01
    assert np.mean(backoffs < 0.1) < 0.4
    assert np.max(backoffs[-200:]) == 1.0


def test_a_loss_that_rises_whenever_rates_are_back_has_ever_longer_backoffs():
    def add(carry, _):
        state, fast, loss = carry
        now = jnp.where(state.losses == 0, loss, 0.9 * fast + 0.1 * loss)
        state = safeguards.watch_loss(state, loss, fast, now)
        return (state, now, loss * (1.0 + 0.2 * state.backoff)), (loss, state.backoff)

    begun = (safeguards.init(1), jnp.zeros(()), jnp.ones(()))
    _, (losses, backoffs) = jax.lax.scan(add, begun, None, length=2000)

    # Without a backoff the loss would exceed 1e150.
    assert losses[-1] < 1e5
    assert losses[-1] < 100.0 * losses[999]
    assert np.mean(np.asarray(backoffs)[1000:] < 0.05) > 0.9


def test_the_backoff_has_finite_derivatives():
    def last(scale):
        constant = scale * jnp.concatenate([jnp.ones(30), jnp.full(100, 50.0)])

        def add(carry, loss):
            state, fast = carry
            now = jnp.where(state.losses == 0, loss, 0.9 * fast + 0.1 * loss)
            state = safeguards.watch_loss(state, loss, fast, now)
            return (state, now), state.backoff

        return jnp.sum(jax.lax.scan(add, (safeguards.init(1), jnp.zeros(())), constant)[1])

    assert np.isfinite(jax.grad(last)(1.0))
    assert np.isfinite(jax.jvp(last, (1.0,), (1.0,))[1])


def _factors(mean_squares):
    """Factors of the gradients of one leaf, step by step."""

    def add(state, each):
        number, mean_square = each
        factors, state = safeguards.bound_gradients(state, mean_square[None], number, _CONFIG)
        return state, factors[0]

    mean_squares = jnp.asarray(mean_squares, jnp.float32)
    numbers = jnp.arange(1.0, len(mean_squares) + 1.0)
    return np.asarray(jax.lax.scan(add, safeguards.init(1), (numbers, mean_squares))[1])


def test_ordinary_gradients_are_not_bounded():
    grows = np.exp(np.linspace(-20.0, 0.0, 1000))
    noisy = np.exp(_noise(1000))
    starts = np.concatenate([np.zeros(10), np.ones(10)])
    for mean_squares in (grows, noisy, starts, np.zeros(10), 1e-30 * noisy):
        np.testing.assert_array_equal(_factors(mean_squares), 1.0)


@pytest.mark.parametrize(("size", "left"), [(50.0, 30.0), (300.0, 10.0), (1e3, 3.0), (1e6, 3.0)])
def test_a_spike_is_cut_the_more_the_less_steps_can_have_caused_it(size, left):
    mean_squares = np.ones(300)
    mean_squares[200] = size**2

    factors = _factors(mean_squares)

    np.testing.assert_array_equal(np.delete(factors, 200), 1.0)
    assert factors[200] * size == pytest.approx(left, rel=0.25)


def test_a_growth_that_lasts_is_cut_to_thirty_times_the_usual_size_from_its_second_step():
    factors = _factors(np.concatenate([np.ones(200), np.full(5, 1e12)]))

    assert factors[200] * 1e6 == pytest.approx(3.0, rel=0.15)
    np.testing.assert_allclose(factors[201:] * 1e6, 30.0, rtol=0.25)


def test_a_persistent_increase_of_the_gradients_is_absorbed():
    factors = _factors(np.concatenate([np.ones(200), np.full(1000, 1e6)]))

    assert factors[200] < 0.05
    np.testing.assert_array_equal(factors[-100:], 1.0)

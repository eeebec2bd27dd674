"""The guard bounds what goes astray, and is not to be noticed where nothing does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alphaopt_jax._optimizer import safeguards
from alphaopt_jax.config import AlphaOptConfig

_CONFIG = AlphaOptConfig()


def _brakes(losses, state=None):
    """The brake after each loss, and the state."""
    state = safeguards.init(1) if state is None else state

    def add(carry, loss):
        state, fast = carry
        now = jnp.where(state.losses == 0, loss, 0.9 * fast + 0.1 * loss)
        state = safeguards.watch_loss(state, loss, fast, now)
        return (state, now), state.brake

    (state, _), brakes = jax.lax.scan(add, (state, jnp.zeros(())), jnp.asarray(losses, jnp.float32))
    return np.asarray(brakes), state


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
def test_usual_losses_are_not_braked(losses):
    brakes, _ = _brakes(losses)

    np.testing.assert_array_equal(brakes, 1.0)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_a_loss_that_rises_above_where_it_began_is_braked_whatever_its_scale(scale):
    falling = np.linspace(2.0, 1.0, 100) + 0.05 * _noise(100)
    rising = np.exp(np.linspace(0.0, 4.0, 50))
    brakes, _ = _brakes(scale * np.concatenate([falling, rising]))

    np.testing.assert_array_equal(brakes[:110], 1.0)
    assert (np.diff(brakes[125:]) < 0).all()
    assert brakes[-1] < 0.05


def test_the_brake_lets_go_while_the_loss_falls_again():
    falling, high = np.linspace(2.0, 1.0, 100), np.full(20, 30.0)
    brakes, _ = _brakes(np.concatenate([falling, high, np.linspace(29.0, 3.0, 40)]))

    assert brakes[119] < 0.01
    assert brakes[-1] == 1.0


def test_a_loss_that_stays_high_is_got_used_to():
    brakes, _ = _brakes(np.concatenate([np.linspace(2.0, 1.0, 100), np.full(5000, 30.0)]))

    assert brakes[150] < 0.01
    assert brakes[-1] == 1.0


def _factors(energies):
    """What the gradients of one leaf are multiplied by, step by step."""

    def add(state, each):
        number, energy = each
        factors, state = safeguards.bound_gradients(state, energy[None], number, _CONFIG)
        return state, factors[0]

    energies = jnp.asarray(energies, jnp.float32)
    numbers = jnp.arange(1.0, len(energies) + 1.0)
    return np.asarray(jax.lax.scan(add, safeguards.init(1), (numbers, energies))[1])


def test_gradients_of_usual_size_are_left_alone():
    grows = np.exp(np.linspace(-20.0, 0.0, 1000))
    noisy = np.exp(_noise(1000))
    starts = np.concatenate([np.zeros(10), np.ones(10)])
    for energies in (grows, noisy, starts, np.zeros(10), 1e-30 * noisy):
        np.testing.assert_array_equal(_factors(energies), 1.0)


def test_a_spike_is_cut_to_about_thirty_times_the_usual():
    energies = np.ones(300)
    energies[200] = 1e12

    factors = _factors(energies)

    np.testing.assert_array_equal(np.delete(factors, 200), 1.0)
    assert factors[200] * 1e6 == pytest.approx(30.0, rel=0.15)


def test_gradients_that_stay_large_are_left_alone_in_the_end():
    factors = _factors(np.concatenate([np.ones(200), np.full(1000, 1e6)]))

    assert factors[200] < 0.05
    np.testing.assert_array_equal(factors[-100:], 1.0)

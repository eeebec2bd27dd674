"""Levels: credits by hand, invariance, bounds, and the rates that they find."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import alphaopt_jax as alphaopt
from alphaopt_jax._agent import sampling
from alphaopt_jax._learning import levels

_SAMPLING = sampling.of_shapes([(2,), (3,)])
_MULTIPLIERS = (0.01, 0.1, 1.0, 10.0)


def _sampled(params, grads, inverse_units=(1.0, 1.0)):
    return levels.Sampled(
        jnp.asarray(params, jnp.float32), jnp.asarray(grads, jnp.float32), jnp.array(inverse_units)
    )


def _now(number, multiplier=1.0, backed_off=False):
    return levels.Circumstances(*map(jnp.asarray, (float(number), multiplier, backed_off)))


def test_credits_are_cosines_of_descent_and_path():
    path = jnp.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    grads = [[-3.0, 4.0, 0.0], [0.0, 1.0, 0.0]]

    found = levels.credits(path, _sampled(path, grads), _SAMPLING)

    # The model: (3 - 2) / (√26 √5).
    np.testing.assert_allclose(found, [0.6, -1.0, 1.0 / np.sqrt(130.0)], rtol=1e-6)


def test_credits_do_not_depend_on_units():
    path = jnp.array([[1.0, 0.5, 0.0], [0.2, 2.0, -1.0]])
    grads = np.array([[-3.0, 4.0, 0.0], [1.0, 1.0, 5.0]])
    units = np.array([2.0**80, 2.0**90])

    plain = levels.credits(path, _sampled(path, grads), _SAMPLING)
    scaled = levels.credits(
        path, _sampled(path, 1e-10 * grads * [[1.0], [2.0**10]], units), _SAMPLING
    )

    np.testing.assert_allclose(scaled, plain, rtol=1e-5)


@pytest.mark.parametrize("zeros", ["path", "grads"])
def test_credits_without_a_gradient_or_a_path_are_zero(zeros):
    path = jnp.ones((2, 3)) * (zeros != "path")

    def total(factor):
        grads = factor * jnp.ones((2, 3)) * (zeros != "grads")
        return levels.credits(path, _sampled(path, grads), _SAMPLING).sum()

    assert float(total(1.0)) == 0.0
    assert float(jax.grad(total)(1.0)) == 0.0


def _after(num_steps, sign, now=_now):
    """Levels after steps along a line, with gradients against it (1) or along it (-1)."""
    state = levels.init(_SAMPLING)
    for number in range(1, num_steps + 1):
        line = number * np.array([[1.0, -1.0, 0.0], [1.0, 2.0, 3.0]])
        sampled = _sampled(line, -sign * line / number)
        state = levels.update(state, sampled, now(number), _SAMPLING, 0.05)
    return np.asarray(state.levels)


def test_levels_rise_while_the_gradient_points_along_the_path():
    np.testing.assert_array_equal(_after(3, 1.0), 0.0)
    np.testing.assert_allclose(_after(8, 1.0), 5 * 0.05, rtol=0.1)
    np.testing.assert_allclose(_after(40, 1.0), 0.5)


def test_levels_make_up_for_a_small_multiplier():
    small = functools.partial(_now, multiplier=0.1)
    np.testing.assert_allclose(_after(200, 1.0, small), 0.5 + np.log(10.0), rtol=1e-5)


def test_levels_make_up_for_a_large_multiplier():
    large = functools.partial(_now, multiplier=5.0 / 3.0)
    np.testing.assert_allclose(_after(100, -1.0, large), -np.log(5.0 / 3.0), rtol=1e-5)
    np.testing.assert_array_equal(_after(100, -1.0), 0.0)


def test_levels_do_not_undo_a_decay_of_the_multiplier():
    assert _after(200, 1.0, lambda number: _now(number, 0.98**number)).max() <= 0.53


def test_levels_stay_while_rates_are_backed_off():
    np.testing.assert_array_equal(_after(40, 1.0, functools.partial(_now, backed_off=True)), 0.0)


def _losses(multiplier, noise, learn, seed):
    """Losses of a quadratic of condition number 30 with noisy gradients, 1,000 steps."""
    curvature = jnp.geomspace(0.1, 3.0, 64).reshape(8, 8)
    tx = alphaopt.alphaopt(multiplier, learn=learn, seed=seed)
    loss_fn = lambda params: 0.5 * jnp.sum(curvature * jnp.square(params - 1.0))  # noqa: E731

    def step(carry, key):
        params, state = carry
        value, grads = jax.value_and_grad(loss_fn)(params)
        grads += noise * jax.random.normal(key, grads.shape)
        updates, state = tx.update(grads, state, params, value=value)
        return (optax.apply_updates(params, updates), state), value

    params = 3.0 * jax.random.normal(jax.random.key(seed), (8, 8))
    keys = jax.random.split(jax.random.key(100 + seed), 1000)
    (params, state), _ = jax.lax.scan(step, (params, tx.init(params)), keys)
    return loss_fn(alphaopt.eval_params(state, params))


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_any_multiplier_ends_near_the_loss_of_the_right_one(noise):
    ends = {
        learn: jax.jit(
            lambda multipliers, learn=learn: jax.lax.map(
                lambda multiplier: jnp.mean(
                    jax.lax.map(lambda seed: _losses(multiplier, noise, learn, seed), jnp.arange(3))
                ),
                multipliers,
            )
        )(jnp.array(_MULTIPLIERS))
        for learn in (False, True)
    }
    best = float(ends[False].min())
    assert float(ends[False].max()) > 100.0 * best
    assert float(ends[True].max()) < 1.1 * best + 3e-6

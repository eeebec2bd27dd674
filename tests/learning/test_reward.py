"""The divided credit is the decrease of the loss, exactly where it promises to be."""

from hypothesis import given
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np

from alphaopt_jax._learning import reward

_numbers = st.integers(0, 2**31 - 1)


@given(seed=_numbers)
def test_trapezoid_credit_sums_to_the_decrease_of_a_quadratic(seed):
    keys = jax.random.split(jax.random.key(seed), 4)
    root = jax.random.normal(keys[0], (5, 5))
    linear = jax.random.normal(keys[1], (5,))

    def loss(x):
        return 0.5 * x @ (root @ root.T) @ x + linear @ x

    before, step = jax.random.normal(keys[2], (5,)), jax.random.normal(keys[3], (5,))
    after = before + step

    parts = reward.divided(jax.grad(loss)(before), jax.grad(loss)(after), step)

    rounding = 1e-5 * float(jnp.abs(parts).sum() + jnp.abs(loss(before)) + jnp.abs(loss(after)))
    np.testing.assert_allclose(parts.sum(), loss(before) - loss(after), rtol=0.0, atol=rounding)


def test_trapezoid_error_is_of_third_order_in_the_step():
    def loss(x):
        return jnp.sum(jnp.cos(x))

    x, direction = jnp.array([0.3, 1.1]), jnp.array([1.0, -0.5])

    def error(size):
        after = x + size * direction
        parts = reward.divided(jax.grad(loss)(x), jax.grad(loss)(after), size * direction)
        return abs(float(parts.sum() - (loss(x) - loss(after))))

    # Halving the step divides an error of third order by eight.
    assert 7.0 < error(0.2) / error(0.1) < 11.0


def test_end_point_credit_by_hand():
    # One parameter overshoots (the gradient has turned), the other one does not.
    parts = reward.divided(
        jnp.array([1.0, 1.0]), jnp.array([-2.0, 0.5]), jnp.array([-3.0, -0.1]), 0.0
    )

    np.testing.assert_allclose(parts, [-6.0, 0.05], rtol=1e-6)


def test_shared_credit_is_the_decrease():
    assert reward.shared(jnp.array(3.0), jnp.array(2.5)) == 0.5

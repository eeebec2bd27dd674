"""Averages in half precision: right on average, and never stuck."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alphaopt_jax._optimizer import stochastic_rounding


@pytest.mark.unchecked
def test_rounding_is_up_or_down_and_right_on_average():
    values = jnp.asarray(np.random.default_rng(0).lognormal(0.0, 5.0, 300), jnp.float32)
    values = values * jnp.where(jnp.arange(300) % 2, 1.0, -1.0)

    def rounded(seed):
        return stochastic_rounding.to_dtype(values, jnp.bfloat16, seed).astype(jnp.float32)

    found = jax.vmap(rounded)(jnp.arange(2000, dtype=jnp.uint32))

    ulp = 2.0 ** (np.floor(np.log2(np.abs(values))) - 7)
    assert (np.abs(found - values) < ulp).all()
    # The standard error of the mean of 2,000 such roundings is at most half a unit over its root.
    assert (np.abs(found.mean(axis=0) - values) < 5 * 0.5 * ulp / np.sqrt(2000)).all()


@pytest.mark.unchecked
def test_an_average_that_moves_by_less_than_can_be_told_apart_still_moves():
    def step(carry, seed):
        stochastic, nearest = carry
        new = 0.999 * stochastic.astype(jnp.float32) + 0.001 * 2.0
        stuck = 0.999 * nearest.astype(jnp.float32) + 0.001 * 2.0
        return (
            stochastic_rounding.to_dtype(new, jnp.bfloat16, seed),
            stuck.astype(jnp.bfloat16),
        ), None

    start = jnp.ones(500, jnp.bfloat16) * (1.0 + jnp.arange(500) % 7 / 128.0).astype(jnp.bfloat16)
    (stochastic, nearest), _ = jax.lax.scan(
        step, (start, start), jnp.arange(3000, dtype=jnp.uint32)
    )

    # After three time constants a twentieth of the way is left.
    np.testing.assert_allclose(stochastic.astype(jnp.float32).mean(), 1.95, atol=0.01)
    np.testing.assert_array_equal(nearest, start)


@pytest.mark.parametrize("value", [0.0, jnp.inf, -jnp.inf, 3.4e38])
def test_what_bfloat16_holds_exactly_or_cannot_stays(value):
    values = jnp.full(100, value, jnp.float32)

    found = stochastic_rounding.to_dtype(values, jnp.bfloat16, jnp.uint32(3))

    np.testing.assert_allclose(found.astype(jnp.float32), values, rtol=1e-2)


@pytest.mark.unchecked
def test_not_a_number_stays_one_and_float32_is_left_alone():
    values = jnp.array([jnp.nan, 1.0 / 3.0])

    assert jnp.isnan(stochastic_rounding.to_dtype(values, jnp.bfloat16, jnp.uint32(0))[0])
    np.testing.assert_array_equal(
        stochastic_rounding.to_dtype(values, jnp.float32, jnp.uint32(0)), values
    )


def test_other_types_are_refused():
    with pytest.raises(ValueError, match="float32 or bfloat16, not in float16"):
        stochastic_rounding.to_dtype(jnp.ones(2), jnp.float16, jnp.uint32(0))

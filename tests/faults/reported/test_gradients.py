"""Gradients through updates equal central differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.robustness.situations import gradients, trainings

_LEARNERS = ("learn=True", "from scratch")
# Rates of parameters are stored in float16, and agents have kinks: a central difference is not
# closer. A missing term of the chain rule is a difference of a third and more.
_TOLERANCE = 0.05


def _marked(mode, *marks):
    return pytest.param(mode, marks=marks)


_MODES = ["no horizon", *(_marked(mode, pytest.mark.nightly) for mode in _LEARNERS)]


@pytest.mark.parametrize("passes", [True, False], ids=["value", "no value"])
@pytest.mark.parametrize("mode", _MODES)
def test_gradients_through_one_step_equal_central_differences(mode, passes):
    assert gradients.error(mode, 1, passes=passes) < _TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("passes", [True, False], ids=["value", "no value"])
@pytest.mark.parametrize("mode", _MODES)
def test_gradients_through_three_steps_equal_central_differences(mode, passes):
    assert gradients.error(mode, 3, passes=passes) < _TOLERANCE


@pytest.mark.nightly
def test_gradients_through_twenty_steps_equal_central_differences():
    assert gradients.error("no horizon", 20, passes=False) < _TOLERANCE


@pytest.mark.nightly
@pytest.mark.parametrize("passes", [True, False], ids=["value", "no value"])
@pytest.mark.parametrize("mode", trainings.MODES)
def test_gradients_through_two_rounds_of_learning_are_finite(mode, passes):
    found = jax.jit(jax.grad(gradients.final_cost(mode, 20, passes=passes)))(gradients.START)

    assert all(np.isfinite(leaf).all() for leaf in found.values())
    assert all(np.any(found[name]) for name in ("w", "b"))
    np.testing.assert_array_equal(found["unused"], 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("passes", [True, False], ids=["value", "no value"])
def test_a_leaf_of_zeros_and_one_without_gradient_have_right_gradients(passes):
    function = gradients.final_cost("no horizon", 3, passes=passes)

    found, expected = gradients.derivatives(function, "b", 3e-3)
    assert found == pytest.approx(expected, rel=_TOLERANCE)
    assert gradients.derivatives(function, "unused", 3e-3) == (0.0, 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("mode", _MODES)
def test_the_gradient_of_a_schedules_rate_equals_central_differences(mode):
    assert gradients.error_of_the_schedule(mode) < _TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("mode", _MODES)
def test_forward_mode_equals_reverse_mode(mode):
    assert gradients.error_of_forward_mode(mode) < 1e-3


def test_a_first_step_from_zeros_has_finite_derivatives():
    tx = trainings.make("no horizon")

    def step(grads):
        params = jnp.zeros(3)
        return jnp.sum(tx.update(grads, tx.init(params), params, value=0.0)[0])

    for grads in (jnp.zeros(3), jnp.array([0.0, 1e-20, 1.0])):
        assert np.isfinite(jax.grad(step)(grads)).all()
    # Not at zero in forward mode: float16 cannot hold the rates' derivatives there.
    grads, tangent = jnp.array([0.0, 0.01, 1.0]), jnp.array([0.0, 1.0, 1.0])
    value, forward = jax.jvp(step, (grads,), (tangent,))
    assert np.isfinite([value, forward]).all()
    backward = float(jnp.sum(jax.grad(step)(grads) * tangent))
    # A first step hardly depends on the size of gradients: what is left can be rounding.
    assert float(forward) == pytest.approx(backward, rel=1e-2, abs=1e-6)

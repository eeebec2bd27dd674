"""Landscapes: formulas give the values of the literature, and stated minima are minima."""

import hypothesis
from hypothesis import strategies
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alphaopt_jax.tasks.landscapes import LANDSCAPES

_SOLVABLE = (
    "bowl",
    "ill_conditioned",
    "rotated",
    "booth",
    "rosenbrock",
    "beale",
    "himmelblau",
    "three_hump_camel",
    "saddle",
)
_EVERY = pytest.mark.parametrize("landscape", LANDSCAPES.values(), ids=LANDSCAPES)

# One compilation per landscape instead of one per point below.
_VALUE_AND_GRAD = {
    name: jax.jit(jax.value_and_grad(each.function)) for name, each in LANDSCAPES.items()
}
_HESSIAN = {name: jax.jit(jax.hessian(each.function)) for name, each in LANDSCAPES.items()}


def test_nine_landscapes_are_solvable_by_a_local_optimizer():
    marked = [name for name, each in LANDSCAPES.items() if each.kind in ("unimodal", "few minima")]

    assert tuple(marked) == _SOLVABLE
    assert {"plateau", "styblinski_tang", "rastrigin", "ackley"} <= set(LANDSCAPES)


@pytest.mark.parametrize(
    ("name", "point", "value"),
    [  # By hand, from the formulas.
        ("bowl", (3.0, -4.0), 25.0),
        ("ill_conditioned", (2.0, 0.1), 7.0),
        ("ill_conditioned", (-4.0, 1.0), 508.0),
        ("booth", (0.0, 0.0), 74.0),
        ("rosenbrock", (-1.2, 1.0), 24.2),
        ("rosenbrock", (0.0, 0.0), 1.0),
        ("beale", (1.0, 1.0), 14.203125),
        ("himmelblau", (0.0, 0.0), 170.0),
        ("himmelblau", (1.0, 1.0), 106.0),
        ("three_hump_camel", (1.0, 1.0), 2.0 - 1.05 + 1.0 / 6.0 + 1.0 + 1.0),
        ("three_hump_camel", (-1.7475524, 0.8737762), 0.2986384),  # a local minimum
        ("saddle", (0.0, 0.0), 0.0),
        ("saddle", (2.0, 1.0), 4.0),
        ("plateau", (0.0, 2.0), 1.0 - np.exp(-2.0)),
        ("styblinski_tang", (0.0, 0.0), 0.0),
        ("styblinski_tang", (1.0, -1.0), 0.5 * (-10.0 - 20.0)),
        ("rastrigin", (1.0, 0.0), 1.0),
        ("rastrigin", (0.5, 0.5), 40.5),
        ("ackley", (1.0, 1.0), 20.0 - 20.0 * np.exp(-0.2)),
        ("goldstein_price", (0.0, 0.0), 600.0),
        ("goldstein_price", (1.0, 1.0), 1876.0),
    ],
)
def test_value_at_a_known_point(name, point, value):
    np.testing.assert_allclose(LANDSCAPES[name](jnp.array(point)), value, rtol=2e-5)


def test_rotated_bowl_is_the_ill_conditioned_one_rotated():
    rotated, straight = LANDSCAPES["rotated"], LANDSCAPES["ill_conditioned"]
    eigenvalues = np.linalg.eigvalsh(jax.hessian(rotated.function)(jnp.zeros(2)))

    np.testing.assert_allclose(eigenvalues, [1.0, 1000.0], rtol=1e-3)
    np.testing.assert_allclose(
        rotated(rotated.initial_point()), straight(straight.initial_point()), rtol=1e-5
    )


@_EVERY
def test_minima_are_minima_and_have_the_stated_value(landscape):
    for minimum in landscape.minima:
        value, gradient = _VALUE_AND_GRAD[landscape.name](jnp.array(minimum))

        np.testing.assert_allclose(value, landscape.minimum, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(gradient, 0.0, atol=1e-4)
        if landscape.name != "ackley":  # Its minimum is a cusp.
            assert np.linalg.eigvalsh(_HESSIAN[landscape.name](jnp.array(minimum))).min() > 0.0


@_EVERY
def test_grid_is_above_the_minimum_and_contains_start_and_minima(landscape):
    x, y, values = landscape.grid(101)
    low_x, high_x, low_y, high_y = landscape.bounds

    assert values.shape == (101, 101)
    assert np.isfinite(values).all()
    assert values.min() >= landscape.minimum - 1e-5
    assert (x[0], x[-1], y[0], y[-1]) == pytest.approx(landscape.bounds)
    for point in (landscape.start, *landscape.minima):
        assert low_x < point[0] < high_x
        assert low_y < point[1] < high_y
    i, j = 7, 60  # values[j, i] belongs to (x[i], y[j])
    expected = landscape(jnp.array([x[i], y[j]]))
    np.testing.assert_allclose(values[j, i], expected, rtol=1e-4, atol=1e-6)


@_EVERY
def test_start_is_not_stationary(landscape):
    value, gradient = _VALUE_AND_GRAD[landscape.name](landscape.initial_point())

    assert value > landscape.minimum + 0.1
    assert jnp.linalg.norm(gradient) > 1e-3


@_EVERY
@hypothesis.given(share=strategies.tuples(strategies.floats(0.0, 1.0), strategies.floats(0.0, 1.0)))
def test_value_and_gradient_are_finite_over_the_domain(landscape, share):
    low_x, high_x, low_y, high_y = landscape.bounds
    point = jnp.array(
        [low_x + share[0] * (high_x - low_x), low_y + share[1] * (high_y - low_y)], jnp.float32
    )

    value, gradient = _VALUE_AND_GRAD[landscape.name](point)

    assert value.dtype == gradient.dtype == jnp.float32
    assert jnp.isfinite(value)
    assert jnp.isfinite(gradient).all()
    assert value >= landscape.minimum - 1e-5


def test_ackley_is_differentiable_at_and_around_its_cusp():
    gradient = jax.jit(jax.grad(LANDSCAPES["ackley"].function))

    np.testing.assert_array_equal(gradient(jnp.zeros(2)), 0.0)
    for tiny in (1e-6, 1e-18, 1e-30):  # The square of the last one underflows.
        assert jnp.isfinite(gradient(jnp.array([tiny, -tiny]))).all()


def test_registry_and_landscapes_cannot_be_changed():
    with pytest.raises(TypeError):
        LANDSCAPES["bowl"] = LANDSCAPES["beale"]  # type: ignore[index]
    with pytest.raises(AttributeError):
        LANDSCAPES["bowl"].start = (0.0, 0.0)  # type: ignore[misc]
    assert all(hash(each) == hash(LANDSCAPES[name]) for name, each in LANDSCAPES.items())
    assert all(each.name == name and each.description for name, each in LANDSCAPES.items())

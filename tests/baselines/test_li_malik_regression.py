"""Regressions recover the systems that samples were drawn from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alphaopt_jax.baselines.li_malik import PriorConfig, _linalg, _regression

pytestmark = pytest.mark.slow

_HORIZON, _INPUTS, _OUTPUTS = 12, 5, 2


def _prior(num_samples):
    return PriorConfig(num_clusters=3, num_rounds=5, num_samples=num_samples)


def _linear_system(num_samples, noise, drift=0.0, seed=0):
    """Samples `[N, T, 7]` of a system with coefficients that change by `drift` per step."""
    keys = jax.random.split(jax.random.key(seed), 6)
    coefficients = jax.random.normal(keys[0], (_OUTPUTS, _INPUTS))
    direction = jax.random.normal(keys[1], (_OUTPUTS, _INPUTS))
    coefficients = coefficients + drift * jnp.arange(_HORIZON)[:, None, None] * direction
    constant = jax.random.normal(keys[2], (_OUTPUTS,))
    centers = jnp.linspace(-1.0, 1.0, _HORIZON)[:, None] * jax.random.normal(keys[3], (_INPUTS,))
    inputs = centers + jax.random.normal(keys[4], (num_samples, _HORIZON, _INPUTS))
    outputs = jnp.einsum("toi,nti->nto", coefficients, inputs) + constant
    outputs += noise * jax.random.normal(keys[5], outputs.shape)
    return jnp.concatenate([inputs, outputs], axis=-1), coefficients, constant


def test_many_samples_recover_the_system_with_any_prior():
    samples, coefficients, constant = _linear_system(2000, noise=0.1, drift=0.05)

    fitted = _regression.fit(samples, _INPUTS, _prior(1.0))

    np.testing.assert_allclose(fitted.coefficients, coefficients, atol=0.02)
    np.testing.assert_allclose(
        fitted.constant, jnp.broadcast_to(constant, (_HORIZON, _OUTPUTS)), atol=0.03
    )
    expected = np.broadcast_to(0.01 * np.eye(_OUTPUTS), (_HORIZON, _OUTPUTS, _OUTPUTS))
    np.testing.assert_allclose(fitted.covariance, expected, atol=2e-3)


def test_fit_is_invariant_to_units():
    samples, *_ = _linear_system(20, noise=0.1)
    units = 10.0 ** jnp.array([4.0, -3.0, 0.0, 2.0, -5.0, 3.0, -4.0])

    plain = _regression.fit(samples, _INPUTS, _prior(5.0))
    scaled = _regression.fit(samples * units, _INPUTS, _prior(5.0))

    ratio = units[_INPUTS:, None] / units[:_INPUTS]
    np.testing.assert_allclose(scaled.coefficients / ratio, plain.coefficients, atol=1e-2)


def test_prior_reduces_the_error_with_fewer_samples_than_inputs():
    samples, coefficients, _ = _linear_system(4, noise=0.1)

    def error(prior_samples):
        fitted = _regression.fit(samples, _INPUTS, _prior(prior_samples))
        return float(jnp.sqrt(jnp.mean(jnp.square(fitted.coefficients - coefficients))))

    assert error(10.0) < 0.25
    assert error(10.0) < 0.5 * error(1e-4)


def test_mixture_finds_its_clusters():
    key, center_key = jax.random.split(jax.random.key(2))
    centers = 10.0 * jax.random.normal(center_key, (3, 2))
    noise = jax.random.normal(key, (3, 200, 2)) * jnp.array([1.0, 0.1])
    # The clusters overlap in time, so that the initial clusters are wrong.
    samples = jnp.roll((centers[:, None] + noise).reshape(-1, 2), 60, axis=0)

    mixture = _regression.fit_mixture(samples, 3, 20)

    order = jnp.argsort(mixture.means[:, 0])
    np.testing.assert_allclose(mixture.means[order], centers[jnp.argsort(centers[:, 0])], atol=0.3)
    np.testing.assert_allclose(jnp.exp(mixture.log_weights), 1 / 3, atol=0.02)
    np.testing.assert_allclose(
        mixture.covariances,
        np.broadcast_to(np.diag([1.0, 0.01]), (3, 2, 2)),
        atol=0.25,
    )


def test_densities_match_scipy():
    keys = jax.random.split(jax.random.key(4), 3)
    factor = jax.random.normal(keys[0], (2, 3, 3))
    mixture = _regression.Mixture(
        jnp.log(jnp.array([0.3, 0.7])),
        jax.random.normal(keys[1], (2, 3)),
        factor @ factor.swapaxes(1, 2) + jnp.eye(3),
    )
    samples = jax.random.normal(keys[2], (5, 3))

    densities = _regression.log_densities(mixture, samples)

    for cluster in range(2):
        expected = jax.scipy.stats.multivariate_normal.logpdf(
            samples, mixture.means[cluster], mixture.covariances[cluster]
        )
        # A constant that all clusters share is omitted.
        shift = 1.5 * np.log(2 * np.pi) + mixture.log_weights[cluster]
        np.testing.assert_allclose(densities[:, cluster], expected + shift, rtol=1e-3, atol=1e-3)


def test_constant_inputs_have_no_effect():
    samples, coefficients, _ = _linear_system(500, noise=0.01)
    samples = jnp.concatenate([jnp.full((500, _HORIZON, 1), 3.0), samples], axis=-1)

    fitted = _regression.fit(samples, 1 + _INPUTS, _prior(1.0))

    np.testing.assert_allclose(fitted.coefficients[:, :, 1:], coefficients, atol=0.01)
    # Only the floor of the prior determines its coefficient.
    assert np.max(np.abs(fitted.coefficients[:, :, 0])) < 0.1


def _positive_matrix(size, spread):
    """Eigenvalues between 1 and 10 to the `spread`, in different units per entry."""
    values = 10.0 ** np.linspace(0.0, spread, size)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(size, size)))[0]
    units = 10.0 ** np.linspace(-3.0, 3.0, size)
    return (rotation * values) @ rotation.T * np.outer(units, units), units


@pytest.mark.parametrize("size", [1, 4, 30])
def test_inverse_and_determinant_match_float64(size):
    matrix, units = _positive_matrix(size, spread=2.0)

    inverse, log_determinant = _linalg.inverse(jnp.asarray(matrix, jnp.float32))

    # Errors are measured in the units of the matrix.
    scale = np.outer(units, units)
    np.testing.assert_allclose(inverse * scale, np.linalg.inv(matrix) * scale, atol=1e-4)
    assert float(log_determinant) == pytest.approx(np.linalg.slogdet(matrix)[1], abs=1e-2)


def test_cholesky_factor_reproduces_the_matrix():
    matrix, units = _positive_matrix(12, spread=3.0)

    factor = _linalg.cholesky(jnp.asarray(matrix, jnp.float32))

    assert np.array_equal(factor, np.tril(factor))
    scale = np.outer(units, units)
    np.testing.assert_allclose(factor @ factor.T / scale, matrix / scale, rtol=1e-3, atol=1e-2)


def test_positive_part_matches_the_eigendecomposition():
    matrix = jax.random.normal(jax.random.key(5), (8, 8))
    values, vectors = np.linalg.eigh(0.5 * (matrix + matrix.T))
    expected = (vectors * np.maximum(values, 0.0)) @ vectors.T
    square = matrix @ matrix.T

    np.testing.assert_allclose(_linalg.positive_part(matrix), expected, atol=1e-4)
    np.testing.assert_allclose(_linalg.positive_part(square), square, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(_linalg.positive_part(jnp.zeros((3, 3))), jnp.zeros((3, 3)))


@pytest.mark.parametrize("count", [3, 50])
def test_regression_passes_through_the_mean_of_the_samples(count):
    samples, *_ = _linear_system(count, noise=1.0)

    fitted = _regression.fit(samples, _INPUTS, _prior(5.0))

    mean = np.mean(samples, axis=0)
    at_mean = np.einsum("toi,ti->to", fitted.coefficients, mean[:, :_INPUTS]) + fitted.constant
    np.testing.assert_allclose(at_mean, mean[:, _INPUTS:], atol=1e-4)

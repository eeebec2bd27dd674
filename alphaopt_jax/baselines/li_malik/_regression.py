"""Fitting linear-Gaussian models to few samples, with a mixture of Gaussians as a prior.

At each time step there are fewer samples than a regression needs. All time steps together have
enough of them, and though the system is not linear over all of them, it is piecewise: a mixture of
Gaussians is fitted to the samples of all time steps, and what it says about the samples of one
step is the mean of a normal-inverse-Wishart prior for the Gaussian there, whose conditional
distribution is the regression.

Source: Levine & Abbeel 2014, section 3.2 and appendix A.3. Means and covariances of a prior are
those of the mixture's clusters, weighed by the samples' responsibilities.
"""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from alphaopt_jax.baselines.li_malik import _linalg

# Added to correlation matrices before they are divided by: about what single precision resolves.
_RIDGE = 1e-5
# More samples than these tell the prior nothing new.
_MIXTURE_SAMPLES = 4000
_RESPONSIBILITY_SAMPLES = 32


class Mixture(NamedTuple):
    """A mixture of K Gaussians over vectors of v entries.

    Attributes:
      log_weights: `float32[K]`.
      means: `float32[K, v]`.
      covariances: `float32[K, v, v]`.
    """

    log_weights: chex.Array
    means: chex.Array
    covariances: chex.Array


class Regression(NamedTuple):
    """outputs = coefficients · inputs + constant + noise.

    Attributes:
      coefficients: `float32[o, i]`.
      constant: `float32[o]`.
      covariance: Of the noise, `float32[o, o]`.
    """

    coefficients: chex.Array
    constant: chex.Array
    covariance: chex.Array


def fit_mixture(samples: chex.Array, num_clusters: int, num_rounds: int) -> Mixture:
    """Fits a mixture of Gaussians by expectation maximisation.

    It starts from samples cut in order into equal parts: along a trajectory, from stretches of
    time.

    Args:
      samples: `float32[N, v]`, ordered in time.
      num_clusters: K.
      num_rounds: Of expectation and maximisation.

    Returns:
      The mixture.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> noise = jax.random.normal(jax.random.key(0), (100, 1))
      >>> samples = jnp.concatenate([noise[:50], noise[50:] + 20.0])
      >>> fit_mixture(samples, 2, 5).means.round(-1).ravel().tolist()
      [0.0, 20.0]
    """
    count = samples.shape[0]
    # In units of the samples' deviations, so that one ridge serves all entries.
    centre, scale = jnp.mean(samples, axis=0), _positive(jnp.std(samples, axis=0))
    standard = (samples - centre) / scale
    parts = jnp.arange(count) * num_clusters // count
    responsibilities = jax.nn.one_hot(parts, num_clusters)

    def one_round(responsibilities: chex.Array, _: None) -> tuple[chex.Array, Mixture]:
        mixture = _maximise(standard, responsibilities)
        return jax.nn.softmax(log_densities(mixture, standard)), mixture

    _, mixtures = jax.lax.scan(one_round, responsibilities, None, length=num_rounds)
    mixture = jax.tree.map(lambda leaf: leaf[-1], mixtures)
    return Mixture(
        mixture.log_weights,
        mixture.means * scale + centre,
        mixture.covariances * jnp.outer(scale, scale),
    )


def log_densities(mixture: Mixture, samples: chex.Array) -> chex.Array:
    """Log of weight times density of each cluster at each sample, `float32[N, K]`."""

    def of_cluster(mean: chex.Array, covariance: chex.Array) -> chex.Array:
        deviations = jnp.sqrt(_positive(jnp.diagonal(covariance)))
        correlation = covariance / jnp.outer(deviations, deviations)
        precision, log_determinant = _linalg.inverse(
            correlation + _RIDGE * jnp.eye(deviations.shape[0])
        )
        off = (samples - mean) / deviations
        distances = jnp.sum(off @ precision * off, axis=1)
        return -0.5 * (distances + log_determinant) - jnp.sum(jnp.log(deviations))

    densities = jax.vmap(of_cluster, out_axes=1)(mixture.means, mixture.covariances)
    return densities + mixture.log_weights


def regress(
    samples: chex.Array, num_inputs: int, prior: Mixture, prior_samples: float
) -> Regression:
    """Regresses the last entries of samples on the first.

    Args:
      samples: `float32[N, v]` of one time step.
      num_inputs: How many entries, the first ones, are inputs.
      prior: Mixture over such vectors.
      prior_samples: How many samples the prior counts for.

    Returns:
      The mean of the posterior; the line runs through the mean of the samples.
    """
    count = samples.shape[0]
    mean = jnp.mean(samples, axis=0)
    scatter = (samples - mean).T @ (samples - mean)
    some = samples[:: -(-count // _RESPONSIBILITY_SAMPLES)]
    shares = jnp.mean(jax.nn.softmax(log_densities(prior, some)), axis=0)
    prior_mean = shares @ prior.means
    apart = prior.means - prior_mean
    spread = prior.covariances + apart[:, :, None] * apart[:, None, :]
    prior_covariance = jnp.tensordot(shares, spread, axes=1)
    off = mean - prior_mean
    scatter += prior_samples * prior_covariance
    scatter += count * prior_samples / (count + prior_samples) * jnp.outer(off, off)
    return condition(mean, scatter / (count + prior_samples), num_inputs)


def condition(mean: chex.Array, covariance: chex.Array, num_inputs: int) -> Regression:
    """The conditional distribution of a Gaussian's last entries, given its first.

    Args:
      mean: `float32[v]`.
      covariance: `float32[v, v]`.
      num_inputs: How many entries, the first ones, are given.

    Example:
      >>> import jax.numpy as jnp
      >>> covariance = jnp.array([[1.0, 2.0], [2.0, 5.0]])
      >>> regression = condition(jnp.array([1.0, 3.0]), covariance, 1)
      >>> float(regression.coefficients[0, 0].round(3)), float(regression.constant[0].round(3))
      (2.0, 1.0)
    """
    deviations = jnp.sqrt(_positive(jnp.diagonal(covariance)))
    correlation = covariance / jnp.outer(deviations, deviations)
    inputs, outputs = slice(None, num_inputs), slice(num_inputs, None)
    precision, _ = _linalg.inverse(correlation[inputs, inputs] + _RIDGE * jnp.eye(num_inputs))
    solved = correlation[outputs, inputs] @ precision
    # The covariance of outputs minus predictions, a square form, which rounding leaves positive.
    residual = jnp.concatenate([-solved, jnp.eye(solved.shape[0])], axis=1)
    rest = residual @ correlation @ residual.T
    coefficients = deviations[outputs, None] * solved / deviations[inputs]
    return Regression(
        coefficients,
        mean[outputs] - coefficients @ mean[inputs],
        0.5 * (rest + rest.T) * jnp.outer(deviations[outputs], deviations[outputs]),
    )


def fit(
    samples: chex.Array,
    num_inputs: int,
    *,
    num_clusters: int,
    num_rounds: int,
    prior_samples: float,
) -> Regression:
    """A regression at each time step, with a prior from all of them.

    Args:
      samples: `float32[N, T, v]`, of which the first entries are inputs.
      num_inputs: How many.
      num_clusters: Gaussians in the mixture.
      num_rounds: Of expectation and maximisation.
      prior_samples: How many samples the prior counts for.

    Returns:
      Regressions whose fields have an axis `[T]` before their own.
    """
    in_time = jnp.swapaxes(samples, 0, 1)
    pooled = in_time.reshape(-1, samples.shape[-1])
    some = pooled[:: -(-pooled.shape[0] // _MIXTURE_SAMPLES)]
    prior = fit_mixture(some, num_clusters, num_rounds)
    return jax.vmap(lambda each: regress(each, num_inputs, prior, prior_samples))(in_time)


def _maximise(samples: chex.Array, responsibilities: chex.Array) -> Mixture:
    weights = jnp.sum(responsibilities, axis=0)

    def of_cluster(shares: chex.Array, weight: chex.Array) -> tuple[chex.Array, chex.Array]:
        # A cluster that has lost its samples becomes a standard Gaussian, and may find others.
        weight = weight + 1e-3
        mean = shares @ samples / weight
        centred = samples - mean
        covariance = (shares[:, None] * centred).T @ centred / weight
        return mean, covariance + 1e-3 / weight * jnp.eye(samples.shape[1])

    means, covariances = jax.vmap(of_cluster)(responsibilities.T, weights)
    return Mixture(jnp.log((weights + 1e-3) / jnp.sum(weights + 1e-3)), means, covariances)


def _positive(sizes: chex.Array) -> chex.Array:
    """Replaces the deviation of what does not vary, which could not be divided by."""
    return jnp.where(sizes > 1e-30, sizes, 1.0)

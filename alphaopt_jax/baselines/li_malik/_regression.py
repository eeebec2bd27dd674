"""Linear-Gaussian regressions from few samples, with a mixture of Gaussians as a prior.

One time step has fewer samples than a regression needs, all time steps together have enough. The
system is nonlinear over all time steps but nearly linear in parts, so a mixture of Gaussians is
fitted to the samples of all steps. For each step it gives the mean of a normal-inverse-Wishart
prior for the joint Gaussian of inputs and outputs, whose conditional distribution is the
regression.

Source: Levine & Abbeel 2014, section 3.2 and appendix A.3. Mean and covariance of a prior are those
of the mixture's clusters, weighted by the responsibilities of the step's samples.
"""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from alphaopt_jax.baselines.li_malik import _linalg
from alphaopt_jax.baselines.li_malik._config import PriorConfig

_RIDGE = 1e-5  # Added to correlation matrices before inversion; about float32 resolution.
# More samples do not improve the prior.
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
      covariance: Covariance of the noise, `float32[o, o]`.
    """

    coefficients: chex.Array
    constant: chex.Array
    covariance: chex.Array


def fit_mixture(samples: chex.Array, num_clusters: int, num_rounds: int) -> Mixture:
    """Fits a mixture of Gaussians by expectation maximization.

    The first clusters are equal parts of the samples in their order, so stretches of time.

    Args:
      samples: `float32[N, v]`, ordered in time.
      num_clusters: K.
      num_rounds: Rounds of expectation and maximization.

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
    # Standardized, so that one ridge serves all entries.
    center, scale = jnp.mean(samples, axis=0), _nonzero(jnp.std(samples, axis=0))
    standard = (samples - center) / scale
    parts = jnp.arange(count) * num_clusters // count
    responsibilities = jax.nn.one_hot(parts, num_clusters)

    def one_round(responsibilities: chex.Array, _: None) -> tuple[chex.Array, Mixture]:
        mixture = _maximize(standard, responsibilities)
        return jax.nn.softmax(log_densities(mixture, standard)), mixture

    _, mixtures = jax.lax.scan(one_round, responsibilities, None, length=num_rounds)
    mixture = jax.tree.map(lambda leaf: leaf[-1], mixtures)
    return Mixture(
        mixture.log_weights,
        mixture.means * scale + center,
        mixture.covariances * jnp.outer(scale, scale),
    )


def log_densities(mixture: Mixture, samples: chex.Array) -> chex.Array:
    """Returns the log of weight times density of each cluster at each sample, `float32[N, K]`.

    A constant that all clusters share is omitted.
    """

    def cluster_densities(mean: chex.Array, covariance: chex.Array) -> chex.Array:
        deviations = jnp.sqrt(_nonzero(jnp.diagonal(covariance)))
        correlation = covariance / jnp.outer(deviations, deviations)
        precision, log_determinant = _linalg.inverse(
            correlation + _RIDGE * jnp.eye(deviations.shape[0])
        )
        centered = (samples - mean) / deviations
        distances = jnp.sum(centered @ precision * centered, axis=1)
        return -0.5 * (distances + log_determinant) - jnp.sum(jnp.log(deviations))

    densities = jax.vmap(cluster_densities, out_axes=1)(mixture.means, mixture.covariances)
    return densities + mixture.log_weights


def regress(
    samples: chex.Array, num_inputs: int, prior: Mixture, prior_samples: float
) -> Regression:
    """Regresses the last entries of samples on the first.

    Args:
      samples: `float32[N, v]` of one time step.
      num_inputs: Number of inputs, the first entries.
      prior: Mixture over such vectors.
      prior_samples: Weight of the prior, as a number of samples.

    Returns:
      The posterior mean; the regression passes through the mean of the samples.
    """
    count = samples.shape[0]
    mean = jnp.mean(samples, axis=0)
    scatter = (samples - mean).T @ (samples - mean)
    subset = samples[:: -(-count // _RESPONSIBILITY_SAMPLES)]
    weights = jnp.mean(jax.nn.softmax(log_densities(prior, subset)), axis=0)
    prior_mean = weights @ prior.means
    offsets = prior.means - prior_mean
    spread = prior.covariances + offsets[:, :, None] * offsets[:, None, :]
    prior_covariance = jnp.tensordot(weights, spread, axes=1)
    difference = mean - prior_mean
    scatter += prior_samples * prior_covariance
    scatter += count * prior_samples / (count + prior_samples) * jnp.outer(difference, difference)
    return condition(mean, scatter / (count + prior_samples), num_inputs)


def condition(mean: chex.Array, covariance: chex.Array, num_inputs: int) -> Regression:
    """Returns the conditional distribution of a Gaussian's last entries, given its first.

    Args:
      mean: `float32[v]`.
      covariance: `float32[v, v]`.
      num_inputs: Number of given entries, the first ones.

    Example:
      >>> import jax.numpy as jnp
      >>> covariance = jnp.array([[1.0, 2.0], [2.0, 5.0]])
      >>> regression = condition(jnp.array([1.0, 3.0]), covariance, 1)
      >>> float(regression.coefficients[0, 0].round(3)), float(regression.constant[0].round(3))
      (2.0, 1.0)
    """
    deviations = jnp.sqrt(_nonzero(jnp.diagonal(covariance)))
    correlation = covariance / jnp.outer(deviations, deviations)
    inputs, outputs = slice(None, num_inputs), slice(num_inputs, None)
    precision, _ = _linalg.inverse(correlation[inputs, inputs] + _RIDGE * jnp.eye(num_inputs))
    solved = correlation[outputs, inputs] @ precision
    # Covariance of outputs minus predictions, as a quadratic form: it stays positive semidefinite
    # under rounding.
    residual = jnp.concatenate([-solved, jnp.eye(solved.shape[0])], axis=1)
    rest = residual @ correlation @ residual.T
    coefficients = deviations[outputs, None] * solved / deviations[inputs]
    return Regression(
        coefficients,
        mean[outputs] - coefficients @ mean[inputs],
        0.5 * (rest + rest.T) * jnp.outer(deviations[outputs], deviations[outputs]),
    )


def fit(samples: chex.Array, num_inputs: int, prior: PriorConfig) -> Regression:
    """Fits a regression at each time step, with a prior from all time steps.

    Args:
      samples: `float32[N, T, v]`; the first entries are inputs.
      num_inputs: Number of inputs.
      prior: Hyperparameters of the prior.

    Returns:
      Regressions with a leading axis `[T]`.
    """
    in_time = jnp.swapaxes(samples, 0, 1)
    pooled = in_time.reshape(-1, samples.shape[-1])
    subset = pooled[:: -(-pooled.shape[0] // _MIXTURE_SAMPLES)]
    mixture = fit_mixture(subset, prior.num_clusters, prior.num_rounds)
    return jax.vmap(lambda step: regress(step, num_inputs, mixture, prior.num_samples))(in_time)


def _maximize(samples: chex.Array, responsibilities: chex.Array) -> Mixture:
    weights = jnp.sum(responsibilities, axis=0)

    def maximize_cluster(shares: chex.Array, weight: chex.Array) -> tuple[chex.Array, chex.Array]:
        # A cluster without samples becomes a standard Gaussian, and can gain samples again.
        weight = weight + 1e-3
        mean = shares @ samples / weight
        centered = samples - mean
        covariance = (shares[:, None] * centered).T @ centered / weight
        return mean, covariance + 1e-3 / weight * jnp.eye(samples.shape[1])

    means, covariances = jax.vmap(maximize_cluster)(responsibilities.T, weights)
    return Mixture(jnp.log((weights + 1e-3) / jnp.sum(weights + 1e-3)), means, covariances)


def _nonzero(sizes: chex.Array) -> chex.Array:
    """Replaces zeros by ones, to divide by."""
    return jnp.where(sizes > 1e-30, sizes, 1.0)

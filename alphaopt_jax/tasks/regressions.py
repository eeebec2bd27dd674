"""Families of models without a hidden layer, and matrix factorisation."""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from alphaopt_jax.tasks import bundled, networks, supervised, synthetic
from alphaopt_jax.tasks.supervised import log_uniform, supervised_family
from alphaopt_jax.tasks.task import Family, Task


def linear_regression(name: str, features: int, *, batch_size: int) -> Family:
    """Returns least squares on inputs whose covariance has a condition number up to 10,000."""
    source = synthetic.linear_function(features, highest_outlier_share=0.0)
    return supervised_family(
        name, networks.MLP((), 1), source, supervised.squared_error, batch_size=batch_size
    )


def robust_regression(name: str, features: int, *, batch_size: int) -> Family:
    """Returns linear regression with up to a fifth of outliers and a loss that is bounded by 1."""
    source = synthetic.linear_function(features, highest_outlier_share=0.2)
    return supervised_family(
        name, networks.MLP((), 1), source, supervised.robust_error, batch_size=batch_size
    )


def tumour_regression(name: str, *, batch_size: int) -> Family:
    """Returns logistic regression on the breast-cancer data."""
    return supervised_family(
        name,
        networks.MLP((), 1),
        bundled.breast_cancer(),
        supervised.binary_cross_entropy,
        batch_size=batch_size,
    )


def mixture_regression(name: str, features: int, classes: int, *, batch_size: int) -> Family:
    """Returns softmax regression on Gaussian mixtures."""
    return supervised_family(
        name,
        networks.MLP((), classes),
        synthetic.gaussian_mixture(features, classes),
        supervised.cross_entropy,
        batch_size=batch_size,
    )


class Factorisation(NamedTuple):
    """What the factorisations of a family differ in.

    Attributes:
      matrix: Of the stated rank, with entries around 1, `float32[rows, columns]`.
      noise: Standard deviation of an observed entry about the matrix's, `float32[]`.
      initial_scale: Typical size of an entry of the initial factors, `float32[]`.
    """

    matrix: chex.Array
    noise: chex.Array
    initial_scale: chex.Array


class Factors(NamedTuple):
    """Parameters of a factorisation: `float32[rows, rank]` and `float32[columns, rank]`."""

    left: chex.Array
    right: chex.Array


class Entries(NamedTuple):
    """Observed entries of a matrix: `int32[B]`, `int32[B]` and `float32[B]`."""

    rows: chex.Array
    columns: chex.Array
    values: chex.Array


def matrix_factorisation(
    name: str, rows: int, columns: int, rank: int, *, batch_size: int
) -> Family:
    """Returns the completion of random low-rank matrices from noisy entries, a few a batch.

    The evaluation loss is the mean squared error of all entries, plus the variance of the noise.

    Args:
      name: The family's name.
      rows: Of the matrix.
      columns: Of the matrix.
      rank: Of the matrix and of its factors.
      batch_size: Entries in a batch, drawn with replacement.
    """

    def sample(key: chex.PRNGKey) -> Factorisation:
        keys = jax.random.split(key, 4)
        left = jax.random.normal(keys[0], (rows, rank))
        right = jax.random.normal(keys[1], (columns, rank))
        return Factorisation(
            matrix=left @ right.T / np.sqrt(rank),
            noise=log_uniform(keys[2], 0.03, 0.3),
            initial_scale=log_uniform(keys[3], 0.1, 1.0),
        )

    def task(instance: Factorisation) -> Task:
        def init(key: chex.PRNGKey) -> Factors:
            left_key, right_key = jax.random.split(key)
            return Factors(
                left=instance.initial_scale * jax.random.normal(left_key, (rows, rank)),
                right=instance.initial_scale * jax.random.normal(right_key, (columns, rank)),
            )

        def batch(key: chex.PRNGKey) -> Entries:
            row_key, column_key, noise_key = jax.random.split(key, 3)
            row = jax.random.randint(row_key, (batch_size,), 0, rows)
            column = jax.random.randint(column_key, (batch_size,), 0, columns)
            noise = instance.noise * jax.random.normal(noise_key, (batch_size,))
            return Entries(row, column, instance.matrix[row, column] + noise)

        def loss(params: Factors, batch: Entries) -> chex.Array:
            predicted = jnp.sum(params.left[batch.rows] * params.right[batch.columns], axis=-1)
            return supervised.squared_error(predicted, batch.values)

        def evaluation_loss(params: Factors) -> chex.Array:
            product = params.left @ params.right.T
            return supervised.squared_error(product, instance.matrix) + instance.noise**2

        return Task(name, init, batch, loss, evaluation_loss)

    return Family(name, sample, task)

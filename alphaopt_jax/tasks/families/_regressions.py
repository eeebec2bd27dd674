"""Families of linear models."""

from __future__ import annotations

from alphaopt_jax.tasks import networks
from alphaopt_jax.tasks.families import supervised, synthetic
from alphaopt_jax.tasks.families.supervised import supervised_family
from alphaopt_jax.tasks.task import Family


def linear_regression(name: str, features: int, *, batch_size: int) -> Family:
    """Returns linear regressions on inputs with a covariance of condition up to 10,000."""
    source = synthetic.linear_function(features, max_outlier_share=0.0)
    return supervised_family(
        name, networks.MLP((), 1), source, supervised.squared_error, batch_size=batch_size
    )


def robust_regression(name: str, features: int, *, batch_size: int) -> Family:
    """Returns linear regressions with up to 20 % outliers and a loss that is bounded by 1."""
    source = synthetic.linear_function(features, max_outlier_share=0.2)
    return supervised_family(
        name, networks.MLP((), 1), source, supervised.robust_error, batch_size=batch_size
    )


def logistic_regression(name: str, features: int, *, batch_size: int) -> Family:
    """Returns logistic regressions on Gaussian mixtures of two classes."""
    return supervised_family(
        name,
        networks.MLP((), 1),
        synthetic.gaussian_mixture(features, classes=2),
        supervised.binary_cross_entropy,
        batch_size=batch_size,
    )


def mixture_regression(name: str, features: int, classes: int, *, batch_size: int) -> Family:
    """Returns softmax regressions on Gaussian mixtures."""
    return supervised_family(
        name,
        networks.MLP((), classes),
        synthetic.gaussian_mixture(features, classes),
        supervised.cross_entropy,
        batch_size=batch_size,
    )


def table_factorization(
    name: str, rows: int, columns: int, rank: int, *, batch_size: int
) -> Family:
    """Returns factorizations of tables into two narrow matrices, from random entries."""
    return supervised_family(
        name,
        networks.Factorization(rows, columns, rank),
        synthetic.low_rank_table(rows, columns, rank),
        supervised.squared_error,
        batch_size=batch_size,
    )

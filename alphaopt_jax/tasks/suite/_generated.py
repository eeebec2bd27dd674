"""Tasks of the test suite with synthetic data."""

from __future__ import annotations

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from alphaopt_jax.tasks.suite import _data, _networks
from alphaopt_jax.tasks.task import Family, Task


class Regression(NamedTuple):
    """A linear regression on inputs `mixing @ z` with standard normal z.

    The covariance of the inputs has a condition number of 10⁴.

    Attributes:
      mixing: `float32[D, D]`.
      weights: True weights, `float32[D]`; all eigendirections contribute equally to the initial
        loss, which is about 1.
    """

    mixing: chex.Array
    weights: chex.Array


def sample_regression(key: chex.PRNGKey, dimension: int = 100) -> Regression:
    """Returns a regression with 100 weights in a random basis. Consumes `key`."""
    basis_key, weights_key = jax.random.split(key)
    basis = jnp.linalg.qr(jax.random.normal(basis_key, (dimension, dimension)))[0]
    spread = jnp.logspace(0.0, -2.0, dimension)  # Standard deviations: variances span 10⁴.
    share = jax.random.normal(weights_key, (dimension,)) / jnp.sqrt(1.0 * dimension)
    return Regression(basis * spread, basis @ (share / spread))


def regression_examples(
    instance: Regression, key: chex.PRNGKey, count: int
) -> tuple[chex.Array, chex.Array]:
    """Returns inputs `float32[count, D]` and noisy targets `float32[count]`. Consumes `key`."""
    input_key, noise_key = jax.random.split(key)
    inputs = jax.random.normal(input_key, (count, instance.weights.size)) @ instance.mixing.T
    noise = 0.03 * jax.random.normal(noise_key, (count,))
    return inputs, inputs @ instance.weights + noise


def cluster_examples(
    means: chex.Array, key: chex.PRNGKey, count: int
) -> tuple[chex.Array, chex.Array]:
    """Returns points around `means`, `float32[C, D]`, and their classes from 0 to 7.

    Cluster k has the class k % 8, so that the classes are not linearly separable. Consumes `key`.
    """
    cluster_key, noise_key = jax.random.split(key)
    clusters = jax.random.randint(cluster_key, (count,), 0, means.shape[0])
    noise = jax.random.normal(noise_key, (count, means.shape[1]))
    return means[clusters] + 0.6 * noise, clusters % 8


_TEACHER = _networks.MLP((32, 1), activation=jnp.tanh)


def sample_teacher(key: chex.PRNGKey) -> Any:
    """Returns parameters of a tanh network with doubled weights. Consumes `key`."""
    params = _TEACHER.init(key, jnp.zeros((1, 10)))["params"]
    return jax.tree.map(lambda leaf: 2.0 * leaf, params)


def teacher_examples(teacher: Any, key: chex.PRNGKey, count: int) -> tuple[Any, Any]:
    """Returns normal inputs `float32[count, 10]` and the teacher's outputs. Consumes `key`."""
    inputs = jax.random.normal(key, (count, 10))
    return inputs, _TEACHER.apply({"params": teacher}, inputs)


def sample_table(key: chex.PRNGKey) -> _data.Split:
    """Returns entries of a noisy 40x30 matrix of rank 4, 60 % of them for training.

    Consumes `key`.
    """
    left_key, right_key, noise_key, order_key = jax.random.split(key, 4)
    table = jax.random.normal(left_key, (40, 4)) @ jax.random.normal(right_key, (30, 4)).T / 2.0
    table += 0.02 * jax.random.normal(noise_key, table.shape)
    rows, columns = jnp.meshgrid(jnp.arange(40), jnp.arange(30), indexing="ij")
    positions = jnp.stack([rows, columns], axis=-1).reshape(-1, 2)
    order = jax.random.permutation(order_key, 1200)
    train, test = order[:720], order[720:]
    values = table.reshape(-1)
    return _data.Split(positions[train], values[train], positions[test], values[test])


def poisson() -> Family:
    """Returns Poisson's equation -u'' = f on [0, 1] with u(0) = u(1) = 0, as physics-informed loss.

    The training loss is the mean squared residual at random points; the evaluation loss is the
    mean squared error of u.
    """
    network = _networks.MLP((32, 32, 1), activation=jnp.tanh)
    name = "physics_informed"

    def solution(waves: chex.Array, x: chex.Array) -> chex.Array:
        """`u(x) = Σ_k waves_k sin(kπx)`, for scalar `x`."""
        return jnp.sum(waves * jnp.sin(jnp.pi * jnp.arange(1, waves.size + 1) * x))

    def second_derivative(function: Callable[[chex.Array], chex.Array], x: chex.Array) -> Any:
        def slope(x: chex.Array) -> chex.Array:
            return jax.jvp(function, (x,), (jnp.ones_like(x),))[1]

        return jax.jvp(slope, (x,), (jnp.ones_like(x),))[1]

    def task(waves: chex.Array) -> Task:
        def model(params: Any, x: chex.Array) -> chex.Array:
            output: Any = network.apply({"params": params}, 2.0 * x[None] - 1.0)
            return x * (1.0 - x) * output[0]

        def source(x: chex.Array) -> chex.Array:
            return second_derivative(functools.partial(solution, waves), x)

        def loss(params: Any, points: chex.Array) -> chex.Array:
            def residual(x: chex.Array) -> chex.Array:
                return second_derivative(functools.partial(model, params), x) - source(x)

            return jnp.mean(jnp.square(jax.vmap(residual)(points)))

        def evaluation_loss(params: Any) -> chex.Array:
            def error(x: chex.Array) -> chex.Array:
                return model(params, x) - solution(waves, x)

            return jnp.mean(jnp.square(jax.vmap(error)(jnp.linspace(0.0, 1.0, 256))))

        return Task(
            name=name,
            init=lambda key: network.init(key, jnp.zeros((1,)))["params"],
            batch=lambda key: jax.random.uniform(key, (32,)),
            loss=loss,
            evaluation_loss=evaluation_loss,
        )

    def sample(key: chex.PRNGKey) -> chex.Array:
        return jax.random.normal(key, (4,)) / jnp.arange(1, 5) ** 2

    return Family(name, sample=sample, task=task)

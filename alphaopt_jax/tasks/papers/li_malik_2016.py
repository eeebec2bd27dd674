"""Tasks of Li & Malik 2016: three families of small objectives.

Source: *Learning to Optimize*, section 4. There are no batches: every step uses all of the data.
The docstring of each family states the choices that the paper leaves open.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp
import optax

from alphaopt_jax.tasks.families.supervised import cross_entropy
from alphaopt_jax.tasks.task import Family, Task

_WEIGHT_DECAY = 5e-4
_DIMENSION = 3  # Dimension of the inputs of both regressions.
_POINTS = 100


class Points(NamedTuple):
    """The data of one objective.

    Attributes:
      inputs: `float32[100, d]`.
      targets: Labels `int32[100]`, or values `float32[100]`.
    """

    inputs: chex.Array
    targets: chex.Array


def logistic_regression() -> Family:
    """Returns logistic regressions of two labeled Gaussians in three dimensions.

    Means are standard normal, covariances are A Aᵀ with standard normal entries of A. The weights
    w, `float32[3]`, and the bias are one parameter, `float32[4]`, with a standard normal
    initialization; the bias has no weight decay.

    Example:
      >>> import jax
      >>> task = logistic_regression().draw(jax.random.key(0))
      >>> task.init(jax.random.key(1)).shape
      (4,)
    """

    def sample(key: chex.PRNGKey) -> Points:
        inputs = _gaussians(key, groups=2, dimension=_DIMENSION, random_covariance=True)
        return Points(inputs, jnp.repeat(jnp.arange(2), _POINTS // 2))

    def loss(params: chex.Array, data: Points) -> chex.Array:
        odds = data.inputs @ params[:-1] + params[-1]
        fit = optax.sigmoid_binary_cross_entropy(odds, data.targets.astype(jnp.float32)).mean()
        return fit + 0.5 * _WEIGHT_DECAY * jnp.sum(params[:-1] ** 2)

    return _family("logistic_regression_2016", sample, loss, _DIMENSION + 1)


def robust_regression() -> Family:
    """Returns linear regressions with outliers and the Geman-McClure loss, r² / (1 + r²).

    The inputs are four Gaussians of 25 points each, with standard normal means and identity
    covariance. The targets of each Gaussian are a linear function with standard normal weights and
    bias, plus noise with standard deviation 0.1. The weights and the bias are one parameter,
    `float32[4]`.

    Example:
      >>> import jax
      >>> task = robust_regression().draw(jax.random.key(0))
      >>> bool(task.evaluation_loss(task.init(jax.random.key(1))) < 1.0)
      True
    """

    def sample(key: chex.PRNGKey) -> Points:
        inputs_key, projection_key, bias_key, noise_key = jax.random.split(key, 4)
        inputs = _gaussians(inputs_key, groups=4, dimension=_DIMENSION, random_covariance=False)
        each = _POINTS // 4
        projections = jnp.repeat(jax.random.normal(projection_key, (4, _DIMENSION)), each, axis=0)
        biases = jnp.repeat(jax.random.normal(bias_key, (4,)), each)
        noise = 0.1 * jax.random.normal(noise_key, (_POINTS,))
        return Points(inputs, jnp.sum(inputs * projections, axis=-1) + biases + noise)

    def loss(params: chex.Array, data: Points) -> chex.Array:
        squares = (data.inputs @ params[:-1] + params[-1] - data.targets) ** 2
        return jnp.mean(squares / (1.0 + squares))

    return _family("robust_regression_2016", sample, loss, _DIMENSION + 1)


def tiny_net() -> Family:
    """Returns classifiers with two inputs, two ReLU units and two classes, in 12 parameters.

    The inputs are four Gaussians of 25 points each; their means have a standard deviation of 2, so
    that they are separable, and their covariances are as in `logistic_regression`. Each has a
    random label, not all the same. Both matrices have weight decay. The parameters are one array
    with a standard normal initialization.

    Example:
      >>> import jax
      >>> task = tiny_net().draw(jax.random.key(0))
      >>> task.init(jax.random.key(1)).shape
      (12,)
    """

    def sample(key: chex.PRNGKey) -> Points:
        inputs_key, label_key = jax.random.split(key)
        inputs = _gaussians(inputs_key, groups=4, dimension=2, random_covariance=True, spread=2.0)
        # Of the 16 labelings of four groups, all but the first and the last have both labels.
        labeling = jax.random.randint(label_key, (), 1, 15)
        labels = (labeling >> jnp.arange(4)) & 1
        return Points(inputs, jnp.repeat(labels, _POINTS // 4))

    def loss(params: chex.Array, data: Points) -> chex.Array:
        first, bias, second, last_bias = (
            params[:4].reshape(2, 2),
            params[4:6],
            params[6:10].reshape(2, 2),
            params[10:],
        )
        logits = nn.relu(data.inputs @ first + bias) @ second + last_bias
        decay = 0.5 * _WEIGHT_DECAY * (jnp.sum(first**2) + jnp.sum(second**2))
        return cross_entropy(logits, data.targets) + decay

    return _family("tiny_net_2016", sample, loss, 12)


def _family(
    name: str,
    sample: Callable[[chex.PRNGKey], Points],
    loss: Callable[[chex.Array, Points], chex.Array],
    num_params: int,
) -> Family:
    def task(instance: Points) -> Task:
        def full_loss(params: chex.Array, batch: None = None) -> chex.Array:
            del batch
            return loss(params, instance)

        return Task(
            name=name,
            init=lambda key: jax.random.normal(key, (num_params,)),
            batch=lambda key: None,
            loss=full_loss,
            evaluation_loss=full_loss,
        )

    return Family(name, sample, task)


def _gaussians(
    key: chex.PRNGKey,
    *,
    groups: int,
    dimension: int,
    random_covariance: bool,
    spread: float = 1.0,
) -> chex.Array:
    """Draws points of several Gaussians, sorted by group, `float32[100, dimension]`."""
    mean_key, factor_key, point_key = jax.random.split(key, 3)
    means = spread * jax.random.normal(mean_key, (groups, 1, dimension))
    points = jax.random.normal(point_key, (groups, _POINTS // groups, dimension))
    if random_covariance:
        points = points @ jax.random.normal(factor_key, (groups, dimension, dimension))
    return (means + points).reshape(_POINTS, dimension)

"""What Li & Malik 2016 optimize: three families of small objectives.

Source: *Learning to Optimize*, section 4. There are no batches: every step sees all of the data.
What the paper leaves open is said at each family.
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
_DIMENSION = 3  # Of the data of both regressions.
_POINTS = 100


class Points(NamedTuple):
    """The data of one objective.

    Attributes:
      inputs: `float32[100, d]`.
      targets: `int32[100]` labels, or `float32[100]` values.
    """

    inputs: chex.Array
    targets: chex.Array


def logistic_regression() -> Family:
    """Returns logistic regressions of two Gaussians in three dimensions, a label each.

    Means are drawn from a standard Gaussian, covariances as A Aᵀ with the entries of A from a
    standard Gaussian. The parameters are w, `float32[3]`, and the bias, as one `float32[4]`; the
    bias is not decayed. They start from a standard Gaussian.

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
    """Returns linear regressions with the Geman-McClure loss, r² / (1 + r²), and outlying groups.

    Four Gaussians of 25 points each, means from a standard Gaussian, identity covariance; within
    each, targets are a projection and a bias of its own, both from a standard Gaussian, with noise
    of deviation 0.1. The parameters are w and the bias, as one `float32[4]`.

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
    """Returns classifiers of two inputs, two ReLU units and two classes: 12 parameters, one array.

    Four Gaussians of 25 points each, means from a Gaussian of deviation 2 (so that they can be told
    apart), covariances as in `logistic_regression`; each has a random label, not all equal. Both
    matrices are decayed. Parameters start from a standard Gaussian.

    Example:
      >>> import jax
      >>> task = tiny_net().draw(jax.random.key(0))
      >>> task.init(jax.random.key(1)).shape
      (12,)
    """

    def sample(key: chex.PRNGKey) -> Points:
        inputs_key, label_key = jax.random.split(key)
        inputs = _gaussians(inputs_key, groups=4, dimension=2, random_covariance=True, spread=2.0)
        # Of the sixteen ways to label four groups, all but the first and the last have both labels.
        which = jax.random.randint(label_key, (), 1, 15)
        labels = (which >> jnp.arange(4)) & 1
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
        def of_all(params: chex.Array, batch: None = None) -> chex.Array:
            del batch
            return loss(params, instance)

        return Task(
            name=name,
            init=lambda key: jax.random.normal(key, (num_params,)),
            batch=lambda key: None,
            loss=of_all,
            evaluation_loss=of_all,
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
    """Points of several Gaussians, group after group, `float32[100, dimension]`."""
    mean_key, factor_key, point_key = jax.random.split(key, 3)
    means = spread * jax.random.normal(mean_key, (groups, 1, dimension))
    points = jax.random.normal(point_key, (groups, _POINTS // groups, dimension))
    if random_covariance:
        points = points @ jax.random.normal(factor_key, (groups, dimension, dimension))
    return (means + points).reshape(_POINTS, dimension)

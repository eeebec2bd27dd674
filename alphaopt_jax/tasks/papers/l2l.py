"""Tasks of Andrychowicz et al. 2016: quadratics and small MNIST classifiers.

Source: *Learning to learn by gradient descent by gradient descent*, sections 3.1 and 3.2. The
docstring of each family states the choices that the paper leaves open.
"""

from __future__ import annotations

from collections.abc import Sequence
import functools
from typing import NamedTuple

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from alphaopt_jax.tasks import datasets, networks
from alphaopt_jax.tasks.families.supervised import Batch, cross_entropy
from alphaopt_jax.tasks.task import Family, Task

# The paper does not specify the initialization; this is that of its authors' later code.
_INITIAL_DEVIATION = 0.01


class LeastSquares(NamedTuple):
    """A quadratic |W x - y|² / d.

    Attributes:
      matrix: W, `float32[d, d]`.
      target: y, `float32[d]`.
    """

    matrix: chex.Array
    target: chex.Array


def quadratics(dimension: int = 10) -> Family:
    """Returns quadratics |W x - y|² / d with standard normal W and y, and x initialized near 0.

    The paper's formula does not divide by d, but its curves begin at about 1, as these do.

    Args:
      dimension: d.

    Example:
      >>> import jax
      >>> task = quadratics().draw(jax.random.key(0))
      >>> task.init(jax.random.key(1)).shape
      (10,)
    """

    def sample(key: chex.PRNGKey) -> LeastSquares:
        matrix_key, target_key = jax.random.split(key)
        return LeastSquares(
            jax.random.normal(matrix_key, (dimension, dimension)),
            jax.random.normal(target_key, (dimension,)),
        )

    def task(instance: LeastSquares) -> Task:
        def loss(params: chex.Array, batch: None = None) -> chex.Array:
            del batch
            return jnp.mean(jnp.square(instance.matrix @ params - instance.target))

        return Task(
            name="l2l_quadratics",
            init=lambda key: _INITIAL_DEVIATION * jax.random.normal(key, (dimension,)),
            batch=lambda key: None,
            loss=loss,
            evaluation_loss=loss,
        )

    return Family("l2l_quadratics", sample, task)


class Images(NamedTuple):
    """A set of images in memory.

    Attributes:
      images: `uint8[N, P]`.
      labels: `int32[N]`.
    """

    images: chex.Array
    labels: chex.Array


def mnist_mlp(
    hidden: Sequence[int] = (20,),
    activation: networks.Activation = nn.sigmoid,
    *,
    batch_size: int = 128,
    name: str = "l2l_mnist",
) -> Family:
    """Returns MNIST classifiers of one architecture, which differ in their initialization.

    Every parameter is initialized from a normal distribution with standard deviation 0.01. Pixels
    are scaled to [0, 1]. The evaluation loss is the training loss on a subset of the images.

    Args:
      hidden: Widths of the hidden layers.
      activation: Activation of the hidden layers.
      batch_size: Images per batch.
      name: Name of the family.

    Example:
      >>> task = mnist_mlp().draw(jax.random.key(0))
      >>> sum(leaf.size for leaf in jax.tree.leaves(task.init(jax.random.key(1))))
      15910
    """
    classifier = networks.MLP(tuple(hidden), 10, activation)

    def task(instance: Images) -> Task:
        def loss(params: chex.ArrayTree, batch: Batch) -> chex.Array:
            return cross_entropy(classifier.apply({"params": params}, batch.inputs), batch.targets)

        def batch(key: chex.PRNGKey) -> Batch:
            chosen = jax.random.randint(key, (batch_size,), 0, instance.labels.shape[0])
            return _as_batch(instance, chosen)

        def init(key: chex.PRNGKey) -> chex.ArrayTree:
            example = jnp.zeros((1, instance.images.shape[-1]))
            shapes = jax.eval_shape(classifier.init, key, example)["params"]
            return jax.tree.map(
                lambda leaf: _INITIAL_DEVIATION * leaf, optax.tree.random_like(key, shapes)
            )

        subset = np.arange(0, instance.labels.shape[0], max(instance.labels.shape[0] // 2048, 1))
        return Task(
            name=name,
            init=init,
            batch=batch,
            loss=loss,
            evaluation_loss=lambda params: loss(params, _as_batch(instance, subset)),
        )

    return Family(name, lambda key: _mnist(), task)


def _as_batch(data: Images, chosen: chex.Array) -> Batch:
    images = jnp.asarray(data.images)[chosen]
    return Batch(images.astype(jnp.float32) / 255.0, jnp.asarray(data.labels)[chosen])


@functools.cache
def _mnist() -> Images:
    data = datasets.load_mnist()
    images = data.train_images.reshape(len(data.train_images), -1)
    return Images(images, data.train_labels)

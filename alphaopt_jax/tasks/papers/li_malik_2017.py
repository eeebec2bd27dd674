"""Tasks of Li & Malik 2017: networks with one hidden layer on randomly projected images.

Source: *Learning to Optimize Neural Nets*, section 4. The docstring of the family states the
choices that the paper leaves open.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from alphaopt_jax.tasks import datasets, networks
from alphaopt_jax.tasks.families.supervised import Batch, cross_entropy
from alphaopt_jax.tasks.suite import _data
from alphaopt_jax.tasks.task import Family, Task

_OBJECTIVE_ROWS = 2048
_PROJECTION_SEED = 0


class Rows(NamedTuple):
    """A data set in memory.

    Attributes:
      inputs: `float32[N, D]`, each column with zero mean and unit variance.
      targets: `int32[N]`.
      objective_inputs: Evenly spaced rows of `inputs` for the evaluation loss, `float32[M, D]`.
      objective_targets: `int32[M]`.
    """

    inputs: chex.Array
    targets: chex.Array
    objective_inputs: chex.Array
    objective_targets: chex.Array


def projected_net(
    data: str = "mnist", *, inputs: int = 48, hidden: int = 48, batch_size: int = 64
) -> Family:
    """Returns classifiers with one hidden ReLU layer, which differ in their initialization.

    Images are flattened and projected by a fixed Gaussian matrix, and the projections are
    standardized. Kernels have Flax's default initialization (LeCun normal), biases are 0. The
    evaluation loss is the training loss on 2,048 rows.

    Args:
      data: "mnist", "digits" (scikit-learn's), "omniglot" (one alphabet of 20 characters), or the
        name of a TFDS image classification data set, such as "cifar10".
      inputs: Dimension of the projections.
      hidden: Number of hidden units.
      batch_size: Rows per batch.

    Example:
      >>> task = projected_net("digits").draw(jax.random.key(0))
      >>> sum(leaf.size for leaf in jax.tree.leaves(task.init(jax.random.key(1))))
      2842
    """
    name = f"{data}_{inputs}_{hidden}_batch_{batch_size}"

    def task(instance: Rows) -> Task:
        classes = _num_classes(data)
        network = networks.MLP((hidden,), classes)

        def loss(params: chex.ArrayTree, batch: Batch) -> chex.Array:
            return cross_entropy(network.apply({"params": params}, batch.inputs), batch.targets)

        def batch(key: chex.PRNGKey) -> Batch:
            chosen = jax.random.randint(key, (batch_size,), 0, instance.targets.shape[0])
            return Batch(instance.inputs[chosen], instance.targets[chosen])

        objective = Batch(instance.objective_inputs, instance.objective_targets)
        return Task(
            name=name,
            init=lambda key: network.init(key, jnp.zeros((1, inputs)))["params"],
            batch=batch,
            loss=loss,
            evaluation_loss=lambda params: loss(params, objective),
        )

    return Family(name, lambda key: _as_arrays(_project(data, inputs)), task)


def _as_arrays(rows: Rows) -> Rows:
    return Rows(*(jnp.asarray(each) for each in rows))


@functools.cache
def _project(data: str, dimension: int) -> Rows:
    images, labels = _images(data)
    flat = images.reshape(len(images), -1).astype(np.float32)
    flat /= max(float(flat.max()), 1.0)
    matrix = np.random.default_rng(_PROJECTION_SEED).normal(size=(flat.shape[1], dimension))
    projected = flat @ matrix.astype(np.float32)
    projected = (projected - projected.mean(axis=0)) / (projected.std(axis=0) + 1e-8)
    subset = np.linspace(0, len(labels) - 1, min(_OBJECTIVE_ROWS, len(labels))).astype(int)
    return Rows(projected, labels, projected[subset], labels[subset])


def _num_classes(data: str) -> int:
    return int(_images(data)[1].max()) + 1


def _images(data: str) -> tuple[np.ndarray, np.ndarray]:
    known = {
        "mnist": _data.mnist,
        "digits": _data.digits,
        "omniglot": _data.omniglot,
    }
    if data in known:
        split = known[data]()
        return split.train_inputs, split.train_targets
    return datasets.load_images(data)

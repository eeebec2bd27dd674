"""Families of supervised tasks: a network, a source of data and a loss.

A `Source` is a distribution of data sets of one shape. A data set is a pytree of arrays (cluster
centers, weights of a teacher, rows of a table), so that tasks with different data run under one
`jax.vmap`.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from alphaopt_jax.tasks.task import Family, Task

HELD_OUT_EXAMPLES = 256
"""Number of evaluation examples of a synthetic data set."""
_WEIGHT_SCALES = (np.exp(-1.6), np.exp(0.7))

Loss = Callable[[chex.Array, chex.Array], chex.Array]
"""Maps outputs and targets to the mean loss, `float32[]`."""


class Batch(NamedTuple):
    """A batch of B examples.

    Attributes:
      inputs: `float32[B, ...]`, or symbols `int32[B, T]`.
      targets: Classes `int32[B]` or `int32[B, T]`, or values `float32[B, ...]`.
    """

    inputs: chex.Array
    targets: chex.Array


@dataclasses.dataclass(frozen=True)
class Source:
    """A distribution of data sets of one shape. All functions are pure and may be traced.

    Attributes:
      example: Shape and dtype of the inputs of one example.
      sample: Maps a key to a data set, a pytree of arrays.
      draw: Maps a data set, a key and a batch size to a training batch.
      held_out: Maps a data set to its fixed evaluation examples.
    """

    example: jax.ShapeDtypeStruct
    sample: Callable[[chex.PRNGKey], Any]
    draw: Callable[[Any, chex.PRNGKey, int], Batch]
    held_out: Callable[[Any], Batch]


class SupervisedInstance(NamedTuple):
    """Instance of a supervised family.

    Attributes:
      data: Data set, drawn from the family's source.
      weight_scale: Factor of the network's initial kernels, `float32[]`.
    """

    data: Any
    weight_scale: chex.Array


def supervised_family(
    name: str,
    network: nn.Module,
    source: Source,
    loss: Loss,
    *,
    batch_size: int,
    weight_scales: tuple[float, float] = _WEIGHT_SCALES,
) -> Family:
    """Returns the family of training `network` on data sets of `source`.

    Instances differ in their data and in the scale of their initial weights: a factor of all
    leaves with two or more axes, drawn log-uniformly.

    Args:
      name: Name of the family.
      network: Maps `Batch.inputs` to outputs.
      source: Distribution of data sets.
      loss: Maps outputs and `Batch.targets` to `float32[]`.
      batch_size: Examples per training batch.
      weight_scales: Smallest and largest scale of the initial weights.

    Example:
      >>> import jax
      >>> from alphaopt_jax.tasks import networks
      >>> from alphaopt_jax.tasks.families import synthetic
      >>> source = synthetic.gaussian_mixture(features=3, classes=2)
      >>> network = networks.MLP((4,), 2)
      >>> family = supervised_family("mlp", network, source, cross_entropy, batch_size=8)
      >>> task = family.draw(jax.random.key(0))
      >>> task.loss(task.init(jax.random.key(1)), task.batch(jax.random.key(2))).shape
      ()
    """

    def sample(key: chex.PRNGKey) -> SupervisedInstance:
        data_key, scale_key = jax.random.split(key)
        return SupervisedInstance(source.sample(data_key), log_uniform(scale_key, *weight_scales))

    def task(instance: SupervisedInstance) -> Task:
        def init(key: chex.PRNGKey) -> chex.ArrayTree:
            example = jnp.zeros((1, *source.example.shape), source.example.dtype)
            params = network.init(key, example)["params"]
            # Vectors are biases, which are 0, and scales of LayerNorm, which remain 1.
            return jax.tree.map(
                lambda leaf: leaf * instance.weight_scale if leaf.ndim > 1 else leaf, params
            )

        def loss_of(params: chex.ArrayTree, batch: Batch) -> chex.Array:
            return loss(network.apply({"params": params}, batch.inputs), batch.targets)

        return Task(
            name=name,
            init=init,
            batch=lambda key: source.draw(instance.data, key, batch_size),
            loss=loss_of,
            evaluation_loss=lambda params: loss_of(params, source.held_out(instance.data)),
        )

    return Family(name, sample, task)


def log_uniform(
    key: chex.PRNGKey, low: float, high: float, shape: tuple[int, ...] = ()
) -> chex.Array:
    """Draws `float32[shape]` log-uniformly between `low` and `high`. Consumes `key`."""
    return jnp.exp(jax.random.uniform(key, shape, minval=np.log(low), maxval=np.log(high)))


def cross_entropy(logits: chex.Array, labels: chex.Array) -> chex.Array:
    """Returns the mean cross-entropy of logits `float32[..., C]` and labels `int32[...]`."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def binary_cross_entropy(logits: chex.Array, labels: chex.Array) -> chex.Array:
    """Returns the mean cross-entropy of log-odds `float32[..., 1]` and 0-1 labels `int32[...]`."""
    odds = logits[..., 0]
    return optax.sigmoid_binary_cross_entropy(odds, labels.astype(odds.dtype)).mean()


def one_hot_error(outputs: chex.Array, labels: chex.Array) -> chex.Array:
    """Returns the mean squared error of outputs `float32[..., C]` and one-hot labels."""
    return squared_error(outputs, jax.nn.one_hot(labels, outputs.shape[-1]))


def squared_error(outputs: chex.Array, targets: chex.Array) -> chex.Array:
    """Returns the mean squared error of outputs and targets, `float32[...]` each."""
    return optax.squared_error(outputs, targets).mean()


def robust_error(outputs: chex.Array, targets: chex.Array) -> chex.Array:
    """Returns the mean Geman-McClure error, r² / (1 + r²), of outputs and targets."""
    squares = optax.squared_error(outputs, targets)
    return (squares / (1.0 + squares)).mean()

"""The CNN of Flax's MNIST example, and its loss.

Source: https://github.com/google/flax/tree/main/examples/mnist. Only the optimizer is replaced.
"""

from __future__ import annotations

from typing import Any

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax


class CNN(nn.Module):
    """Two 3x3 convolutions with average pooling, then two dense layers; 824,458 parameters.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> params = CNN().init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))["params"]
      >>> sum(leaf.size for leaf in jax.tree.leaves(params))
      824458
    """

    @nn.compact
    def __call__(self, images: chex.Array) -> chex.Array:
        """Maps images `float32[B, 28, 28, 1]` in [0, 1] to logits `float32[B, 10]`."""
        hidden = nn.Conv(features=32, kernel_size=(3, 3))(images)
        hidden = nn.avg_pool(nn.relu(hidden), window_shape=(2, 2), strides=(2, 2))
        hidden = nn.Conv(features=64, kernel_size=(3, 3))(hidden)
        hidden = nn.avg_pool(nn.relu(hidden), window_shape=(2, 2), strides=(2, 2))
        hidden = hidden.reshape((hidden.shape[0], -1))
        hidden = nn.relu(nn.Dense(features=256)(hidden))
        return nn.Dense(features=10)(hidden)


def init_params(key: chex.PRNGKey) -> chex.ArrayTree:
    """Returns initial parameters of `CNN`, a nested dict of `float32` arrays. Consumes `key`."""
    return CNN().init(key, jnp.zeros((1, 28, 28, 1)))["params"]


def loss_and_accuracy(
    params: chex.ArrayTree, images: chex.Array, labels: chex.Array
) -> tuple[chex.Array, chex.Array]:
    """Returns mean cross-entropy and accuracy of `CNN` on a batch.

    Args:
      params: Parameters of `CNN`.
      images: `uint8[B, 28, 28, 1]`; they are scaled to [0, 1].
      labels: `int32[B]`.

    Returns:
      Loss in nats and share of images classified correctly, `float32[]` each.
    """
    logits: Any = CNN().apply({"params": params}, images.astype(jnp.float32) / 255.0)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return jnp.mean(losses), jnp.mean(jnp.argmax(logits, axis=-1) == labels, dtype=jnp.float32)


_measure = jax.jit(loss_and_accuracy)


def evaluate(
    params: chex.ArrayTree, images: np.ndarray, labels: np.ndarray, *, block: int = 1000
) -> tuple[float, float]:
    """Returns mean loss and accuracy over a data set, computed in blocks to limit memory.

    Args:
      params: Parameters of `CNN`.
      images: `uint8[N, 28, 28, 1]`.
      labels: `int32[N]`.
      block: Images per block; a smaller last block compiles once more.

    Returns:
      Mean loss in nats, and accuracy.
    """
    totals = np.zeros(2)
    for start in range(0, len(labels), block):
        part = slice(start, start + block)
        measures = jax.device_get(_measure(params, images[part], labels[part]))
        totals += np.array(measures) * len(labels[part])
    loss, accuracy = totals / len(labels)
    return float(loss), float(accuracy)

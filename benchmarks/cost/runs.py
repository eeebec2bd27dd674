"""The measurements of `benchmarks.cost`: optimizer steps on their own, and whole train steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import math
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from alphaopt_jax.tasks import mnist, networks
from alphaopt_jax.tasks.suite import _networks
from benchmarks.common import timing
from benchmarks.cost import models
from benchmarks.cost.optimizers import (
    ADAM,
    ALPHAOPT,
    FROM_SCRATCH,
    LEARN,
    NO_HORIZON,
    OPTIMIZERS,
    OWN,
    SOAP,
)

ONE_TENSOR, RESNET, GPT = "one tensor", "ResNet-50", "GPT-2 small"
SMALL_LEAVES = "240 small leaves"
MNIST, TRANSFORMER = "MNIST CNN, batches of 128", "transformer, 32 x 64 characters"
LARGE_BATCHES = "MLP 784-512-512-10, batches of 1,024"
SMALL_BATCHES = "MLP 784-512-512-10, batches of 128"
BAR_SIZE = 10_000_000
"""Parameters of the one tensor of which most claims are made."""
SQUARE_SIZE = 512 * 512
"""Parameters of the matrix whose state is claimed."""
_TRAINED_WITH = (ADAM, ALPHAOPT, NO_HORIZON, LEARN, OWN, FROM_SCRATCH, SOAP)


@dataclasses.dataclass(frozen=True)
class Tree:
    """A tree of parameters to step over.

    Attributes:
      model: Name of the model.
      shapes: Shapes of the leaves.
      dtype: Type of parameters and gradients.
    """

    model: str
    shapes: Sequence[models.Shape]
    dtype: Any

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(math.prod(shape) for shape in self.shapes)


def trees(sizes: Sequence[int], *, quick: bool) -> list[Tree]:
    """All trees that are timed: one tensor of each size, and, unless `quick`, the models."""
    found = [Tree(ONE_TENSOR, models.one_tensor(size), jnp.float32) for size in sizes]
    if not quick:
        found += [
            Tree(RESNET, models.resnet50(), jnp.float32),
            Tree(SMALL_LEAVES, models.small_leaves(), jnp.float32),
            Tree(GPT, models.gpt2_small(), jnp.float32),
            Tree(ONE_TENSOR, models.one_tensor(BAR_SIZE), jnp.bfloat16),
            Tree(GPT, models.gpt2_small(), jnp.bfloat16),
        ]
    return found


def num_turns(number_of_trees: int, rounds: int) -> int:
    """Number of calls of `advance` in all measurements, at most."""
    return (1 + rounds) * len(OPTIMIZERS) * (number_of_trees + len(MODELS))


def measure_steps(
    tree: Tree, rounds: int, bandwidth: float, advance: Callable[[], None]
) -> list[dict[str, Any]]:
    """Times one step, update and apply, of every optimizer; one row for each.

    Args:
      tree: The parameters.
      rounds: Least number of rounds, in each of which every optimizer is timed.
      bandwidth: Bytes per second of a triad on this machine.
      advance: As in `timing.interleaved`.
    """
    params, grads = models.make(tree.shapes, tree.dtype)
    count = tree.size
    runners = {
        name: timing.Runner(spec.optimizer_fn(), params, _given, grads)
        for name, spec in OPTIMIZERS.items()
        if count <= 1.01 * spec.max_params
    }
    del params
    seconds = timing.interleaved(runners, rounds, advance)
    rows = []
    for name, runner in runners.items():
        least = 3 * jnp.dtype(tree.dtype).itemsize * count + 2 * runner.state_bytes
        rows.append(
            {
                "kind": "step",
                "model": tree.model,
                "parameters": count,
                "leaves": len(tree.shapes),
                "dtype": jnp.dtype(tree.dtype).name,
                "optimizer": name,
                "nanoseconds_a_parameter": 1e9 * float(np.median(seconds[name])) / count,
                "state_bytes_a_parameter": runner.state_bytes / count,
                "temporary_bytes_a_parameter": runner.temporary_bytes / count,
                "accessed_bytes_a_parameter": runner.accessed_bytes / count,
                "times_memory_limit": float(np.median(seconds[name])) * bandwidth / least,
                "compile_seconds": runner.compile_seconds,
            }
            | compared(seconds, name)
        )
    return rows


def _given(params: Any, grads: Any) -> tuple[jax.Array, Any]:
    """Loss and gradients of a model without any cost of its own."""
    del params
    return jnp.ones(()), grads


def compared(seconds: Mapping[str, np.ndarray], name: str) -> dict[str, Any]:
    """Milliseconds, and the ratio to Adam: medians over rounds, and the middle 80 % of ratios."""
    ratios = seconds[name] / seconds[ADAM]
    return {
        "milliseconds": 1e3 * float(np.median(seconds[name])),
        "times_adam": float(np.median(ratios)),
        "times_adam_interval": [float(each) for each in np.quantile(ratios, (0.1, 0.9))],
    }


class Model(NamedTuple):
    """A network, its loss, and a batch of synthetic data, which costs as much as any other."""

    params: chex.ArrayTree
    loss: Callable[..., chex.Array]
    batch: tuple[chex.Array, ...]


def _mnist() -> Model:
    images_key, labels_key = jax.random.split(jax.random.key(0))
    images = jax.random.randint(images_key, (128, 28, 28, 1), 0, 256).astype(jnp.uint8)
    labels = jax.random.randint(labels_key, (128,), 0, 10)
    return Model(
        mnist.init_params(jax.random.key(1)),
        lambda params, *batch: mnist.loss_and_accuracy(params, *batch)[0],
        (images, labels),
    )


def _transformer() -> Model:
    network = _networks.CharacterTransformer(vocabulary=96, width=256)
    characters = jax.random.randint(jax.random.key(0), (32, 65), 0, 96)
    params = network.init(jax.random.key(1), characters[:, :-1])

    def loss(params: chex.ArrayTree, characters: chex.Array) -> chex.Array:
        logits: Any = network.apply(params, characters[:, :-1])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, characters[:, 1:])
        return losses.mean()

    return Model(params, loss, (characters,))


def _mlp(batch_size: int) -> Model:
    network = networks.MLP((512, 512), 10)
    inputs = jax.random.normal(jax.random.key(0), (batch_size, 784))
    labels = jax.random.randint(jax.random.key(1), (batch_size,), 0, 10)

    def loss(params: chex.ArrayTree, inputs: chex.Array, labels: chex.Array) -> chex.Array:
        logits: Any = network.apply(params, inputs)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    return Model(network.init(jax.random.key(2), inputs), loss, (inputs, labels))


MODELS: dict[str, Callable[[], Model]] = {
    MNIST: _mnist,
    TRANSFORMER: _transformer,
    LARGE_BATCHES: lambda: _mlp(1024),
    SMALL_BATCHES: lambda: _mlp(128),
}


def measure_train_steps(
    name: str, rounds: int, advance: Callable[[], None]
) -> list[dict[str, Any]]:
    """Times whole train steps of one network; one row for each optimizer.

    Args:
      name: One of `MODELS`.
      rounds: As in `measure_steps`.
      advance: As in `timing.interleaved`.
    """
    model = MODELS[name]()
    runners = {
        optimizer: timing.Runner(
            OPTIMIZERS[optimizer].optimizer_fn(),
            model.params,
            jax.value_and_grad(model.loss),
            *model.batch,
        )
        for optimizer in _TRAINED_WITH
    }
    seconds = timing.interleaved(runners, rounds, advance)
    leaves = jax.tree.leaves(model.params)
    return [
        {
            "kind": "training",
            "dtype": "float32",
            "model": name,
            "parameters": sum(leaf.size for leaf in leaves),
            "leaves": len(leaves),
            "optimizer": optimizer,
            "compile_seconds": runner.compile_seconds,
        }
        | compared(seconds, optimizer)
        for optimizer, runner in runners.items()
    ]

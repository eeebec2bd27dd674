"""Whole train steps of two small networks: what is left of the optimizer's cost in practice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from alphaopt_jax.tasks import mnist
from alphaopt_jax.tasks.suite import _networks
from benchmarks.cost import optimizers, timing

MNIST, TRANSFORMER = "MNIST CNN, batches of 128", "transformer, 16 x 128 characters"
_CHOSEN = (
    optimizers.ADAM,
    optimizers.FROZEN,
    optimizers.ADAPTIVE,
    optimizers.ONLINE,
)


class Model(NamedTuple):
    """A network and its loss on a batch of made-up data, which cost as much as any."""

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
    characters = jax.random.randint(jax.random.key(0), (16, 129), 0, 96)
    params = network.init(jax.random.key(1), characters[:, :-1])

    def loss(params: chex.ArrayTree, characters: chex.Array) -> chex.Array:
        logits: Any = network.apply(params, characters[:, :-1])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, characters[:, 1:])
        return losses.mean()

    return Model(params, loss, (characters,))


MODELS: dict[str, Callable[[], Model]] = {MNIST: _mnist, TRANSFORMER: _transformer}


def measure(
    name: str, rounds: int, advance: Callable[[], None]
) -> Iterator[tuple[str, dict[str, Any], Mapping[str, np.ndarray]]]:
    """Times train steps of one network.

    Yields:
      Of every optimizer its name, what is known of it, and the seconds of all.
    """
    model = MODELS[name]()
    runners = {
        chosen: timing.Runner(
            optimizers.CONTENDERS[chosen].make(),
            model.params,
            jax.value_and_grad(model.loss),
            *model.batch,
        )
        for chosen in _CHOSEN
    }
    seconds = timing.interleaved(runners, rounds, advance)
    count = sum(leaf.size for leaf in jax.tree.leaves(model.params))
    for chosen, runner in runners.items():
        row = {
            "model": name,
            "parameters": count,
            "leaves": len(jax.tree.leaves(model.params)),
            "optimizer": chosen,
            "compile_seconds": runner.compile_seconds,
        }
        yield chosen, row, seconds

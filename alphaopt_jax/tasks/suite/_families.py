"""How a network and data become a task of the test suite."""

from __future__ import annotations

from collections.abc import Callable
import functools
from typing import Any

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp
import optax

from alphaopt_jax.tasks.suite import _data
from alphaopt_jax.tasks.task import Family, Task

_CONTEXT = 24  # Characters that a text model reads before it predicts the last one.
_HELD_OUT = 1024  # Examples drawn for an evaluation loss where the data has no end.

Losses = Callable[[chex.Array, chex.Array], chex.Array]
"""From a network's outputs and the targets, `[B, ...]` each, to losses, `float32[B, ...]`."""


def cross_entropy(logits: chex.Array, labels: chex.Array) -> chex.Array:
    """From logits `float32[B, ..., C]` and classes `int32[B, ...]` to losses `float32[B, ...]`."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def squared_error(outputs: chex.Array, targets: chex.Array) -> chex.Array:
    """From two arrays of as many numbers to losses shaped like the targets."""
    return jnp.square(outputs.reshape(targets.shape) - targets)


def given(load: Callable[[], Any]) -> Callable[[chex.PRNGKey], Any]:
    """A family's `sample` that reads data, the same for every key."""

    def sample(key: chex.PRNGKey) -> Any:
        del key
        return jax.tree.map(jnp.asarray, load())

    return sample


def supervised(
    name: str,
    sample: Callable[[chex.PRNGKey], _data.Split],
    network: nn.Module,
    losses: Losses = cross_entropy,
    *,
    batch_size: int,
    prepare: Callable[[chex.Array], chex.Array] = lambda inputs: inputs,
    reconstruct: bool = False,
) -> Family:
    """A network trained on examples drawn from a data set; evaluated on those held out.

    With `reconstruct` the inputs are the targets too.
    """

    def task(data: _data.Split) -> Task:
        def mean_loss(params: Any, inputs: chex.Array, targets: chex.Array) -> chex.Array:
            inputs = prepare(inputs)
            outputs: Any = network.apply({"params": params}, inputs)
            return jnp.mean(losses(outputs, inputs if reconstruct else targets))

        def batch(key: chex.PRNGKey) -> tuple[chex.Array, chex.Array]:
            chosen = jax.random.randint(key, (batch_size,), 0, data.train_targets.shape[0])
            return data.train_inputs[chosen], data.train_targets[chosen]

        return Task(
            name=name,
            init=lambda key: network.init(key, prepare(data.train_inputs[:1]))["params"],
            batch=batch,
            loss=lambda params, batch: mean_loss(params, *batch),
            evaluation_loss=lambda params: mean_loss(params, data.test_inputs, data.test_targets),
        )

    return Family(name, sample, task)


def language(name: str, network: nn.Module, *, batch_size: int) -> Family:
    """A network that predicts each character from those before it; evaluated on held-out text."""

    def task(data: tuple[chex.Array, chex.Array]) -> Task:
        train, held_out = data

        def loss(params: Any, windows: chex.Array) -> chex.Array:
            outputs: Any = network.apply({"params": params}, windows[:, :-1])
            return jnp.mean(cross_entropy(outputs, windows[:, 1:]))

        def windows(text: chex.Array, starts: chex.Array) -> chex.Array:
            return text[starts[:, None] + jnp.arange(_CONTEXT + 1)].astype(jnp.int32)

        def batch(key: chex.PRNGKey) -> chex.Array:
            starts = jax.random.randint(key, (batch_size,), 0, train.shape[0] - _CONTEXT)
            return windows(train, starts)

        every = jnp.arange(0, held_out.shape[0] - _CONTEXT, _CONTEXT)
        return Task(
            name=name,
            init=lambda key: network.init(key, jnp.zeros((1, _CONTEXT), jnp.int32))["params"],
            batch=batch,
            loss=loss,
            evaluation_loss=lambda params: loss(params, windows(held_out, every)),
        )

    return Family(name, given(_data.text), task)


def endless(
    name: str,
    sample: Callable[[chex.PRNGKey], Any],
    examples: Callable[[Any, chex.PRNGKey, int], tuple[chex.Array, chex.Array]],
    network: nn.Module,
    losses: Losses,
    *,
    batch_size: int,
) -> Family:
    """A network trained on examples made on the fly, none seen twice; evaluated on fresh ones."""

    def task(instance: Any) -> Task:
        def loss(params: Any, batch: tuple[chex.Array, chex.Array]) -> chex.Array:
            inputs, targets = batch
            outputs: Any = network.apply({"params": params}, inputs)
            return jnp.mean(losses(outputs, targets))

        def batch(key: chex.PRNGKey) -> tuple[chex.Array, chex.Array]:
            return examples(instance, key, batch_size)

        held_out = functools.partial(examples, instance, jax.random.key(1), _HELD_OUT)
        return Task(
            name=name,
            init=lambda key: network.init(key, held_out()[0][:1])["params"],
            batch=batch,
            loss=loss,
            evaluation_loss=lambda params: loss(params, held_out()),
        )

    return Family(name, sample=sample, task=task)

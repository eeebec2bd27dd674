"""Families of the test suite, made from a network and data."""

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

_CONTEXT = 24  # Length of a text model's input, in characters.
_HELD_OUT = 1024  # Number of evaluation examples of streaming data.

Losses = Callable[[chex.Array, chex.Array], chex.Array]
"""Maps outputs and targets, `[B, ...]` each, to losses, `float32[B, ...]`."""


def cross_entropy(logits: chex.Array, labels: chex.Array) -> chex.Array:
    """Maps logits `float32[B, ..., C]` and classes `int32[B, ...]` to losses `float32[B, ...]`."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def squared_error(outputs: chex.Array, targets: chex.Array) -> chex.Array:
    """Returns squared errors, shaped like the targets; the outputs are reshaped."""
    return jnp.square(outputs.reshape(targets.shape) - targets)


def fixed_data(load: Callable[[], Any]) -> Callable[[chex.PRNGKey], Any]:
    """Returns a family's `sample` function that loads fixed data and ignores its key."""

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
    """Returns a task of a network on a data set, evaluated on its held-out examples.

    Args:
      name: Name of the family.
      sample: Returns the data set, such as `fixed_data(load)`.
      network: Maps prepared inputs to outputs.
      losses: Loss of each example.
      batch_size: Examples per training batch.
      prepare: Maps stored inputs to inputs of the network.
      reconstruct: Whether the prepared inputs are the targets as well.
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
    """Returns a task of predicting each character of a text from the previous ones."""

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

        evaluation_starts = jnp.arange(0, held_out.shape[0] - _CONTEXT, _CONTEXT)
        return Task(
            name=name,
            init=lambda key: network.init(key, jnp.zeros((1, _CONTEXT), jnp.int32))["params"],
            batch=batch,
            loss=loss,
            evaluation_loss=lambda params: loss(params, windows(held_out, evaluation_starts)),
        )

    return Family(name, fixed_data(_data.text), task)


def streaming(
    name: str,
    sample: Callable[[chex.PRNGKey], Any],
    examples: Callable[[Any, chex.PRNGKey, int], tuple[chex.Array, chex.Array]],
    network: nn.Module,
    losses: Losses,
    *,
    batch_size: int,
) -> Family:
    """Returns a task of a network on examples that are generated for each batch.

    Args:
      name: Name of the family.
      sample: Maps a key to the instance, the parameters of the examples' distribution.
      examples: Maps an instance, a key and a batch size to inputs and targets.
      network: Maps inputs to outputs.
      losses: Loss of each example.
      batch_size: Examples per training batch.
    """

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

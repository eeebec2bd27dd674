"""Families of recurrent networks and transformer blocks, on sequences of eight steps."""

from __future__ import annotations

from typing import NamedTuple

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from alphaopt_jax.tasks import networks
from alphaopt_jax.tasks.families import supervised, synthetic
from alphaopt_jax.tasks.families.supervised import Batch, Source, log_uniform, supervised_family
from alphaopt_jax.tasks.task import Family

_LENGTH = 8


def running_sum_recurrence(name: str, features: int, width: int, *, batch_size: int) -> Family:
    """Returns tanh recurrent networks with `width` units that predict leaky running sums."""
    return supervised_family(
        name,
        networks.RecurrentNet(nn.SimpleCell(width), 1),
        running_sums(features),
        supervised.squared_error,
        batch_size=batch_size,
    )


def recall_recurrence(name: str, vocabulary: int, width: int, *, batch_size: int) -> Family:
    """Returns gated recurrent units that predict the translation of the symbol two steps ago."""
    return supervised_family(
        name,
        networks.RecurrentNet(nn.GRUCell(width), vocabulary),
        delayed_symbols(vocabulary, delay=2),
        supervised.cross_entropy,
        batch_size=batch_size,
    )


def markov_attention(
    name: str, vocabulary: int, width: int, heads: int, *, batch_size: int
) -> Family:
    """Returns transformer blocks that predict the next symbol of random Markov chains."""
    return supervised_family(
        name,
        networks.AttentionNet(vocabulary, width, heads),
        markov_chains(vocabulary),
        supervised.cross_entropy,
        batch_size=batch_size,
    )


def markov_embedding(
    name: str, vocabulary: int, width: int, hidden: int, *, batch_size: int
) -> Family:
    """Returns bigram models of random Markov chains; most rows of the embedding are rarely used."""
    return supervised_family(
        name,
        networks.EmbeddingNet(vocabulary, width, hidden),
        markov_chains(vocabulary),
        supervised.cross_entropy,
        batch_size=batch_size,
    )


class SumParameters(NamedTuple):
    """A leaky running sum of a projection of the inputs.

    Attributes:
      projection: Weights of the inputs, `float32[features]`.
      decay: Factor of the sum per step, `float32[]`.
      input_scale: Scale of the network's inputs relative to the summed ones, `float32[]`.
      noise: Standard deviation of the targets' noise, `float32[]`.
    """

    projection: chex.Array
    decay: chex.Array
    input_scale: chex.Array
    noise: chex.Array


def running_sums(features: int) -> Source:
    """Returns sequences, `float32[T, features]`, and their leaky running sums, `float32[T, 1]`.

    The sum at step t is `decay` times the sum at step t - 1, plus the projection of the inputs.
    """

    def sample(key: chex.PRNGKey) -> SumParameters:
        keys = jax.random.split(key, 4)
        return SumParameters(
            projection=jax.random.normal(keys[0], (features,)) / np.sqrt(features),
            decay=jax.random.uniform(keys[1], minval=0.5, maxval=1.0),
            input_scale=synthetic.sample_input_scale(keys[2]),
            noise=log_uniform(keys[3], 0.01, 0.3),
        )

    def draw(parameters: SumParameters, key: chex.PRNGKey, size: int) -> Batch:
        input_key, noise_key = jax.random.split(key)
        inputs = jax.random.normal(input_key, (size, _LENGTH, features))
        lags = jnp.arange(_LENGTH)[:, None] - jnp.arange(_LENGTH)
        weights = jnp.where(lags >= 0, parameters.decay ** jnp.maximum(lags, 0), 0.0)
        sums = (inputs @ parameters.projection) @ weights.T
        noise = parameters.noise * jax.random.normal(noise_key, sums.shape)
        return Batch(parameters.input_scale * inputs, (sums + noise)[..., None])

    example = jax.ShapeDtypeStruct((_LENGTH, features), jnp.float32)
    return synthetic.generated(example, sample, draw)


class DelayParameters(NamedTuple):
    """A random translation of symbols.

    Attributes:
      translation: Target of each symbol, a permutation, `int32[vocabulary]`.
      input_scale: Scale of the one-hot inputs, `float32[]`.
      label_noise: Share of random targets, `float32[]`.
    """

    translation: chex.Array
    input_scale: chex.Array
    label_noise: chex.Array


def delayed_symbols(vocabulary: int, *, delay: int) -> Source:
    """Returns one-hot symbols, `float32[T, vocabulary]`, and their translations, `int32[T]`.

    A translation follows its symbol by `delay` steps; the first targets translate symbol 0.
    """

    def sample(key: chex.PRNGKey) -> DelayParameters:
        translation_key, scale_key, noise_key = jax.random.split(key, 3)
        return DelayParameters(
            translation=jax.random.permutation(translation_key, vocabulary),
            input_scale=synthetic.sample_input_scale(scale_key),
            label_noise=synthetic.sample_label_noise(noise_key),
        )

    def draw(parameters: DelayParameters, key: chex.PRNGKey, size: int) -> Batch:
        symbol_key, noise_key = jax.random.split(key)
        symbols = jax.random.randint(symbol_key, (size, _LENGTH), 0, vocabulary)
        delayed = jnp.pad(symbols, ((0, 0), (delay, 0)))[:, :_LENGTH]
        targets = synthetic.add_label_noise(
            noise_key, parameters.translation[delayed], parameters.label_noise, vocabulary
        )
        return Batch(parameters.input_scale * jax.nn.one_hot(symbols, vocabulary), targets)

    example = jax.ShapeDtypeStruct((_LENGTH, vocabulary), jnp.float32)
    return synthetic.generated(example, sample, draw)


def markov_chains(vocabulary: int) -> Source:
    """Returns symbols of random Markov chains, `int32[T]`, and their successors, `int32[T]`.

    The parameters of a data set are the cumulative transition probabilities of a chain,
    `float32[vocabulary, vocabulary]`.
    """

    def sample(key: chex.PRNGKey) -> chex.Array:
        sharpness_key, logit_key = jax.random.split(key)
        logits = jax.random.normal(logit_key, (vocabulary, vocabulary))
        return jnp.cumsum(jax.nn.softmax(log_uniform(sharpness_key, 1.0, 5.0) * logits), axis=-1)

    def draw(cumulative: chex.Array, key: chex.PRNGKey, size: int) -> Batch:
        start_key, step_key = jax.random.split(key)
        start = jax.random.randint(start_key, (size,), 0, vocabulary)
        quantiles = jax.random.uniform(step_key, (_LENGTH, size))

        def step(symbol: chex.Array, quantile: chex.Array) -> tuple[chex.Array, chex.Array]:
            # Without the last column: it is 1 up to rounding, and a quantile could exceed it.
            exceeded = quantile[:, None] >= cumulative[symbol][:, :-1]
            successor = jnp.sum(exceeded, axis=-1)
            return successor, successor

        _, successors = jax.lax.scan(step, start, quantiles)
        symbols = jnp.concatenate([start[None], successors]).T
        return Batch(symbols[:, :-1], symbols[:, 1:])

    return synthetic.generated(jax.ShapeDtypeStruct((_LENGTH,), jnp.int32), sample, draw)

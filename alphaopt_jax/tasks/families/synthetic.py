"""Synthetic data: Gaussian mixtures, spirals, linear functions, and teacher networks.

Inputs of a data set have a random scale between 0.3 and 3.3, since inputs of users are not always
standardized; `in_raw_units` varies them further. Held-out examples are noisy as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from alphaopt_jax.tasks.families.supervised import HELD_OUT_EXAMPLES, Batch, Source, log_uniform

_INPUT_SCALES = (np.exp(-1.2), np.exp(1.2))
_OFFSETS = (1.0, 10.0)
_UNITS = (0.1, 200.0)
_MAX_LABEL_NOISE = 0.1
_COMPONENTS_PER_CLASS = 4


class GeneratedData(NamedTuple):
    """A distribution of examples.

    Attributes:
      parameters: Parameters of the distribution, a pytree of arrays.
      held_out: `HELD_OUT_EXAMPLES` evaluation examples.
    """

    parameters: Any
    held_out: Batch


def generated(
    example: jax.ShapeDtypeStruct,
    sample: Callable[[chex.PRNGKey], Any],
    draw: Callable[[Any, chex.PRNGKey, int], Batch],
) -> Source:
    """Returns a source whose data sets are distributions of examples.

    Args:
      example: Shape and dtype of the inputs of one example.
      sample: Maps a key to a distribution's parameters.
      draw: Maps these parameters, a key and a batch size to new examples.
    """

    def sample_data(key: chex.PRNGKey) -> GeneratedData:
        parameters_key, held_out_key = jax.random.split(key)
        parameters = sample(parameters_key)
        return GeneratedData(parameters, draw(parameters, held_out_key, HELD_OUT_EXAMPLES))

    return Source(
        example=example,
        sample=sample_data,
        draw=lambda data, key, size: draw(data.parameters, key, size),
        held_out=lambda data: data.held_out,
    )


def sample_input_scale(key: chex.PRNGKey) -> chex.Array:
    """Draws the scale of the inputs of a data set, `float32[]`."""
    return log_uniform(key, *_INPUT_SCALES)


def sample_label_noise(key: chex.PRNGKey) -> chex.Array:
    """Draws the share of random labels in a data set, `float32[]`."""
    return jax.random.uniform(key, maxval=_MAX_LABEL_NOISE)


def add_label_noise(
    key: chex.PRNGKey, labels: chex.Array, share: chex.Array, classes: int
) -> chex.Array:
    """Replaces a share of the labels, `int32[...]`, by uniformly random ones."""
    which_key, label_key = jax.random.split(key)
    replaced = jax.random.uniform(which_key, labels.shape) < share
    return jnp.where(replaced, jax.random.randint(label_key, labels.shape, 0, classes), labels)


class MixtureParameters(NamedTuple):
    """A labeled Gaussian mixture.

    Attributes:
      centers: Centers of the components, `float32[components, features]`; component k has the
        label k % classes.
      mixing: Linear map of the features, `float32[features, features]`.
      spread: Standard deviation of a component before mixing, `float32[]`.
      label_noise: Share of random labels, `float32[]`.
    """

    centers: chex.Array
    mixing: chex.Array
    spread: chex.Array
    label_noise: chex.Array


def gaussian_mixture(features: int, classes: int) -> Source:
    """Returns Gaussian mixtures with four components per class, under a random linear map.

    Args:
      features: Size of the inputs, `float32[features]`.
      classes: Number of classes.
    """

    def sample(key: chex.PRNGKey) -> MixtureParameters:
        keys = jax.random.split(key, 5)
        mixing = jax.random.normal(keys[1], (features, features)) / np.sqrt(features)
        return MixtureParameters(
            centers=jax.random.normal(keys[0], (_COMPONENTS_PER_CLASS * classes, features)),
            mixing=mixing * sample_input_scale(keys[2]),
            spread=log_uniform(keys[3], 0.3, 1.2),
            label_noise=sample_label_noise(keys[4]),
        )

    def draw(parameters: MixtureParameters, key: chex.PRNGKey, size: int) -> Batch:
        component_key, noise_key, label_key = jax.random.split(key, 3)
        components = jax.random.randint(component_key, (size,), 0, _COMPONENTS_PER_CLASS * classes)
        noise = parameters.spread * jax.random.normal(noise_key, (size, features))
        labels = add_label_noise(label_key, components % classes, parameters.label_noise, classes)
        return Batch((parameters.centers[components] + noise) @ parameters.mixing, labels)

    return generated(jax.ShapeDtypeStruct((features,), jnp.float32), sample, draw)


class RawUnits(NamedTuple):
    """A data set with features that are not standardized.

    Attributes:
      data: Original data set.
      offsets: Offsets of the features, added first, `float32[features]`.
      units: Factors of the features, applied next, `float32[features]`.
    """

    data: Any
    offsets: chex.Array
    units: chex.Array


def in_raw_units(source: Source) -> Source:
    """Returns data sets of `source` with every feature in its own unit, as in raw measurements.

    Offsets of the features are between 1 and 10, and their units between 0.1 and 200.

    Args:
      source: Source with inputs `float32[features]`.
    """

    def convert(raw: RawUnits, batch: Batch) -> Batch:
        return batch._replace(inputs=(batch.inputs + raw.offsets) * raw.units)

    def sample(key: chex.PRNGKey) -> RawUnits:
        data_key, offset_key, unit_key = jax.random.split(key, 3)
        return RawUnits(
            data=source.sample(data_key),
            offsets=log_uniform(offset_key, *_OFFSETS, source.example.shape),
            units=log_uniform(unit_key, *_UNITS, source.example.shape),
        )

    return Source(
        example=source.example,
        sample=sample,
        draw=lambda raw, key, size: convert(raw, source.draw(raw.data, key, size)),
        held_out=lambda raw: convert(raw, source.held_out(raw.data)),
    )


class SpiralParameters(NamedTuple):
    """Two interleaved spirals in the plane.

    Attributes:
      turns: Number of turns of each spiral, `float32[]`.
      spread: Standard deviation of the points' noise, `float32[]`.
      mixing: Linear map of the points, `float32[2, 2]`.
      label_noise: Share of random labels, `float32[]`.
    """

    turns: chex.Array
    spread: chex.Array
    mixing: chex.Array
    label_noise: chex.Array


def spirals() -> Source:
    """Returns points, `float32[2]`, on two spirals, labeled by spiral, `int32[]`."""

    def sample(key: chex.PRNGKey) -> SpiralParameters:
        keys = jax.random.split(key, 5)
        return SpiralParameters(
            turns=jax.random.uniform(keys[0], minval=0.4, maxval=1.2),
            spread=log_uniform(keys[1], 0.02, 0.2),
            mixing=jax.random.orthogonal(keys[2], 2) * sample_input_scale(keys[3]),
            label_noise=sample_label_noise(keys[4]),
        )

    def draw(parameters: SpiralParameters, key: chex.PRNGKey, size: int) -> Batch:
        spiral_key, radius_key, noise_key, label_key = jax.random.split(key, 4)
        labels = jax.random.randint(spiral_key, (size,), 0, 2)
        radius = 2.0 * jnp.sqrt(jax.random.uniform(radius_key, (size,)))
        angle = jnp.pi * (parameters.turns * radius + labels)
        points = radius[:, None] * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)
        points += parameters.spread * jax.random.normal(noise_key, points.shape)
        labels = add_label_noise(label_key, labels, parameters.label_noise, classes=2)
        return Batch(points @ parameters.mixing, labels)

    return generated(jax.ShapeDtypeStruct((2,), jnp.float32), sample, draw)


class LinearParameters(NamedTuple):
    """A noisy linear function of correlated inputs.

    Attributes:
      mixing: Linear map from standard normal vectors to inputs, `float32[features, features]`.
      weights: Weights of the function, `float32[features, 1]`.
      noise: Standard deviation of the targets' noise, `float32[]`.
      outliers: Share of targets with ten times the noise, `float32[]`.
    """

    mixing: chex.Array
    weights: chex.Array
    noise: chex.Array
    outliers: chex.Array


def linear_function(features: int, *, max_outlier_share: float) -> Source:
    """Returns linear functions of inputs with condition numbers of the covariance up to 10,000.

    Args:
      features: Size of the inputs, `float32[features]`; targets are `float32[1]`.
      max_outlier_share: Upper bound of the share of outliers, which is drawn uniformly.
    """

    def sample(key: chex.PRNGKey) -> LinearParameters:
        keys = jax.random.split(key, 7)
        spectrum = log_uniform(keys[0], 1.0, 100.0) ** jnp.linspace(-1.0, 0.0, features)
        rotation = jax.random.orthogonal(keys[1], features)
        scale = sample_input_scale(keys[2])
        weights = jax.random.normal(keys[3], (features, 1)) / np.sqrt(features)
        # Dividing by the root makes directions of small variance slow to learn, but important.
        weights *= log_uniform(keys[4], 0.5, 5.0) / (scale * jnp.sqrt(spectrum)[:, None])
        return LinearParameters(
            mixing=scale * spectrum[:, None] * rotation,
            weights=rotation.T @ weights,
            noise=log_uniform(keys[5], 0.03, 0.5),
            outliers=jax.random.uniform(keys[6], maxval=max_outlier_share),
        )

    def draw(parameters: LinearParameters, key: chex.PRNGKey, size: int) -> Batch:
        input_key, noise_key, outlier_key = jax.random.split(key, 3)
        inputs = jax.random.normal(input_key, (size, features)) @ parameters.mixing
        noise = jax.random.normal(noise_key, (size, 1)) * parameters.noise
        outlier = jax.random.uniform(outlier_key, (size, 1)) < parameters.outliers
        return Batch(inputs, inputs @ parameters.weights + jnp.where(outlier, 10.0 * noise, noise))

    return generated(jax.ShapeDtypeStruct((features,), jnp.float32), sample, draw)


class TeacherParameters(NamedTuple):
    """A random network with one hidden tanh layer.

    Attributes:
      first: Weights of the hidden layer, `float32[features, hidden]`.
      last: Weights of the last layer, `float32[hidden, outputs]`.
      input_scale: Scale of the student's inputs relative to the teacher's, `float32[]`.
      noise: Standard deviation of the targets' noise, `float32[]`.
    """

    first: chex.Array
    last: chex.Array
    input_scale: chex.Array
    noise: chex.Array


def teacher(features: int, hidden: int, outputs: int) -> Source:
    """Returns inputs, `float32[features]`, and outputs of random networks, `float32[outputs]`."""

    def sample(key: chex.PRNGKey) -> TeacherParameters:
        keys = jax.random.split(key, 5)
        gain = log_uniform(keys[2], 0.7, 3.0)
        return TeacherParameters(
            first=gain * jax.random.normal(keys[0], (features, hidden)) / np.sqrt(features),
            last=jax.random.normal(keys[1], (hidden, outputs)) / np.sqrt(hidden),
            input_scale=sample_input_scale(keys[3]),
            noise=log_uniform(keys[4], 0.01, 0.3),
        )

    def draw(parameters: TeacherParameters, key: chex.PRNGKey, size: int) -> Batch:
        input_key, noise_key = jax.random.split(key)
        inputs = jax.random.normal(input_key, (size, features))
        outputs_ = jnp.tanh(inputs @ parameters.first) @ parameters.last
        noise = parameters.noise * jax.random.normal(noise_key, outputs_.shape)
        return Batch(inputs * parameters.input_scale, outputs_ + noise)

    return generated(jax.ShapeDtypeStruct((features,), jnp.float32), sample, draw)


class TableParameters(NamedTuple):
    """A table that is nearly a product of two narrow matrices.

    Attributes:
      entries: The table without noise, `float32[rows, columns]`.
      noise: Standard deviation of the targets' noise, `float32[]`.
    """

    entries: chex.Array
    noise: chex.Array


def low_rank_table(rows: int, columns: int, rank: int) -> Source:
    """Returns rows and columns, `int32[2]`, and the entries there of random tables, `float32[1]`.

    The singular values of a table fall by a factor of up to 30.
    """

    def sample(key: chex.PRNGKey) -> TableParameters:
        keys = jax.random.split(key, 5)
        decay = log_uniform(keys[2], 1.0, 30.0) ** -jnp.linspace(0.0, 1.0, rank)
        left = jax.random.normal(keys[0], (rows, rank)) * decay
        entries = left @ jax.random.normal(keys[1], (rank, columns)) / np.sqrt(rank)
        return TableParameters(
            entries=log_uniform(keys[3], 0.3, 3.0) * entries,
            noise=log_uniform(keys[4], 0.001, 0.1),
        )

    def draw(parameters: TableParameters, key: chex.PRNGKey, size: int) -> Batch:
        row_key, column_key, noise_key = jax.random.split(key, 3)
        row = jax.random.randint(row_key, (size,), 0, rows)
        column = jax.random.randint(column_key, (size,), 0, columns)
        noise = parameters.noise * jax.random.normal(noise_key, (size, 1))
        targets = parameters.entries[row, column][:, None] + noise
        return Batch(jnp.stack([row, column], axis=-1), targets)

    return generated(jax.ShapeDtypeStruct((2,), jnp.int32), sample, draw)


class CurveParameters(NamedTuple):
    """A smooth curve, a sum of sines.

    Attributes:
      frequencies: `float32[waves]`.
      amplitudes: Weights of sine and cosine, `float32[2 * waves, outputs]`.
    """

    frequencies: chex.Array
    amplitudes: chex.Array


def curves(waves: int, outputs: int) -> Source:
    """Returns points between -1 and 1, `float32[1]`, and their images, `float32[outputs]`.

    Nothing is noisy: the loss can fall by many powers of ten.
    """

    def sample(key: chex.PRNGKey) -> CurveParameters:
        frequency_key, amplitude_key = jax.random.split(key)
        amplitudes = jax.random.normal(amplitude_key, (2 * waves, outputs)) / np.sqrt(waves)
        return CurveParameters(log_uniform(frequency_key, 0.5, 8.0, (waves,)), amplitudes)

    def draw(parameters: CurveParameters, key: chex.PRNGKey, size: int) -> Batch:
        points = jax.random.uniform(key, (size, 1), minval=-1.0, maxval=1.0)
        angles = points * parameters.frequencies
        parts = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
        return Batch(points, parts @ parameters.amplitudes)

    return generated(jax.ShapeDtypeStruct((1,), jnp.float32), sample, draw)

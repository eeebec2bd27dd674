"""Data that is generated as it is drawn: mixtures, spirals, linear functions, teacher networks.

Inputs of a data set are multiplied by one factor between 0.3 and 3.3, since what a user feeds a
network is not always standardised; `in_raw_units` goes further. Held-out examples come from the
same distribution, with its noise.
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
_HIGHEST_LABEL_NOISE = 0.1
_COMPONENTS_PER_CLASS = 4


class GeneratedData(NamedTuple):
    """A data set without end.

    Attributes:
      parameters: What its examples are drawn with, a pytree of arrays.
      held_out: `HELD_OUT_EXAMPLES` examples to evaluate on.
    """

    parameters: Any
    held_out: Batch


def generated(
    example: jax.ShapeDtypeStruct,
    sample: Callable[[chex.PRNGKey], Any],
    draw: Callable[[Any, chex.PRNGKey, int], Batch],
) -> Source:
    """Returns a source whose data sets are distributions.

    Args:
      example: Shape and dtype of the inputs of one example.
      sample: From a key to a distribution's parameters.
      draw: From these, a key and a batch size to fresh examples.
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
    """Draws the factor on all inputs of a data set, `float32[]`."""
    return log_uniform(key, *_INPUT_SCALES)


def sample_label_noise(key: chex.PRNGKey) -> chex.Array:
    """Draws the share of labels that are replaced by random ones, `float32[]`."""
    return jax.random.uniform(key, maxval=_HIGHEST_LABEL_NOISE)


def add_label_noise(
    key: chex.PRNGKey, labels: chex.Array, share: chex.Array, classes: int
) -> chex.Array:
    """Replaces `share` of the `int32[...]` labels by any, right ones among them."""
    which_key, label_key = jax.random.split(key)
    replaced = jax.random.uniform(which_key, labels.shape) < share
    return jnp.where(replaced, jax.random.randint(label_key, labels.shape, 0, classes), labels)


class MixtureParameters(NamedTuple):
    """A labelled Gaussian mixture.

    Attributes:
      centres: Of the components, `float32[components, features]`; the k-th has label k % classes.
      mixing: What the features are multiplied by, `float32[features, features]`.
      spread: Standard deviation of a component before mixing, `float32[]`.
      label_noise: Share of random labels, `float32[]`.
    """

    centres: chex.Array
    mixing: chex.Array
    spread: chex.Array
    label_noise: chex.Array


def gaussian_mixture(features: int, classes: int) -> Source:
    """Returns Gaussian mixtures, four components a class, mixed by a random matrix.

    Args:
      features: Inputs are `float32[features]`.
      classes: Labels are `int32[]` below it.
    """

    def sample(key: chex.PRNGKey) -> MixtureParameters:
        keys = jax.random.split(key, 5)
        mixing = jax.random.normal(keys[1], (features, features)) / np.sqrt(features)
        return MixtureParameters(
            centres=jax.random.normal(keys[0], (_COMPONENTS_PER_CLASS * classes, features)),
            mixing=mixing * sample_input_scale(keys[2]),
            spread=log_uniform(keys[3], 0.3, 1.2),
            label_noise=sample_label_noise(keys[4]),
        )

    def draw(parameters: MixtureParameters, key: chex.PRNGKey, size: int) -> Batch:
        component_key, noise_key, label_key = jax.random.split(key, 3)
        components = jax.random.randint(component_key, (size,), 0, _COMPONENTS_PER_CLASS * classes)
        noise = parameters.spread * jax.random.normal(noise_key, (size, features))
        labels = add_label_noise(label_key, components % classes, parameters.label_noise, classes)
        return Batch((parameters.centres[components] + noise) @ parameters.mixing, labels)

    return generated(jax.ShapeDtypeStruct((features,), jnp.float32), sample, draw)


class RawUnits(NamedTuple):
    """A data set whose features were never standardised.

    Attributes:
      data: The data set as it would be.
      offsets: Added to the features first, `float32[features]`.
      units: What they are multiplied by then, `float32[features]`.
    """

    data: Any
    offsets: chex.Array
    units: chex.Array


def in_raw_units(source: Source) -> Source:
    """Returns data sets of `source` as if each feature was measured in a unit of its own.

    Features lie up to ten away from zero, all on one side, and their units span more than three
    decades, as in tables that come from instruments.

    Args:
      source: Of inputs `float32[features]`.
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
      turns: How often each goes round, `float32[]`.
      spread: Standard deviation of the points about them, `float32[]`.
      mixing: What the points are multiplied by, `float32[2, 2]`.
      label_noise: Share of random labels, `float32[]`.
    """

    turns: chex.Array
    spread: chex.Array
    mixing: chex.Array
    label_noise: chex.Array


def spirals() -> Source:
    """Returns two classes, `int32[]`, of points, `float32[2]`, on two spirals."""

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
      mixing: Makes standard normal numbers into inputs, `float32[features, features]`.
      weights: Of the function, `float32[features, 1]`.
      noise: Standard deviation of the targets about the function, `float32[]`.
      outliers: Share of targets whose deviation is ten times larger and more, `float32[]`.
    """

    mixing: chex.Array
    weights: chex.Array
    noise: chex.Array
    outliers: chex.Array


def linear_function(features: int, *, highest_outlier_share: float) -> Source:
    """Returns linear functions of inputs whose covariance has a condition number of 1 to 10,000.

    Args:
      features: Inputs are `float32[features]`, targets `float32[1]`.
      highest_outlier_share: The share of outliers is drawn between 0 and this.
    """

    def sample(key: chex.PRNGKey) -> LinearParameters:
        keys = jax.random.split(key, 7)
        spectrum = log_uniform(keys[0], 1.0, 100.0) ** jnp.linspace(-1.0, 0.0, features)
        rotation = jax.random.orthogonal(keys[1], features)
        scale = sample_input_scale(keys[2])
        weights = jax.random.normal(keys[3], (features, 1)) / np.sqrt(features)
        # Divided by the root, directions of little variance are slow to learn and worth learning.
        weights *= log_uniform(keys[4], 0.5, 5.0) / (scale * jnp.sqrt(spectrum)[:, None])
        return LinearParameters(
            mixing=scale * spectrum[:, None] * rotation,
            weights=rotation.T @ weights,
            noise=log_uniform(keys[5], 0.03, 0.5),
            outliers=jax.random.uniform(keys[6], maxval=highest_outlier_share),
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
      first: `float32[features, hidden]`.
      last: `float32[hidden, outputs]`.
      input_scale: What the student sees is this much larger than the teacher's input, `float32[]`.
      noise: Standard deviation of the targets about the teacher's outputs, `float32[]`.
    """

    first: chex.Array
    last: chex.Array
    input_scale: chex.Array
    noise: chex.Array


def teacher(features: int, hidden: int, outputs: int) -> Source:
    """Returns the outputs, `float32[outputs]`, of random networks on `float32[features]`."""

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

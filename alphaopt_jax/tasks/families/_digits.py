"""Data sets made from scikit-learn's 8x8 digits. Requires scikit-learn.

A fixed random fifth of the rows is held out. The instances of a source differ in the scale and
the rotation of the inputs, in the grouping of the classes, and in the label noise of the training
rows.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from alphaopt_jax.tasks.families.supervised import Batch, Source
from alphaopt_jax.tasks.families.synthetic import (
    add_label_noise,
    sample_input_scale,
    sample_label_noise,
)

_DIGITS_SHAPE = (8, 8, 1)


class Rows(NamedTuple):
    """A data set in memory.

    Attributes:
      train: Training rows, `float32[N, ...]` inputs and their targets.
      held_out: Evaluation rows, likewise.
    """

    train: Batch
    held_out: Batch


def digits() -> Source:
    """Returns 8x8 digits as `float32[64]`; half of the data sets are randomly rotated in R⁶⁴."""
    return _classification(_load_digits(), classes=10, turn=_rotate)


def digit_images() -> Source:
    """Returns 8x8 digits as `float32[8, 8, 1]`; half of the data sets are mirrored."""
    images = Rows(
        *(Batch(part.inputs.reshape(-1, *_DIGITS_SHAPE), part.targets) for part in _load_digits())
    )
    return _classification(images, classes=10, turn=_mirror)


def digit_reconstruction() -> Source:
    """Returns 8x8 digits as inputs and as targets, `float32[64]`; only inputs are scaled."""
    rows = _load_digits()

    def sample(key: chex.PRNGKey) -> Rows:
        turn_key, scale_key = jax.random.split(key)
        scale = sample_input_scale(scale_key)
        turned = _turned(turn_key, rows, _rotate)
        return Rows(*(Batch(scale * part.inputs, part.inputs) for part in turned))

    return _source(rows, sample)


def _source(rows: Rows, sample: Callable[[chex.PRNGKey], Rows]) -> Source:
    def draw(data: Rows, key: chex.PRNGKey, size: int) -> Batch:
        chosen = jax.random.randint(key, (size,), 0, data.train.inputs.shape[0])
        return Batch(data.train.inputs[chosen], data.train.targets[chosen])

    return Source(
        example=jax.ShapeDtypeStruct(rows.train.inputs.shape[1:], jnp.float32),
        sample=sample,
        draw=draw,
        held_out=lambda data: data.held_out,
    )


def _classification(
    rows: Rows, *, classes: int, turn: Callable[[chex.PRNGKey, chex.Array], chex.Array]
) -> Source:
    def sample(key: chex.PRNGKey) -> Rows:
        turn_key, scale_key, class_key, share_key, noise_key = jax.random.split(key, 5)
        scale = sample_input_scale(scale_key)
        group = _sample_groups(class_key, classes)
        train, held_out = (
            Batch(scale * part.inputs, group[part.targets])
            for part in _turned(turn_key, rows, turn)
        )
        noisy = add_label_noise(noise_key, train.targets, sample_label_noise(share_key), classes)
        return Rows(train._replace(targets=noisy), held_out)

    return _source(rows, sample)


def _sample_groups(key: chex.PRNGKey, classes: int) -> chex.Array:
    """Draws a new label for each class; in half of the draws, several classes may be merged."""
    which_key, group_key = jax.random.split(key)
    # Merging two classes would leave only one.
    merged = jax.random.bernoulli(which_key) & (classes > 2)
    groups = jax.random.randint(group_key, (classes,), 0, classes)
    return jnp.where(merged, groups, jnp.arange(classes))


def _turned(
    key: chex.PRNGKey, rows: Rows, turn: Callable[[chex.PRNGKey, chex.Array], chex.Array]
) -> Rows:
    """Transforms the inputs of all rows in the same way, in half of the draws."""
    which_key, turn_key = jax.random.split(key)
    turns = jax.random.bernoulli(which_key)
    return Rows(
        *(
            part._replace(inputs=jnp.where(turns, turn(turn_key, part.inputs), part.inputs))
            for part in rows
        )
    )


def _rotate(key: chex.PRNGKey, inputs: chex.Array) -> chex.Array:
    return inputs @ jax.random.orthogonal(key, inputs.shape[-1])


def _mirror(key: chex.PRNGKey, images: chex.Array) -> chex.Array:
    height, width, transposition = jax.random.bernoulli(key, shape=(3,))
    images = jnp.where(height, images[:, ::-1], images)
    images = jnp.where(width, images[:, :, ::-1], images)
    return jnp.where(transposition, images.swapaxes(1, 2), images)


@functools.cache
def _load_digits() -> Rows:
    from sklearn import datasets

    # One mean and standard deviation for all pixels: some pixels are blank in almost all images.
    return _load(datasets.load_digits, axis=None)


@functools.cache
def _load(loader: Callable[..., tuple[np.ndarray, np.ndarray]], axis: int | None) -> Rows:
    inputs, labels = loader(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(inputs))
    train, held_out = np.split(order, [len(inputs) * 4 // 5])
    mean, deviation = inputs[train].mean(axis=axis), inputs[train].std(axis=axis)
    standardized = ((inputs - mean) / deviation).astype(np.float32)
    labels = labels.astype(np.int32)
    return Rows(*(Batch(standardized[part], labels[part]) for part in (train, held_out)))

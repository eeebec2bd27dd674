"""The data of the test suite as NumPy arrays, cached in memory.

All data sets except MNIST and Omniglot are part of scikit-learn.
"""

from __future__ import annotations

import functools
import importlib.resources
import pathlib
from typing import NamedTuple

import chex
import numpy as np

from alphaopt_jax.tasks import datasets

CHARACTERS = "\n abcdefghijklmnopqrstuvwxyz0123456789.,:;!?'\"()[]<>{}/\\|-_+*=~`#&%$@^"
"""Characters of the text data; all others become spaces."""

_OMNIGLOT_ALPHABET = 1  # The evaluation alphabet with exactly 20 characters.
_TRAIN_DRAWERS = 15  # Of the 20 people who drew each character.
_MNIST_TEST_IMAGES = 2000


class Split(NamedTuple):
    """Training and held-out examples.

    Attributes:
      train_inputs: `[N, ...]`; images are `uint8` and scaled when a batch is drawn.
      train_targets: Classes `int32[N]` or values `float32[N, ...]`.
      test_inputs: `[M, ...]`.
      test_targets: `[M, ...]`.
    """

    train_inputs: chex.Array
    train_targets: chex.Array
    test_inputs: chex.Array
    test_targets: chex.Array


@functools.cache
def mnist() -> Split:
    """MNIST: `uint8[60000, 28, 28]` images; the first 2,000 of the test set are held out.

    Raises:
      FileNotFoundError: MNIST is not on this machine and cannot be downloaded.
    """
    data = datasets.load_mnist()
    if not data.source.startswith("MNIST"):
        raise FileNotFoundError(
            "The suite's MNIST tasks need MNIST itself, which was not found: set TFDS_DATA_DIR to a"
            " folder in which TFDS has prepared mnist/3.0.1, or omit these tasks."
        )
    return Split(
        data.train_images[..., 0],
        data.train_labels,
        data.test_images[:_MNIST_TEST_IMAGES, ..., 0],
        data.test_labels[:_MNIST_TEST_IMAGES],
    )


@functools.cache
def omniglot() -> Split:
    """The 20 characters of one Omniglot alphabet, drawn by 15 people; those of 5 are held out.

    Images are `uint8[300, 28, 28]`, ink 255, downsampled by four from drawings of 105x105.

    Raises:
      FileNotFoundError: No folder has a prepared Omniglot.
    """
    folder = _folder_of("omniglot")
    drawings, alphabets = datasets.read_omniglot("test", folder, download=False)
    images = _downsampled(drawings[alphabets == _OMNIGLOT_ALPHABET])
    labels = np.arange(len(images), dtype=np.int32)
    return Split(
        images[:, :_TRAIN_DRAWERS].reshape(-1, *images.shape[2:]),
        np.repeat(labels, _TRAIN_DRAWERS),
        images[:, _TRAIN_DRAWERS:].reshape(-1, *images.shape[2:]),
        np.repeat(labels, images.shape[1] - _TRAIN_DRAWERS),
    )


@functools.cache
def digits() -> Split:
    """scikit-learn's 8x8 digits: `float32[1500, 64]` in [0, 1], 297 held out."""
    from sklearn import datasets as sklearn_datasets

    data = sklearn_datasets.load_digits()
    return _split(data.data / 16.0, data.target.astype(np.int32), num_test=297)


@functools.cache
def breast_cancer() -> Split:
    """Breast cancer, benign or malignant: `float32[455, 30]`, standardized; 114 held out."""
    from sklearn import datasets as sklearn_datasets

    inputs, targets = sklearn_datasets.load_breast_cancer(return_X_y=True)
    return _split(_standardized(inputs), targets.astype(np.int32), num_test=114)


@functools.cache
def wine() -> Split:
    """Three wines by 13 raw measurements, 0.1 to 1680: `float32[142, 13]`, 36 held out."""
    from sklearn import datasets as sklearn_datasets

    inputs, targets = sklearn_datasets.load_wine(return_X_y=True)
    return _split(inputs, targets.astype(np.int32), num_test=36)


@functools.cache
def diabetes() -> Split:
    """Progress of diabetes: `float32[353, 10]`, targets standardized; 89 held out."""
    from sklearn import datasets as sklearn_datasets

    inputs, targets = sklearn_datasets.load_diabetes(return_X_y=True)
    return _split(inputs, _standardized(targets[:, None])[:, 0].astype(np.float32), num_test=89)


@functools.cache
def photograph() -> Split:
    """A gray 64x64 photograph as a function on [-1, 1]²; half of the pixels, as on a chessboard.

    Inputs are coordinates, `float32[2048, 2]`, targets standardized brightness, `float32[2048]`.
    """
    from sklearn import datasets as sklearn_datasets

    picture = sklearn_datasets.load_sample_image("china.jpg").astype(np.float32).mean(axis=-1)
    blocks = picture[21:405, 128:512].reshape(64, 6, 64, 6).mean(axis=(1, 3))
    brightness = ((blocks - blocks.mean()) / blocks.std()).astype(np.float32)
    places = np.linspace(-1.0, 1.0, 64, dtype=np.float32)
    rows, columns = np.meshgrid(places, places, indexing="ij")
    coordinates = np.stack([rows, columns], axis=-1)
    is_train = np.add.outer(np.arange(64), np.arange(64)) % 2 == 0
    return Split(
        coordinates[is_train], brightness[is_train], coordinates[~is_train], brightness[~is_train]
    )


@functools.cache
def text() -> tuple[np.ndarray, np.ndarray]:
    """English text: scikit-learn's descriptions of its data sets, in lower case.

    Returns:
      Indices into `CHARACTERS`, `uint8[N]` each: the first nine tenths for training, and the
      held-out rest.
    """
    folder = importlib.resources.files("sklearn.datasets.descr")
    files = sorted(
        (each for each in folder.iterdir() if each.name.endswith(".rst")),
        key=lambda each: each.name,
    )
    lower = "\n".join(each.read_text(encoding="utf-8") for each in files).lower()
    index = {character: i for i, character in enumerate(CHARACTERS)}
    codes = np.array([index.get(character, index[" "]) for character in lower], np.uint8)
    cut = len(codes) * 9 // 10
    return codes[:cut], codes[cut:]


def _folder_of(name: str) -> pathlib.Path:
    folders = datasets.prepared_folders()
    for folder in folders:
        if (folder / name).is_dir():
            return folder
    searched = ", ".join(str(folder) for folder in folders)
    raise FileNotFoundError(
        f"No prepared {name!r} in any of: {searched}. Prepare it with TFDS as array_record files"
        " and set TFDS_DATA_DIR to its folder, or omit this task."
    )


def _downsampled(ink: np.ndarray) -> np.ndarray:
    """Maps drawings, `bool[..., 105, 105]`, to `uint8[..., 28, 28]` with ink 255."""
    padded = np.pad(ink, [(0, 0)] * (ink.ndim - 2) + [(3, 4), (3, 4)])
    cells = padded.reshape(*ink.shape[:-2], 28, 4, 28, 4)
    return (255.0 * cells.mean(axis=(-3, -1))).astype(np.uint8)


def _standardized(values: np.ndarray) -> np.ndarray:
    return (values - values.mean(axis=0)) / values.std(axis=0)


def _split(inputs: np.ndarray, targets: np.ndarray, num_test: int) -> Split:
    order = np.random.default_rng(0).permutation(len(inputs))
    test, train = order[:num_test], order[num_test:]
    inputs = inputs.astype(np.float32)
    return Split(inputs[train], targets[train], inputs[test], targets[test])

"""Image data sets as arrays: from a prepared TFDS folder, a download, or scikit-learn.

The network is checked for a few seconds before a download by TFDS, which would otherwise hang
without a connection.
"""

from __future__ import annotations

from collections.abc import Sequence
import importlib.util
import logging
import os
import pathlib
import socket
from typing import NamedTuple

import numpy as np

OMNIGLOT_DRAWERS = 20
"""Number of people who drew each character of Omniglot."""

_LOGGER = logging.getLogger(__name__)
_DOWNLOAD_HOST = ("storage.googleapis.com", 443)
_NETWORK_TIMEOUT_SECONDS = 3.0


class ImageClassificationData(NamedTuple):
    """A labeled image data set in memory.

    Attributes:
      train_images: `uint8[N, 28, 28, 1]`.
      train_labels: `int32[N]`.
      test_images: `uint8[M, 28, 28, 1]`.
      test_labels: `int32[M]`.
      source: Origin of the images, for log messages.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    source: str


def load_mnist(data_dir: str | os.PathLike[str] | None = None) -> ImageClassificationData:
    """Loads MNIST: 60,000 training and 10,000 test images of handwritten digits.

    Sources are tried in this order: `data_dir`; the folder in the environment variable
    `TFDS_DATA_DIR`; TFDS's default folder, and one beside this checkout; a download by TFDS, if
    the network responds and TensorFlow (which TFDS needs to prepare files) is installed; and
    finally scikit-learn's 1,797 digits, resized from 8x8 to 28x28, with a warning.

    Args:
      data_dir: A folder in which TFDS has prepared `mnist`. If given, no other source is tried.

    Returns:
      The images and labels; `source` names their origin.

    Raises:
      FileNotFoundError: `data_dir` is given and has no prepared MNIST.
    """
    for folder in prepared_folders(data_dir):
        if (folder / "mnist").is_dir():
            return _read_tfds(folder, download=False)
    if data_dir is not None:
        raise FileNotFoundError(
            f"No prepared MNIST under {os.fspath(data_dir)!r}. Expected a TFDS folder with"
            " mnist/3.0.1; omit `data_dir` to let TFDS download it."
        )
    obstacle = download_obstacle()
    if obstacle is None:
        return _read_tfds(None, download=True)
    _LOGGER.warning(
        "MNIST is not on this machine and cannot be downloaded (%s): using scikit-learn's 1,797"
        " digits, resized from 8x8 to 28x28, instead. Set TFDS_DATA_DIR to use MNIST.",
        obstacle,
    )
    return _load_digits()


def load_images(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads the training split of a TFDS image classification data set with images of one size.

    Args:
      name: Name in TFDS, such as "fashion_mnist" or "cifar10".

    Returns:
      `uint8[N, H, W, C]` images and `int32[N]` labels.

    Raises:
      FileNotFoundError: The data set is not on this machine and cannot be downloaded.
    """
    for folder in prepared_folders():
        if (folder / name).is_dir():
            return _read_split(name, "train", folder, download=False)
    obstacle = download_obstacle()
    if obstacle is not None:
        raise FileNotFoundError(
            f"The data set {name!r} is not on this machine and cannot be downloaded ({obstacle})."
            " Set TFDS_DATA_DIR to a folder in which TFDS has prepared it."
        )
    return _read_split(name, "train", None, download=True)


def read_omniglot(
    split: str, folder: pathlib.Path | None, *, download: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Reads a split of Omniglot through TFDS.

    Args:
      split: "train" for the background alphabets, or "test" for the evaluation alphabets.
      folder: A folder in which TFDS has prepared Omniglot; None for TFDS's default folder.
      download: Whether TFDS may download it.

    Returns:
      Drawings, `bool[C, 20, 105, 105]`, ink True, sorted by alphabet and character; and the index
      of each character's alphabet, `int32[C]`.
    """
    import tensorflow_datasets as tfds  # Slow to import, and needed only here.

    source = tfds.data_source("omniglot", split=split, data_dir=folder, download=download)
    examples = source.__getitems__(list(range(len(source))))
    alphabets = np.array([example["alphabet"] for example in examples], np.int32)
    characters = np.array([example["alphabet_char_id"] for example in examples])
    # Paper is 1 or 255, depending on the PNG decoder; ink is 0.
    ink = np.stack([example["image"][..., 0] == 0 for example in examples])
    order = np.lexsort((np.arange(len(examples)), characters, alphabets))
    drawings = ink[order].reshape(-1, OMNIGLOT_DRAWERS, *ink.shape[1:])
    return drawings, alphabets[order][::OMNIGLOT_DRAWERS]


def prepared_folders(data_dir: str | os.PathLike[str] | None = None) -> Sequence[pathlib.Path]:
    """Returns the folders to search for data sets prepared by TFDS, in order.

    Args:
      data_dir: If given, the only folder.

    Returns:
      `data_dir`; or the folder in the environment variable `TFDS_DATA_DIR`, TFDS's default folder,
      and one beside this checkout. They may not exist.
    """
    if data_dir is not None:
        return [pathlib.Path(data_dir)]
    named = os.environ.get("TFDS_DATA_DIR")
    folders = [pathlib.Path(named)] if named else []
    folders.append(pathlib.Path.home() / "tensorflow_datasets")
    checkout = pathlib.Path(__file__).resolve().parents[2]
    for parent in (checkout.parent, pathlib.Path.cwd().parent):
        folders.append(parent / "shared" / "data" / "tensorflow_datasets")
    return folders


def download_obstacle() -> str | None:
    """Returns why TFDS cannot download and prepare a data set on this machine, or None."""
    if importlib.util.find_spec("tensorflow") is None:
        return "TFDS needs TensorFlow to prepare a download, and it is not installed"
    try:
        socket.create_connection(_DOWNLOAD_HOST, timeout=_NETWORK_TIMEOUT_SECONDS).close()
    except OSError as error:
        return f"no network: {error}"
    return None


def _read_tfds(folder: pathlib.Path | None, *, download: bool) -> ImageClassificationData:
    train, test = (
        _read_split("mnist", split, folder, download=download) for split in ("train", "test")
    )
    place = f"TFDS, {folder}" if folder else "TFDS"
    return ImageClassificationData(*train, *test, f"MNIST ({place})")


def _read_split(
    name: str, split: str, folder: pathlib.Path | None, *, download: bool
) -> tuple[np.ndarray, np.ndarray]:
    import tensorflow_datasets as tfds  # Slow to import, and needed only here.

    source = tfds.data_source(name, split=split, data_dir=folder, download=download)
    examples = source.__getitems__(list(range(len(source))))
    images = np.stack([example["image"] for example in examples])
    return images, np.array([example["label"] for example in examples], np.int32)


def _load_digits() -> ImageClassificationData:
    from sklearn import datasets

    digits = datasets.load_digits()
    pixels = (digits.images * (255.0 / 16.0)).astype(np.uint8)
    enlarged = np.kron(pixels, np.ones((1, 3, 3), np.uint8))  # 8x8 to 24x24, then padded by 2.
    images = np.pad(enlarged, ((0, 0), (2, 2), (2, 2)))[..., None]
    labels = digits.target.astype(np.int32)
    order = np.random.default_rng(0).permutation(len(images))
    train, test = order[:1500], order[1500:]
    return ImageClassificationData(
        images[train],
        labels[train],
        images[test],
        labels[test],
        source="scikit-learn digits, resized",
    )

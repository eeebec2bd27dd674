"""Omniglot: 1,623 handwritten characters of 50 alphabets, each drawn by 20 people.

Drawings are shrunk to 28x28 pixels of ink or paper and kept as bits. Whole alphabets are training,
validation or test: the "background" alphabets are the first two, the "evaluation" alphabets the
last, as their authors meant them.

Source: Lake, Salakhutdinov & Tenenbaum 2015, *Human-level concept learning through probabilistic
program induction*.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import pathlib
import tempfile
from typing import NamedTuple

import chex
import jax.numpy as jnp
import numpy as np

from alphaopt_jax.tasks import datasets
from alphaopt_jax.tasks.omniglot.synthetic import draw_characters

SIZE = 28
"""Height and width of a drawing, in pixels."""
DRAWERS = datasets.OMNIGLOT_DRAWERS
"""People who drew each character."""

_LOGGER = logging.getLogger(__name__)
_ORIGINAL_SIZE = 105
# A pixel is ink where at least this share of it was; thin strokes stay whole.
_INK_SHARE = 0.3
# Every sixth of the background alphabets, in the order of their numbers, is for validation.
_VALIDATION_STRIDE = 6
_CACHE_NAME = "omniglot-28x28-v1.npz"
_SPLITS = ("background", "evaluation")


class Characters(NamedTuple):
    """C characters; those of an alphabet stand together.

    Attributes:
      bits: `uint8[C, 20, 98]`, a drawing's 784 pixels row by row, 8 in a byte; ink is 1.
      alphabets: `int32[C]`, each character's alphabet.
    """

    bits: np.ndarray
    alphabets: np.ndarray

    @property
    def number(self) -> int:
        """C."""
        return len(self.alphabets)


class Omniglot(NamedTuple):
    """The data set in three parts that share no alphabet.

    Attributes:
      training: For meta-training.
      validation: To choose by.
      test: For meta-tests, and for nothing else.
      source: Where the drawings came from, in words fit for a log line.
    """

    training: Characters
    validation: Characters
    test: Characters
    source: str

    @property
    def name(self) -> str:
        """What `source` says without the place: "Omniglot", or "drawn by a program"."""
        return self.source.partition(" (")[0]


def load_omniglot(data_dir: str | os.PathLike[str] | None = None) -> Omniglot:
    """Loads Omniglot, or draws characters like it where it cannot be had.

    Tried in this order: `data_dir`; what an earlier call has cached; the folder that the
    environment variable `TFDS_DATA_DIR` names; TFDS's usual folder, and one beside this checkout;
    TFDS's own download, when the network answers and TensorFlow (which TFDS needs to prepare files)
    is installed; and last characters that a program draws, with one warning that says so. They
    have as many alphabets, each with strokes of a style, and are drawn by 20 unsteady hands; but
    nobody ever wrote them, and no figure measured on them is one of Omniglot.

    What was read through TFDS is cached under `$XDG_CACHE_HOME/alphaopt_jax`, `~/.cache` if that is
    not set.

    Args:
      data_dir: A folder in which TFDS has prepared `omniglot`. When given, nothing else is tried.

    Returns:
      The characters, with `source` telling which of the above they are.

    Raises:
      FileNotFoundError: `data_dir` was given and holds no prepared Omniglot.
    """
    if data_dir is not None and not (pathlib.Path(data_dir) / "omniglot").is_dir():
        raise FileNotFoundError(
            f"No prepared Omniglot under {os.fspath(data_dir)!r}. Expected a TFDS folder that holds"
            " omniglot/3.0.0; leave `data_dir` out to look elsewhere."
        )
    return _load(None if data_dir is None else pathlib.Path(data_dir))


@functools.cache
def _load(data_dir: pathlib.Path | None) -> Omniglot:
    cache = _cache_folder() / _CACHE_NAME
    if data_dir is None:
        cached = _read_cache(cache)
        if cached is not None:
            return _divide(*cached, source=f"Omniglot (cached in {cache})")
    for folder in datasets.prepared_folders(data_dir):
        if (folder / "omniglot").is_dir():
            parts = _read_tfds(folder, download=False)
            if data_dir is None:
                _write_cache(cache, parts)
            return _divide(*parts, source=f"Omniglot (TFDS, {folder})")
    obstacle = datasets.download_obstacle()
    if obstacle is None:
        parts = _read_tfds(None, download=True)
        _write_cache(cache, parts)
        return _divide(*parts, source="Omniglot (TFDS)")
    _LOGGER.warning(
        "Omniglot is not on this machine and cannot be downloaded (%s): using characters drawn by"
        " a program instead. Set TFDS_DATA_DIR to use the real ones.",
        obstacle,
    )
    return drawn()


@functools.cache
def drawn() -> Omniglot:
    """Characters that a program draws, in as many alphabets as Omniglot's.

    Example:
      >>> drawn().name
      'drawn by a program'
    """
    parts = [
        Characters(_pack(draw_characters(seed, alphabets, characters=24, drawers=DRAWERS)), which)
        for seed, alphabets in ((0, 30), (1, 20))
        for which in [np.repeat(np.arange(alphabets, dtype=np.int32), 24)]
    ]
    return _divide(*parts, source="drawn by a program")


def unpack(bits: chex.Array) -> chex.Array:
    """Drawings as images.

    Args:
      bits: `uint8[..., 98]`.

    Returns:
      `float32[..., 28, 28, 1]`, ink 1 and paper 0.

    Example:
      >>> import numpy as np
      >>> images = unpack(np.full((5, 98), 0b10000000, np.uint8))
      >>> images.shape, int(images[0].sum())
      ((5, 28, 28, 1), 98)
    """
    pixels = jnp.unpackbits(jnp.asarray(bits), axis=-1).astype(jnp.float32)
    return pixels.reshape(*pixels.shape[:-1], SIZE, SIZE, 1)


def _divide(background: Characters, evaluation: Characters, *, source: str) -> Omniglot:
    """Sets every sixth background alphabet aside for validation."""
    numbers = np.unique(background.alphabets)
    aside = numbers[_VALIDATION_STRIDE - 1 :: _VALIDATION_STRIDE]
    is_aside = np.isin(background.alphabets, aside)
    training, validation = (
        Characters(*(array[chosen] for array in background)) for chosen in (~is_aside, is_aside)
    )
    return Omniglot(training, validation, evaluation, source)


def _read_tfds(folder: pathlib.Path | None, *, download: bool) -> tuple[Characters, Characters]:
    background, evaluation = (
        Characters(_pack(_shrink(drawings)), alphabets)
        for drawings, alphabets in (
            datasets.read_omniglot(split, folder, download=download) for split in ("train", "test")
        )
    )
    return background, evaluation


def _shrink(images: np.ndarray) -> np.ndarray:
    """From `bool[..., 105, 105]` to `bool[..., 28, 28]`, by how much of a pixel was ink."""
    edges = np.linspace(0.0, _ORIGINAL_SIZE, SIZE + 1)
    before = np.arange(_ORIGINAL_SIZE)
    overlap = np.minimum(edges[1:, None], before + 1) - np.maximum(edges[:-1, None], before)
    weights = (np.maximum(overlap, 0.0) / (edges[1] - edges[0])).astype(np.float32)
    shares = weights @ images.astype(np.float32) @ weights.T
    return shares >= _INK_SHARE


def _pack(images: np.ndarray) -> np.ndarray:
    return np.packbits(images.reshape(*images.shape[:-2], -1), axis=-1)


def _cache_folder() -> pathlib.Path:
    root = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(root) / "alphaopt_jax"


def _read_cache(path: pathlib.Path) -> tuple[Characters, Characters] | None:
    """What the cache holds, or None where it holds nothing of use; then it is made anew."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            background, evaluation = (
                Characters(stored[f"{split}_bits"], stored[f"{split}_alphabets"])
                for split in _SPLITS
            )
    except FileNotFoundError:
        return None
    except Exception as error:  # What NumPy raises depends on which byte is damaged.
        _LOGGER.warning("%s is damaged and will be made anew: %s", path, error)
        return None
    return background, evaluation


def _write_cache(path: pathlib.Path, parts: tuple[Characters, Characters]) -> None:
    """Writes all of the file or none; a place that cannot be written to is no reason to stop."""
    arrays = {
        f"{split}_{name}": array
        for split, part in zip(_SPLITS, parts, strict=True)
        for name, array in part._asdict().items()
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".npz")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez_compressed(file, **arrays)
            pathlib.Path(temporary).replace(path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                pathlib.Path(temporary).unlink()
    except OSError as error:
        _LOGGER.warning("Omniglot could not be cached in %s: %s", path, error)

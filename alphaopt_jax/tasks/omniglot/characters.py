"""Omniglot: 1,623 handwritten characters of 50 alphabets, each drawn by 20 people.

Drawings are downsampled to 28x28 binary pixels and stored as bits. Training, validation and test
set share no alphabet: the "background" alphabets are split into training and validation, and the
"evaluation" alphabets are the test set, as their authors intended.

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
from alphaopt_jax.tasks.omniglot._synthetic import draw_characters

SIZE = 28
"""Height and width of a drawing in pixels."""
DRAWERS = datasets.OMNIGLOT_DRAWERS
"""Number of people who drew each character."""

_LOGGER = logging.getLogger(__name__)
_ORIGINAL_SIZE = 105
# A pixel is ink if at least this share of its area is; low enough to keep thin strokes connected.
_INK_SHARE = 0.3
# Every sixth background alphabet, in the order of their numbers, is for validation.
_VALIDATION_STRIDE = 6
_CACHE_NAME = "omniglot-28x28-v1.npz"
_SPLITS = ("background", "evaluation")


class Characters(NamedTuple):
    """Drawings of C characters, sorted by alphabet.

    Attributes:
      bits: `uint8[C, 20, 98]`, the 784 pixels of each drawing row by row, 8 per byte; ink is 1.
      alphabets: `int32[C]`, index of each character's alphabet.
    """

    bits: np.ndarray
    alphabets: np.ndarray

    @property
    def number(self) -> int:
        """C, the number of characters."""
        return len(self.alphabets)


class Omniglot(NamedTuple):
    """Omniglot, split into three sets that share no alphabet.

    Attributes:
      training: Characters for meta-training.
      validation: Characters for selection.
      test: Characters for meta-testing only.
      source: Origin of the drawings, for log messages.
    """

    training: Characters
    validation: Characters
    test: Characters
    source: str

    @property
    def name(self) -> str:
        """`source` without the location: "Omniglot" or "synthetic characters"."""
        return self.source.partition(" (")[0]


def load_omniglot(data_dir: str | os.PathLike[str] | None = None) -> Omniglot:
    """Loads Omniglot; without it, falls back to synthetic characters.

    Sources are tried in this order: `data_dir`; the cache of an earlier call; the folder in the
    environment variable `TFDS_DATA_DIR`; TFDS's default folder, and one beside this checkout; a
    download by TFDS, if the network responds and TensorFlow (which TFDS needs to prepare files) is
    installed; and finally `synthetic_omniglot`, with a warning. Results on synthetic characters
    are not comparable with results on Omniglot.

    Drawings read through TFDS are cached under `$XDG_CACHE_HOME/alphaopt_jax`, by default
    `~/.cache/alphaopt_jax`.

    Args:
      data_dir: A folder in which TFDS has prepared `omniglot`. If given, no other source is tried.

    Returns:
      The characters; `source` names their origin.

    Raises:
      FileNotFoundError: `data_dir` is given and has no prepared Omniglot.
    """
    if data_dir is not None and not (pathlib.Path(data_dir) / "omniglot").is_dir():
        raise FileNotFoundError(
            f"No prepared Omniglot under {os.fspath(data_dir)!r}. Expected a TFDS folder with"
            " omniglot/3.0.0; omit `data_dir` to search other folders."
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
        "Omniglot is not on this machine and cannot be downloaded (%s): using synthetic characters"
        " instead. Set TFDS_DATA_DIR to use Omniglot.",
        obstacle,
    )
    return synthetic_omniglot()


@functools.cache
def synthetic_omniglot() -> Omniglot:
    """Returns synthetic characters: 50 alphabets, each character drawn by 20 simulated writers.

    Example:
      >>> synthetic_omniglot().name
      'synthetic characters'
    """
    parts = [
        Characters(_pack(draw_characters(seed, alphabets, characters=24, drawers=DRAWERS)), which)
        for seed, alphabets in ((0, 30), (1, 20))
        for which in [np.repeat(np.arange(alphabets, dtype=np.int32), 24)]
    ]
    return _divide(*parts, source="synthetic characters")


def unpack(bits: chex.Array) -> chex.Array:
    """Unpacks drawings into images.

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
    """Splits the background alphabets into training and validation."""
    numbers = np.unique(background.alphabets)
    held_out = numbers[_VALIDATION_STRIDE - 1 :: _VALIDATION_STRIDE]
    is_held_out = np.isin(background.alphabets, held_out)
    training, validation = (
        Characters(*(array[chosen] for array in background))
        for chosen in (~is_held_out, is_held_out)
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
    """Downsamples `bool[..., 105, 105]` to `bool[..., 28, 28]` by the share of ink per pixel."""
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
    """Returns the cached characters, or None if the cache is missing or damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            background, evaluation = (
                Characters(stored[f"{split}_bits"], stored[f"{split}_alphabets"])
                for split in _SPLITS
            )
    except FileNotFoundError:
        return None
    except Exception as error:  # NumPy's error depends on the damaged byte.
        _LOGGER.warning("%s is damaged and will be written again: %s", path, error)
        return None
    return background, evaluation


def _write_cache(path: pathlib.Path, parts: tuple[Characters, Characters]) -> None:
    """Writes the cache atomically; failing to write it is only a warning."""
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

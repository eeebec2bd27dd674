"""Short digests of arrays and constants: a stored result is used again only for the same ones."""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
import hashlib
from typing import Any

import chex
import jax
import numpy as np

# Constants that are switched off, and the default update direction, in each of its spellings.
_ABSENT = (None, False, 0, "adam")


def digest(tree: chex.ArrayTree) -> str:
    """Digest of a tree of arrays, numbers and strings.

    Args:
      tree: The tree. Paths, shapes, types and values of its leaves count; their order does not.

    Returns:
      16 hexadecimal characters.

    Example:
      >>> digest({"a": 1.0, "b": "x"}) == digest({"b": "x", "a": 1.0})
      True
      >>> digest({"a": 1.0}) == digest({"a": 2.0})
      False
    """
    leaves = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}
    found = hashlib.sha256()
    for path, leaf in sorted(leaves.items()):
        if isinstance(leaf, str):
            found.update(repr((path, leaf)).encode())
            continue
        array = np.asarray(float(leaf) if isinstance(leaf, (bool, int, float)) else leaf)
        found.update(repr((path, array.shape, array.dtype.name)).encode())
        found.update(array.tobytes())
    return found.hexdigest()[:16]


def constants(config: Any) -> list[str]:
    """Values of a frozen configuration, as sorted text, without the names of its fields.

    A field that is renamed or moved changes nothing, nor does a new one that is switched off.
    Strings are listed once each.

    Args:
      config: A dataclass of numbers, strings, tuples and further dataclasses.

    Example:
      >>> @dataclasses.dataclass(frozen=True)
      ... class Config:
      ...   rate: float = 0.5
      ...   clipping: float | None = None
      ...   steps: int = 3
      >>> constants(Config())
      ['0.5', '3.0']
    """
    values = list(_leaves(config))
    numbers = [repr(float(value)) for value in values if not isinstance(value, str)]
    return sorted(numbers) + sorted({value for value in values if isinstance(value, str)})


def _leaves(config: Any) -> Iterator[str | float]:
    if dataclasses.is_dataclass(config):
        config = [getattr(config, field.name) for field in dataclasses.fields(config)]
    if isinstance(config, (list, tuple)):
        for part in config:
            yield from _leaves(part)
    elif config not in _ABSENT:
        yield config

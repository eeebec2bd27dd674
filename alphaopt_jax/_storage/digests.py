"""Short digests of arrays and constants: a stored result is used again only for the same ones."""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
import hashlib
from typing import Any

import chex
import jax
import numpy as np

_ABSENT = (None, False, 0)
"""Constants that are switched off."""


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
    """Fields of a frozen configuration with their values, as sorted text.

    A new field that is switched off (None, False or 0) changes nothing.

    Args:
      config: A dataclass or a tuple of numbers, strings, tuples and further dataclasses.

    Example:
      >>> @dataclasses.dataclass(frozen=True)
      ... class Config:
      ...   rate: float = 0.5
      ...   clipping: float | None = None
      ...   steps: int = 3
      >>> constants(Config())
      ['rate=0.5', 'steps=3.0']
    """
    return sorted(_fields(config, ""))


def _fields(config: Any, path: str) -> Iterator[str]:
    if dataclasses.is_dataclass(config):
        for field in dataclasses.fields(config):
            yield from _fields(getattr(config, field.name), f"{path}.{field.name}")
    elif isinstance(config, (list, tuple)):
        for index, part in enumerate(config):
            yield from _fields(part, f"{path}[{index}]")
    elif config not in _ABSENT:
        value = config if isinstance(config, str) else repr(float(config))
        yield f"{path.removeprefix('.')}={value}"

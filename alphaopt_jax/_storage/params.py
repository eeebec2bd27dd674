"""Learned parameters on disk: safetensors files that say what they hold. Nothing is unpickled.

Each file holds a checksum of every part of it, so that damage is noticed, and files are written as
a whole or not at all. A file from before there were checksums is read without.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import json
import math
import os
from typing import Any
import zlib

import chex
from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from alphaopt_jax._storage import atomic

LARGEST = 2**30
"""Bytes of parameters beyond which a file is not read. What is learned here has some thousands."""

_CHECKSUMS = "checksums"
_DEEPEST = 20  # Of nested dicts.


def write_params(
    path: str | os.PathLike[str],
    params: Mapping[str, chex.ArrayTree],
    *,
    kind: str,
    metadata: Mapping[str, str],
) -> None:
    """Writes a nested dict of arrays, as float32.

    Args:
      path: The file to write.
      params: A nested dict of arrays.
      kind: What the file holds, such as "alphaopt-agent"; `read_params` asks for it.
      metadata: What else belongs to the parameters.

    Raises:
      ValueError: They are larger than what is read again.
      OSError: The file could not be written; what was there is as it was.
    """
    leaves = flatten(params)
    if 4 * sum(np.size(leaf) for leaf in leaves.values()) > LARGEST:
        raise ValueError(f"Parameters of more than {LARGEST} bytes would not be read again.")
    arrays = {name: np.asarray(leaf, np.float32, order="C") for name, leaf in leaves.items()}
    texts = {"format": kind, **metadata}
    checksums = _checksums_of_texts(texts) | _checksums_of_arrays(arrays)
    content = safetensors.numpy.save(arrays, texts | {_CHECKSUMS: json.dumps(checksums)})
    atomic.write(path, content)


def read_params(
    path: str | os.PathLike[str],
    *,
    kind: str,
    what: str,
    written_by: str,
    check: Callable[[dict[str, chex.ArrayTree], dict[str, str]], Any] | None = None,
) -> tuple[dict[str, chex.ArrayTree], dict[str, str]]:
    """Reads what `write_params` wrote.

    Args:
      path: The file to read.
      kind: What it must hold.
      what: The same for people, such as "an agent".
      written_by: The function to name to whoever gives another file.
      check: Called with the shapes, a nested dict of `jax.ShapeDtypeStruct`, and the metadata
        before any array is read; raises an error where they do not fit.

    Returns:
      The nested dict, of JAX arrays, and the metadata.

    Raises:
      ValueError: It is not a safetensors file, is damaged, or holds something else.
    """
    name = repr(os.fspath(path))
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != kind:
                raise ValueError(
                    f"{name} is a safetensors file, but not {what}: its metadata lack"
                    f" format={kind!r}. Write them with {written_by}."
                )
            checksums = metadata.pop(_CHECKSUMS, None)
            _compare(name, checksums, _checksums_of_texts(metadata))
            shapes = _shapes(name, file)
            if check is not None:
                check(_nested(name, shapes), metadata)
            arrays = {each: file.get_tensor(each) for each in shapes}
    except safetensors.SafetensorError as error:
        raise ValueError(f"{name} is not a safetensors file: {error}.") from error
    _compare(name, checksums, _checksums_of_arrays(arrays))
    return _nested(name, {each: jnp.asarray(array) for each, array in arrays.items()}), metadata


def _shapes(name: str, file: Any) -> dict[str, jax.ShapeDtypeStruct]:
    """Of all arrays, from the header alone; refuses what no reader here could want."""
    slices = {each: file.get_slice(each) for each in file.keys()}  # noqa: SIM118
    other = sorted({each.get_dtype() for each in slices.values()} - {"F32"})
    if other:
        raise ValueError(f"{name} holds arrays of {', '.join(other)}; all must be of float32.")
    shapes = {each: tuple(part.get_shape()) for each, part in slices.items()}
    size = 4 * sum(math.prod(shape) for shape in shapes.values())
    if size > LARGEST:
        raise ValueError(
            f"{name} holds {size} bytes of parameters; what is learned here has at most {LARGEST}."
        )
    return {each: jax.ShapeDtypeStruct(shape, jnp.float32) for each, shape in shapes.items()}


def _nested(name: str, flat: Mapping[str, Any]) -> dict[str, chex.ArrayTree]:
    for each in flat:
        folders = each.split("/")[:-1]
        if len(folders) > _DEEPEST or any(
            "/".join(folders[: depth + 1]) in flat for depth in range(len(folders))
        ):
            raise ValueError(f"{name} holds an array whose name is no place in a tree: {each!r}.")
    return traverse_util.unflatten_dict(flat, sep="/")


def _checksums_of_texts(texts: Mapping[str, str]) -> dict[str, str]:
    return {f"text {name}": _checksum(text.encode()) for name, text in texts.items()}


def _checksums_of_arrays(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    return {
        f"array {name}": _checksum(repr(array.shape).encode() + array.tobytes())
        for name, array in arrays.items()
    }


def _checksum(content: bytes) -> str:
    return f"{zlib.crc32(content):08x}"


def _compare(name: str, stored: str | None, found: Mapping[str, str]) -> None:
    """Each part by itself, so that what is damaged can be named, and what is left out is not."""
    if stored is None:
        return
    try:
        expected = json.loads(stored)
    except ValueError:
        expected = {}
    damaged = [part for part, checksum in found.items() if expected.get(part) != checksum]
    if damaged:
        raise ValueError(
            f"{name} is damaged: {', '.join(damaged)} changed since it was written. Get it again"
            " from where it came."
        )


def flatten(params: Mapping[str, chex.ArrayTree]) -> dict[str, chex.Array]:
    """A nested dict as a flat one, with names joined by slashes."""
    return traverse_util.flatten_dict(dict(params), sep="/")

"""Learned parameters as safetensors files, with their kind and checksums as metadata.

Nothing is unpickled. Files are written atomically, and a checksum of every array detects damage.
Files without checksums, from earlier versions, can be read.
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

MAX_BYTES = 2**30
"""Size limit of the parameters in a file. Typical parameters have some thousand bytes."""

_CHECKSUMS = "checksums"
_MAX_DEPTH = 20  # Nesting of dicts.


def write_params(
    path: str | os.PathLike[str],
    params: Mapping[str, chex.ArrayTree],
    *,
    kind: str,
    metadata: Mapping[str, str],
) -> None:
    """Writes a nested dict of arrays as float32.

    Args:
      path: Path of the file.
      params: Nested dict of arrays.
      kind: Kind of the parameters, such as "alphaopt-agent"; `read_params` checks it.
      metadata: Further metadata.

    Raises:
      ValueError: The parameters exceed the size limit.
      OSError: The file could not be written; an existing file is unchanged.
    """
    leaves = flatten(params)
    if 4 * sum(np.size(leaf) for leaf in leaves.values()) > MAX_BYTES:
        raise ValueError(f"The parameters exceed the limit of {MAX_BYTES} bytes.")
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
    """Reads parameters written by `write_params`.

    Args:
      path: Path of the file.
      kind: Expected kind of the parameters.
      what: Description of the kind for error messages, such as "an agent".
      written_by: Name of the function that writes this kind, for error messages.
      check: Called before any array is read, with a nested dict of `jax.ShapeDtypeStruct` and the
        metadata; raises an error if they are not valid.

    Returns:
      The nested dict of JAX arrays, and the metadata.

    Raises:
      ValueError: The file is not a safetensors file, is damaged, or has another kind.
    """
    name = repr(os.fspath(path))
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != kind:
                raise ValueError(
                    f"{name} is a safetensors file, but not {what}: its metadata lack"
                    f" format={kind!r}. Such files are written by {written_by}."
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
    """Reads the shapes of all arrays from the header; refuses other dtypes and very large files."""
    slices = {each: file.get_slice(each) for each in file.keys()}  # noqa: SIM118
    other = sorted({each.get_dtype() for each in slices.values()} - {"F32"})
    if other:
        raise ValueError(f"{name} has arrays of {', '.join(other)}; all must be float32.")
    shapes = {each: tuple(part.get_shape()) for each, part in slices.items()}
    size = 4 * sum(math.prod(shape) for shape in shapes.values())
    if size > MAX_BYTES:
        raise ValueError(
            f"{name} has {size} bytes of parameters, more than the limit of {MAX_BYTES}."
        )
    return {each: jax.ShapeDtypeStruct(shape, jnp.float32) for each, shape in shapes.items()}


def _nested(name: str, flat: Mapping[str, Any]) -> dict[str, chex.ArrayTree]:
    for each in flat:
        folders = each.split("/")[:-1]
        if len(folders) > _MAX_DEPTH or any(
            "/".join(folders[: depth + 1]) in flat for depth in range(len(folders))
        ):
            raise ValueError(f"{name} has an array whose name is not a valid path: {each!r}.")
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
    """Raises ValueError with the names of the parts whose checksums differ from the stored ones."""
    if stored is None:
        return
    try:
        expected = json.loads(stored)
    except ValueError:
        expected = {}
    damaged = [part for part, checksum in found.items() if expected.get(part) != checksum]
    if damaged:
        raise ValueError(
            f"{name} is damaged: {', '.join(damaged)} changed since it was written. Get a new copy"
            " of the file."
        )


def flatten(params: Mapping[str, chex.ArrayTree]) -> dict[str, chex.Array]:
    """Flattens a nested dict, with keys joined by slashes."""
    return traverse_util.flatten_dict(dict(params), sep="/")

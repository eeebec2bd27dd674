"""Learned parameters on disk: safetensors files that say what they hold. Nothing is unpickled."""

from __future__ import annotations

from collections.abc import Mapping
import os
import pathlib

import chex
from flax import traverse_util
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

AGENTS = pathlib.Path(__file__).parent / "agents"
"""The folder of the shipped agents and their cards."""
BASELINES = pathlib.Path(__file__).parent / "baselines" / "weights"
"""The folder of the shipped baselines and their cards."""
INITIALIZATIONS = pathlib.Path(__file__).parent / "agents" / "initial_params"
"""The folder of the initial parameters that go with some agents, by the agents' names."""


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
    """
    arrays = {
        name: np.ascontiguousarray(leaf, np.float32) for name, leaf in flatten(params).items()
    }
    safetensors.numpy.save_file(arrays, os.fspath(path), {"format": kind, **metadata})


def read_params(
    path: str | os.PathLike[str], *, kind: str, what: str, written_by: str
) -> tuple[dict[str, chex.ArrayTree], dict[str, str]]:
    """Reads what `write_params` wrote.

    Args:
      path: The file to read.
      kind: What it must hold.
      what: The same for people, such as "an agent".
      written_by: The function to name to whoever gives another file.

    Returns:
      The nested dict, of JAX arrays, and the metadata.

    Raises:
      ValueError: It is not a safetensors file, or holds something else.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: jnp.asarray(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise ValueError(f"{os.fspath(path)!r} is not a safetensors file: {error}.") from error
    if metadata.get("format") != kind:
        raise ValueError(
            f"{os.fspath(path)!r} is a safetensors file, but not {what}: its metadata lack"
            f" format={kind!r}. Write them with {written_by}."
        )
    return traverse_util.unflatten_dict(arrays, sep="/"), metadata


def shipped_names(folder: pathlib.Path) -> list[str]:
    """Names of the files in a folder of this package, sorted."""
    return sorted(path.stem for path in folder.glob("*.safetensors"))


def find(
    name_or_path: str | os.PathLike[str], folder: pathlib.Path, *, what: str, otherwise: str = ""
) -> pathlib.Path:
    """The file of that path, or the one of that name in a folder of this package.

    Args:
      name_or_path: A path or a name.
      folder: Where the files that come with the package are.
      what: What is looked for, for the error: "agent".
      otherwise: What else can be done, a sentence with a space before it.

    Raises:
      FileNotFoundError: There is neither.
    """
    path = pathlib.Path(name_or_path)
    if path.is_file():
        return path
    shipped = folder / f"{path.name}.safetensors"
    if path.name == os.fspath(name_or_path) and shipped.is_file():
        return shipped
    raise FileNotFoundError(
        f"No {what} {os.fspath(name_or_path)!r}: no such file, and the shipped ones are"
        f" {shipped_names(folder)}.{otherwise}"
    )


def flatten(params: Mapping[str, chex.ArrayTree]) -> dict[str, chex.Array]:
    """A nested dict as a flat one, with names joined by slashes."""
    return traverse_util.flatten_dict(dict(params), sep="/")

"""Files of pretrained parameters in this package."""

from __future__ import annotations

import os
import pathlib

_FOLDER = pathlib.Path(__file__).parent
AGENTS = _FOLDER / "agents"
"""Folder of the pretrained agents and their cards."""
BASELINES = _FOLDER / "baselines"
"""Folder of the pretrained baselines and their cards."""
INITIALIZATIONS = _FOLDER / "initializations"
"""Folder of the initial parameters that belong to some agents; a file has its agent's name."""


def pretrained_names(folder: pathlib.Path) -> list[str]:
    """Returns the names of the parameter files in a folder of this package, sorted."""
    return sorted(path.stem for path in folder.glob("*.safetensors"))


def find_file(
    name_or_path: str | os.PathLike[str], folder: pathlib.Path, *, what: str, otherwise: str = ""
) -> pathlib.Path:
    """Returns the file at a path, or the file with that name in a folder of this package.

    Args:
      name_or_path: A path or a name.
      folder: Folder of the pretrained files.
      what: Kind of file for the error message, such as "agent".
      otherwise: Sentence for the error message about an alternative, beginning with a space.

    Raises:
      FileNotFoundError: Neither file exists.
    """
    path = pathlib.Path(name_or_path)
    if path.is_file():
        return path
    pretrained = folder / f"{path.name}.safetensors"
    if path.name == os.fspath(name_or_path) and pretrained.is_file():
        return pretrained
    raise FileNotFoundError(
        f"No {what} {os.fspath(name_or_path)!r}: no such file, and the pretrained ones are"
        f" {pretrained_names(folder)}.{otherwise}"
    )

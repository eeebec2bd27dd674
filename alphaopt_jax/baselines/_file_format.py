"""Files of pretrained baselines: safetensors with parameters and hyperparameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
import os
from typing import TypeVar

import chex

from alphaopt_jax._storage import params as params_lib
from alphaopt_jax.pretrained import _files

Loaded = TypeVar("Loaded")


@dataclasses.dataclass(frozen=True)
class FileFormat:
    """Format of the files of one kind of baseline.

    Attributes:
      kind: Value of the file's metadata entry "format".
      description: The content, with an article, for error messages: "an LSTM optimizer".
      saved_by: Dotted name of the function that writes such files, for error messages.
      recipe: Name of a recipe that trains such a baseline, for error messages.
    """

    kind: str
    description: str
    saved_by: str
    recipe: str

    def save(
        self,
        path: str | os.PathLike[str],
        params: Mapping[str, chex.ArrayTree],
        metadata: Mapping[str, str],
    ) -> None:
        """Writes parameters and metadata to `path`."""
        params_lib.write_params(path, params, kind=self.kind, metadata=metadata)

    def load(
        self,
        name_or_path: str | os.PathLike[str],
        build: Callable[[dict[str, chex.ArrayTree], dict[str, str]], Loaded],
    ) -> Loaded:
        """Reads a file.

        Args:
          name_or_path: A path, or the name of a pretrained baseline.
          build: From parameters and metadata to the loaded object; raises KeyError or ValueError if
            they do not fit.

        Raises:
          FileNotFoundError: There is no such file and no such pretrained baseline.
          ValueError: The file holds something else.
        """
        name = self.description.partition(" ")[2]
        path = _files.find_file(
            name_or_path,
            _files.BASELINES,
            what=name,
            otherwise=f" `alphaopt train-baseline {self.recipe} FOLDER` trains one.",
        )
        params, metadata = params_lib.read_params(
            path, kind=self.kind, what=self.description, written_by=self.saved_by
        )
        try:
            return build(params, metadata)
        except (KeyError, ValueError) as error:
            raise ValueError(
                f"{os.fspath(path)!r} does not hold a usable {name}. {error}"
            ) from error

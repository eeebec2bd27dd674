"""The card of a pretrained optimizer: training, selection, results and weaknesses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import json
import pathlib
from typing import Any

from alphaopt_jax._storage import atomic
from alphaopt_jax.pretrained import _files


@dataclasses.dataclass(frozen=True)
class Card:
    """Summary of a pretrained optimizer for its users.

    Attributes:
      name: Name by which it is loaded.
      summary: One sentence.
      command: Command that trains it again.
      seed: Seed of the training.
      trained_on: Names of the training families.
      selected_on: Names of the families that selected the best parameters.
      rounds: Rounds of training.
      env_steps: Training steps summed over all tasks.
      hours: Wall-clock time of the training, in hours.
      hardware: Devices used for training.
      versions: Versions of the packages used for training, by package.
      score: Selection score; lower is better. For an agent, the mean log of final over initial
        loss on the families of `selected_on`.
      results: Results on tasks used neither for training nor for selection, by description.
      weaknesses: Known weaknesses, a sentence each.
    """

    name: str
    summary: str
    command: str
    seed: int
    trained_on: Sequence[str]
    selected_on: Sequence[str]
    rounds: int
    env_steps: int
    hours: float
    hardware: str
    versions: Mapping[str, str]
    score: float
    results: Mapping[str, float]
    weaknesses: Sequence[str]


def load_card(name: str, folder: pathlib.Path = _files.AGENTS) -> Card:
    """Reads the card of a pretrained agent, or of another pretrained optimizer.

    Args:
      name: Name of the optimizer.
      folder: Folder of the optimizer; by default that of the pretrained agents.

    Raises:
      FileNotFoundError: The folder has no optimizer with this name.

    Example:
      >>> load_card("base").seed
      0
    """
    path = folder / f"{name}.json"
    names = _files.pretrained_names(folder)
    if name not in names or not path.exists():
        raise FileNotFoundError(f"No pretrained optimizer {name!r}; the names are {names}.")
    content: dict[str, Any] = json.loads(path.read_text())
    return Card(**content)


def write_card(card: Card, folder: pathlib.Path = _files.AGENTS) -> pathlib.Path:
    """Writes a card into the folder of its optimizer, and returns the file's path."""
    path = folder / f"{card.name}.json"
    atomic.write(path, (json.dumps(dataclasses.asdict(card), indent=1) + "\n").encode())
    return path

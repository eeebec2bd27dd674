"""The card of a learned optimizer: how it was made, and how good it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import json
import pathlib
from typing import Any

from alphaopt_jax._storage import atomic, params


@dataclasses.dataclass(frozen=True)
class Card:
    """What a user should know about a shipped optimizer.

    Attributes:
      name: What it is loaded by.
      summary: One sentence.
      command: What trains it again.
      seed: The seed that it was trained with.
      trained_on: Families of tasks that it was trained on.
      selected_on: Families of tasks that the best of the training was chosen by.
      rounds: Rounds of training.
      env_steps: Steps made on all tasks together.
      hours: Wall-clock of the training.
      hardware: What it was trained on.
      versions: Packages that it was trained with.
      score: What the best was chosen by; lower is better. Of an agent: mean log of final over
        initial loss on the families of `selected_on`.
      results: What was measured on tasks that neither training nor selection saw, by what it is.
      weaknesses: What it is known to be bad at, a sentence each.
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


def load_card(name: str, folder: pathlib.Path = params.AGENTS) -> Card:
    """Reads the card of a shipped agent, or of another shipped optimizer.

    Args:
      name: One of `files.shipped_names(folder)`.
      folder: Where the optimizer lies.

    Raises:
      FileNotFoundError: There is no such optimizer.

    Example:
      >>> load_card("base").seed
      0
    """
    path = folder / f"{name}.json"
    names = params.shipped_names(folder)
    if name not in names or not path.exists():
        raise FileNotFoundError(f"Nothing shipped has the name {name!r}; there are {names}.")
    content: dict[str, Any] = json.loads(path.read_text())
    return Card(**content)


def write_card(card: Card, folder: pathlib.Path = params.AGENTS) -> pathlib.Path:
    """Writes a card beside its optimizer, and returns where."""
    path = folder / f"{card.name}.json"
    atomic.write(path, (json.dumps(dataclasses.asdict(card), indent=1) + "\n").encode())
    return path

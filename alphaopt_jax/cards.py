"""The card of an agent: how it was made, and how good it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import json
import pathlib
from typing import Any

from alphaopt_jax.agent import SHIPPED, shipped_agents


@dataclasses.dataclass(frozen=True)
class AgentCard:
    """What a user should know about a shipped agent.

    Attributes:
      name: What `alphaopt(agent=...)` and `load_agent` call it.
      summary: One sentence.
      command: What trains it again.
      seed: The seed that it was trained with.
      trained_on: Families of tasks that it was trained on.
      selected_on: Families of tasks that the best agent of the training was chosen by.
      rounds: Rounds of meta-training.
      env_steps: Steps made on all tasks together.
      hours: Wall-clock of the training.
      hardware: What it was trained on.
      versions: Packages that it was trained with.
      score: Mean log of final over initial loss on the families of `selected_on`.
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


def load_card(name: str) -> AgentCard:
    """Reads the card of a shipped agent.

    Args:
      name: One of `shipped_agents()`.

    Raises:
      FileNotFoundError: There is no such agent.

    Example:
      >>> load_card("base").seed
      0
    """
    path = SHIPPED / f"{name}.json"
    if name not in shipped_agents() or not path.exists():
        raise FileNotFoundError(
            f"No shipped agent has the name {name!r}; there are {shipped_agents()}."
        )
    content: dict[str, Any] = json.loads(path.read_text())
    return AgentCard(**content)


def write_card(card: AgentCard, folder: pathlib.Path = SHIPPED) -> pathlib.Path:
    """Writes a card beside its agent, and returns where."""
    path = folder / f"{card.name}.json"
    path.write_text(json.dumps(dataclasses.asdict(card), indent=1) + "\n")
    return path

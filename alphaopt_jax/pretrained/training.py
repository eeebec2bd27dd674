"""Training of a pretrained optimizer by its recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from importlib import metadata
import os
import pathlib
from typing import NamedTuple

import jax

from alphaopt_jax._storage.wall_clock import Stopwatch
from alphaopt_jax.pretrained.card import Card, write_card


class TrainingResult(NamedTuple):
    """Result of training by a recipe.

    Attributes:
      save: Writes the learned parameters to a path.
      trained_on: Names of the training tasks.
      selected_on: Names of the tasks that selected the best parameters.
      rounds: Rounds of training: episodes of backpropagation, iterations of guided policy search,
        or rounds of an agent's learning.
      env_steps: Training steps summed over all tasks.
      score: Selection score; lower is better.
    """

    save: Callable[[pathlib.Path], None]
    trained_on: Sequence[str]
    selected_on: Sequence[str]
    rounds: int
    env_steps: int
    score: float


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Training of one pretrained optimizer.

    Attributes:
      summary: One sentence for its card.
      weaknesses: Known weaknesses, a sentence each.
      train: Maps a seed, a folder for checkpoints and whether to show progress to the result.
    """

    summary: str
    weaknesses: tuple[str, ...]
    train: Callable[[int, pathlib.Path, bool], TrainingResult]


def train_pretrained(
    recipes: Mapping[str, Recipe],
    name: str,
    folder: str | os.PathLike[str],
    *,
    what: str,
    command: str,
    seed: int = 0,
    show: bool = True,
) -> Card:
    """Trains an optimizer by its recipe, and writes its parameters and its card into a folder.

    Args:
      recipes: Recipes by name.
      name: Name of the recipe.
      folder: Folder for the results; an interrupted training resumes from its checkpoints there.
      what: Kind of optimizer for the error message, such as "baseline".
      command: Subcommand of `alphaopt` that runs this training; it is written to the card.
      seed: Seed of all randomness.
      show: Whether to show progress.

    Returns:
      The card.

    Raises:
      ValueError: There is no recipe with this name.
    """
    if name not in recipes:
        raise ValueError(f"No {what} has the name {name!r}; the names are {sorted(recipes)}.")
    recipe, place = recipes[name], pathlib.Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    with Stopwatch(place / "time.json") as watch:
        trained = recipe.train(seed, place, show)
    card = Card(
        name=name,
        summary=recipe.summary,
        command=f"alphaopt {command} {name} runs/{name} --seed {seed}",
        seed=seed,
        trained_on=list(trained.trained_on),
        selected_on=list(trained.selected_on),
        rounds=trained.rounds,
        env_steps=trained.env_steps,
        hours=round(watch.seconds / 3600.0, 2),
        hardware=f"{jax.device_count()} x {jax.devices()[0].device_kind}, {os.cpu_count()} cores",
        versions={each: metadata.version(each) for each in ("jax", "flax", "optax")},
        score=round(trained.score, 4),
        results={},
        weaknesses=recipe.weaknesses,
    )
    trained.save(place / f"{name}.safetensors")
    write_card(card, place)
    return card

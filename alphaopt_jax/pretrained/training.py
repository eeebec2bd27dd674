"""How a learned optimizer that ships is trained: its recipe, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from importlib import metadata
import os
import pathlib
from typing import NamedTuple

import jax

from alphaopt_jax._storage.wall_clock import Stopwatch
from alphaopt_jax.pretrained import card as card_lib


class Trained(NamedTuple):
    """What a recipe leaves.

    Attributes:
      save: Writes the learned parameters to a path.
      trained_on: Names of what it was trained on.
      selected_on: Names of what the best was chosen by.
      rounds: How many rounds there were: episodes of backpropagation, iterations of guided policy
        search, or rounds of an agent's learning.
      env_steps: Steps made on all tasks together.
      score: What the best was chosen by.
    """

    save: Callable[[pathlib.Path], None]
    trained_on: Sequence[str]
    selected_on: Sequence[str]
    rounds: int
    env_steps: int
    score: float


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One learned optimizer.

    Attributes:
      summary: One sentence.
      weaknesses: What it is known to be bad at, a sentence each.
      train: From a seed, a folder for checkpoints and whether to show progress to what came out.
    """

    summary: str
    weaknesses: tuple[str, ...]
    train: Callable[[int, pathlib.Path, bool], Trained]


def follow(
    recipes: Mapping[str, Recipe],
    name: str,
    folder: str | os.PathLike[str],
    *,
    what: str,
    command: str,
    seed: int = 0,
    show: bool = True,
) -> card_lib.Card:
    """Trains by a recipe, and writes what comes out and its card into a folder.

    Args:
      recipes: By name.
      name: One of them.
      folder: Where; a training that was interrupted goes on from what it finds there.
      what: What there are recipes for, for the error: "baseline".
      command: Of `alphaopt`, that does this.
      seed: Of everything random.
      show: Whether to show progress.

    Returns:
      The card.

    Raises:
      ValueError: There is no such recipe.
    """
    if name not in recipes:
        raise ValueError(f"No {what} has the name {name!r}; there are {sorted(recipes)}.")
    recipe, place = recipes[name], pathlib.Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    with Stopwatch(place / "time.json") as watch:
        trained = recipe.train(seed, place, show)
    card = card_lib.Card(
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
    card_lib.write_card(card, place)
    return card

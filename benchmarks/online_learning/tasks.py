"""The tasks of `benchmarks.online_learning`, unlike those of the pretrained agent's training."""

from __future__ import annotations

import dataclasses
from typing import Any

from alphaopt_jax.tasks.landscapes import LANDSCAPES, Landscape
from alphaopt_jax.tasks.suite import catalog
from alphaopt_jax.tasks.task import Family, Task

LEARNING_RATE = 0.1
GROUPS = {
    "landscapes": "landscapes",
    "too_small": f"test suite, learning_rate={LEARNING_RATE:g}",
}
"""Groups of tasks, from the key in the rows to the name in tables."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A task, and AlphaOpt's `learning_rate` on it.

    Attributes:
      group: A key of `GROUPS`.
      name: Name in the table.
      task: The task.
      learning_rate: Multiplier of the rates that the agent chooses.
    """

    group: str
    name: str
    task: Task | Family
    learning_rate: float = 1.0


def cases() -> list[Case]:
    """All but the multimodal landscapes, and the suite's cheap tasks with too small rates."""
    landscapes = [each for each in LANDSCAPES.values() if each.kind != "multimodal"]
    cheap = [each for each in catalog.SUITE.values() if each.cheap]
    return [
        *(Case("landscapes", each.name, _descent(each)) for each in landscapes),
        *(Case("too_small", each.name, each.family, LEARNING_RATE) for each in cheap),
    ]


def _descent(landscape: Landscape) -> Task:
    """A landscape as a task; the loss is the height above the minimum."""

    def loss(point: Any, batch: Any = None) -> Any:
        del batch
        return landscape(point) - landscape.minimum

    return Task(landscape.name, lambda key: landscape.initial_point(), lambda key: None, loss, loss)

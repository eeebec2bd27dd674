"""The tasks of `benchmarks.online_learning`, and the multipliers of the agent's rates."""

from __future__ import annotations

import dataclasses
from typing import Any

from alphaopt_jax.tasks.families import distribution
from alphaopt_jax.tasks.landscapes import LANDSCAPES, Landscape
from alphaopt_jax.tasks.suite import catalog
from alphaopt_jax.tasks.task import Family, Task

MULTIPLIERS = (0.01, 1.0 / 30.0, 0.1, 1.0, 10.0)
"""Values of `learning_rate`, the multiplier of all rates."""
_SLOW = ("large_digits_relu",)


@dataclasses.dataclass(frozen=True)
class Case:
    """A task.

    Attributes:
      name: Name in the table.
      task: The task.
      fixed_start: True for a task without randomness.
    """

    name: str
    task: Task | Family
    fixed_start: bool = False


def landscapes() -> list[Case]:
    """All but the multimodal landscapes."""
    chosen = [each for each in LANDSCAPES.values() if each.kind != "multimodal"]
    return [Case(each.name, _descent(each), fixed_start=True) for each in chosen]


def networks() -> list[Case]:
    """Tasks of the validation families, and the test suite's cheap ones."""
    families = distribution.validation_families().items()
    cheap = [each for each in catalog.SUITE.values() if each.cheap]
    return [
        *(Case(name, family) for name, family in families if name not in _SLOW),
        *(Case(each.name, each.family) for each in cheap),
    ]


def _descent(landscape: Landscape) -> Task:
    """A landscape as a task; the loss is the height above the minimum."""

    def loss(point: Any, batch: Any = None) -> Any:
        del batch
        return landscape(point) - landscape.minimum

    return Task(landscape.name, lambda key: landscape.initial_point(), lambda key: None, loss, loss)

"""The optimizers of `benchmarks.landscapes`: names, baselines and their learning rates."""

from __future__ import annotations

from collections.abc import Callable

import optax

from benchmarks.common.modes import FROM_SCRATCH

NOT_LEARNING = f"{FROM_SCRATCH}, learn=False"

BASELINES: dict[str, tuple[Callable[..., optax.GradientTransformation], float]] = {
    "SGD": (optax.sgd, 0.01),
    "momentum": (lambda rate: optax.sgd(rate, momentum=0.9), 0.01),
    "Adam": (optax.adam, 0.001),
}
"""Baselines by name: a function of the learning rate, and its usual default."""

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
"""Learning rates from which the best is chosen for each baseline on each landscape."""

"""Tuning and test runs of all optimizers on one problem."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any

import jax
import numpy as np

import alphaopt_jax as alphaopt
from alphaopt_jax.baselines.l2l import LSTMOptimizer, l2l
from alphaopt_jax.tasks import rollouts
from benchmarks.common.modes import ALPHAOPT
from benchmarks.l2l.optimizers import BASELINES, LSTM
from benchmarks.l2l.problems import Problem

HORIZON, STEPS = 100, 200
"""Steps of the LSTM's training, and steps of a test run."""
TUNING_KEY, TEST_KEY = 100, 200


@dataclasses.dataclass(frozen=True)
class Curve:
    """Losses of one optimizer on one problem.

    Attributes:
      problem: Name of the problem.
      optimizer: Name of the optimizer.
      rate: Tuned learning rate; None if there is none.
      losses: `float[N, T + 1]`, losses of N runs before each step and after the last.
    """

    problem: str
    optimizer: str
    rate: float | None
    losses: np.ndarray


def measure(
    problem: Problem,
    lstm: LSTMOptimizer,
    runs: int,
    rates: Sequence[float],
    on_progress: Callable[[str], None],
) -> list[Curve]:
    """Tunes and tests all optimizers on a problem.

    Args:
      problem: The problem.
      lstm: The LSTM.
      runs: Number of test runs; there are half as many tuning runs, on other tasks.
      rates: Learning rates to choose from.
      on_progress: Called with a description of each finished step.
    """
    family = problem.family()
    vectorize = runs > 50  # Many small tasks.
    tuning, test = (
        rollouts.draw(family, jax.random.split(jax.random.key(key), number))
        for key, number in ((TUNING_KEY, max(runs // 2, 1)), (TEST_KEY, runs))
    )

    def losses(
        optimizer_fn: rollouts.OptimizerFactory, optimizer_params: Any, examples: Any, steps: int
    ) -> Any:
        found = rollouts.rollouts(
            family, optimizer_fn, optimizer_params, *examples, num_steps=steps, vectorize=vectorize
        )
        return np.asarray(found, np.float64)

    curves = []
    for name, optimizer_fn in BASELINES.items():
        final_losses = []
        for rate in rates:
            final_loss = losses(optimizer_fn, rate, tuning, HORIZON)[:, -1].mean()
            final_losses.append(final_loss if np.isfinite(final_loss) else np.inf)
            on_progress(f"{problem.name}: {name} at {rate:.2g}")
        best = rates[int(np.argmin(final_losses))]
        curves.append(Curve(problem.name, name, best, losses(optimizer_fn, best, test, STEPS)))
    learned = {
        LSTM: lambda _: l2l(lstm),
        ALPHAOPT: lambda _: alphaopt.alphaopt(num_steps=STEPS),
    }
    for name, optimizer_fn in learned.items():
        curves.append(Curve(problem.name, name, None, losses(optimizer_fn, 0, test, STEPS)))
        on_progress(f"{problem.name}: {name}")
    return curves

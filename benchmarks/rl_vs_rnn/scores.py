"""Scores of an optimizer in `benchmarks.rl_vs_rnn`: lower is better."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import functools
from typing import Any, NamedTuple

import chex
import jax
import numpy as np
import optax

from alphaopt_jax.tasks import rollouts
from benchmarks.rl_vs_rnn import learners
from benchmarks.rl_vs_rnn.networks import LearnedOptimizer

ADAM_RATES = tuple(float(rate) for rate in np.logspace(-4, 0, 13))


class Trial(NamedTuple):
    """Training runs of one optimizer.

    Attributes:
      optimizer_fn: Maps `optimizer_params` to the optimizer.
      optimizer_params: Argument of `optimizer_fn`.
      drawn: Task instances and keys from `rollouts.draw`.
      num_steps: Number of updates.
    """

    optimizer_fn: rollouts.OptimizerFactory
    optimizer_params: Any
    drawn: tuple[Any, chex.PRNGKey]
    num_steps: int


Score = Callable[[learners.Objective, Trial], float]
"""Mean score of an optimizer on tasks of an objective."""


def log_decrease(objective: learners.Objective, trial: Trial) -> float:
    """Mean log of final over initial training loss."""
    losses = rollouts.rollouts(
        objective.family,
        trial.optimizer_fn,
        trial.optimizer_params,
        *trial.drawn,
        num_steps=trial.num_steps,
    )
    return log_ratio(np.asarray(losses, np.float64))


def log_ratio(losses: np.ndarray) -> float:
    """Mean log of final over initial loss, over N runs.

    Args:
      losses: `float[N, T + 1]`. The final loss is the mean over the last twentieth, at most 100
        times the initial loss; NaN counts as that bound.
    """
    last = max(losses.shape[-1] // 20, 1)
    ratios = (losses[:, -last:].mean(axis=-1) + 1e-6 * losses[:, 0]) / losses[:, 0]
    return float(np.log(np.nan_to_num(np.clip(ratios, None, 100.0), nan=100.0)).mean())


def final_percentage(objective: learners.Objective, trial: Trial) -> float:
    """Mean final scored loss, in percent."""
    *inputs, num_steps = trial
    return 100.0 * float(_final_losses(objective, *inputs, num_steps=num_steps).mean())


@functools.partial(jax.jit, static_argnums=(0, 1), static_argnames="num_steps")
def _final_losses(
    objective: learners.Objective,
    optimizer_fn: rollouts.OptimizerFactory,
    optimizer_params: Any,
    drawn: tuple[Any, chex.PRNGKey],
    *,
    num_steps: int,
) -> chex.Array:
    def one(instance: Any, key: chex.PRNGKey) -> chex.Array:
        optimizer = optimizer_fn(optimizer_params)
        _, after = learners.scored_losses(objective, instance, optimizer, key, num_steps)
        return after

    return jax.vmap(one)(*drawn)


class Evaluator:
    """Scores optimizers, on the same tasks in every call."""

    def __init__(
        self,
        objectives: Sequence[learners.Objective],
        num_steps: int,
        num_tasks: int,
        key: int,
        score: Score = log_decrease,
    ):
        """Draws the tasks.

        Args:
          objectives: Objectives, with equal weight.
          num_steps: Number of updates on each task.
          num_tasks: Tasks of each objective.
          key: Seed of all randomness.
          score: The score.
        """
        self._objectives = list(objectives)
        self._num_steps = num_steps
        self._drawn = [
            rollouts.draw(objective.family, jax.random.split(jax.random.key(key), num_tasks))
            for objective in objectives
        ]
        self._score = score
        # One object for each network, so that it is compiled once.
        self._optimizer_fns: dict[str, Callable[..., optax.GradientTransformation]] = {}

    def __call__(self, network: LearnedOptimizer, params: chex.ArrayTree) -> float:
        """Mean score of a frozen network over the objectives."""
        optimizer_fn = self._optimizer_fns.setdefault(
            network.name, functools.partial(network.optimizer, num_steps=self._num_steps)
        )
        return float(np.mean(self._scores(optimizer_fn, params)))

    def tuned_adam(self) -> float:
        """Mean score of Adam, with the best learning rate for each objective on these tasks."""
        scores = [self._scores(optax.adam, rate) for rate in ADAM_RATES]
        return float(np.mean(np.min(scores, axis=0)))

    def _scores(
        self, optimizer_fn: rollouts.OptimizerFactory, optimizer_params: Any
    ) -> list[float]:
        return [
            self._score(objective, Trial(optimizer_fn, optimizer_params, drawn, self._num_steps))
            for objective, drawn in zip(self._objectives, self._drawn, strict=True)
        ]

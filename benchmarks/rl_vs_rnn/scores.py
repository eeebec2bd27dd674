"""How `benchmarks.rl_vs_rnn` scores an optimizer: by losses as they fall, or by what counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import functools
from typing import Any, Protocol

import chex
import jax
import numpy as np
import optax

from alphaopt_jax.tasks import rollouts
from benchmarks.rl_vs_rnn import learners
from benchmarks.rl_vs_rnn.networks import LearnedOptimizer

ADAM_RATES = tuple(float(rate) for rate in np.logspace(-4, 0, 13))


class Score(Protocol):
    """From tasks and an optimizer to a number, of which less is better."""

    def __call__(
        self,
        objective: learners.Objective,
        make: rollouts.OptimizerFactory,
        made_of: Any,
        examples: tuple[Any, chex.PRNGKey],
        num_steps: int,
    ) -> float:
        """The mean over the examples, which `rollouts.draw` gave."""


def log_decrease(
    objective: learners.Objective,
    make: rollouts.OptimizerFactory,
    made_of: Any,
    examples: tuple[Any, chex.PRNGKey],
    num_steps: int,
) -> float:
    """Mean log of the loss at the end, of the last twentieth, over that of the start."""
    losses = rollouts.rollouts(objective.family, make, made_of, *examples, num_steps=num_steps)
    return log_ratio(np.asarray(losses, np.float64))


def log_ratio(losses: np.ndarray) -> float:
    """The same of `float[N, T + 1]` losses; those that fall apart count as a hundredfold growth."""
    last = max(losses.shape[-1] // 20, 1)
    ratios = (losses[:, -last:].mean(axis=-1) + 1e-6 * losses[:, 0]) / losses[:, 0]
    return float(np.log(np.nan_to_num(np.clip(ratios, None, 100.0), nan=100.0)).mean())


def outcome_at_the_end(
    objective: learners.Objective,
    make: rollouts.OptimizerFactory,
    made_of: Any,
    examples: tuple[Any, chex.PRNGKey],
    num_steps: int,
) -> float:
    """Mean of what counts, at the end; of a share of errors, in percent."""
    return 100.0 * float(_ends(objective, make, made_of, *examples, num_steps=num_steps).mean())


@functools.partial(jax.jit, static_argnums=(0, 1), static_argnames="num_steps")
def _ends(
    objective: learners.Objective,
    make: rollouts.OptimizerFactory,
    made_of: Any,
    instances: Any,
    keys: chex.PRNGKey,
    *,
    num_steps: int,
) -> chex.Array:
    def one(instance: Any, key: chex.PRNGKey) -> chex.Array:
        _, after = learners.outcomes(objective, instance, make(made_of), key, num_steps)
        return after

    return jax.vmap(one)(instances, keys)


class Judge:
    """Scores optimizers on the same tasks at every call."""

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
          objectives: Where they are from; they count alike.
          num_steps: How long is optimized.
          num_tasks: Of each objective.
          key: Of everything random.
          score: What is made of it.
        """
        self._goals = list(objectives)
        self._num_steps = num_steps
        self._examples = [
            rollouts.draw(objective.family, jax.random.split(jax.random.key(key), num_tasks))
            for objective in objectives
        ]
        self._score = score
        # One object for each network, so that it is compiled once.
        self._makers: dict[str, Callable[..., optax.GradientTransformation]] = {}

    def __call__(self, network: LearnedOptimizer, params: chex.ArrayTree) -> float:
        """The score of a network, frozen."""
        make = self._makers.setdefault(
            network.name, functools.partial(network.optimizer, num_steps=self._num_steps)
        )
        return float(np.mean(self._scores(make, params)))

    def tuned_adam(self) -> float:
        """The score of Adam at its best rate for each objective, of these very tasks."""
        scores = [self._scores(optax.adam, rate) for rate in ADAM_RATES]
        return float(np.mean(np.min(scores, axis=0)))

    def _scores(self, make: rollouts.OptimizerFactory, made_of: Any) -> list[float]:
        return [
            self._score(objective, make, made_of, drawn, self._num_steps)
            for objective, drawn in zip(self._goals, self._examples, strict=True)
        ]

"""Runs of the full-vector optimizers of Li & Malik 2016 on held-out functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
from pathlib import Path

import chex
import jax
import numpy as np
import optax

from alphaopt_jax.baselines.li_malik import _rollouts_2016, li_malik_2016
from alphaopt_jax.tasks.papers import li_malik_2016 as tasks
from alphaopt_jax.tasks.task import Family
from benchmarks.li_malik.optimizers import DETERMINISTIC, descend

LEARNED = "learned"
HORIZON, STEPS = 40, 100
_TRAINING_KEY, TEST_KEY = 500, 600
_WORST = 100.0


@dataclasses.dataclass(frozen=True)
class Problem:
    """A family of functions in the paper.

    Attributes:
      name: Name in tables and pictures.
      policy: Name of the pretrained policy.
      family: Creates the family.
      training: Functions that the policy was trained on, and the number to tune rivals on.
      test: Held-out functions.
      paper: The paper's result.
    """

    name: str
    policy: str
    family: Callable[[], Family]
    training: int
    test: int
    paper: str


PROBLEMS = (
    Problem(
        "logistic regression",
        "li-malik-logistic",
        tasks.logistic_regression,
        90,
        100,
        "ahead of all but L-BFGS at almost every step; L-BFGS is slightly better at the end",
    ),
    Problem(
        "robust regression",
        "li-malik-robust",
        tasks.robust_regression,
        120,
        100,
        "behind momentum until about step 30, then ahead of all; CG and L-BFGS diverge",
    ),
    Problem(
        "tiny ReLU net",
        "li-malik-tiny-net",
        tasks.tiny_net,
        80,
        100,
        "a large and lasting lead; CG and L-BFGS often diverge",
    ),
)


@dataclasses.dataclass(frozen=True)
class Curves:
    """Objectives of all optimizers on N functions of one family.

    Attributes:
      problem: Name of the problem.
      constants: Tuned constants by rival.
      objectives: `float[N, T + 1]` by optimizer.
    """

    problem: str
    constants: Mapping[str, tuple[float, ...]]
    objectives: Mapping[str, np.ndarray]

    def margin(self, rival: str) -> np.ndarray:
        """The rival's objective minus the learned optimizer's, `float[N, T + 1]`."""
        return self.objectives[rival] - self.objectives[LEARNED]

    def margin_over_best(self) -> np.ndarray:
        """Margin over the best rival on each function and at each step, `float[N, T + 1]`."""
        best = np.min([self.objectives[name] for name in DETERMINISTIC], axis=0)
        return best - self.objectives[LEARNED]


def measure(
    problem: Problem,
    policy: Path | str,
    on_progress: Callable[[str], None],
    count: int | None = None,
) -> Curves:
    """Tunes the rivals on training functions and runs all optimizers on held-out functions.

    Args:
      problem: The problem.
      policy: Path or name of the learned optimizer.
      on_progress: Called with a description of each finished step.
      count: Number of training and of held-out functions; by default the problem's.
    """
    family = problem.family()
    training, test = (
        _draw(family, key, count or number)
        for key, number in ((_TRAINING_KEY, problem.training), (TEST_KEY, problem.test))
    )
    constants, objectives = {}, {}
    for name, rival in DETERMINISTIC.items():
        costs = [
            _objectives(family, training, rival.optimizer_fn(*each), HORIZON)[:, 1:].mean()
            for each in rival.grid
        ]
        best = rival.grid[int(np.argmin(costs))]
        constants[name] = best
        objectives[name] = _objectives(family, test, rival.optimizer_fn(*best), STEPS)
        on_progress(f"{problem.name}: {name}")
    objectives[LEARNED] = _objectives(family, test, li_malik_2016(policy), STEPS)
    on_progress(f"{problem.name}: {LEARNED}")
    return Curves(problem.name, constants, objectives)


def _draw(family: Family, key: int, count: int) -> _rollouts_2016.Functions:
    draw = jax.jit(_rollouts_2016.draw_functions, static_argnums=(0, 2))
    return draw(family, jax.random.key(key), count)


def _objectives(
    family: Family,
    functions: _rollouts_2016.Functions,
    optimizer: optax.GradientTransformation,
    num_steps: int,
) -> np.ndarray:
    """`float[N, T + 1]`, bounded by `_WORST`; NaN counts as `_WORST`."""

    def one(function: _rollouts_2016.Functions) -> chex.Array:
        instance, batch, start = function
        objective = _rollouts_2016.make_objective(family, instance, batch)
        return descend(objective, start, optimizer, num_steps)

    # In a loop, since optax's zoom line search does not always terminate under `vmap`.
    found = np.asarray(jax.jit(lambda each: jax.lax.map(one, each))(functions), np.float64)
    return np.clip(np.nan_to_num(found, nan=_WORST), None, _WORST)

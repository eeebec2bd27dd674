"""The full-vector optimizers of Li & Malik 2016 on functions that they were not trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from pathlib import Path
from typing import Any

import chex
import jax
import numpy as np
import optax

from alphaopt_jax.baselines.li_malik import _rollouts_2016, li_malik_2016
from alphaopt_jax.tasks.papers import li_malik_2016 as tasks
from alphaopt_jax.tasks.task import Family
from benchmarks.common import intervals, results
from benchmarks.li_malik.optimizers import DETERMINISTIC, descend

LEARNED = "learned"
HORIZON, STEPS = 40, 100
_TRAINING_KEY, TEST_KEY = 500, 600
_WORST = 100.0


@dataclasses.dataclass(frozen=True)
class Problem:
    """One of the paper's families.

    Attributes:
      name: What tables and pictures call it.
      policy: The baseline that was trained on it.
      make: Makes the family.
      training: How many functions it was trained on, and constants are chosen on.
      test: How many it is tried on.
      paper: What the paper's curves show.
    """

    name: str
    policy: str
    make: Callable[[], Family]
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
    """What was measured of one family.

    Attributes:
      problem: Its name.
      constants: What was chosen for each rival.
      objectives: By optimizer, `float[N, T + 1]`.
    """

    problem: str
    constants: Mapping[str, tuple[float, ...]]
    objectives: Mapping[str, np.ndarray]

    def margin(self, rival: str) -> np.ndarray:
        """How far the learned optimizer is ahead, `float[N, T + 1]`."""
        return self.objectives[rival] - self.objectives[LEARNED]

    def margin_of_victory(self) -> np.ndarray:
        """The same over the best of all rivals on each function and at each step."""
        best = np.min([self.objectives[name] for name in DETERMINISTIC], axis=0)
        return best - self.objectives[LEARNED]


def measure(
    problem: Problem, policy: Path | str, tell: Callable[[str], None], count: int | None = None
) -> Curves:
    """Tunes the rivals on training functions and measures all on test functions.

    Args:
      problem: The family.
      policy: The learned optimizer, by its path or name.
      tell: Called with what has been done.
      count: Functions of either kind, where not all are wanted.
    """
    family = problem.make()
    training, test = (
        _draw(family, key, count or number)
        for key, number in ((_TRAINING_KEY, problem.training), (TEST_KEY, problem.test))
    )
    constants, objectives = {}, {}
    for name, rival in DETERMINISTIC.items():
        costs = [
            _objectives(family, training, rival.make(*each), HORIZON)[:, 1:].mean()
            for each in rival.grid
        ]
        best = rival.grid[int(np.argmin(costs))]
        constants[name] = best
        objectives[name] = _objectives(family, test, rival.make(*best), STEPS)
        tell(f"{problem.name}: {name}")
    objectives[LEARNED] = _objectives(family, test, li_malik_2016(policy), STEPS)
    tell(f"{problem.name}: {LEARNED}")
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
    """`float[N, T + 1]`; what fell apart, or rose above `_WORST`, counts as that."""

    def one(function: _rollouts_2016.Functions) -> chex.Array:
        instance, batch, start = function
        objective = _rollouts_2016.make_objective(family, instance, batch)
        return descend(objective, start, optimizer, num_steps)

    # One after the other: side by side, optax's zoom line search does not always come to an end.
    found = np.asarray(jax.jit(lambda each: jax.lax.map(one, each))(functions), np.float64)
    return np.clip(np.nan_to_num(found, nan=_WORST), None, _WORST)


def summarize(curves: Sequence[Curves]) -> list[dict[str, Any]]:
    """A row for each family and rival."""
    papers = {problem.name: problem.paper for problem in PROBLEMS}
    rows: list[dict[str, Any]] = []
    for each in curves:
        learned = each.objectives[LEARNED]
        for name in DETERMINISTIC:
            margin, objectives = each.margin(name), each.objectives[name]
            means = margin.mean(axis=0)
            rows.append(
                {
                    "part": "2016",
                    "problem": each.problem,
                    "rival": name,
                    "constants": each.constants[name],
                    "ahead": float(np.mean(means[1 : HORIZON + 1] > 0.0)),
                    "ahead_later": float(np.mean(means[HORIZON + 1 :] > 0.0)),
                    **{
                        f"at_{step}": _with_interval(margin[:, step])
                        for step in (5, 20, HORIZON, STEPS)
                    },
                    "wins": float(np.mean(margin[:, HORIZON] > 0.0)),
                    "rival_diverged": float(np.mean(objectives[:, -1] > objectives[:, 0])),
                    "diverged": float(np.mean(learned[:, -1] > learned[:, 0])),
                    "paper": papers[each.problem],
                    "margins": means,
                    "victory": each.margin_of_victory().mean(axis=0),
                }
            )
    return rows


def _with_interval(values: np.ndarray) -> str:
    half = intervals.half_interval(values)
    return f"{values.mean():.4f}" + ("" if half is None else f" ± {half:.4f}")


def make_claims(rows: Sequence[Mapping[str, Any]]) -> list[results.Claim]:
    """That the learned optimizer is ahead at most steps, family by family and rival by rival."""
    return [
        results.Claim(
            f"li_malik.{row['problem'].replace(' ', '_')}.{row['rival'].replace(' ', '_')}",
            f"{row['problem']}: share of the first {HORIZON} steps at which the mean margin of"
            f" victory over {row['rival']} is positive",
            row["ahead"],
            "> 0.5",
        )
        for row in rows
        if row["rival"] != "L-BFGS"
    ]


COLUMNS = {
    "problem": "functions",
    "rival": "rival, tuned",
    "ahead": f"share of {HORIZON} steps ahead",
    "ahead_later": f"of steps {HORIZON} to {STEPS}",
    "at_5": "margin at step 5",
    "at_20": "at step 20",
    f"at_{HORIZON}": f"at step {HORIZON}",
    f"at_{STEPS}": f"at step {STEPS}",
    "wins": f"functions won at step {HORIZON}",
    "rival_diverged": "of rival's runs, ended above the start",
    "diverged": "of the learned's",
}

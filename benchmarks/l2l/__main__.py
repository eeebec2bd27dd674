"""The LSTM that learned to learn, on the tasks of its paper, beside tuned hand-made optimizers.

`alphaopt train-baseline l2l-quadratics runs/l2l-quadratics` trains one LSTM again and `alphaopt
train-baseline l2l-mnist runs/l2l-mnist` another; `python -m benchmarks.l2l` measures those that
ship with the package, or with `--runs runs` those in that folder. `--quick` measures a little, to
see that it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from pathlib import Path
import shlex
import sys
from typing import Any

import chex
from flax import linen as nn
import jax
from matplotlib.figure import Figure
import numpy as np
import optax
from rich import progress as rich_progress
import tyro

import alphaopt_jax as alphaopt
from alphaopt_jax import plotting
from alphaopt_jax.baselines.l2l import LSTMOptimizer, l2l, load_lstm
from alphaopt_jax.tasks import rollouts
from alphaopt_jax.tasks.papers import l2l as tasks
from alphaopt_jax.tasks.task import Family
from benchmarks.common import intervals, results

LSTM, ALPHAOPT = "LSTM", "AlphaOpt, shipped"
HORIZON, STEPS = 100, 200
RATES = tuple(float(rate) for rate in np.logspace(-4, 1, 16))
_TUNING_KEY, _TEST_KEY = 100, 200


@dataclasses.dataclass(frozen=True)
class Arguments:
    """How much to run.

    Attributes:
      runs: A folder with a folder for each LSTM, in place of those that ship.
      quick: A few runs and rates of the first two tasks, to see that it runs.
    """

    runs: Path | None = None
    quick: bool = False


@dataclasses.dataclass(frozen=True)
class Problem:
    """One of the paper's experiments.

    Attributes:
      name: What tables and pictures call it.
      make: Makes the family of tasks.
      lstm: The baseline that is tried on it, by its name.
      runs: Tasks, or starts, to measure on.
      paper: The paper's losses at step 100, read off its figures, by optimizer.
      paper_later: The same at step 200.
    """

    name: str
    make: Callable[[], Family]
    lstm: str
    runs: int
    paper: Mapping[str, float]
    paper_later: Mapping[str, float] = dataclasses.field(default_factory=dict)


BASELINES: Mapping[str, Callable[[chex.Numeric], optax.GradientTransformation]] = {
    "SGD": optax.sgd,
    "NAG": lambda rate: optax.sgd(rate, momentum=0.9, nesterov=True),
    "RMSprop": lambda rate: optax.rmsprop(rate),
    "Adam": lambda rate: optax.adam(rate),
}
"""Hand-made optimizers whose rate is tuned, as in the paper; all else is as optax has it."""


def _paper(lstm: float, adam: float, rmsprop: float, nag: float, sgd: float) -> dict[str, float]:
    return {LSTM: lstm, "Adam": adam, "RMSprop": rmsprop, "NAG": nag, "SGD": sgd}


PROBLEMS = (
    Problem(
        "quadratics",
        tasks.quadratics,
        "l2l-quadratics",
        256,
        _paper(0.037, 0.05, 0.058, 0.08, 0.21),
    ),
    Problem(
        "MNIST, 20 sigmoid units",
        tasks.mnist_mlp,
        "l2l-mnist",
        10,
        _paper(0.245, 0.34, 0.34, 0.33, 0.45),
        _paper(0.21, 0.30, 0.29, 0.28, 0.32),
    ),
    Problem(
        "MNIST, 40 units",
        lambda: tasks.mnist_mlp((40,), name="l2l_mnist_40_units"),
        "l2l-mnist",
        10,
        _paper(0.19, 0.32, 0.32, 0.32, 0.46),
    ),
    Problem(
        "MNIST, two layers",
        lambda: tasks.mnist_mlp((20, 20), name="l2l_mnist_two_layers"),
        "l2l-mnist",
        10,
        {},
    ),
    Problem(
        "MNIST, ReLU",
        lambda: tasks.mnist_mlp(activation=nn.relu, name="l2l_mnist_relu"),
        "l2l-mnist",
        10,
        _paper(2.5, 0.4, 0.4, 0.36, 0.45),
    ),
)
"""What is measured; the first is also what the first LSTM was trained on, the second the second."""


@dataclasses.dataclass(frozen=True)
class Curve:
    """One optimizer on one problem.

    Attributes:
      problem: The problem's name.
      optimizer: Its name.
      rate: The rate that was chosen, if it has one.
      losses: `float[N, T + 1]`, of each run before each step and after the last.
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
    tell: Callable[[str], None],
) -> list[Curve]:
    """Tunes and measures every optimizer on a problem.

    Args:
      problem: The problem.
      lstm: The LSTM.
      runs: Runs to measure; half as many, others, are tuned on.
      rates: What rates are chosen from.
      tell: Called with what has been done.
    """
    family = problem.make()
    vectorize = runs > 50  # Many small tasks.
    tuning, test = (
        rollouts.draw(family, jax.random.split(jax.random.key(key), number))
        for key, number in ((_TUNING_KEY, max(runs // 2, 1)), (_TEST_KEY, runs))
    )

    def losses(make: rollouts.OptimizerFactory, made_of: Any, examples: Any, steps: int) -> Any:
        found = rollouts.rollouts(
            family, make, made_of, *examples, num_steps=steps, vectorize=vectorize
        )
        return np.asarray(found, np.float64)

    curves = []
    for name, make in BASELINES.items():
        ends = []
        for rate in rates:
            end = losses(make, rate, tuning, HORIZON)[:, -1].mean()
            ends.append(end if np.isfinite(end) else np.inf)
            tell(f"{problem.name}: {name} at {rate:.2g}")
        best = rates[int(np.argmin(ends))]
        curves.append(Curve(problem.name, name, best, losses(make, best, test, STEPS)))
    curves.append(Curve(problem.name, LSTM, None, losses(lambda _: l2l(lstm), 0, test, STEPS)))
    tell(f"{problem.name}: {LSTM}")
    agent = losses(lambda _: alphaopt.alphaopt(num_steps=STEPS), 0, test, STEPS)
    curves.append(Curve(problem.name, ALPHAOPT, None, agent))
    tell(f"{problem.name}: {ALPHAOPT}")
    return curves


def summarize(curves: Sequence[Curve], problems: Sequence[Problem]) -> list[dict[str, Any]]:
    """One row for each problem and optimizer."""
    by_name = {problem.name: problem for problem in problems}
    rows = []
    for curve in curves:
        problem = by_name[curve.problem]
        at = curve.losses[:, HORIZON]
        rows.append(
            {
                "problem": curve.problem,
                "optimizer": curve.optimizer,
                "rate": curve.rate,
                "initial": curve.losses[:, 0].mean(),
                "loss": at.mean(),
                "interval": intervals.half_interval(at),
                "paper": problem.paper.get(curve.optimizer),
                "later": curve.losses[:, -1].mean(),
                "later_interval": intervals.half_interval(curve.losses[:, -1]),
                "paper_later": problem.paper_later.get(curve.optimizer),
                "runs": len(at),
                "curve": curve.losses.mean(axis=0),
            }
        )
    return rows


def make_claims(rows: Sequence[dict[str, Any]]) -> list[results.Claim]:
    """What the paper says of the LSTM, of ours."""
    found = {(row["problem"], row["optimizer"]): row for row in rows}

    def best(problem: str, key: str) -> float:
        return min(found[problem, name][key] for name in BASELINES)

    quadratics, mnist = PROBLEMS[0].name, PROBLEMS[1].name
    claim = results.Claim
    return [
        claim(
            "l2l.quadratics.to_best",
            "quadratics: the LSTM's loss at step 100 over that of the best tuned optimizer",
            found[quadratics, LSTM]["loss"] / best(quadratics, "loss"),
            "< 1",
        ),
        claim(
            "l2l.quadratics.to_adam",
            "quadratics: the LSTM's loss at step 100 over tuned Adam's; the paper's is 0.74",
            found[quadratics, LSTM]["loss"] / found[quadratics, "Adam"]["loss"],
            "<= 0.74",
        ),
        claim(
            "l2l.mnist.loss",
            "MNIST, 20 sigmoid units: the LSTM's loss at step 100; the paper's is 0.245",
            found[mnist, LSTM]["loss"],
            "<= 0.27",
        ),
        claim(
            "l2l.mnist.to_adam",
            "MNIST, 20 sigmoid units: the LSTM's loss at step 100 over tuned Adam's",
            found[mnist, LSTM]["loss"] / found[mnist, "Adam"]["loss"],
            "< 1",
        ),
        claim(
            "l2l.mnist.later_to_adam",
            "MNIST, 20 sigmoid units: the same at step 200, twice as far as it was trained",
            found[mnist, LSTM]["later"] / found[mnist, "Adam"]["later"],
            "< 1",
        ),
    ]


COLUMNS = {
    "problem": "problem",
    "optimizer": "optimizer",
    "rate": "rate",
    "initial": "loss at the start",
    "loss": "at step 100",
    "interval": "±",
    "paper": "the paper's",
    "later": "at step 200",
    "later_interval": "± ",
    "paper_later": "the paper's ",
}


def markdown(rows: Sequence[dict[str, Any]], command: str) -> str:
    """The page beside the JSON file."""
    return (
        f"# The LSTM that learned to learn\n\nMade by `{command}`.\n\nThe coordinatewise LSTM of"
        " Andrychowicz et al. 2016, trained again, on the paper's tasks: one LSTM for quadratics of"
        " 10 dimensions, one for MNIST classifiers of 20 sigmoid units, each trained for 100 steps."
        " The other classifiers it has not seen. Losses are means over runs, with 95 % intervals;"
        " those of classifiers are of a fresh batch. The hand-made optimizers have the best of"
        f" {len(RATES)} rates from {RATES[0]:g} to {RATES[-1]:g}, chosen for each problem by the"
        " loss at step 100 on other runs. The paper's figures are read off its curves. AlphaOpt is"
        " the shipped agent, told that there are 200 steps; nothing was tuned, and it has seen no"
        f" MNIST.\n\n{results.markdown_table(rows, COLUMNS)}\n![Curves](l2l.png)\n"
    )


def picture(curves: Sequence[Curve]) -> Figure:
    """The paper's curves, measured here."""
    by_problem: dict[str, dict[str, np.ndarray]] = {}
    for curve in curves:
        by_problem.setdefault(curve.problem, {})[curve.optimizer] = curve.losses
    return plotting.panels_figure(
        by_problem, title="Learning to learn", emphasized=LSTM, trained=HORIZON
    )


def main(arguments: Arguments) -> int:
    """Measures everything and reports; returns 0 if the claims hold."""
    problems = PROBLEMS[:2] if arguments.quick else PROBLEMS
    rates = RATES[5:12:3] if arguments.quick else RATES
    folder = results.RESULTS / ("quick" if arguments.quick else "")
    curves: list[Curve] = []
    with rich_progress.Progress() as progress:
        total = len(problems) * (len(BASELINES) * len(rates) + 2)
        bar = progress.add_task("measuring", total=total)
        for problem in problems:
            runs = min(problem.runs, 4) if arguments.quick else problem.runs
            path: Path | str = problem.lstm
            if arguments.runs is not None:
                path = arguments.runs / problem.lstm / f"{problem.lstm}.safetensors"
            curves += measure(
                problem,
                load_lstm(path),
                runs,
                rates,
                lambda note: progress.update(bar, advance=1, description=note),
            )
    rows = summarize(curves, problems)
    print(results.markdown_table(rows, COLUMNS))
    claims = make_claims(rows)
    command = shlex.join(["python", "-m", "benchmarks.l2l", *sys.argv[1:]])
    results.write(
        "l2l",
        rows=rows,
        claims=[] if arguments.quick else claims,
        seeds=[_TUNING_KEY, _TEST_KEY],
        command=command,
        folder=folder,
    )
    (folder / "l2l.md").write_text(markdown(rows, command))
    plotting.save_png(picture(curves), folder / "l2l.png")
    return 0 if arguments.quick or all(claim.holds for claim in claims) else 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))

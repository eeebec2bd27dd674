"""How to train an agent: PPO with divided and with shared reward, OpenAI-ES and persistent ES.

`python -m benchmarks.meta_learners` trains the same network over the same families by each method,
three seeds each, with the same number of environment steps a round, and validates all of them on
the same families, which none is trained on. It takes hours on two cores; runs are kept in
`benchmarks/results/meta_learners_runs`, so that it goes on where it was stopped. `--quick` is a
matter of minutes and shows only that it runs.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from pathlib import Path
import sys
from typing import Any

import numpy as np
from scipy import stats
import tyro

from alphaopt_jax import plotting
from alphaopt_jax.meta import MetaConfig, Schedule, meta_train
from alphaopt_jax.meta.evolution import evolution
from alphaopt_jax.meta.method import Method
from alphaopt_jax.meta.ppo import ppo
from alphaopt_jax.tasks import distribution
from benchmarks import results_file

_FAMILIES = ("linear_regression", "mixture_relu", "digits_tanh")
_VALIDATION = ("wide_linear_regression", "wide_mixture_sigmoid", "deep_mixture_tanh")


@dataclasses.dataclass(frozen=True)
class Arguments:
    """How much to run.

    Attributes:
      seeds: Runs of each method.
      rounds: Rounds of each run.
      quick: Two rounds of one seed, to see that it runs.
    """

    seeds: int = 3
    rounds: int = 900
    quick: bool = False


@dataclasses.dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
      method: Its name in table and picture.
      seed: Its seed.
      env_steps: `float[V]`, steps made on all tasks together at each validation.
      seconds: `float[V]`, the same in seconds of training, compilation and validation left out.
      scores: `float[V]`, mean log of final over initial loss on the validation families.
    """

    method: str
    seed: int
    env_steps: np.ndarray
    seconds: np.ndarray
    scores: np.ndarray


def methods(config: MetaConfig) -> dict[str, tuple[MetaConfig, Method]]:
    """What is compared, by name; everything but the method is the same."""
    shared = dataclasses.replace(config, credit="shared")
    return {
        "PPO, divided reward": (config, ppo(config)),
        "PPO, shared reward": (shared, ppo(shared)),
        "OpenAI-ES": (config, evolution(config, "openai_es")),
        "persistent ES": (config, evolution(config, "persistent_es")),
    }


def train(
    name: str, config: MetaConfig, method: Method, seed: int, schedule: Schedule, folder: Path
) -> Run:
    """Trains once, or goes on with what `folder` holds."""
    training, validation = distribution.training_families(), distribution.validation_families()
    print(f"{name}, seed {seed}", flush=True)
    result = meta_train(
        {family: training[family] for family in _FAMILIES},
        validation={family: validation[family] for family in _VALIDATION},
        schedule=schedule,
        config=config,
        method=method,
        seed=seed,
        folder=folder / f"{method.name}-{config.credit}-{seed}",
    )
    columns = {
        column: np.array([entry[column] for entry in result.history])
        for column in ("env_steps", "seconds", "score")
    }
    return Run(name, seed, columns["env_steps"], columns["seconds"], columns["score"])


def summarize(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """One row for each method: scores at the end, and after as much time as the quickest needs."""
    budget = min(run.seconds[-1] for run in runs)
    rows = []
    for name in dict.fromkeys(run.method for run in runs):
        mine = [run for run in runs if run.method == name]
        at_steps = np.array([run.scores[-1] for run in mine])
        at_time = np.array([run.scores[run.seconds <= budget][-1] for run in mine])
        rows.append(
            {
                "method": name,
                "start": float(np.mean([run.scores[0] for run in mine])),
                "score": float(at_steps.mean()),
                "interval": _interval(at_steps),
                "score_at_equal_time": float(at_time.mean()),
                "interval_at_equal_time": _interval(at_time),
                "env_steps": float(np.mean([run.env_steps[-1] for run in mine])),
                "seconds": float(np.mean([run.seconds[-1] for run in mine])),
                "scores": at_steps,
            }
        )
    return rows


def _interval(values: np.ndarray) -> float | None:
    """Half of the 95 % interval of the mean (Student)."""
    if len(values) < 2:
        return None
    return float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))


COLUMNS = {
    "method": "method",
    "start": "score at the start",
    "score": "score at the end",
    "interval": "±",
    "score_at_equal_time": "after equal time",
    "interval_at_equal_time": "± ",
    "env_steps": "training steps on all tasks",
    "seconds": "seconds",
}


def main(arguments: Arguments) -> int:
    """Trains everything, prints the table, writes the files."""
    rounds = 2 if arguments.quick else arguments.rounds
    seeds = range(1 if arguments.quick else arguments.seeds)
    folder = results_file.RESULTS / ("quick" if arguments.quick else "")
    schedule = Schedule(
        num_rounds=rounds,
        validate_every=max(rounds // 15, 1),
        validation_horizons=(200,),
        validation_tasks=8,
    )
    config = MetaConfig(max_horizon=300)
    runs = [
        train(name, settings, method, seed, schedule, folder / "meta_learners_runs")
        for seed in seeds
        for name, (settings, method) in methods(config).items()
    ]
    rows = summarize(runs)
    table = results_file.markdown_table(rows, COLUMNS)
    print(table)
    results_file.write(
        "meta_learners",
        rows=rows,
        claims=(),
        seeds=list(seeds),
        command=" ".join(["python -m benchmarks.meta_learners", *sys.argv[1:]]),
        folder=folder,
    )
    (folder / "meta_learners.md").write_text(
        "# Ways to train an agent\n\nMade by `python -m benchmarks.meta_learners`. Score: mean log"
        f" of final over initial loss on families not trained on; lower is better.\n\n{table}"
    )
    for file, x_label in (("env_steps", "millions of training steps"), ("seconds", "seconds")):
        scale = 1e6 if file == "env_steps" else 1.0
        names = dict.fromkeys(run.method for run in runs)
        figure = plotting.meta_training_figure(
            {name: np.stack([run.scores for run in runs if run.method == name]) for name in names},
            x={
                name: np.mean([getattr(run, file) for run in runs if run.method == name], axis=0)
                / scale
                for name in names
            },
            x_label=x_label,
            title="Ways to train an agent",
        )
        plotting.save_png(figure, folder / f"meta_learners_{file}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))

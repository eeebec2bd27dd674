"""Reinforcement learning or a recurrent network? The seed of this project asks; this measures.

The two papers that learn optimizers differ in two things at once: the network (feedforward, or an
LSTM) and the learner (reinforcement learning, or backpropagation through time). Here they are told
apart: `python -m benchmarks.rl_vs_rnn` trains both networks by each of three learners, on the same
tasks, with the same observations and actions and as many steps of tasks, three seeds each, and then
tries them frozen on tasks that they were not trained on. It takes hours on two cores; what is
finished is kept in `benchmarks/results/rl_vs_rnn_runs`, so that it goes on where it was stopped;
without that folder everything is measured anew. `--quick` is a matter of minutes and shows only
that it runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import functools
from pathlib import Path
import shlex
import sys
from typing import Any

import jax
import numpy as np
import tyro

from alphaopt_jax.baselines.bptt import BackpropagationConfig
from benchmarks.common import intervals, results, run_store
from benchmarks.rl_vs_rnn import learners, networks, plots, ppo, report, scores, tasks, training
from benchmarks.rl_vs_rnn.report import BPTT, EVOLUTION, PPO

_SELECTION_SEED = 100
_VALIDATION_KEY, _TEST_KEY = 300, 400


@dataclasses.dataclass(frozen=True)
class Arguments:
    """How much to run.

    Attributes:
      seeds: Runs of each pair of network and learner.
      env_steps: Steps of tasks in each run, all tasks together, in millions.
      error_env_steps: The same of the runs that are to make errors few.
      quick: Two rounds of one seed and one rate, to see that it runs.
    """

    seeds: int = 3
    env_steps: float = 0.25
    error_env_steps: float = 0.125
    quick: bool = False


@dataclasses.dataclass(frozen=True)
class Cell:
    """One network trained by one learner.

    Attributes:
      network: The network's name.
      learner: The learner's name.
      rates: Learning rates to choose from.
    """

    network: str
    learner: str
    rates: tuple[float, ...]

    @property
    def name(self) -> str:
        """What files call it."""
        return f"{self.network}, {self.learner}"


NETWORKS: Mapping[str, networks.LearnedOptimizer] = {
    network.name: network
    for network in (networks.feedforward(), networks.recurrent(), networks.PublishedLSTM())
}
_RATES = {PPO: (1e-3, 3e-3, 1e-2), BPTT: (1e-3, 3e-3, 1e-2), EVOLUTION: (3e-3, 1e-2, 3e-2)}
_PUBLISHED = networks.PublishedLSTM().name
CELLS = (
    *(
        Cell(network, learner, rates)
        for network in NETWORKS
        if network != _PUBLISHED
        for learner, rates in _RATES.items()
    ),
    Cell(_PUBLISHED, BPTT, _RATES[BPTT]),
)


def make_learner(cell: Cell, rate: float) -> learners.Learner:
    """The learner of a cell, at a learning rate."""
    network = NETWORKS[cell.network]
    if cell.learner == PPO:
        if not isinstance(network, networks.Network):
            raise TypeError(f"PPO explores by noise on log rates, and {cell.network} has none.")
        return ppo.PPO(network, ppo.PPOConfig(horizon=tasks.HORIZON, learning_rate=rate))
    if cell.learner == EVOLUTION:
        config = learners.EvolutionConfig(horizon=tasks.HORIZON, learning_rate=rate)
        return learners.Evolution(network, config)
    return learners.BackpropagationLearner(
        network,
        BackpropagationConfig(
            horizon=tasks.HORIZON, objective="log_loss", tasks=4, learning_rates=(rate,)
        ),
    )


@dataclasses.dataclass(frozen=True)
class Section:
    """Trainings towards one kind of objective.

    Attributes:
      name: What files and tables call it.
      objectives: What is trained on.
      judge: Scores a training as it goes.
      tests: Score what came out, by name.
      env_steps: Steps of tasks in each run.
      cells: What is trained.
    """

    name: str
    objectives: Sequence[learners.Objective]
    judge: scores.Judge
    tests: Mapping[str, scores.Judge]
    env_steps: float
    cells: Sequence[Cell]


def sections(arguments: Arguments) -> list[Section]:
    """What is run: first by the loss, then by the share of errors."""
    number = 4 if arguments.quick else 16

    def judges(
        tests: Sequence[tasks.Test], score: scores.Score = scores.log_decrease
    ) -> dict[str, scores.Judge]:
        return {
            test.name: scores.Judge(test.objectives, test.steps, number, _TEST_KEY, score)
            for test in (tests[:2] if arguments.quick else tests)
        }

    millions = (0.01, 0.01) if arguments.quick else (arguments.env_steps, arguments.error_env_steps)
    errors = scores.outcome_at_the_end
    return [
        Section(
            "loss",
            tasks.loss_objectives(),
            scores.Judge(tasks.validation_objectives(), tasks.HORIZON, number, _VALIDATION_KEY),
            judges(tasks.loss_tests()),
            1e6 * millions[0],
            CELLS,
        ),
        Section(
            "errors",
            tasks.error_objectives(),
            scores.Judge(tasks.error_objectives(), tasks.HORIZON, number, _VALIDATION_KEY, errors),
            judges(tasks.error_tests(), errors),
            1e6 * millions[1],
            [cell for cell in CELLS if cell.network != _PUBLISHED],
        ),
    ]


def try_out(
    section: Section, runs: Sequence[training.Run], folder: Path
) -> dict[tuple[str, int], dict[str, float]]:
    """Scores of trained networks on every test, by cell and seed; kept from run to run.

    What was compiled for one network is dropped before the next one: all of it together would need
    more memory maps than Linux gives a process.

    Args:
      section: What was run.
      runs: Its trainings.
      folder: Where finished runs are kept.
    """
    found = {}
    network_of = {cell.name: cell.network for cell in section.cells}
    for name, network in NETWORKS.items():
        jax.clear_caches()
        for run in [run for run in runs if network_of[run.cell] == name]:
            path = training.path_of(folder, run.cell, run.rate, section.env_steps, run.seed)

            def measure(
                network: networks.LearnedOptimizer = network, run: training.Run = run
            ) -> dict[str, float]:
                return {test: judge(network, run.params) for test, judge in section.tests.items()}

            kept = path.with_name(f"{path.name}.tests.json")
            found[run.cell, run.seed] = run_store.load_or_measure(kept, measure)
    return found


def summarize(
    section: Section,
    runs: Sequence[training.Run],
    seconds_per_step: Mapping[str, float],
    tested: Mapping[tuple[str, int], Mapping[str, float]],
    tuned: Mapping[str, float],
) -> list[dict[str, Any]]:
    """One row for each cell, and one for a tuned Adam.

    Args:
      section: What was run.
      runs: All of its trainings, at the rates that were chosen.
      seconds_per_step: Of each cell, by its name.
      tested: As from `try_out`.
      tuned: Scores of a tuned Adam, by test.
    """
    budget = min(run.env_steps[-1] * seconds_per_step[run.cell] for run in runs)
    rows: list[dict[str, Any]] = []
    for cell in section.cells:
        mine, speed = [run for run in runs if run.cell == cell.name], seconds_per_step[cell.name]
        at_steps = [run.best_score() for run in mine]
        at_time = [run.best_score(budget / speed) for run in mine]
        tried = {name: [tested[run.cell, run.seed][name] for run in mine] for name in section.tests}
        rows.append(
            {
                "section": section.name,
                "network": cell.network,
                "learner": cell.learner,
                "rate": mine[0].rate,
                "start": float(np.mean([run.scores[0] for run in mine])),
                "score": float(np.mean(at_steps)),
                "interval": intervals.half_interval(at_steps),
                "score_at_equal_time": float(np.mean(at_time)),
                "interval_at_equal_time": intervals.half_interval(at_time),
                "env_steps": mine[0].env_steps[-1],
                "seconds": mine[0].env_steps[-1] * speed,
                "tests": {name: float(np.mean(each)) for name, each in tried.items()},
                "test_intervals": {
                    name: intervals.half_interval(each) for name, each in tried.items()
                },
                "test_scores": tried,
                "curves": [
                    {"seed": run.seed, "env_steps": run.env_steps, "scores": run.scores}
                    for run in mine
                ],
            }
        )
    rows.append(
        {
            "section": section.name,
            "network": "–",
            "learner": "tuned Adam",
            "tests": dict(tuned),
        }
    )
    return rows


def tune_adam(section: Section) -> dict[str, float]:
    """Scores of Adam at its best rates, by test."""
    return {name: judge.tuned_adam() for name, judge in section.tests.items()}


def main(arguments: Arguments) -> int:
    """Trains everything and reports."""
    seeds = range(1 if arguments.quick else arguments.seeds)
    folder = results.RESULTS / ("quick" if arguments.quick else "")
    chosen: dict[str, float] = {}
    rows = []
    for section in sections(arguments):

        def train(
            cell: Cell, rate: float, seed: int, env_steps: float, section: Section = section
        ) -> training.Run:
            return training.train(
                cell.name,
                NETWORKS[cell.network],
                make_learner(cell, rate),
                rate,
                seed,
                env_steps,
                section.objectives,
                section.judge,
                folder / "rl_vs_rnn_runs" / section.name,
            )

        runs = []
        for cell in section.cells:
            jax.clear_caches()  # As in `try_out`.
            # Rates are chosen by the loss, once.
            if cell.name not in chosen and not arguments.quick:
                tried = {
                    rate: train(cell, rate, _SELECTION_SEED, section.env_steps / 2).best_score()
                    for rate in cell.rates
                }
                chosen[cell.name] = min(tried, key=lambda rate: tried[rate])
            rate = chosen.get(cell.name, cell.rates[0])
            runs += [train(cell, rate, seed, section.env_steps) for seed in seeds]
        made = {
            cell.name: make_learner(cell, chosen.get(cell.name, cell.rates[0]))
            for cell in section.cells
        }
        kept = folder / "rl_vs_rnn_runs" / section.name
        tested = try_out(section, runs, kept)
        jax.clear_caches()
        tuned = run_store.load_or_measure(
            kept / "tuned_adam.json", functools.partial(tune_adam, section)
        )
        speeds = run_store.load_or_measure(
            kept / "seconds_per_step.json",
            functools.partial(
                training.seconds_per_step, made, section.objectives, 1 if arguments.quick else 5
            ),
        )
        rows += summarize(section, runs, speeds, tested, tuned)
    command = shlex.join(["python", "-m", "benchmarks.rl_vs_rnn", *sys.argv[1:]])
    page = report.page(rows, command)
    print(page)
    results.write(
        "rl_vs_rnn",
        rows=rows,
        claims=[] if arguments.quick else report.claims(rows),
        seeds=seeds,
        command=command,
        folder=folder,
    )
    (folder / "rl_vs_rnn.md").write_text(page)
    plots.write(rows, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))

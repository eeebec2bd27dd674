"""Training and test runs of the sections of the comparison, by the loss and by errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import functools
from pathlib import Path

import jax

from benchmarks.common import run_store
from benchmarks.rl_vs_rnn import learners, networks, scores, tasks, training
from benchmarks.rl_vs_rnn.cells import CELLS, NETWORKS, PUBLISHED, Cell, make_learner

_SELECTION_SEED = 100
_VALIDATION_KEY, _TEST_KEY = 300, 400


@dataclasses.dataclass(frozen=True)
class Extent:
    """How much to run.

    Attributes:
      seeds: Seeds of each cell.
      env_steps: Environment steps of each run by the loss, over all tasks.
      error_env_steps: Environment steps of each run by errors.
      quick: Whether to run as little as possible: the first learning rate, two tests.
    """

    seeds: Sequence[int]
    env_steps: float
    error_env_steps: float
    quick: bool = False


@dataclasses.dataclass(frozen=True)
class Section:
    """Runs with one kind of objective.

    Attributes:
      name: Name in files and rows.
      objectives: Objectives to train on.
      validation: Scores the network during training.
      tests: Score the trained network, by name.
      env_steps: Environment steps of each run.
      cells: Cells to train.
    """

    name: str
    objectives: Sequence[learners.Objective]
    validation: scores.Evaluator
    tests: Mapping[str, scores.Evaluator]
    env_steps: float
    cells: Sequence[Cell]


@dataclasses.dataclass(frozen=True)
class Measured:
    """Results of one section.

    Attributes:
      runs: Training runs at the chosen learning rates.
      seconds_per_step: Seconds per environment step by cell.
      tested: Scores on each test, by cell and seed.
      adam: Scores of tuned Adam by test.
    """

    runs: Sequence[training.Run]
    seconds_per_step: Mapping[str, float]
    tested: Mapping[tuple[str, int], Mapping[str, float]]
    adam: Mapping[str, float]


def sections(extent: Extent) -> list[Section]:
    """The two sections: by the loss, then by the share of errors."""
    num_tasks = 4 if extent.quick else 16

    def evaluators(
        tests: Sequence[tasks.Test], score: scores.Score = scores.log_decrease
    ) -> dict[str, scores.Evaluator]:
        return {
            test.name: scores.Evaluator(test.objectives, test.steps, num_tasks, _TEST_KEY, score)
            for test in (tests[:2] if extent.quick else tests)
        }

    def validation(
        objectives: Sequence[learners.Objective], score: scores.Score = scores.log_decrease
    ) -> scores.Evaluator:
        return scores.Evaluator(objectives, tasks.HORIZON, num_tasks, _VALIDATION_KEY, score)

    return [
        Section(
            "loss",
            tasks.loss_objectives(),
            validation(tasks.validation_objectives()),
            evaluators(tasks.loss_tests()),
            extent.env_steps,
            CELLS,
        ),
        Section(
            "errors",
            tasks.error_objectives(),
            validation(tasks.error_objectives(), scores.final_percentage),
            evaluators(tasks.error_tests(), scores.final_percentage),
            extent.error_env_steps,
            [cell for cell in CELLS if cell.network != PUBLISHED],
        ),
    ]


def measure(section: Section, extent: Extent, rates: dict[str, float], folder: Path) -> Measured:
    """Trains and tests all cells of a section.

    Args:
      section: The section.
      extent: How much to run.
      rates: Chosen learning rates by cell; missing ones are chosen and added.
      folder: Folder of finished runs.
    """
    runs: list[training.Run] = []
    for cell in section.cells:
        # All compiled programs together need more memory maps than Linux gives a process.
        jax.clear_caches()
        if cell.name not in rates:
            rates[cell.name] = cell.rates[0] if extent.quick else _best_rate(cell, section, folder)
        runs += [_train(cell, rates[cell.name], seed, section, folder) for seed in extent.seeds]
    made = {cell.name: make_learner(cell, rates[cell.name]) for cell in section.cells}
    tested = test_scores(section, runs, folder)
    jax.clear_caches()
    adam = run_store.load_or_measure(
        folder / "tuned_adam.json",
        lambda: {name: evaluator.tuned_adam() for name, evaluator in section.tests.items()},
    )
    seconds_per_step = run_store.load_or_measure(
        folder / "seconds_per_step.json",
        functools.partial(
            training.seconds_per_step, made, section.objectives, 1 if extent.quick else 5
        ),
    )
    return Measured(runs, seconds_per_step, tested, adam)


def _train(cell: Cell, rate: float, seed: int, section: Section, folder: Path) -> training.Run:
    key = training.RunKey(cell.name, rate, section.env_steps, seed)
    learner = make_learner(cell, rate)
    return training.train(key, learner, section.objectives, section.validation, folder)


def _best_rate(cell: Cell, section: Section, folder: Path) -> float:
    """The learning rate with the best score on a separate seed after half of the steps."""
    half = dataclasses.replace(section, env_steps=section.env_steps / 2)
    tried = {
        rate: _train(cell, rate, _SELECTION_SEED, half, folder).best_score() for rate in cell.rates
    }
    return min(tried, key=lambda rate: tried[rate])


def test_scores(
    section: Section, runs: Sequence[training.Run], folder: Path
) -> dict[tuple[str, int], dict[str, float]]:
    """Scores of the trained networks on all tests, by cell and seed; stored for each run.

    Args:
      section: The section.
      runs: Its training runs.
      folder: Folder of finished runs.
    """
    found = {}
    network_of = {cell.name: cell.network for cell in section.cells}
    for name, network in NETWORKS.items():
        jax.clear_caches()  # As in `measure`.
        for run in [run for run in runs if network_of[run.cell] == name]:
            key = training.RunKey(run.cell, run.rate, section.env_steps, run.seed)
            found[run.cell, run.seed] = run_store.load_or_measure(
                key.path(folder, "tests.json"), functools.partial(_scores, section, network, run)
            )
    return found


def _scores(
    section: Section, network: networks.LearnedOptimizer, run: training.Run
) -> dict[str, float]:
    return {name: evaluator(network, run.params) for name, evaluator in section.tests.items()}

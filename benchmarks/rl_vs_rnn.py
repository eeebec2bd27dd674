"""Reinforcement learning or a recurrent network? The seed of this project asks; this measures.

The two papers that learn optimizers differ in two things at once: the network (feedforward, or an
LSTM) and the learner (reinforcement learning, or backpropagation through time). Here they are told
apart: `python -m benchmarks.rl_vs_rnn` trains both networks by each of three learners, on the same
tasks, with the same observations and actions and as many steps of tasks, three seeds each, and then
tries them frozen on tasks that they were not trained on. It takes hours on two cores; what is
finished is kept in `benchmarks/results/rl_vs_rnn_runs`, so that it goes on where it was stopped.
`--quick` is a matter of minutes and shows only that it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import json
from pathlib import Path
import shlex
import sys
import time
from typing import Any, Protocol

import chex
from flax import linen as nn
import jax
import numpy as np
import optax
import tyro

from alphaopt_jax import files
from alphaopt_jax import progress as progress_lib
from alphaopt_jax.baselines import rollouts
from alphaopt_jax.baselines.backpropagation import BackpropagationConfig
from alphaopt_jax.tasks import classification, distribution, networks, supervised, synthetic
from alphaopt_jax.tasks.task import Family
from benchmarks import intervals, results_file, rl_vs_rnn_page, rl_vs_rnn_pictures
from benchmarks import rl_vs_rnn_learners as learners
from benchmarks import rl_vs_rnn_networks as policies

HORIZON = 100
TRAINED = ("linear_regression", "mixture_relu", "digits_tanh")
VALIDATED = ("wide_linear_regression", "wide_mixture_sigmoid", "deep_mixture_tanh")
_SELECTION_SEED = 100
_VALIDATIONS = 10
_VALIDATION_KEY, _TEST_KEY = 300, 400
_KIND = "rl-vs-rnn-network"
ADAM_RATES = tuple(float(rate) for rate in np.logspace(-4, 0, 13))


@dataclasses.dataclass(frozen=True)
class Arguments:
    """How much to run.

    Attributes:
      seeds: Runs of each pair of network and learner.
      env_steps: Steps of tasks in each run, all tasks together, in millions.
      quick: Two rounds of one seed and one rate, to see that it runs.
    """

    seeds: int = 3
    env_steps: float = 1.0
    quick: bool = False


class Learner(Protocol):
    """What trains a network, round by round."""

    @property
    def tasks_of_a_round(self) -> int:
        """Tasks that a round draws."""

    @property
    def steps_of_a_round(self) -> int:
        """Steps made on all tasks together."""

    def begin(self, key: chex.PRNGKey) -> Any:
        """The start."""

    def round(self, goal: learners.Goal, learned: Any, instances: Any, keys: chex.PRNGKey) -> Any:
        """One round."""

    def params(self, learned: Any) -> chex.ArrayTree:
        """Parameters of the network."""


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
        """What tables call it."""
        return f"{self.network}, {self.learner}"


NETWORKS = {network.name: network for network in (policies.feedforward(), policies.recurrent())}
PPO, BPTT, EVOLUTION = "PPO", "BPTT", "evolution"
_RATES = {PPO: (1e-3, 3e-3, 1e-2), BPTT: (1e-3, 3e-3, 1e-2), EVOLUTION: (3e-3, 1e-2, 3e-2)}
CELLS = tuple(
    Cell(network, learner, rates) for network in NETWORKS for learner, rates in _RATES.items()
)


def make_learner(cell: Cell, rate: float) -> Learner:
    """The learner of a cell, at a learning rate."""
    network = NETWORKS[cell.network]
    if cell.learner == PPO:
        return learners.PPO(network, learners.PPOConfig(horizon=HORIZON, learning_rate=rate))
    if cell.learner == EVOLUTION:
        config = learners.EvolutionConfig(horizon=HORIZON, learning_rate=rate)
        return learners.Evolution(network, config)
    return learners.BackpropagationLearner(
        network,
        BackpropagationConfig(
            horizon=HORIZON, objective="log_loss", tasks=4, learning_rates=(rate,)
        ),
    )


def ordinary_goals() -> list[learners.Goal]:
    """The families to train on, each judged by its own loss."""
    families = distribution.training_families()
    return [learners.Goal(families[name], families[name]) for name in TRAINED]


def error_goals() -> list[learners.Goal]:
    """Classifiers that are trained by their cross-entropy and judged by their share of errors."""
    return [
        learners.Goal(_classifier(loss=supervised.cross_entropy), _classifier(loss=zero_one)),
    ]


def zero_one(logits: chex.Array, labels: chex.Array) -> chex.Array:
    """Share of examples that are classified wrongly: its derivative is zero wherever it has one."""
    return jax.numpy.mean(jax.numpy.argmax(logits, axis=-1) != labels, dtype=jax.numpy.float32)


def _classifier(
    hidden: Sequence[int] = (48,),
    activation: Callable[..., Any] = nn.relu,
    loss: supervised.Loss = supervised.cross_entropy,
) -> Family:
    return supervised.supervised_family(
        "classifier",
        networks.MLP(tuple(hidden), 5, activation),
        synthetic.gaussian_mixture(16, 5),
        loss,
        batch_size=256 if loss is zero_one else 64,
    )


@dataclasses.dataclass(frozen=True)
class Test:
    """Something that the networks were not trained on.

    Attributes:
      name: What tables call it.
      families: What to optimize.
      steps: For how long.
    """

    name: str
    families: Sequence[Family]
    steps: int


def tests() -> list[Test]:
    """What trained networks are tried on, frozen."""
    validation = distribution.validation_families()
    unseen = [validation[name] for name in VALIDATED]
    plain = {family.name: family for family in distribution.plain_training_families()}
    return [
        Test("what it was trained on", [plain[name] for name in TRAINED], HORIZON),
        Test("unseen tasks", unseen, HORIZON),
        Test("ten times the steps", unseen, 10 * HORIZON),
        Test(
            "other activations",
            [_classifier(activation=each) for each in (nn.sigmoid, nn.gelu, nn.elu)],
            HORIZON,
        ),
        Test("other widths", [_classifier((8,)), _classifier((200,))], HORIZON),
        Test("deeper", [_classifier((32, 32, 32, 32))], HORIZON),
        Test(
            "a convolutional net",
            [family for family in classification.training_conv_nets()][:1],
            HORIZON,
        ),
    ]


@dataclasses.dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
      cell: The cell's name.
      rate: Its learning rate.
      seed: Its seed.
      env_steps: `float[V]`, steps of tasks before each validation.
      seconds: `float[V]`, the same in seconds of training, compilation and validation left out.
      scores: `float[V]`, mean log of final over initial loss on the validation families.
      params: Of the trained network.
    """

    cell: str
    rate: float
    seed: int
    env_steps: Sequence[float]
    seconds: Sequence[float]
    scores: Sequence[float]
    params: chex.ArrayTree


def train(
    cell: Cell,
    rate: float,
    seed: int,
    env_steps: float,
    goals: Sequence[learners.Goal],
    judge: Callable[[policies.Network, chex.ArrayTree], float],
    folder: Path,
) -> Run:
    """Trains once, or reads what was trained before.

    Args:
      cell: What to train, and how.
      rate: The learner's rate.
      seed: Of everything random.
      env_steps: Steps of tasks, all together.
      goals: What to train on, one round after the other.
      judge: From a network and its parameters to its score, of which less is better.
      folder: Where finished runs are kept.
    """
    slug = cell.name.lower().replace("'", "").replace(", ", "-").replace(" ", "_")
    path = folder / f"{slug}-{rate:g}-{env_steps:g}-{seed}"
    if path.with_suffix(".json").exists():
        params, _ = files.read_params(
            path.with_suffix(".safetensors"), kind=_KIND, what="a network", written_by="this script"
        )
        return Run(**json.loads(path.with_suffix(".json").read_text()), params=params)
    learner = make_learner(cell, rate)
    init_key, stream = jax.random.split(jax.random.key(seed))
    learned = learner.begin(init_key)
    rounds = [jax.jit(functools.partial(learner.round, goal), donate_argnums=0) for goal in goals]
    number = max(int(env_steps / learner.steps_of_a_round), len(goals))
    stops = set(np.linspace(0, number, _VALIDATIONS + 1).astype(int))
    measured: list[tuple[float, float, float]] = []
    seconds = 0.0
    with progress_lib.Progress(f"{cell.name}, {rate:g}, seed {seed}", number, show=True) as bar:
        for index in range(number + 1):
            if index in stops:
                score = judge(NETWORKS[cell.network], learner.params(learned))
                measured.append((index * learner.steps_of_a_round, seconds, score))
            bar.update(index, f"score {measured[-1][2]:.3f}")
            if index == number:
                break
            which = index % len(goals)
            keys = jax.random.split(jax.random.fold_in(stream, index), learner.tasks_of_a_round)
            drawn = rollouts.draw(goals[which].family, keys)
            began = time.perf_counter()
            learned = jax.block_until_ready(rounds[which](learned, *drawn))
            if index >= len(goals):  # Before, it is compiled.
                seconds += time.perf_counter() - began
    columns = [list(column) for column in zip(*measured, strict=True)]
    run = Run(cell.name, rate, seed, *columns, params=jax.device_get(learner.params(learned)))
    folder.mkdir(parents=True, exist_ok=True)
    files.write_params(path.with_suffix(".safetensors"), run.params, kind=_KIND, metadata={})
    content = {
        field.name: getattr(run, field.name)
        for field in dataclasses.fields(run)
        if field.name != "params"
    }
    path.with_suffix(".json").write_text(json.dumps(content, default=float) + "\n")
    return run


class Judge:
    """Mean log of final over initial loss, of frozen networks over families."""

    def __init__(self, families: Sequence[Family], num_steps: int, num_tasks: int, key: int):
        """Draws the tasks; the same ones are used at every call."""
        self._families = list(families)
        self._num_steps = num_steps
        self._examples = [
            rollouts.draw(family, jax.random.split(jax.random.key(key), num_tasks))
            for family in families
        ]
        self._makers: dict[str, Callable[..., optax.GradientTransformation]] = {}

    def __call__(self, network: policies.Network, params: chex.ArrayTree) -> float:
        """The score of a network."""
        make = self._makers.setdefault(
            network.name,
            functools.partial(policies.as_optimizer, network, num_steps=self._num_steps),
        )
        return self.of_optimizer(make, params)

    def of_optimizer(self, make: rollouts.OptimizerFactory, made_of: Any) -> float:
        """The score of any optimizer."""
        scores = [
            self._score(family, drawn, make, made_of)
            for family, drawn in zip(self._families, self._examples, strict=True)
        ]
        return float(np.mean(scores))

    def tuned_adam(self) -> float:
        """The score of Adam at its best rate for each family, of these very tasks."""
        scores = [
            min(self._score(family, drawn, optax.adam, rate) for rate in ADAM_RATES)
            for family, drawn in zip(self._families, self._examples, strict=True)
        ]
        return float(np.mean(scores))

    def _score(
        self, family: Family, drawn: Any, make: rollouts.OptimizerFactory, made_of: Any
    ) -> float:
        losses = rollouts.rollouts(family, make, made_of, *drawn, num_steps=self._num_steps)
        return _log_decrease(np.asarray(losses, np.float64))


def _log_decrease(losses: np.ndarray) -> float:
    """Mean log of the loss at the end, of the last twentieth, over that of the start."""
    last = max(losses.shape[-1] // 20, 1)
    ratios = (losses[:, -last:].mean(axis=-1) + 1e-6 * losses[:, 0]) / losses[:, 0]
    return float(np.log(np.nan_to_num(np.clip(ratios, None, 100.0), nan=100.0)).mean())


def summarize(runs: Sequence[Run], judges: Mapping[str, Judge]) -> list[dict[str, Any]]:
    """One row for each cell, and one for a tuned Adam."""
    budget = min(run.seconds[-1] for run in runs)
    rows: list[dict[str, Any]] = []
    for cell in CELLS:
        mine = [run for run in runs if run.cell == cell.name]
        if not mine:
            continue
        at_steps = [run.scores[-1] for run in mine]
        at_time = [float(np.interp(budget, run.seconds, run.scores)) for run in mine]
        tried = {
            name: [judge(NETWORKS[cell.network], run.params) for run in mine]
            for name, judge in judges.items()
        }
        rows.append(
            {
                "network": cell.network,
                "learner": cell.learner,
                "rate": mine[0].rate,
                "score": float(np.mean(at_steps)),
                "interval": intervals.half_interval(at_steps),
                "score_at_equal_time": float(np.mean(at_time)),
                "interval_at_equal_time": intervals.half_interval(at_time),
                "env_steps": mine[0].env_steps[-1],
                "seconds": float(np.mean([run.seconds[-1] for run in mine])),
                "tests": {name: float(np.mean(scores)) for name, scores in tried.items()},
                "test_intervals": {
                    name: intervals.half_interval(scores) for name, scores in tried.items()
                },
                "curves": [
                    {
                        "seed": run.seed,
                        "env_steps": run.env_steps,
                        "seconds": run.seconds,
                        "scores": run.scores,
                    }
                    for run in mine
                ],
            }
        )
    tuned = {name: judge.tuned_adam() for name, judge in judges.items()}
    rows.append({"network": "none", "learner": "Adam, tuned for each family", "tests": tuned})
    return rows


def main(arguments: Arguments) -> int:
    """Trains everything and reports."""
    seeds = range(1 if arguments.quick else arguments.seeds)
    env_steps = 1e4 if arguments.quick else 1e6 * arguments.env_steps
    folder = results_file.RESULTS / ("quick" if arguments.quick else "")
    runs_folder = folder / "rl_vs_rnn_runs"
    validation = distribution.validation_families()
    number = 4 if arguments.quick else 16
    judge = Judge([validation[name] for name in VALIDATED], HORIZON, number, _VALIDATION_KEY)
    goals = ordinary_goals()
    runs = []
    for cell in CELLS:
        rate = cell.rates[0]
        if not arguments.quick:
            tried = {
                rate: train(
                    cell, rate, _SELECTION_SEED, env_steps / 4, goals, judge, runs_folder
                ).scores[-1]
                for rate in cell.rates
            }
            rate = min(tried, key=lambda rate: tried[rate])
        runs += [train(cell, rate, seed, env_steps, goals, judge, runs_folder) for seed in seeds]
    judges = {
        test.name: Judge(test.families, test.steps, number, _TEST_KEY)
        for test in (tests()[:2] if arguments.quick else tests())
    }
    rows = summarize(runs, judges)
    command = shlex.join(["python", "-m", "benchmarks.rl_vs_rnn", *sys.argv[1:]])
    print(rl_vs_rnn_page.training_table(rows))
    print(rl_vs_rnn_page.test_table(rows))
    results_file.write(
        "rl_vs_rnn", rows=rows, claims=[], seeds=seeds, command=command, folder=folder
    )
    (folder / "rl_vs_rnn.md").write_text(rl_vs_rnn_page.page(rows, command))
    rl_vs_rnn_pictures.write(rows, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))

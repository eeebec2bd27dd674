"""Training of one network by one learner, and the time that it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
from pathlib import Path
import statistics
import time
from typing import Any, NamedTuple

import chex
import jax
import numpy as np

from alphaopt_jax._storage import params as params_storage
from alphaopt_jax._storage import progress
from alphaopt_jax.tasks import rollouts
from benchmarks.common import run_store
from benchmarks.rl_vs_rnn.learners import Learner, Objective
from benchmarks.rl_vs_rnn.networks import LearnedOptimizer

_VALIDATIONS = 20
_KIND = "rl-vs-rnn-network"

Evaluate = Callable[[LearnedOptimizer, chex.ArrayTree], float]
"""Maps a network and its parameters to a score; lower is better."""


class RunKey(NamedTuple):
    """Identity of a training run.

    Attributes:
      cell: Name of the cell.
      rate: Learning rate of the learner.
      env_steps: Environment steps, over all tasks.
      seed: Seed of all randomness.
    """

    cell: str
    rate: float
    env_steps: float
    seed: int

    def path(self, folder: Path, suffix: str) -> Path:
        """Path of a file of the run."""
        slug = self.cell.lower().replace("'", "").replace(", ", "-").replace(" ", "_")
        return folder / f"{slug}-{self.rate:g}-{self.env_steps:g}-{self.seed}.{suffix}"


@dataclasses.dataclass(frozen=True)
class Run:
    """One training run with V validations.

    Attributes:
      cell: Name of the cell.
      rate: Learning rate of the learner.
      seed: Seed of all randomness.
      env_steps: `float[V]`, environment steps before each validation.
      scores: `float[V]`, validation scores.
      params: Parameters of the network with the best score.
    """

    cell: str
    rate: float
    seed: int
    env_steps: Sequence[float]
    scores: Sequence[float]
    params: chex.ArrayTree

    def best_score(self, env_steps: float = np.inf) -> float:
        """The best score within a number of environment steps."""
        reached = zip(self.env_steps, self.scores, strict=True)
        return min(score for step, score in reached if step <= env_steps)


def train(
    key: RunKey,
    learner: Learner,
    objectives: Sequence[Objective],
    evaluate: Evaluate,
    folder: Path,
) -> Run:
    """Trains a network, or reads the finished run from `folder`.

    Args:
      key: Identity of the run.
      learner: Learner with the network and the learning rate of the run.
      objectives: Objectives to train on, one per round in turn.
      evaluate: Validation score.
      folder: Folder of finished runs.
    """
    weights = key.path(folder, "safetensors")
    curve = run_store.load_or_measure(
        key.path(folder, "json"), lambda: _train(key, learner, objectives, evaluate, weights)
    )
    params, _ = params_storage.read_params(
        weights, kind=_KIND, what="a network", written_by="this benchmark"
    )
    return Run(key.cell, key.rate, key.seed, curve["env_steps"], curve["scores"], params)


def _train(
    key: RunKey,
    learner: Learner,
    objectives: Sequence[Objective],
    evaluate: Evaluate,
    weights: Path,
) -> dict[str, Any]:
    """Trains a network, writes the best parameters, and returns the validation curve."""
    init_key, stream = jax.random.split(jax.random.key(key.seed))
    state = learner.init(init_key)
    programs = [
        (objective, jax.jit(functools.partial(learner.round, objective), donate_argnums=0))
        for objective in objectives
    ]
    num_rounds = max(int(key.env_steps / learner.env_steps_per_round), len(objectives))
    stops = set(np.linspace(0, num_rounds, _VALIDATIONS + 1).astype(int))
    env_steps: list[float] = []
    scores: list[float] = []
    best_score, best = np.inf, jax.device_get(learner.params(state))
    label = f"{key.cell}, {key.rate:g}, seed {key.seed}"
    with progress.Progress(label, num_rounds, show=True) as bar:
        for index in range(num_rounds + 1):
            if index in stops:
                env_steps.append(index * learner.env_steps_per_round)
                scores.append(float(evaluate(learner.network, learner.params(state))))
                if scores[-1] < best_score:
                    best_score, best = scores[-1], jax.device_get(learner.params(state))
            bar.update(index, f"score {scores[-1]:.3f}")
            if index == num_rounds:
                break
            state = _one_round(learner, programs, state, stream, index)
    weights.parent.mkdir(parents=True, exist_ok=True)
    params_storage.write_params(weights, best, kind=_KIND, metadata={})
    return {"env_steps": env_steps, "scores": scores}


def seconds_per_step(
    learners: Mapping[str, Learner], objectives: Sequence[Objective], repeats: int = 5
) -> dict[str, float]:
    """Median seconds of each learner per environment step, without compilation.

    Learners take turns, so that other load on the machine affects all of them.

    Args:
      learners: Learners by name.
      objectives: Objectives to train on, with equal weight.
      repeats: Timed rounds per learner and objective.
    """
    stream = jax.random.key(0)
    programs = {
        name: [
            (objective, jax.jit(functools.partial(learner.round, objective)))
            for objective in objectives
        ]
        for name, learner in learners.items()
    }
    states = {name: learner.init(jax.random.key(1)) for name, learner in learners.items()}
    times: dict[tuple[str, int], list[float]] = {}
    for repeat in range(repeats + 1):
        for name, learner in learners.items():
            for which in range(len(objectives)):
                start = time.perf_counter()
                index = repeat * len(objectives) + which
                done = _one_round(learner, programs[name], states[name], stream, index)
                jax.block_until_ready(done)
                if repeat:  # The first repeat compiles.
                    elapsed = time.perf_counter() - start
                    times.setdefault((name, which), []).append(elapsed)
    return {
        name: sum(statistics.median(times[name, which]) for which in range(len(objectives)))
        / (len(objectives) * learner.env_steps_per_round)
        for name, learner in learners.items()
    }


def _one_round(
    learner: Learner,
    programs: Sequence[tuple[Objective, Callable[..., Any]]],
    state: Any,
    stream: chex.PRNGKey,
    index: int,
) -> Any:
    """Runs round `index` of a run, on new tasks of one objective.

    Args:
      learner: The learner.
      programs: Objectives, which take turns, and their compiled rounds.
      state: State of the learner.
      stream: Key of the run; the index is folded in.
      index: Number of the round.
    """
    objective, one_round = programs[index % len(programs)]
    keys = jax.random.split(jax.random.fold_in(stream, index), learner.tasks_per_round)
    return one_round(state, *rollouts.draw(objective.family, keys))

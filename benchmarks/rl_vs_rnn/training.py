"""How `benchmarks.rl_vs_rnn` trains one network by one learner, and how long that takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import json
from pathlib import Path
import statistics
import time
from typing import Any

import chex
import jax
import numpy as np

from alphaopt_jax._storage import atomic, progress
from alphaopt_jax._storage import params as params_lib
from alphaopt_jax.tasks import rollouts
from benchmarks.rl_vs_rnn.learners import Learner, Objective
from benchmarks.rl_vs_rnn.networks import LearnedOptimizer

_VALIDATIONS = 20
_KIND = "rl-vs-rnn-network"


@dataclasses.dataclass(frozen=True)
class Run:
    """One training, of which the best network by its validations is kept.

    Attributes:
      cell: What was trained, and how, by its name.
      rate: The learner's rate.
      seed: Of everything random.
      env_steps: `float[V]`, steps of tasks before each validation.
      scores: `float[V]`, the judge's.
      params: Of the network with the best score.
    """

    cell: str
    rate: float
    seed: int
    env_steps: Sequence[float]
    scores: Sequence[float]
    params: chex.ArrayTree

    def best_score(self, env_steps: float = np.inf) -> float:
        """The best score within so many steps of tasks."""
        reached = zip(self.env_steps, self.scores, strict=True)
        return min(score for step, score in reached if step <= env_steps)


def train(
    name: str,
    network: LearnedOptimizer,
    learner: Learner,
    rate: float,
    seed: int,
    env_steps: float,
    objectives: Sequence[Objective],
    judge: Callable[[LearnedOptimizer, chex.ArrayTree], float],
    folder: Path,
) -> Run:
    """Trains once, or reads what was trained before.

    Args:
      name: Of network and learner together.
      network: What is trained.
      learner: What trains it, at `rate`.
      rate: Tells this training from others.
      seed: Of everything random.
      env_steps: Steps of tasks, all together.
      objectives: What to train on, one round after the other.
      judge: From a network and its parameters to its score, of which less is better.
      folder: Where finished runs are kept.
    """
    path = path_of(folder, name, rate, env_steps, seed)
    weights, curve = path.with_name(f"{path.name}.safetensors"), path.with_name(f"{path.name}.json")
    if curve.exists():
        params, _ = params_lib.read_params(
            weights, kind=_KIND, what="a network", written_by="this script"
        )
        return Run(**json.loads(curve.read_text()), params=params)
    init_key, stream = jax.random.split(jax.random.key(seed))
    learned = learner.init(init_key)
    rounds = [
        jax.jit(functools.partial(learner.round, objective), donate_argnums=0)
        for objective in objectives
    ]
    number = max(int(env_steps / learner.env_steps_per_round), len(objectives))
    stops = set(np.linspace(0, number, _VALIDATIONS + 1).astype(int))
    measured: list[tuple[float, float]] = []
    best_score, best = np.inf, jax.device_get(learner.params(learned))
    with progress.Progress(f"{name}, {rate:g}, seed {seed}", number, show=True) as bar:
        for index in range(number + 1):
            if index in stops:
                score = judge(network, learner.params(learned))
                measured.append((index * learner.env_steps_per_round, score))
                if score < best_score:
                    best_score, best = score, jax.device_get(learner.params(learned))
            bar.update(index, f"score {measured[-1][1]:.3f}")
            if index == number:
                break
            learned = _one_round(learner, objectives, rounds, learned, stream, index)
    columns = [list(column) for column in zip(*measured, strict=True)]
    run = Run(name, rate, seed, *columns, params=best)
    folder.mkdir(parents=True, exist_ok=True)
    params_lib.write_params(weights, run.params, kind=_KIND, metadata={})
    content = {
        field.name: getattr(run, field.name)
        for field in dataclasses.fields(run)
        if field.name != "params"
    }
    atomic.write(curve, (json.dumps(content, default=float) + "\n").encode())
    return run


def path_of(folder: Path, name: str, rate: float, env_steps: float, seed: int) -> Path:
    """What the files of a training begin with; its arguments are those of `train`."""
    slug = name.lower().replace("'", "").replace(", ", "-").replace(" ", "_")
    return folder / f"{slug}-{rate:g}-{env_steps:g}-{seed}"


def seconds_per_step(
    learners: Mapping[str, Learner], objectives: Sequence[Objective], rounds: int = 5
) -> dict[str, float]:
    """How long each learner takes for a step of a task, compilation left out.

    All take turns, so that a machine that is busy for a while is busy for all; medians are taken.

    Args:
      learners: By name.
      objectives: What they train on; each counts alike.
      rounds: How often each is timed.
    """
    stream = jax.random.key(0)
    compiled = {
        name: [jax.jit(functools.partial(learner.round, objective)) for objective in objectives]
        for name, learner in learners.items()
    }
    started = {name: learner.init(jax.random.key(1)) for name, learner in learners.items()}
    times: dict[tuple[str, int], list[float]] = {}
    for number in range(rounds + 1):
        for name, learner in learners.items():
            for which in range(len(objectives)):
                began = time.perf_counter()
                index = number * len(objectives) + which
                done = _one_round(learner, objectives, compiled[name], started[name], stream, index)
                jax.block_until_ready(done)
                if number:  # Before, it is compiled.
                    elapsed = time.perf_counter() - began
                    times.setdefault((name, which), []).append(elapsed)
    return {
        name: sum(statistics.median(times[name, which]) for which in range(len(objectives)))
        / (len(objectives) * learner.env_steps_per_round)
        for name, learner in learners.items()
    }


def _one_round(
    learner: Learner,
    objectives: Sequence[Objective],
    rounds: Sequence[Callable[..., Any]],
    learned: Any,
    stream: chex.PRNGKey,
    index: int,
) -> Any:
    """One round on fresh tasks of the objective whose turn it is."""
    which = index % len(objectives)
    keys = jax.random.split(jax.random.fold_in(stream, index), learner.tasks_per_round)
    return rounds[which](learned, *rollouts.draw(objectives[which].family, keys))

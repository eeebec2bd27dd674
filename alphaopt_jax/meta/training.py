"""Meta-training from beginning to end: rounds over families, validation, checkpoints, resume.

A run is a pure function of its families, its config and its seed: every round draws its key from
the seed and the round's number, and everything else that a round needs is in the checkpoint. So a
run that is killed and resumed ends with the same parameters, bit for bit, as one that is not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import hashlib
from importlib import metadata
import json
import os
import shlex
import sys
import time
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from alphaopt_jax._agent import agent as agent_lib
from alphaopt_jax._storage import run_folder
from alphaopt_jax.meta import _devices as devices
from alphaopt_jax.meta import _population as population
from alphaopt_jax.meta import _reporting as reporting
from alphaopt_jax.meta import method as method_lib
from alphaopt_jax.meta import ppo as ppo_lib
from alphaopt_jax.meta.config import MetaConfig
from alphaopt_jax.meta.validation import Validation
from alphaopt_jax.pretrained import card as card_lib
from alphaopt_jax.tasks.families import distribution
from alphaopt_jax.tasks.task import Family

_DEFAULT_CONFIG = MetaConfig()


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How long to train, and how often to look.

    Attributes:
      num_rounds: Rounds of meta-training; one is a rollout of one family and learning from it.
      validate_every: Rounds between two validations.
      checkpoint_every: Rounds between two checkpoints.
      validation_horizons: Lengths of the validation's episodes.
      validation_tasks: Tasks of each validation family.
    """

    num_rounds: int = 300
    validate_every: int = 50
    checkpoint_every: int = 100
    validation_horizons: Sequence[int] = (200, 2000)
    validation_tasks: int = 8


class Progress(NamedTuple):
    """Everything that a run is: what a checkpoint holds.

    Attributes:
      round: `int32[]`, rounds done.
      learned: What the method trains, as it is now.
      families: State of each family, by name.
      best_agent: Parameters of the best agent by validation.
      best_score: `float32[]`, its score; lower is better.
      env_steps: `float32[]`, steps made on all tasks together.
      seconds: `float32[]`, time that rounds took; those that compiled first count for nothing.
      wall_seconds: `float32[]`, time that everything took.
    """

    round: chex.Array
    learned: Any
    families: dict[str, method_lib.FamilyState]
    best_agent: chex.ArrayTree
    best_score: chex.Array
    env_steps: chex.Array
    seconds: chex.Array
    wall_seconds: chex.Array


@dataclasses.dataclass(frozen=True)
class MetaTrainingResult:
    """What came out of meta-training.

    Attributes:
      agent: The best agent by validation.
      last_agent: The agent after the last round.
      score: The best agent's score: mean log of final over initial loss on the validation tasks.
      history: One mapping for each validation: round, environment steps, seconds of rounds
        (compilation left out), score, and the score of every family and horizon
        as `validation.Validation` names them.
    """

    agent: agent_lib.Agent
    last_agent: agent_lib.Agent
    score: float
    history: Sequence[Mapping[str, Any]]


def meta_train(
    families: Mapping[str, Family] | None = None,
    *,
    validation: Mapping[str, Family] | None = None,
    schedule: Schedule | None = None,
    config: MetaConfig = _DEFAULT_CONFIG,
    method: method_lib.Method | None = None,
    seed: int = 0,
    folder: str | os.PathLike[str] | None = None,
    mesh: jax.sharding.Mesh | None = None,
    show_progress: bool = True,
    callback: Callable[[int, Mapping[str, Any]], None] | None = None,
) -> MetaTrainingResult:
    """Trains an agent over a distribution of tasks, by PPO unless told otherwise.

    Args:
      families: What to train on, by name; by default `tasks.distribution.training_families()`.
      validation: What to choose the best agent by; by default
        `tasks.distribution.validation_families()`.
      schedule: How long to train, and how often to look.
      config: The constants.
      method: How to train; by default `ppo.ppo(config)`. `evolution.evolution` makes others.
      seed: Of everything random.
      folder: Where checkpoints, metrics and the best agent go. A run that finds its own checkpoints
        there goes on where it stopped. None keeps nothing.
      mesh: Devices to share the population among, along the mesh's first axis; by default one
        device. With several processes (`jax.distributed`) each of them calls this with the same
        arguments and a mesh over all devices.
      show_progress: Whether to draw a progress display.
      callback: Called after every round with its number and metrics.

    Returns:
      The best agent and the history of its training.

    Raises:
      ValueError: The arguments contradict each other, or the folder holds another run.
      FloatingPointError: Training broke down; the message says where.
      MemoryError: Linux allows this process too few memory maps for so many families; the message
        says how to allow more.

    Example:
      >>> from alphaopt_jax.meta import MetaConfig, Schedule, meta_train
      >>> from alphaopt_jax.tasks.families import distribution
      >>> quadratics = {"quadratic": distribution.training_families()["quadratic"]}
      >>> small = MetaConfig(groups=2, copies=2, minibatches=1, max_horizon=60)
      >>> schedule = Schedule(num_rounds=2, validate_every=2, validation_horizons=(20,))
      >>> result = meta_train(
      ...     quadratics, validation=quadratics, schedule=schedule, config=small,
      ...     show_progress=False,
      ... )
      >>> len(result.history)
      2
    """
    families = distribution.training_families() if families is None else dict(families)
    validation = distribution.validation_families() if validation is None else dict(validation)
    schedule = Schedule() if schedule is None else schedule
    mesh = devices.single_device_mesh() if mesh is None else mesh
    _check(families, config, mesh)
    method = ppo_lib.ppo(config) if method is None else method
    identity = _identity(families, validation, schedule, config, method, seed)
    store = run_folder.Store(folder, identity)
    judge = Validation(validation, schedule.validation_horizons, schedule.validation_tasks, config)
    rounds = {
        name: devices.shard_round(method.make_round(family), mesh)
        for name, family in families.items()
    }
    starts = {
        name: devices.shard_start(functools.partial(population.start, family, config=config), mesh)
        for name, family in families.items()
    }
    begin_key, rounds_key = jax.random.split(jax.random.key(seed))
    progress = store.restore(lambda: _begin(starts, begin_key, method, mesh))
    history = store.read_history(int(progress.round))
    names, compiled = list(families), set[str]()
    ended = time.monotonic()
    with reporting.Reporter(schedule.num_rounds, store.folder, show=show_progress) as reporter:
        for number in range(int(progress.round), schedule.num_rounds):
            if number % schedule.validate_every == 0:
                progress = _validate(progress, judge, history, store, reporter)
            name = names[number % len(names)]
            start_key, round_key = jax.random.split(jax.random.fold_in(rounds_key, number))
            if name not in compiled:
                devices.check_memory_maps()
            state = progress.families[name]
            began = time.monotonic()
            if int(state.population.rollouts_left) == 0:
                state = state._replace(population=starts[name](start_key))
            learned, state, metrics = rounds[name](
                progress.learned, state, round_key, _learning_rate(number, schedule, config)
            )
            steps = state.population.interval * config.rollout_length
            measured = {metric: float(value) for metric, value in jax.device_get(metrics).items()}
            now = time.monotonic()
            took, passed = (now - began if name in compiled else 0.0), now - ended
            ended = now
            compiled.add(name)
            progress = progress._replace(
                round=progress.round + 1,
                learned=learned,
                families=progress.families | {name: state},
                env_steps=progress.env_steps + steps * config.groups * config.copies,
                seconds=progress.seconds + took,
                wall_seconds=progress.wall_seconds + passed,
            )
            _check_finite(measured, name, number)
            reporter.round_done(number, name, measured, float(progress.env_steps))
            if callback is not None:
                callback(number, measured)
            if (number + 1) % schedule.checkpoint_every == 0:
                store.save(int(progress.round), progress)
        if not history or history[-1]["round"] != schedule.num_rounds:
            progress = _validate(progress, judge, history, store, reporter)
    store.save(int(progress.round), progress)
    result = MetaTrainingResult(
        agent=_as_agent(progress.best_agent, config),
        last_agent=_as_agent(progress.learned.averaged_agent, config),
        score=float(progress.best_score),
        history=history,
    )
    if store.folder is not None and jax.process_index() == 0:
        card = _card(identity, result, progress)
        agent_lib.save_agent(store.folder / f"{card.name}.safetensors", result.agent)
        card_lib.write_card(card, store.folder)
    return result


def _learning_rate(number: int, schedule: Schedule, config: MetaConfig) -> np.float32:
    """Falls linearly, to a twentieth: what a single round teaches is noisy."""
    return np.float32(config.learning_rate * (1.0 - 0.95 * number / schedule.num_rounds))


def _begin(
    starts: Mapping[str, Callable[[chex.PRNGKey], population.Population]],
    key: chex.PRNGKey,
    method: method_lib.Method,
    mesh: jax.sharding.Mesh,
) -> Progress:
    init_key, *keys = jax.random.split(key, len(starts) + 1)
    learned = devices.replicate(method.init(init_key), mesh)
    states = {
        name: method_lib.FamilyState(start(key), devices.replicate(method.init_family(), mesh))
        for (name, start), key in zip(starts.items(), keys, strict=True)
    }
    return Progress(
        round=jnp.zeros((), jnp.int32),
        learned=learned,
        families=states,
        best_agent=learned.averaged_agent,
        best_score=jnp.full((), jnp.inf, jnp.float32),
        env_steps=jnp.zeros((), jnp.float32),
        seconds=jnp.zeros((), jnp.float32),
        wall_seconds=jnp.zeros((), jnp.float32),
    )


def _validate(
    progress: Progress,
    judge: Validation,
    history: list[dict[str, Any]],
    store: run_folder.Store,
    reporter: reporting.Reporter,
) -> Progress:
    """Scores the agent, keeps it if it is the best so far, and notes the score."""
    scores = judge(progress.learned.averaged_agent)
    score = sum(scores.values()) / len(scores)
    entry = {
        "round": int(progress.round),
        "env_steps": float(progress.env_steps),
        "seconds": float(progress.seconds),
        "score": score,
    }
    entry |= scores
    history.append(entry)
    store.append_history(entry)
    reporter.validated(entry, best=min(score, float(progress.best_score)))
    if score < float(progress.best_score):
        progress = progress._replace(
            best_agent=progress.learned.averaged_agent, best_score=jnp.asarray(score, jnp.float32)
        )
    return progress


def _card(
    identity: Mapping[str, Any], result: MetaTrainingResult, progress: Progress
) -> card_lib.Card:
    """What can be said of the agent without looking at it."""
    return card_lib.Card(
        name="agent",
        summary="Trained by `alphaopt meta-train`; what it is good at is still to be measured.",
        command=shlex.join(["alphaopt", *sys.argv[1:]]),
        seed=identity["seed"],
        trained_on=identity["families"],
        selected_on=identity["validation"],
        rounds=int(progress.round),
        env_steps=int(progress.env_steps),
        hours=round(float(progress.wall_seconds) / 3600.0, 2),
        hardware=f"{jax.device_count()} x {jax.devices()[0].device_kind}, {os.cpu_count()} cores",
        versions={name: metadata.version(name) for name in ("jax", "flax", "optax", "rlax")},
        score=round(result.score, 3),
        results={},
        weaknesses=(),
    )


def _as_agent(params: chex.ArrayTree, config: MetaConfig) -> agent_lib.Agent:
    return agent_lib.Agent(
        jax.device_get(params),
        max_log_rate=config.max_log_rate,
        anytime_steps=config.anytime_steps,
        direction=config.optimizer.direction,
    )


def _check(families: Mapping[str, Family], config: MetaConfig, mesh: jax.sharding.Mesh) -> None:
    if not families:
        raise ValueError("Meta-training needs at least one family of tasks; `families` is empty.")
    size = config.groups * config.copies
    if config.copies % 2:
        raise ValueError(
            f"`copies` must be even, since half of them explore opposite to the other half:"
            f" {config.copies}."
        )
    if size % config.minibatches:
        raise ValueError(
            f"The population of groups * copies = {size} members cannot be cut into"
            f" {config.minibatches} equal minibatches."
        )
    if size % mesh.devices.size:
        raise ValueError(
            f"The population of groups * copies = {size} members cannot be shared out equally"
            f" among {mesh.devices.size} devices."
        )


def _check_finite(metrics: Mapping[str, float], family: str, number: int) -> None:
    broken = [name for name, value in metrics.items() if value != value]
    if broken:
        raise FloatingPointError(
            f"Round {number}, on {family!r}, gave NaN for {', '.join(broken)}. The last checkpoint"
            " is from before it; a smaller `learning_rate` usually helps."
        )


def _identity(
    families: Mapping[str, Family],
    validation: Mapping[str, Family],
    schedule: Schedule,
    config: MetaConfig,
    method: method_lib.Method,
    seed: int,
) -> dict[str, Any]:
    """What makes two runs the same."""
    described = {
        "families": list(families),
        "validation": list(validation),
        "validation_horizons": list(schedule.validation_horizons),
        "validation_tasks": schedule.validation_tasks,
        "validate_every": schedule.validate_every,
        "num_rounds": schedule.num_rounds,
        "method": method.name,
        "config": repr(config),
        "seed": seed,
    }
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
    return described | {"digest": digest[:16]}

"""Meta-training: rounds over task families, validation, checkpoints and resuming.

A run is a pure function of its families, config and seed: every round derives its key from the seed
and the round's number, and the checkpoint holds everything else that a round needs. A run that is
killed and resumed therefore ends with the same parameters, bit for bit, as an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from importlib import metadata
import os
import shlex
import sys
import time
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from alphaopt_jax._agent import agent as agent_lib
from alphaopt_jax._learning.online import KEY_IMPL
from alphaopt_jax._storage import run_folder
from alphaopt_jax.meta import _devices as devices
from alphaopt_jax.meta import _reporting as reporting
from alphaopt_jax.meta import method as method_lib
from alphaopt_jax.meta import ppo as ppo_lib
from alphaopt_jax.meta._rounds import Rounds, RunState
from alphaopt_jax.meta._validation import Validation
from alphaopt_jax.meta.config import MetaConfig
from alphaopt_jax.pretrained import card as card_lib
from alphaopt_jax.tasks.families import distribution
from alphaopt_jax.tasks.task import Family

_DEFAULT_CONFIG = MetaConfig()


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Length of a run, and when it is validated and saved.

    Attributes:
      num_rounds: Rounds of meta-training; each runs one family's population for one rollout and
        learns from it.
      validate_every: Rounds between validations.
      checkpoint_every: Rounds between checkpoints.
      validation_horizons: Numbers of steps in validation episodes.
      validation_tasks: Tasks per validation family.
    """

    num_rounds: int = 300
    validate_every: int = 50
    checkpoint_every: int = 100
    validation_horizons: Sequence[int] = (200, 2000)
    validation_tasks: int = 8


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Storage, devices and display of a run, without effect on the result.

    Attributes:
      folder: Folder for checkpoints, metrics and the best agent. A run resumes from the checkpoints
        that it finds there. None stores nothing.
      mesh: Devices that share the population, along the mesh's first axis; by default one device.
        With several processes (`jax.distributed`), each process calls `meta_train` with the same
        arguments and a mesh over all devices, as from `all_devices_mesh`.
      show_progress: Whether to show a progress display.
      callback: Called after every round with its number and metrics.
    """

    folder: str | os.PathLike[str] | None = None
    mesh: jax.sharding.Mesh | None = None
    show_progress: bool = True
    callback: Callable[[int, Mapping[str, Any]], None] | None = None


_DEFAULT_OPTIONS = RunOptions()


@dataclasses.dataclass(frozen=True)
class MetaTrainingResult:
    """Result of `meta_train`.

    Attributes:
      agent: Best agent by validation score.
      last_agent: Agent after the last round.
      score: Score of the best agent: mean log ratio of final to initial loss on the validation
        tasks; lower is better.
      history: One mapping per validation: "round", "env_steps", "seconds" (time in rounds, without
        compilation), "score", and the score of each family and horizon, such as "conv/200".
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
    options: RunOptions = _DEFAULT_OPTIONS,
) -> MetaTrainingResult:
    """Trains an agent over a distribution of tasks.

    Args:
      families: Training families by name; by default `tasks.distribution.training_families()`.
      validation: Families that select the best agent, by name; by default
        `tasks.distribution.validation_families()`.
      schedule: Length of the run, and when it is validated and saved.
      config: Constants of meta-training.
      method: Learning algorithm, of `meta.ppo` (by default `ppo(config)`) or `meta.evolution`.
      seed: Seed of all randomness.
      options: Storage, devices and display.

    Returns:
      The best agent and the history of its training.

    Raises:
      ValueError: The arguments contradict each other, or the folder holds another run.
      FloatingPointError: A metric became NaN; the message names the round.
      MemoryError: Linux allows this process too few memory maps for so many compiled programs.

    Example:
      >>> from alphaopt_jax.meta import MetaConfig, RunOptions, Schedule, meta_train
      >>> from alphaopt_jax.tasks.families import distribution
      >>> quadratics = {"quadratic": distribution.training_families()["quadratic"]}
      >>> result = meta_train(
      ...     quadratics,
      ...     validation=quadratics,
      ...     schedule=Schedule(num_rounds=2, validate_every=2, validation_horizons=(20,)),
      ...     config=MetaConfig(groups=2, copies=2, minibatches=1, max_horizon=60),
      ...     options=RunOptions(show_progress=False),
      ... )
      >>> len(result.history)
      2
    """
    families = distribution.training_families() if families is None else dict(families)
    validation = distribution.validation_families() if validation is None else dict(validation)
    schedule = Schedule() if schedule is None else schedule
    mesh = devices.single_device_mesh() if options.mesh is None else options.mesh
    _check(families, config, mesh)
    method = ppo_lib.ppo(config) if method is None else method
    identity = {
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
    run = _Run(
        schedule,
        config,
        options,
        Rounds(families, method, config, mesh),
        Validation(validation, schedule.validation_horizons, schedule.validation_tasks, config),
        run_folder.Store(options.folder, identity),
    )
    state = run.train(seed)
    result = MetaTrainingResult(
        agent=_as_agent(state.best_agent, config),
        last_agent=_as_agent(state.learner.averaged_agent, config),
        score=float(state.best_score),
        history=run.store.history,
    )
    if run.store.folder is not None and jax.process_index() == 0:
        card = _card(identity, result, state)
        agent_lib.save_agent(run.store.folder / f"{card.name}.safetensors", result.agent)
        card_lib.write_card(card, run.store.folder)
    return result


@dataclasses.dataclass(frozen=True)
class _Run:
    """The parts of one run."""

    schedule: Schedule
    config: MetaConfig
    options: RunOptions
    rounds: Rounds
    validation: Validation
    store: run_folder.Store

    def train(self, seed: int) -> RunState:
        """Runs all rounds that are not yet done, and returns the last state."""
        schedule, store = self.schedule, self.store
        begin_key, rounds_key = jax.random.split(jax.random.key(seed, impl=KEY_IMPL))
        state = store.resume(lambda: self.rounds.begin(begin_key), lambda state: int(state.round))
        ended = time.monotonic()
        with reporting.Reporter(
            schedule.num_rounds, store.folder, show=self.options.show_progress
        ) as reporter:
            for number in range(int(state.round), schedule.num_rounds):
                if number % schedule.validate_every == 0:
                    state = self._validate(state, reporter)
                state, name, metrics = self.rounds.run(
                    state, jax.random.fold_in(rounds_key, number), self._learning_rate(number)
                )
                began, ended = ended, time.monotonic()
                state = state._replace(wall_seconds=state.wall_seconds + (ended - began))
                _check_finite(metrics, name, number)
                reporter.round_done(number, name, metrics, float(state.env_steps))
                if self.options.callback is not None:
                    self.options.callback(number, metrics)
                if (number + 1) % schedule.checkpoint_every == 0:
                    store.save(int(state.round), state)
            if not store.history or store.history[-1]["round"] != schedule.num_rounds:
                state = self._validate(state, reporter)
        store.save(int(state.round), state)
        return state

    def _learning_rate(self, number: int) -> np.float32:
        """Learning rate of a round; decays linearly to a twentieth, since rounds are noisy."""
        num_rounds = self.schedule.num_rounds
        return np.float32(self.config.ppo.learning_rate * (1.0 - 0.95 * number / num_rounds))

    def _validate(self, state: RunState, reporter: reporting.Reporter) -> RunState:
        """Scores the averaged agent, and makes it the best agent if its score is the lowest."""
        scores = self.validation(state.learner.averaged_agent)
        score = sum(scores.values()) / len(scores)
        entry = {
            "round": int(state.round),
            "env_steps": float(state.env_steps),
            "seconds": float(state.seconds),
            "score": score,
            **scores,
        }
        self.store.append_history(entry)
        reporter.validated(entry, best=min(score, float(state.best_score)))
        if score < float(state.best_score):
            state = state._replace(
                best_agent=state.learner.averaged_agent, best_score=jnp.asarray(score, jnp.float32)
            )
        return state


def _card(
    identity: Mapping[str, Any], result: MetaTrainingResult, state: RunState
) -> card_lib.Card:
    """Returns the agent's card, without measured results."""
    return card_lib.Card(
        name="agent",
        summary="Trained by `alphaopt meta-train`; not yet evaluated.",
        command=shlex.join(["alphaopt", *sys.argv[1:]]),
        seed=identity["seed"],
        trained_on=identity["families"],
        selected_on=identity["validation"],
        rounds=int(state.round),
        env_steps=int(state.env_steps),
        hours=round(float(state.wall_seconds) / 3600.0, 2),
        hardware=f"{jax.device_count()} x {jax.devices()[0].device_kind}, {os.cpu_count()} cores",
        versions={name: metadata.version(name) for name in ("jax", "flax", "optax", "rlax")},
        score=round(result.score, 3),
        results={},
        weaknesses=(),
    )


def _as_agent(params: chex.ArrayTree, config: MetaConfig) -> agent_lib.Agent:
    return agent_lib.Agent(
        jax.device_get(params),
        max_log_rate=config.agent.max_log_rate,
        inverse_sqrt_steps=config.agent.inverse_sqrt_steps,
        update_direction=config.agent.update_direction,
        block_size=config.agent.block_size,
    )


def _check(families: Mapping[str, Family], config: MetaConfig, mesh: jax.sharding.Mesh) -> None:
    if not families:
        raise ValueError("Meta-training needs at least one family of tasks; `families` is empty.")
    size = config.groups * config.copies
    if config.copies % 2:
        raise ValueError(
            "`copies` must be even, because one half of the copies explores opposite to the other:"
            f" {config.copies}."
        )
    if size % config.minibatches:
        raise ValueError(
            f"The population of groups * copies = {size} members cannot be divided into"
            f" {config.minibatches} equal minibatches."
        )
    if size % mesh.devices.size:
        raise ValueError(
            f"The population of groups * copies = {size} members cannot be divided equally"
            f" among {mesh.devices.size} devices."
        )


def _check_finite(metrics: Mapping[str, float], family: str, number: int) -> None:
    broken = [name for name, value in metrics.items() if value != value]
    if broken:
        raise FloatingPointError(
            f"Round {number}, on {family!r}, gave NaN for {', '.join(broken)}. The last checkpoint"
            " precedes this round; a smaller `learning_rate` usually helps."
        )

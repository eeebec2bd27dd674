"""State of a run of meta-training, and its rounds: one rollout of one family, and learning."""

from __future__ import annotations

from collections.abc import Mapping
import functools
import time
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from alphaopt_jax.meta import _devices as devices
from alphaopt_jax.meta import _population as population
from alphaopt_jax.meta import method as method_lib
from alphaopt_jax.meta.config import MetaConfig
from alphaopt_jax.tasks.task import Family


class RunState(NamedTuple):
    """State of a run, as stored in checkpoints.

    Attributes:
      round: `int32[]`, finished rounds.
      learner: State of the method.
      families: State of each family, by name.
      best_agent: Parameters of the best agent by validation score.
      best_score: `float32[]`, its score; lower is better.
      env_steps: `float32[]`, optimization steps summed over all tasks.
      seconds: `float32[]`, time in rounds, without those that compiled.
      wall_seconds: `float32[]`, total time.
    """

    round: chex.Array
    learner: Any
    families: dict[str, method_lib.FamilyState]
    best_agent: chex.ArrayTree
    best_score: chex.Array
    env_steps: chex.Array
    seconds: chex.Array
    wall_seconds: chex.Array


class Rounds:
    """Compiled rounds of all families, which take turns."""

    def __init__(
        self,
        families: Mapping[str, Family],
        method: method_lib.Method,
        config: MetaConfig,
        mesh: jax.sharding.Mesh,
    ):
        """Prepares the rounds; each family's round compiles at its first run.

        Args:
          families: Training families by name.
          method: Learning algorithm.
          config: Constants of meta-training.
          mesh: Devices that share the population.
        """
        self._method = method
        self._config = config
        self._mesh = mesh
        self._names = list(families)
        self._rounds = {
            name: devices.shard_round(method.make_round(family), mesh)
            for name, family in families.items()
        }
        self._starts = {
            name: devices.shard_start(
                functools.partial(population.start, family, config=config), mesh
            )
            for name, family in families.items()
        }
        self._compiled = set[str]()

    def begin(self, key: chex.PRNGKey) -> RunState:
        """Returns the state before the first round. Consumes `key`."""
        init_key, *keys = jax.random.split(key, len(self._names) + 1)
        learner = devices.replicate(self._method.init(init_key), self._mesh)
        families = {
            name: method_lib.FamilyState(
                start(key), devices.replicate(self._method.init_family(), self._mesh)
            )
            for (name, start), key in zip(self._starts.items(), keys, strict=True)
        }
        return RunState(
            round=jnp.zeros((), jnp.int32),
            learner=learner,
            families=families,
            best_agent=learner.averaged_agent,
            best_score=jnp.full((), jnp.inf, jnp.float32),
            env_steps=jnp.zeros((), jnp.float32),
            seconds=jnp.zeros((), jnp.float32),
            wall_seconds=jnp.zeros((), jnp.float32),
        )

    def run(
        self, state: RunState, key: chex.PRNGKey, learning_rate: chex.Numeric
    ) -> tuple[RunState, str, dict[str, float]]:
        """Runs one round of the next family.

        Args:
          state: State before the round.
          key: Consumed.
          learning_rate: Learning rate of the agent's own optimizer.

        Returns:
          State after the round, the family's name, and metrics.

        Raises:
          MemoryError: As raised by `_devices.check_memory_maps`.
        """
        config = self._config
        name = self._names[int(state.round) % len(self._names)]
        start_key, round_key = jax.random.split(key)
        if name not in self._compiled:
            devices.check_memory_maps()
        family = state.families[name]
        began = time.monotonic()
        if int(family.population.rollouts_left) == 0:
            family = family._replace(population=self._starts[name](start_key))
        learner, family, metrics = self._rounds[name](
            state.learner, family, round_key, learning_rate
        )
        steps = family.population.interval * config.intervals_per_rollout
        measured = {metric: float(value) for metric, value in jax.device_get(metrics).items()}
        seconds = time.monotonic() - began if name in self._compiled else 0.0
        self._compiled.add(name)
        state = state._replace(
            round=state.round + 1,
            learner=learner,
            families=state.families | {name: family},
            env_steps=state.env_steps + steps * config.groups * config.copies,
            seconds=state.seconds + seconds,
        )
        return state, name, measured

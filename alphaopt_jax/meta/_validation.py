"""Validation: scores of a frozen agent on held-out tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import itertools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from alphaopt_jax._agent.network import Policy
from alphaopt_jax._learning.online import KEY_IMPL
from alphaopt_jax.meta import _devices as devices
from alphaopt_jax.meta import _environment as environment
from alphaopt_jax.meta.config import MetaConfig
from alphaopt_jax.tasks.task import Family

_LOSS_BATCHES = 16
_LOSS_FLOOR = 1e-4
"""Floor added to the loss, so that tiny losses do not dominate; a share of the initial loss."""
_MAX_LOG_RATIO = float(np.log(100.0))  # Log ratio of a diverged task.


def make_final_loss(
    family: Family, config: MetaConfig
) -> Callable[..., tuple[chex.Array, chex.Array]]:
    """Returns a function that optimizes tasks of a family with a frozen agent.

    Args:
      family: Family of the tasks.
      config: Constants of meta-training.

    Returns:
      A jitted function of the agent's parameters, N task instances, `key[N]`, the number of steps,
      whether the agent knows that number, and a factor of all rates. It returns the training
      losses before and after optimization, means over 16 batches, both `float32[N]`. It compiles
      once for all numbers of steps.
    """
    num_leaves = len(environment.model_of(family, config).explorers)

    def one_task(
        agent: chex.ArrayTree,
        instance: Any,
        key: chex.PRNGKey,
        num_steps: chex.Array,
        horizon_known: chex.Array,
        multiplier: chex.Array,
    ) -> tuple[chex.Array, chex.Array]:
        run_key, final_key = jax.random.split(key)
        task = family.task(instance)
        horizon = num_steps.astype(jnp.float32)
        start = environment.reset(
            family, instance, run_key, jnp.where(horizon_known, horizon, 0.0), config
        )
        start = start._replace(multiplier=multiplier)
        whole = environment.frozen_interval(num_leaves, num_steps)
        end, _ = environment.run_interval(family, Policy(agent, config.agent), start, whole, config)

        def loss(flat: chex.Array) -> chex.Array:
            params = environment.unflatten(task, flat)
            keys = jax.random.split(final_key, _LOSS_BATCHES)
            return jnp.mean(jax.lax.map(lambda key: task.loss(params, task.batch(key)), keys))

        reached = end.params
        if config.reward_averages:
            reached = jnp.where(horizon_known, end.params, end.average)
        return loss(start.params), loss(reached)

    return jax.jit(jax.vmap(one_task, in_axes=(None, 0, 0, None, None, None)))


class Validation:
    """Scores of a frozen agent on fixed tasks of held-out families."""

    def __init__(
        self,
        families: Mapping[str, Family],
        horizons: Sequence[int],
        num_tasks: int,
        config: MetaConfig,
        seed: int = 0,
    ):
        """Prepares the validation; its programs compile at the first call.

        Args:
          families: Families by name.
          horizons: Numbers of steps.
          num_tasks: Tasks per family.
          config: Constants of meta-training.
          seed: Seed of the tasks, which are the same at every call.
        """
        sample_key, run_key = jax.random.split(jax.random.key(seed, impl=KEY_IMPL))
        self._sample_keys = jax.random.split(sample_key, num_tasks)
        self._run_keys = jax.random.split(run_key, num_tasks)
        self._families = dict(families)
        self._instances: dict[str, Any] = {}
        self._horizons = tuple(horizons)
        # Agents with a known horizon in all of their training are scored with it alone.
        self._horizon_known = (True, False) if config.unknown_horizon_fraction else (True,)
        self._multipliers: tuple[float, ...] = (1.0,)
        if config.random_multipliers is not None:
            self._multipliers = (1.0, config.random_multipliers[0])
        self._runs = {name: make_final_loss(family, config) for name, family in families.items()}

    def __call__(self, agent: chex.ArrayTree) -> dict[str, float]:
        """Scores an agent; lower is better.

        Args:
          agent: Parameters of the agent.

        Returns:
          Mean log ratio of final to initial loss for each family and number of steps. "conv/200" is
          with the number of steps given to the agent, "conv/200, no horizon" without; the latter is
          left out if the horizon was always known in training. "conv/200, rates x 0.01" is
          with all rates multiplied, if they were in training. The ratio is at most 100,
          which is also the ratio of diverged tasks.
        """
        agent = jax.device_get(agent)  # Every process validates separately, on its own device.
        scores = {}
        for name, run in self._runs.items():
            if name not in self._instances:
                sample = jax.vmap(self._families[name].sample)
                draw = jax.jit(sample, compiler_options=devices.FAST_COMPILE_OPTIONS)
                self._instances[name] = draw(self._sample_keys)
            instances = self._instances[name]
            for horizon, horizon_known, multiplier in itertools.product(
                self._horizons, self._horizon_known, self._multipliers
            ):
                arguments = (int(horizon), horizon_known, np.float32(multiplier))
                initial, final = jax.device_get(run(agent, instances, self._run_keys, *arguments))
                final = np.maximum(final, 0.0)  # Rounding can make it negative.
                ratio = np.log((final + _LOSS_FLOOR * initial) / (initial * (1.0 + _LOSS_FLOOR)))
                ratio = np.minimum(np.nan_to_num(ratio, nan=_MAX_LOG_RATIO), _MAX_LOG_RATIO)
                label = f"{name}/{horizon}{'' if horizon_known else ', no horizon'}"
                label += "" if multiplier == 1.0 else f", rates x {multiplier:g}"
                scores[label] = float(np.mean(ratio))
            if jax.config.jax_compilation_cache_dir is not None:
                # Compiled programs use up memory maps; this one can be read from the cache again.
                run.clear_cache()
        return scores

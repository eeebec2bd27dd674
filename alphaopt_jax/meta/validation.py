"""How good an agent is: frozen, on tasks that it was not trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import itertools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from alphaopt_jax.meta import _devices as devices
from alphaopt_jax.meta import _environment as environment
from alphaopt_jax.meta import ppo
from alphaopt_jax.meta.config import MetaConfig
from alphaopt_jax.tasks.task import Family

_FINAL_BATCHES = 16
_FLOOR = 1e-6  # Of the initial loss: less than this is as good as nothing.
_WORST = float(np.log(100.0))


def make_final_loss(
    family: Family, config: MetaConfig
) -> Callable[..., tuple[chex.Array, chex.Array]]:
    """Returns a function that optimizes tasks of a family with a frozen agent.

    Args:
      family: The family.
      config: The constants.

    Returns:
      A jitted function from the agent's parameters, instances and keys, both with a leading axis
      `[N]`, the number of steps, and whether the agent is told it, to the training losses before
      and after, each a mean over 16 batches, `float32[N]`. It compiles once for all numbers of
      steps.
    """
    network = ppo.make_network(config)
    model = environment.layout(family, config)
    silent = environment.Noise(jnp.zeros(len(model.sizes)), jnp.zeros(0))

    def one_task(
        agent: chex.ArrayTree,
        instance: Any,
        key: chex.PRNGKey,
        num_steps: chex.Array,
        is_told: chex.Array,
    ) -> tuple[chex.Array, chex.Array]:
        run_key, final_key = jax.random.split(key)
        task = family.task(instance)
        horizon = num_steps.astype(jnp.float32)
        start = environment.reset(family, instance, run_key, jnp.where(is_told, horizon, 0.0))
        end, _ = environment.run_interval(
            family,
            network,
            agent,
            start,
            None,
            silent,
            num_steps,
            jnp.zeros((), jnp.int32),
            jnp.zeros((), jnp.int32),
            horizon,
            config,
        )

        def loss(flat: chex.Array) -> chex.Array:
            params = environment.unflatten(task, flat)
            keys = jax.random.split(final_key, _FINAL_BATCHES)
            return jnp.mean(jax.lax.map(lambda key: task.loss(params, task.batch(key)), keys))

        return loss(start.params), loss(end.params)

    return jax.jit(jax.vmap(one_task, in_axes=(None, 0, 0, None, None)))


class Validation:
    """Frozen runs over families and horizons that are not trained on."""

    def __init__(
        self,
        families: Mapping[str, Family],
        horizons: Sequence[int],
        num_tasks: int,
        config: MetaConfig,
        seed: int = 0,
    ):
        """Prepares the runs; everything compiles at the first call.

        Args:
          families: What to validate on.
          horizons: Lengths of the episodes.
          num_tasks: Tasks drawn of each family.
          config: The constants of meta-training.
          seed: Of the tasks, which are the same at every call.
        """
        sample_key, run_key = jax.random.split(jax.random.key(seed))
        self._sample_keys = jax.random.split(sample_key, num_tasks)
        self._run_keys = jax.random.split(run_key, num_tasks)
        self._families = dict(families)
        self._instances: dict[str, Any] = {}
        self._horizons = tuple(horizons)
        # Who is always told in training is not asked to do without here.
        self._told = (True, False) if config.unknown_horizon else (True,)
        self._runs = {name: make_final_loss(family, config) for name, family in families.items()}

    def __call__(self, agent: chex.ArrayTree) -> dict[str, float]:
        """Mean log of the final loss over the initial one, by family and number of steps.

        "conv/200" is of 200 steps of which the agent is told, "conv/200 untold" of as many of which
        it is not, as every agent is judged that was trained like this too.
        A task that diverged counts as one whose loss grew to a hundred times what it was.
        """
        agent = jax.device_get(agent)  # Every process validates by itself, on its own device.
        scores = {}
        for name, run in self._runs.items():
            if name not in self._instances:
                sample = jax.vmap(self._families[name].sample)
                draw = jax.jit(sample, compiler_options=devices.QUICK_TO_COMPILE)
                self._instances[name] = draw(self._sample_keys)
            instances = self._instances[name]
            for horizon, is_told in itertools.product(self._horizons, self._told):
                initial, final = jax.device_get(
                    run(agent, instances, self._run_keys, int(horizon), is_told)
                )
                final = np.maximum(final, 0.0)  # Below zero is rounding.
                ratio = np.log((final + _FLOOR * initial) / (initial * (1.0 + _FLOOR)))
                ratio = np.minimum(np.nan_to_num(ratio, nan=_WORST), _WORST)
                scores[f"{name}/{horizon}{'' if is_told else ' untold'}"] = float(np.mean(ratio))
            if jax.config.jax_compilation_cache_dir is not None:
                # Compiled programs take memory maps, which run out; this one comes back from there.
                run.clear_cache()
        return scores

"""Times a round of meta-training and its parts."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alphaopt_jax._agent.network import Policy
from alphaopt_jax.meta import MetaConfig, method, ppo
from alphaopt_jax.meta import _devices as devices
from alphaopt_jax.meta import _environment as environment
from alphaopt_jax.meta import _episode as episode
from alphaopt_jax.meta import _population as population
from alphaopt_jax.tasks.task import Family


@dataclasses.dataclass(frozen=True)
class Timing:
    """Median seconds of one round of meta-training on one family, and its size.

    Attributes:
      parameters: Parameters of a task.
      devices: Devices that share the round.
      env_steps: Environment steps in a round, over all environments.
      round: Seconds of the whole round.
      rollout: Seconds of its rollout alone.
      gradients: Seconds of the rollout's batches, losses and gradients alone.
    """

    parameters: int
    devices: int
    env_steps: int
    round: float
    rollout: float
    gradients: float


def time_family(family: Family, horizon: int, repeats: int) -> Timing:
    """Times one round on one family, after compilation.

    Args:
      family: Tasks to train on.
      horizon: Steps in an episode.
      repeats: Timed rounds.
    """
    config = MetaConfig(min_horizon=horizon, max_horizon=horizon + 1)
    learner = ppo.ppo(config)
    members = config.groups * config.copies
    mesh = devices.all_devices_mesh(members)
    learned = devices.replicate(learner.init(jax.random.key(0)), mesh)
    start = devices.shard_start(lambda key: population.start(family, key, config), mesh)
    episodes = start(jax.random.key(1))
    state = method.FamilyState(episodes, devices.replicate(learner.init_family(), mesh))
    rate, key = jnp.float32(config.ppo.learning_rate), jax.random.key(2)
    steps = int(episodes.interval) * config.intervals_per_rollout

    def gradients(episodes: population.Population) -> jax.Array:
        return _descend(family, episodes, steps)

    def rollout(
        agent: Any, episodes: population.Population, key: jax.Array
    ) -> tuple[population.Population, jax.Array]:
        policy = Policy(agent, config.agent)
        episodes, rollout = population.run_rollout(family, policy, episodes, key, config)
        # Every output is summed, or the compiler would remove the unused ones.
        sums = [jnp.sum(leaf.astype(jnp.float32)) for leaf in jax.tree.leaves(rollout)]
        return episodes, jnp.stack(sums)

    # Explicit output shardings keep the compiler from moving environments between devices.
    sharding = jax.tree.map(lambda leaf: leaf.sharding, episodes)
    replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    gradients = jax.jit(gradients, out_shardings=sharding.members.params)
    rollout = jax.jit(rollout, out_shardings=(sharding, replicated))
    whole_round = devices.shard_round(learner.make_round(family), mesh)
    return Timing(
        parameters=int(episodes.members.params.shape[-1]),
        devices=mesh.size,
        env_steps=steps * members,
        gradients=_median_seconds(gradients, (episodes,), repeats),
        rollout=_median_seconds(rollout, (learned.agent, episodes, key), repeats),
        round=_median_seconds(whole_round, (learned, state, key, rate), repeats),
    )


def _descend(family: Family, episodes: population.Population, steps: int) -> jax.Array:
    """Gradient descent in all environments: the rollout's work on the tasks without an agent."""

    def one(member: episode.EnvState) -> jax.Array:
        task = family.task(member.instance)

        def body(_: Any, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            flat, key_data = carry
            key, batch_key = jax.random.split(jax.random.wrap_key_data(key_data))
            batch = task.batch(batch_key)
            _, grads = jax.value_and_grad(
                lambda flat: task.loss(environment.unflatten(task, flat), batch)
            )(flat)
            return flat - 1e-6 * grads, jax.random.key_data(key)

        return jax.lax.fori_loop(0, steps, body, (member.params, member.key_data))[0]

    return jax.vmap(one)(episodes.members)


def _median_seconds(function: Any, inputs: tuple[Any, ...], repeats: int) -> float:
    compiled = function.lower(*inputs).compile()
    jax.block_until_ready(compiled(*inputs))
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*inputs))
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))

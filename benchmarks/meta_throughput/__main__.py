"""Throughput of meta-training: environment steps a second, and where the time goes.

`python -m benchmarks.meta_throughput --label NAME` times a round of meta-training on some families,
once compiled, shared among the processor's cores as `alphaopt meta-train` does: the whole round,
its rollout, and of the rollout what the tasks themselves take (to draw batches, and losses with
their gradients). What other labels measured before, on this machine or with another version of the
package, stays in the results beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import json
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich import console as rich_console
from rich import progress as rich_progress
import tyro

from alphaopt_jax.meta import _devices as devices
from alphaopt_jax.meta import _environment as environment
from alphaopt_jax.meta import _population as population
from alphaopt_jax.meta import method, ppo
from alphaopt_jax.meta.config import MetaConfig
from alphaopt_jax.tasks.families import distribution
from alphaopt_jax.tasks.task import Family
from benchmarks.common import results

_FAMILIES = (
    "quadratic",
    "logistic_regression",
    "spirals_tanh",
    "conv_pooled",
    "markov_attention",
    "digits_autoencoder",
)


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to time.

    Attributes:
      label: What this version is called in the table.
      families: Names of families; by default some of each kind.
      horizon: Steps of every episode.
      repeats: Rounds that are timed; the median counts.
    """

    label: str = "now"
    families: tuple[str, ...] = _FAMILIES
    horizon: int = 960
    repeats: int = 5


def measure(name: str, family: Family, arguments: Arguments) -> dict[str, Any]:
    """Times one family; a row."""
    config = MetaConfig(min_horizon=arguments.horizon, max_horizon=arguments.horizon + 1)
    learner = ppo.ppo(config)
    members = config.groups * config.copies
    mesh = devices.all_devices_mesh(members)
    learned = devices.replicate(learner.init(jax.random.key(0)), mesh)
    start = devices.shard_start(lambda key: population.start(family, key, config), mesh)
    episodes = start(jax.random.key(1))
    state = method.FamilyState(episodes, devices.replicate(learner.init_family(), mesh))
    network = ppo.make_network(config)
    rate, key = jnp.float32(config.learning_rate), jax.random.key(2)
    steps = int(episodes.interval) * config.rollout_length

    def gradients(episodes: population.Population) -> jax.Array:
        def one(member: environment.Member) -> jax.Array:
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

    def rollout(
        agent: Any, episodes: population.Population, key: jax.Array
    ) -> tuple[population.Population, jax.Array]:
        episodes, rollout = population.run_rollout(family, network, agent, episodes, key, config)
        sums = [jnp.sum(leaf.astype(jnp.float32)) for leaf in jax.tree.leaves(rollout)]
        return episodes, jnp.stack(sums)  # So that nothing is left out as unused.

    # Where members come out is said, or the compiler might send them to and fro.
    spread = jax.tree.map(lambda leaf: leaf.sharding, episodes)
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    gradients = jax.jit(gradients, out_shardings=spread.members.params)
    rollout = jax.jit(rollout, out_shardings=(spread, everywhere))
    seconds = {
        "gradients": _seconds(gradients, (episodes,), arguments.repeats),
        "rollout": _seconds(rollout, (learned.agent, episodes, key), arguments.repeats),
        "round": _seconds(
            devices.shard_round(learner.make_round(family), mesh),
            (learned, state, key, rate),
            arguments.repeats,
        ),
    }
    parameters = int(episodes.members.params.shape[-1])
    return {
        "version": arguments.label,
        "devices": mesh.size,
        "family": name,
        "parameters": parameters,
        "seconds_a_round": seconds["round"],
        "environment_steps_a_second": steps * members / seconds["round"],
        "parameter_steps_a_second": steps * members * parameters / seconds["round"],
        "share_of_the_tasks": seconds["gradients"] / seconds["round"],
        "share_of_the_agent": (seconds["rollout"] - seconds["gradients"]) / seconds["round"],
        "share_of_learning": (seconds["round"] - seconds["rollout"]) / seconds["round"],
    }


def _seconds(function: Any, given: tuple[Any, ...], repeats: int) -> float:
    compiled = function.lower(*given).compile()
    jax.block_until_ready(compiled(*given))
    took = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(compiled(*given))
        took.append(time.perf_counter() - began)
    return float(np.median(took))


_COLUMNS = {
    "family": "family",
    "parameters": "parameters",
    "version": "version",
    "devices": "devices",
    "seconds_a_round": "s a round",
    "environment_steps_a_second": "environment steps a second",
    "parameter_steps_a_second": "parameter steps a second",
    "share_of_the_tasks": "of it the tasks",
    "share_of_the_agent": "the agent's steps",
    "share_of_learning": "learning",
}


def _totals(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of every version, as if each family were trained on as often."""
    totals = []
    for version in dict.fromkeys(row["version"] for row in rows):
        found = [row for row in rows if row["version"] == version]
        seconds = sum(row["seconds_a_round"] for row in found)

        def steps(key: str, found: Sequence[dict[str, Any]] = found) -> float:
            return sum(row[key] * row["seconds_a_round"] for row in found)

        rates = ("environment_steps_a_second", "parameter_steps_a_second")
        shares = ("share_of_the_tasks", "share_of_the_agent", "share_of_learning")
        totals.append(
            {"family": "**all**", "version": version, "devices": found[0].get("devices", 1)}
            | {"seconds_a_round": seconds}
            | {key: steps(key) / seconds for key in (*rates, *shares)}
        )
    return totals


def _claims(rows: Sequence[dict[str, Any]]) -> list[results.Claim]:
    totals = {row["version"]: row for row in _totals(rows)}
    if not {"before", "now"} <= totals.keys():
        return []
    key = "environment_steps_a_second"
    text = "environment steps a second of meta-training, now over before the step was made cheap"
    ratio = totals["now"][key] / totals["before"][key]
    return [results.Claim("meta_throughput.gain", text, ratio, ">= 2")]


def main(arguments: Arguments) -> int:
    """Runs everything, prints the table, writes the files."""
    devices.split_cpu(MetaConfig().groups * MetaConfig().copies)
    every = distribution.training_families()
    unknown = set(arguments.families) - set(every)
    if unknown:
        raise SystemExit(f"No such families: {sorted(unknown)}. There are {sorted(every)}.")
    path = results.RESULTS / "meta_throughput.json"
    kept = json.loads(path.read_text())["rows"] if path.exists() else []
    rows = [row for row in kept if row["version"] != arguments.label]
    for name in rich_progress.track(arguments.families, "timing"):
        rows.append(measure(name, every[name], arguments))
    rows.sort(key=lambda row: (row["parameters"], row["family"], row["version"] != "before"))
    table = results.markdown_table([*rows, *_totals(rows)], _COLUMNS)
    rich_console.Console().print(table)
    results.write(
        "meta_throughput",
        rows=rows,
        claims=_claims(rows),
        seeds=(0,),
        command=" ".join(["python -m benchmarks.meta_throughput", *sys.argv[1:]]),
    )
    page = (
        "# Throughput of meta-training\n\nMade by `python -m benchmarks.meta_throughput`: rounds of"
        f" {arguments.horizon} steps, 32 members, once compiled; medians.\n\n{table}"
    )
    (results.RESULTS / "meta_throughput.md").write_text(page)
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))

"""Seconds to where a tuned cosine Adam ends: `python -m benchmarks.zero_tuning.seconds`.

The steps are those of the stored runs of `benchmarks.zero_tuning`: AlphaOpt's until its smoothed
training loss is that of a cosine Adam, tuned for the task, after its 2,000. The time of a whole
train step (batch, gradients, update) is measured here, all optimizers in turn. Curves are stored at
36 numbers of steps, so that the steps are rounded up, by a fifth at most. It takes ten minutes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import math
import shlex
import sys
from typing import Any

import chex
import jax
import numpy as np
from rich import console as rich_console
from rich import progress as rich_progress
import tyro

from alphaopt_jax.tasks.suite import catalog
from benchmarks.common import modes, results, timing
from benchmarks.zero_tuning import optimizers, runs, statistics

_HORIZON = runs.HORIZONS[-1]
_MODES = (modes.ALPHAOPT, modes.NO_HORIZON)
_ROUNDS = 3
_COLUMNS = {
    "task": "task",
    "parameters": "parameters",
    "adam_milliseconds": "ms a step, cosine Adam",
    **{f"{mode} milliseconds": f"ms a step, {mode}" for mode in _MODES},
    **{f"{mode} steps": f"steps, {mode}" for mode in _MODES},
    **{f"{mode} seconds": f"seconds over cosine Adam's, {mode}" for mode in _MODES},
}


@dataclasses.dataclass(frozen=True)
class Arguments:
    """No arguments: all tasks of the suite."""


def target(store: runs.Store, task: str) -> float:
    """The smoothed training loss at which a tuned cosine Adam ends, mean over the seeds."""
    rate = runs.chosen_rate(store, optimizers.COSINE, task, _HORIZON, runs.Settings())
    name = optimizers.COSINE.name
    found = [store[runs.Key(task, name, rate, _HORIZON, seed)] for seed in runs.SEEDS]
    return float(np.mean([_number(run["smoothed"]) for run in found]))


def steps_needed(store: runs.Store, mode: str, task: str, loss: float) -> tuple[int, bool]:
    """Steps of one mode of AlphaOpt to a loss, as `statistics.steps_to_reach`."""
    version = optimizers.alphaopt_spec(mode, None).version
    found = [store[runs.Key(task, mode, None, _HORIZON, seed, version)] for seed in runs.SEEDS]
    curves = np.array([[_number(each) for each in run["curve"]] for run in found])
    steps = statistics.marks(_HORIZON, runs.CURVE_POINTS)
    return statistics.steps_to_reach(loss, [(steps, curves.mean(axis=0))])


def _number(value: float | None) -> float:
    return math.inf if value is None else value


def milliseconds(task: catalog.SuiteTask) -> tuple[dict[str, float], int]:
    """Milliseconds of a train step with cosine Adam and each mode, and the number of parameters."""
    instance = task.family.sample(jax.random.key(0))
    params = task.family.task(instance).init(jax.random.key(1))

    def loss_and_grads(params: chex.ArrayTree, instance: Any, key: Any) -> tuple[Any, Any]:
        of_instance = task.family.task(instance)
        batch = of_instance.batch(key)
        return jax.value_and_grad(of_instance.loss)(params, batch)

    specs = {optimizers.COSINE.name: optimizers.COSINE}
    specs |= {mode: optimizers.alphaopt_spec(mode, None) for mode in _MODES}
    runners = {
        name: timing.Runner(
            # The rate does not matter for the time.
            spec.optimizer_fn(1e-4, _HORIZON),
            params,
            loss_and_grads,
            instance,
            jax.random.key(2),
        )
        for name, spec in specs.items()
    }
    seconds = timing.interleaved(runners, _ROUNDS, lambda: None)
    found = {name: 1e3 * float(np.median(each)) for name, each in seconds.items()}
    return found, sum(leaf.size for leaf in jax.tree.leaves(params))


def row(store: runs.Store, task: catalog.SuiteTask) -> dict[str, Any]:
    """Steps and seconds on one task; seconds are None where the loss is not reached."""
    times, parameters = milliseconds(task)
    adam = times[optimizers.COSINE.name]
    found: dict[str, Any] = {
        "task": task.name,
        "parameters": parameters,
        "adam_milliseconds": adam,
    }
    loss = target(store, task.name)
    for mode in _MODES:
        steps, reached = steps_needed(store, mode, task.name, loss)
        found[f"{mode} milliseconds"] = times[mode]
        found[f"{mode} steps"] = steps if reached else None
        relative = steps * times[mode] / (_HORIZON * adam)
        found[f"{mode} seconds"] = relative if reached else None
    return found


def make_claims(rows: Sequence[Mapping[str, Any]]) -> list[results.Claim]:
    """On most tasks at most half of the time."""
    claims = []
    for mode, short in zip(_MODES, ("alphaopt", "no_horizon"), strict=True):
        seconds = [_number(each[f"{mode} seconds"]) for each in rows]
        text = (
            f"{mode}: share of the suite's tasks on which it is where a tuned cosine Adam ends in"
            " at most half of its time"
        )
        value = float(np.mean([each <= 0.5 for each in seconds]))
        claims.append(results.Claim(f"zero_tuning_seconds.{short}", text, value, "> 0.5"))
    return claims


def page(rows: Sequence[Mapping[str, Any]], command: str) -> str:
    """The page beside the JSON file."""
    return (
        f"# Seconds to where a tuned cosine Adam ends\n\nMade by `{command}`, with steps from the"
        f" stored runs of `python -m benchmarks.zero_tuning`.\n\n{table(rows)}"
    )


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table of all tasks; – is a loss that was not reached in 2,000 steps."""
    return results.markdown_table(rows, _COLUMNS)


def main(arguments: Arguments) -> int:
    """Measures and reports; returns 0 if the claims hold."""
    del arguments
    store = runs.open_store(results.RESULTS / "zero_tuning_runs.jsonl")
    tasks = rich_progress.track(catalog.SUITE.values(), "tasks")
    rows = [row(store, task) for task in tasks]
    claims = make_claims(rows)
    command = shlex.join(["python", "-m", "benchmarks.zero_tuning.seconds", *sys.argv[1:]])
    results.write(
        "zero_tuning_seconds", rows=rows, claims=claims, seeds=runs.SEEDS, command=command
    )
    text = page(rows, command)
    rich_console.Console().print(text)
    (results.RESULTS / "zero_tuning_seconds.md").write_text(text)
    return 0 if all(claim.holds for claim in claims) else 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))

"""The pretrained agent before and after a change of the optimizer, on the zero-tuning suite.

`python -m benchmarks.zero_tuning_versions` compares, for each mode of AlphaOpt, the last two
versions whose runs `benchmarks.zero_tuning` stored, on the same tasks, seeds and batches.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import sys
from typing import Any

import numpy as np
from rich import console as rich_console
import tyro

from alphaopt_jax.tasks.suite import catalog
from benchmarks.common import modes, results
from benchmarks.zero_tuning import optimizers, runs, statistics


@dataclasses.dataclass(frozen=True)
class Arguments:
    """No arguments: everything is read from the stored runs."""


def losses(
    store: runs.Store, optimizer: str, version: str | None, tasks: Sequence[str]
) -> np.ndarray:
    """Logarithms of final training losses, `float[N, H, S]`."""

    def one(task: str, horizon: int, seed: int) -> float:
        run = store[runs.Key(task, optimizer, None, horizon, seed, version)]
        return statistics.log_loss(run["train"], run["initial"])

    return np.array(
        [
            [[one(task, horizon, seed) for seed in runs.SEEDS] for horizon in runs.HORIZONS]
            for task in tasks
        ]
    )


def tuned_adam(store: runs.Store, tasks: Sequence[str]) -> np.ndarray:
    """Logarithms of final training losses of Adam, tuned for each task and number of steps."""
    settings = runs.Settings()

    def one(task: str, horizon: int, seed: int) -> float:
        rate = runs.chosen_rate(store, optimizers.ADAM, task, horizon, settings)
        run = store[runs.Key(task, optimizers.ADAM.name, rate, horizon, seed)]
        return statistics.log_loss(run["train"], run["initial"])

    return np.array(
        [
            [[one(task, horizon, seed) for seed in runs.SEEDS] for horizon in runs.HORIZONS]
            for task in tasks
        ]
    )


_SUMMARY = {
    "optimizer": "",
    "version": "version",
    "loss_ratio": "loss ratio to tuned Adam",
    "wins": "lower than tuned Adam, %",
    "change": "loss, after over before",
    "change_interval": "95 %",
}
_TASKS = {
    "task": "task",
    "horizon": "steps",
    "before": "loss before",
    "after": "loss after",
    "ratio": "ratio",
}


def summary_rows(
    optimizer: str, stored: tuple[str | None, str | None], pair: Sequence[np.ndarray], adam: Any
) -> list[dict[str, Any]]:
    """Two rows for one mode: before and after the change."""
    low, high = statistics.ratio_interval(pair[1], pair[0])
    change = {
        "change": statistics.loss_ratio(pair[1], pair[0]),
        "change_interval": f"{low:.3f}–{high:.3f}",
    }
    return [
        {
            "kind": "optimizer",
            "optimizer": optimizer,
            "version": version,
            "agent": agent,
            "loss_ratio": statistics.loss_ratio(values, adam),
            "wins": 100.0 * statistics.win_fraction(values, adam),
        }
        | more
        for version, agent, values, more in zip(
            ("before", "after"), stored, pair, ({}, change), strict=True
        )
    ]


def task_rows(
    optimizer: str, tasks: Sequence[str], pair: Sequence[np.ndarray]
) -> list[dict[str, Any]]:
    """One row for each task and number of steps: losses before and after the change."""
    rows = []
    for i, task in enumerate(tasks):
        for j, horizon in enumerate(runs.HORIZONS):
            before, after = (float(np.exp(each[i, j].mean())) for each in pair)
            rows.append(
                {
                    "kind": "task",
                    "optimizer": optimizer,
                    "task": task,
                    "horizon": horizon,
                    "before": before,
                    "after": after,
                    "ratio": after / before,
                }
            )
    return rows


def page(summary: Sequence[dict[str, Any]], details: Sequence[dict[str, Any]]) -> str:
    """The page beside the JSON file."""
    return (
        "# Before and after\n\nMade by `python -m benchmarks.zero_tuning_versions` from the stored"
        " runs of `python -m benchmarks.zero_tuning`: the last two versions of each mode, which"
        " differ in the agent or in the arithmetic of a step. Final training losses, geometric"
        " means over five seeds and over tasks at"
        f" 200 and 2,000 steps.\n\n{results.markdown_table(summary, _SUMMARY)}\n"
        f"## {modes.ALPHAOPT}\n\n{results.markdown_table(details, _TASKS)}"
    )


def main(arguments: Arguments) -> int:
    """Prints the tables, writes the files; returns 0 if no mode is measurably worse."""
    del arguments
    store = runs.open_store(results.RESULTS / "zero_tuning_runs.jsonl")
    tasks = list(catalog.SUITE)
    adam = tuned_adam(store, tasks)
    summary: list[dict[str, Any]] = []
    details: list[dict[str, Any]] = []
    claims = []
    for optimizer in optimizers.MODES:
        before, after = runs.versions(store, optimizer)[-2:]
        pair = [losses(store, optimizer, version, tasks) for version in (before, after)]
        summary += summary_rows(optimizer, (before, after), pair, adam)
        low, _ = statistics.ratio_interval(pair[1], pair[0])
        text = (
            f"{optimizer}: lower end of the 95 % interval of the ratio of the loss after the change"
            " to that before"
        )
        short = optimizer.lower().replace(",", "").replace("=", "_").replace(" ", "_")
        claims.append(results.Claim(f"zero_tuning_versions.{short}", text, low, "<= 1"))
        if optimizer == modes.ALPHAOPT:
            details = task_rows(optimizer, tasks, pair)
    text = page(summary, details)
    rich_console.Console().print(text)
    results.write(
        "zero_tuning_versions",
        rows=[*summary, *details],
        claims=claims,
        seeds=runs.SEEDS,
        command=" ".join(["python -m benchmarks.zero_tuning_versions", *sys.argv[1:]]),
    )
    (results.RESULTS / "zero_tuning_versions.md").write_text(text)
    return 0 if all(claim.holds for claim in claims) else 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))

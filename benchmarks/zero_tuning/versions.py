"""The shipped agent before and after a change of the optimizer, on the zero-tuning suite.

`python -m benchmarks.zero_tuning_versions` compares, of each mode of AlphaOpt, the two versions
whose runs were stored last by `benchmarks.zero_tuning`, run by run: the same tasks, seeds and
batches.
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
from benchmarks.common import results
from benchmarks.zero_tuning import optimizers as contenders
from benchmarks.zero_tuning import runs, statistics


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What to compare; everything is read from the stored runs."""


def losses(store: runs.Store, method: str, agent: str | None, tasks: Sequence[str]) -> np.ndarray:
    """Logarithms of final training losses, `float[N, H, S]`."""
    found = [
        [[store[runs.Key(task, method, None, horizon, seed, agent)] for seed in runs.SEEDS]
         for horizon in runs.HORIZONS]
        for task in tasks
    ]  # fmt: skip
    return np.array(
        [
            [[statistics.log_loss(run["train"], run["initial"]) for run in row] for row in rows]
            for rows in found
        ]
    )


def tuned_adam(store: runs.Store, tasks: Sequence[str]) -> np.ndarray:
    """The same of Adam at the best of its rates for each task and horizon."""
    settings = runs.Settings()

    def one(task: str, horizon: int, seed: int) -> float:
        rate = runs.chosen_rate(store, contenders.ADAM.name, task, horizon, settings)
        run = store[runs.Key(task, contenders.ADAM.name, rate, horizon, seed)]
        return statistics.log_loss(run["train"], run["initial"])

    return np.array(
        [
            [[one(task, horizon, seed) for seed in runs.SEEDS] for horizon in runs.HORIZONS]
            for task in tasks
        ]
    )


_SUMMARY = {
    "method": "",
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


def main(arguments: Arguments) -> int:
    """Prints the tables, writes the files; returns 0 if no mode got measurably worse."""
    del arguments
    store = runs.Store(results.RESULTS / "zero_tuning_runs.jsonl")
    tasks = list(catalog.SUITE)
    adam = tuned_adam(store, tasks)
    summary: list[dict[str, Any]] = []
    details: list[dict[str, Any]] = []
    claims = []
    for method in contenders.CANDIDATES:
        before_name, after_name = store.versions(method)[-2:]
        before = losses(store, method, before_name, tasks)
        after = losses(store, method, after_name, tasks)
        low, high = statistics.ratio_interval(after, before)
        change = {
            "change": statistics.loss_ratio(after, before),
            "change_interval": f"{low:.3f}–{high:.3f}",
        }
        for version, values, more in (("before", before, {}), ("after", after, change)):
            row = {
                "kind": "method",
                "method": method,
                "version": version,
                "agent": before_name if version == "before" else after_name,
                "loss_ratio": statistics.loss_ratio(values, adam),
                "wins": 100.0 * statistics.win_fraction(values, adam),
            }
            summary.append(row | more)
        text = f"{method}: lower end of the 95 % interval of the loss after over before the change"
        short = method.lower().replace(",", "").replace(" ", "_")
        claims.append(results.Claim(f"zero_tuning_versions.{short}", text, low, "<= 1"))
        if method == next(iter(contenders.CANDIDATES)):
            for i, task in enumerate(tasks):
                for j, horizon in enumerate(runs.HORIZONS):
                    pair = [float(np.exp(each[i, j].mean())) for each in (before, after)]
                    details.append(
                        {
                            "kind": "task",
                            "method": method,
                            "task": task,
                            "horizon": horizon,
                            "before": pair[0],
                            "after": pair[1],
                            "ratio": pair[1] / pair[0],
                        }
                    )
    tables = (
        results.markdown_table(summary, _SUMMARY),
        results.markdown_table(details, _TASKS),
    )
    for table in tables:
        rich_console.Console().print(table)
    results.write(
        "zero_tuning_versions",
        rows=[*summary, *details],
        claims=claims,
        seeds=runs.SEEDS,
        command=" ".join(["python -m benchmarks.zero_tuning_versions", *sys.argv[1:]]),
    )
    page = (
        "# Before and after\n\nMade by `python -m benchmarks.zero_tuning_versions` from the stored"
        " runs of `python -m benchmarks.zero_tuning`: the same agent, before and after the step was"
        " made cheap (leaves seen through a sample, every parameter looked at each sixteenth step)."
        " Final training losses, geometric means over five seeds and over tasks at 200 and 2,000"
        f" steps.\n\n{tables[0]}\n## The shipped agent, told the number of steps\n\n{tables[1]}"
    )
    (results.RESULTS / "zero_tuning_versions.md").write_text(page)
    return 0 if all(claim.holds for claim in claims) else 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))

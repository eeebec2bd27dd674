"""The stored runs of `benchmarks.zero_tuning` as one table of results, and its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np

from alphaopt_jax.tasks.suite import catalog
from benchmarks.zero_tuning import optimizers, runs, statistics
from benchmarks.zero_tuning.optimizers import ALPHAOPT, LEARN, NO_HORIZON

ADAM_TUNED, COSINE_TUNED = "Adam, tuned", "cosine Adam, tuned"
ADAM_DEFAULT = "Adam 1e-3"
BEST_FREE = "best tuning-free optimizer"
RIVALS_TUNED = tuple(f"{spec.name}, tuned" for spec in optimizers.RIVALS)
TUNED = (ADAM_TUNED, COSINE_TUNED, "SGD momentum, tuned", *RIVALS_TUNED)


class Result(NamedTuple):
    """Result of one entry on one task after one number of steps, for `S` seeds.

    Attributes:
      train: Final training losses, `S` numbers; None for a loss that is not finite.
      evaluation: Final evaluation losses, likewise.
      initial: Training losses before training.
      smoothed: Moving averages of the training curves at their end.
      curves: Moving averages at `statistics.marks`; None if they are not stored.
      rate: The learning rate, if the entry has one.
      milliseconds: Wall-clock time of one step of one run, among several that ran together.
    """

    train: list[float | None]
    evaluation: list[float | None]
    initial: list[float]
    smoothed: list[float | None]
    curves: list[list[float | None]] | None
    rate: float | None
    milliseconds: float

    @property
    def logs(self) -> np.ndarray:
        """Bounded logarithms of the training losses, `float[S]`."""
        pairs = zip(self.train, self.initial, strict=True)
        return np.array([statistics.log_loss(*pair) for pair in pairs])

    @property
    def diverged(self) -> int:
        """Number of seeds whose loss is not finite or above the initial one."""
        return sum(map(statistics.diverged, self.train, self.initial))


@dataclasses.dataclass(frozen=True)
class Comparison:
    """All results.

    An entry is an optimizer together with the way in which its learning rate was chosen.

    Attributes:
      results: Results by entry, task and number of steps.
      envelopes: Least smoothed losses of Adam over all rates, for each task: pairs of steps and
        losses.
      settings: Size of the comparison.
      tasks: Names of the suite's tasks that were run.
    """

    results: Mapping[tuple[str, str, int], Result]
    envelopes: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray]]]
    settings: runs.Settings
    tasks: tuple[str, ...]

    @property
    def entries(self) -> list[str]:
        """Entries with a result for every task at each of the settings' numbers of steps."""
        return [
            entry
            for entry in dict.fromkeys(entry for entry, _, _ in self.results)
            if all((entry, *pair) in self.results for pair in self.pairs)
        ]

    @property
    def pairs(self) -> list[tuple[str, int]]:
        """Every task with every number of steps."""
        return [(task, horizon) for task in self.tasks for horizon in self.settings.horizons]

    def logs(self, entry: str) -> np.ndarray:
        """Logarithms of the entry's losses, `float[N, H, S]`; `BEST_FREE` is an entry too."""
        return np.array(
            [
                [self.find(entry, task, horizon).logs for horizon in self.settings.horizons]
                for task in self.tasks
            ]
        )

    def find(self, entry: str, task: str, horizon: int) -> Result:
        """The result of an entry, `BEST_FREE` included; raises KeyError if there is none."""
        if entry == BEST_FREE:
            entry = self.best_free(task, horizon)
        return self.results[entry, task, horizon]

    def best_free(self, task: str, horizon: int) -> str:
        """The tuning-free optimizer with the least loss on the reported seeds."""
        names = [each.name for each in optimizers.TUNING_FREE]
        present = [name for name in names if (name, task, horizon) in self.results]
        if not present:
            raise KeyError(f"No tuning-free optimizer was run on {task!r} for {horizon} steps.")
        return min(present, key=lambda name: self.results[name, task, horizon].logs.mean())


def collect(
    store: runs.Store,
    tasks: Sequence[str],
    specs: Sequence[optimizers.OptimizerSpec],
    settings: runs.Settings,
) -> Comparison:
    """Reads the stored runs of the comparison; runs that are missing are left out."""
    small = tuple(task for task in tasks if task in catalog.SUITE)
    results: dict[tuple[str, str, int], Result] = {}
    for task in tasks:
        horizons = (*settings.horizons, runs.SHORTER, runs.LONG, runs.LARGE_HORIZON)
        for horizon in dict.fromkeys(horizons):
            for spec in specs:
                for entry, rate in _entries(spec, (task, horizon), store, small, settings):
                    keys = [
                        runs.Key(task, spec.name, rate, horizon, seed, spec.version)
                        for seed in settings.seeds
                    ]
                    if all(key in store for key in keys):
                        found = [store[key] for key in keys]
                        results[entry, task, horizon] = _result(found, rate)
    envelopes = {task: _envelopes(store, task, settings) for task in small}
    return Comparison(results, envelopes, settings, small)


def _entries(
    spec: optimizers.OptimizerSpec,
    pair: tuple[str, int],
    store: runs.Store,
    tasks: Sequence[str],
    settings: runs.Settings,
) -> list[tuple[str, float | None]]:
    """Entries of an optimizer on a pair of a task and a number of steps, with their rates."""
    if spec.group != "grid":
        return [(spec.name, None)]
    entries = [(f"{spec.name}, tuned", runs.chosen_rate(store, spec, *pair, settings))]
    if spec != optimizers.SGD:
        single = runs.single_rate(store, spec, tasks, settings)
        entries.append((f"{spec.name}, best single rate", single))
    if spec == optimizers.ADAM:
        entries.append((ADAM_DEFAULT, optimizers.ADAM_DEFAULT_RATE))
    return [(entry, rate) for entry, rate in entries if rate is not None]


def _result(found: Sequence[Mapping[str, Any]], rate: float | None) -> Result:
    return Result(
        train=[run["train"] for run in found],
        evaluation=[run["eval"] for run in found],
        initial=[run["initial"] for run in found],
        smoothed=[run["smoothed"] for run in found],
        curves=[run["curve"] for run in found] if all("curve" in run for run in found) else None,
        rate=rate,
        milliseconds=float(np.mean([run["ms"] for run in found])),
    )


def _envelopes(
    store: runs.Store, task: str, settings: runs.Settings
) -> list[tuple[np.ndarray, np.ndarray]]:
    envelopes = []
    for horizon in (settings.horizons[-1], runs.EXTENDED, runs.LONG):
        record = store.get(runs.Key(task, runs.ENVELOPE, None, horizon, None))
        if record is not None:
            values = [math.inf if each is None else each for each in record["curve"]]
            steps = statistics.marks(horizon, runs.ENVELOPE_POINTS)
            envelopes.append((steps, np.array(values)))
    return envelopes


def speed_up(table: Comparison, entry: str) -> tuple[float, float] | None:
    """Factor by which an entry needs fewer steps than Adam at its best rate at every step.

    Adam's steps to the entry's final smoothed training loss, divided by the entry's own steps.

    Returns:
      The geometric mean over tasks and numbers of steps, and the share of pairs on which Adam did
      not reach the loss and counts with all the steps that it was run; None without Adam's curves.
    """
    if not all(table.envelopes.get(task) for task in table.tasks):
        return None
    logs, censored = [], []
    for task, horizon in table.pairs:
        smoothed = table.results[entry, task, horizon].smoothed
        finite = [math.inf if each is None else each for each in smoothed]
        steps, reached = statistics.steps_to_reach(float(np.mean(finite)), table.envelopes[task])
        logs.append(math.log(steps / horizon))
        censored.append(not reached)
    return math.exp(np.mean(logs)), float(np.mean(censored))


def pair_rows(table: Comparison) -> list[dict[str, Any]]:
    """One row for each task, number of steps and entry, with all losses."""
    grids = {f"{spec.name}, tuned": table.settings.rates(spec) for spec in optimizers.BASELINES}
    order = list(dict.fromkeys(entry for entry, _, _ in table.results))
    return [
        {
            "kind": "pair",
            "task": task,
            "steps": horizon,
            "optimizer": entry,
            "rate": result.rate,
            "rate_at_edge": entry in TUNED and result.rate in (grids[entry][0], grids[entry][-1]),
            "train_loss": _mean(result.train),
            "evaluation_loss": _mean(result.evaluation),
            "initial_loss": _mean(result.initial),
            "train_losses": result.train,
            "evaluation_losses": result.evaluation,
            "diverged": result.diverged,
            "milliseconds": round(result.milliseconds, 4),
        }
        for (entry, task, horizon), result in sorted(
            table.results.items(), key=lambda item: (*item[0][1:], order.index(item[0][0]))
        )
    ]


def _mean(values: Sequence[float | None]) -> float:
    """The mean; NaN if a value is not finite."""
    return float(np.mean([math.nan if each is None else each for each in values]))


def optimizer_rows(table: Comparison) -> list[dict[str, Any]]:
    """One row for each complete entry, in ascending order of the loss ratio."""
    entries = table.entries
    if ADAM_TUNED not in entries:
        return []
    logs = {entry: table.logs(entry) for entry in entries}
    if any(each.name in entries for each in optimizers.TUNING_FREE):
        logs[BEST_FREE] = table.logs(BEST_FREE)
    ranked = sorted(
        (entry for entry in entries if entry not in TUNED), key=lambda entry: logs[entry].mean()
    )
    ranked = [entry for entry in ranked if entry not in (NO_HORIZON, LEARN)]
    rows = []
    for entry in entries:
        row: dict[str, Any] = {
            "kind": "method",
            "optimizer": entry,
            "ratio": statistics.loss_ratio(logs[entry], logs[ADAM_TUNED]),
            "ratio_interval": statistics.ratio_interval(logs[entry], logs[ADAM_TUNED]),
            "rank": ranked.index(entry) + 1 if entry in ranked else None,
            "diverged": sum(table.results[entry, *pair].diverged for pair in table.pairs),
        }
        for baseline in (ADAM_TUNED, COSINE_TUNED, BEST_FREE, ADAM_DEFAULT, *RIVALS_TUNED):
            if baseline in logs and baseline != entry:
                row[f"wins: {baseline}"] = statistics.win_fraction(logs[entry], logs[baseline])
                interval = statistics.win_interval(logs[entry], logs[baseline])
                row[f"wins_interval: {baseline}"] = interval
        if entry == LEARN and ALPHAOPT in logs:
            row["ratio_to_frozen"] = statistics.loss_ratio(logs[entry], logs[ALPHAOPT])
            row["ratio_to_frozen_interval"] = statistics.ratio_interval(logs[entry], logs[ALPHAOPT])
        if (faster := speed_up(table, entry)) is not None:
            row["speed_up"], row["speed_up_censored"] = faster
        rows.append(row)
    return sorted(rows, key=lambda row: row["ratio"])


def is_complete(table: Comparison) -> bool:
    """True if everything that the claims are about was run, but for those about the rivals."""
    needed = [(ALPHAOPT, task, h) for task in catalog.SUITE for h in runs.HORIZONS]
    needed += [(NO_HORIZON, task, h) for task in catalog.SUITE for h in runs.HORIZONS]
    cheap = [task for task in catalog.SUITE if catalog.SUITE[task].cheap]
    needed += [(ALPHAOPT, task, h) for task in cheap for h in (runs.SHORTER, runs.LONG)]
    needed += [
        (entry, task, runs.LARGE_HORIZON)
        for entry in (ALPHAOPT, ADAM_DEFAULT)
        for task in catalog.LARGE
    ]
    baselines = {*TUNED, ADAM_DEFAULT, *(each.name for each in optimizers.TUNING_FREE)}
    baselines -= set(RIVALS_TUNED)
    return baselines <= set(table.entries) and all(key in table.results for key in needed)

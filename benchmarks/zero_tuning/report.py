"""From stored runs to the rows and claims of `benchmarks.zero_tuning`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np

from alphaopt_jax.tasks.suite import catalog
from benchmarks.common import results as results_lib
from benchmarks.zero_tuning import optimizers as contenders
from benchmarks.zero_tuning import runs, statistics

ALPHAOPT, NOT_GIVEN, LEARNING = "AlphaOpt", "AlphaOpt, steps not given", "AlphaOpt, learning"
ADAM_TUNED, COSINE_TUNED = "Adam, tuned", "cosine Adam, tuned"
ADAM_DEFAULT = "Adam 1e-3"
BEST_FREE = "best tuning-free peer"
TUNED = (ADAM_TUNED, COSINE_TUNED, "SGD momentum, tuned")
_AS_LOW = 1.02  # A ratio of two noisy losses that are the same may be above 1 by this much.


class Result(NamedTuple):
    """One entry of the comparison on one task at one number of steps, `S` seeds.

    Attributes:
      train: The training loss at the end, `S` numbers; None where it is not finite.
      evaluation: The same of the evaluation loss.
      initial: The training loss before training.
      smoothed: The moving average of the training curve at its end.
      curves: The moving averages at `statistics.marks`, if they were kept.
      rate: The learning rate, if the entry has one.
      milliseconds: Wall-clock of one step of one run among several that ran at once.
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
        """Bounded logarithms of the training loss, `float[S]`."""
        pairs = zip(self.train, self.initial, strict=True)
        return np.array([statistics.log_loss(*pair) for pair in pairs])

    @property
    def diverged(self) -> int:
        """Seeds whose loss is not finite or above the initial one."""
        return sum(map(statistics.diverged, self.train, self.initial))


@dataclasses.dataclass(frozen=True)
class Table:
    """All results of a comparison.

    Attributes:
      results: By entry (a method with the way its rate was chosen), task and number of steps.
      envelopes: By task, what Adam at any rate has reached after how many steps: pairs of steps and
        smoothed losses.
      settings: How much was run.
      tasks: Names of the suite's tasks that were run.
    """

    results: Mapping[tuple[str, str, int], Result]
    envelopes: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray]]]
    settings: runs.Settings
    tasks: tuple[str, ...]

    @property
    def entries(self) -> list[str]:
        """Those that have a result for every task at each of the settings' numbers of steps."""
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
        """The result of an entry, `BEST_FREE` included; KeyError if there is none."""
        if entry == BEST_FREE:
            entry = self.best_free(task, horizon)
        return self.results[entry, task, horizon]

    def best_free(self, task: str, horizon: int) -> str:
        """The tuning-free peer with the least loss there, on the very seeds that are reported."""
        names = [each.name for each in contenders.TUNING_FREE]
        present = [name for name in names if (name, task, horizon) in self.results]
        if not present:
            raise KeyError(f"No tuning-free peer was run on {task!r} for {horizon} steps.")
        return min(present, key=lambda name: self.results[name, task, horizon].logs.mean())


def collect(
    store: runs.Store,
    tasks: Sequence[str],
    methods: Sequence[contenders.Method],
    settings: runs.Settings,
) -> Table:
    """Reads what the store has of the comparison; what it does not have is left out."""
    small = tuple(task for task in tasks if task in catalog.SUITE)
    results: dict[tuple[str, str, int], Result] = {}
    for task in tasks:
        horizons = (*settings.horizons, runs.SHORTER, runs.LONG, runs.LARGE_HORIZON)
        for horizon in dict.fromkeys(horizons):
            for method in methods:
                for entry, rate in _entries(method, task, horizon, store, small, settings):
                    keys = [
                        runs.Key(task, method.name, rate, horizon, seed, method.agent)
                        for seed in settings.seeds
                    ]
                    if all(key in store for key in keys):
                        found = [store[key] for key in keys]
                        results[entry, task, horizon] = _result(found, rate)
    envelopes = {}
    for task in small:
        longest = (settings.horizons[-1], runs.EXTENDED, runs.LONG)
        found = [(h, store.get(runs.Key(task, runs.ENVELOPE, None, h, None))) for h in longest]
        envelopes[task] = [
            (
                statistics.marks(horizon, runs.ENVELOPE_POINTS),
                np.array([math.inf if each is None else each for each in record["curve"]]),
            )
            for horizon, record in found
            if record is not None
        ]
    return Table(results, envelopes, settings, small)


def _entries(
    method: contenders.Method,
    task: str,
    horizon: int,
    store: runs.Store,
    tasks: Sequence[str],
    settings: runs.Settings,
) -> list[tuple[str, float | None]]:
    if method.group != "grid":
        return [(method.name, None)]
    entries = [
        (f"{method.name}, tuned", runs.chosen_rate(store, method.name, task, horizon, settings)),
    ]
    if method != contenders.SGD:
        single = runs.single_rate(store, method.name, tasks, settings)
        entries.append((f"{method.name}, best single rate", single))
    if method == contenders.ADAM:
        entries.append((ADAM_DEFAULT, contenders.ADAM_DEFAULT_RATE))
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


def speed_up(table: Table, entry: str) -> tuple[float, float] | None:
    """How many times fewer steps than Adam at its best rate at every step an entry takes.

    Adam's steps to the entry's final smoothed training loss, divided by the entry's own.

    Returns:
      The geometric mean over tasks and numbers of steps, in which Adam counts with the steps it was
      run where it never came that far, and the share of such pairs; None without Adam's curves.
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


def pair_rows(table: Table) -> list[dict[str, Any]]:
    """One row for each task, number of steps and entry: all losses."""
    grid = table.settings.grid
    order = list(dict.fromkeys(entry for entry, _, _ in table.results))
    return [
        {
            "kind": "pair",
            "task": task,
            "steps": horizon,
            "optimizer": entry,
            "rate": result.rate,
            "rate_at_edge": entry in TUNED and result.rate in (grid[0], grid[-1]),
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


def method_rows(table: Table) -> list[dict[str, Any]]:
    """One row for each entry that is complete, the best first."""
    entries = table.entries
    if ADAM_TUNED not in entries:
        return []
    logs = {entry: table.logs(entry) for entry in entries}
    if any(each.name in entries for each in contenders.TUNING_FREE):
        logs[BEST_FREE] = table.logs(BEST_FREE)
    ranked = sorted(
        (entry for entry in entries if entry not in TUNED), key=lambda entry: logs[entry].mean()
    )
    ranked = [entry for entry in ranked if entry not in (NOT_GIVEN, LEARNING)]
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
        for rival in (ADAM_TUNED, COSINE_TUNED, BEST_FREE, ADAM_DEFAULT):
            if rival in logs and rival != entry:
                row[f"wins: {rival}"] = statistics.win_fraction(logs[entry], logs[rival])
                interval = statistics.win_interval(logs[entry], logs[rival])
                row[f"wins_interval: {rival}"] = interval
        if entry == LEARNING and ALPHAOPT in logs:
            row["ratio_to_frozen"] = statistics.loss_ratio(logs[entry], logs[ALPHAOPT])
            row["ratio_to_frozen_interval"] = statistics.ratio_interval(logs[entry], logs[ALPHAOPT])
        if (faster := speed_up(table, entry)) is not None:
            row["speed_up"], row["speed_up_censored"] = faster
        rows.append(row)
    return sorted(rows, key=lambda row: row["ratio"])


def make_claims(table: Table, rows: Sequence[Mapping[str, Any]]) -> list[results_lib.Claim]:
    """The promises of the full comparison."""
    by_name = {row["optimizer"]: row for row in rows}
    ours = by_name[ALPHAOPT]
    claims = [
        results_lib.Claim(
            f"zero_tuning.wins.{name}",
            f"share of task-horizon pairs with a lower training loss than {text}",
            ours[f"wins: {rival}"],
            f">= {bar}",
        )
        for name, text, rival, bar in (
            ("tuned_adam", "Adam at the best of 15 rates for each task", ADAM_TUNED, 0.6),
            ("tuned_cosine", "cosine Adam at the best for each task", COSINE_TUNED, 0.3),
            ("tuning_free", "the best tuning-free peer of each task", BEST_FREE, 0.6),
            ("adam_default", "Adam at 1e-3", ADAM_DEFAULT, 0.95),
        )
    ]
    long_ratios = [
        table.results[ALPHAOPT, task, runs.LONG].logs.mean()
        - table.results[ALPHAOPT, task, runs.SHORTER].logs.mean()
        for task in table.tasks
        if catalog.SUITE[task].cheap
    ]
    large_wins = [
        table.results[ALPHAOPT, task, runs.LARGE_HORIZON].logs.mean()
        < table.results[ADAM_DEFAULT, task, runs.LARGE_HORIZON].logs.mean()
        for task in catalog.LARGE
    ]
    return [
        *claims,
        results_lib.Claim(
            "zero_tuning.ratio",
            "geometric mean of the loss ratio to Adam tuned on each task",
            ours["ratio"],
            "< 1",
        ),
        results_lib.Claim(
            "zero_tuning.rank",
            "rank of the loss ratio among all methods with one setting for all tasks",
            ours["rank"],
            "== 1",
        ),
        results_lib.Claim(
            "zero_tuning.diverged",
            "runs that end above the initial loss or not finite",
            sum(result.diverged for key, result in table.results.items() if key[0] == ALPHAOPT),
            "== 0",
        ),
        results_lib.Claim(
            "zero_tuning.wins.steps_not_given",
            "share of pairs below tuned Adam when the number of steps is not given",
            by_name[NOT_GIVEN][f"wins: {ADAM_TUNED}"],
            ">= 0.45",
        ),
        results_lib.Claim(
            "zero_tuning.length",
            f"the worst ratio of the loss at {runs.LONG:,} steps to that at {runs.SHORTER:,}",
            float(np.exp(max(long_ratios))),
            f"<= {_AS_LOW}",
        ),
        results_lib.Claim(
            "zero_tuning.size",
            "share of networks of over 600,000 parameters with a lower loss than Adam at 1e-3",
            float(np.mean(large_wins)),
            ">= 1",
        ),
        *_claims_of_learning(table),
    ]


def _claims_of_learning(table: Table) -> list[results_lib.Claim]:
    """What `learn=True` must not spoil, if it was run."""
    if LEARNING not in table.entries:
        return []
    low, _ = statistics.ratio_interval(table.logs(LEARNING), table.logs(ALPHAOPT))
    return [
        results_lib.Claim(
            "zero_tuning.learning",
            "lower end of the 95 % interval of the loss ratio of learn=True to frozen: at 1 or"
            " below, learning is not measurably worse",
            low,
            "<= 1",
        ),
        results_lib.Claim(
            "zero_tuning.learning.diverged",
            "runs with learn=True that end above the initial loss or not finite",
            sum(result.diverged for key, result in table.results.items() if key[0] == LEARNING),
            "== 0",
        ),
    ]


def is_complete(table: Table) -> bool:
    """Whether everything that the claims speak of was run."""
    needed = [(ALPHAOPT, task, h) for task in catalog.SUITE for h in runs.HORIZONS]
    needed += [(NOT_GIVEN, task, h) for task in catalog.SUITE for h in runs.HORIZONS]
    cheap = [task for task in catalog.SUITE if catalog.SUITE[task].cheap]
    needed += [(ALPHAOPT, task, h) for task in cheap for h in (runs.SHORTER, runs.LONG)]
    needed += [
        (entry, task, runs.LARGE_HORIZON)
        for entry in (ALPHAOPT, ADAM_DEFAULT)
        for task in catalog.LARGE
    ]
    peers = {*TUNED, ADAM_DEFAULT, *(each.name for each in contenders.TUNING_FREE)}
    return peers <= set(table.entries) and all(key in table.results for key in needed)

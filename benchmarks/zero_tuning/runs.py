"""What `benchmarks.zero_tuning` runs, in which order, and the file that keeps finished runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import dataclasses
import json
import math
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from alphaopt_jax import evaluation
from alphaopt_jax._storage import atomic
from alphaopt_jax.tasks.suite import catalog
from benchmarks.zero_tuning import optimizers as contenders
from benchmarks.zero_tuning import statistics

HORIZONS = (200, 2000)
LONG = 20_000
SHORTER = 5_000  # What a candidate's loss at `LONG` steps is held against.
LARGE_HORIZON = 200
EXTENDED = 10_000  # Steps of Adam at a few rates, to see when it reaches a candidate's loss.
SEEDS = (0, 1, 2, 3, 4)
SELECTION_SEEDS = (100, 101)
ENVELOPE = "Adam envelope"
"""Stored like a run: what Adam reached at any rate by then. See `statistics.envelope`."""
CURVE_POINTS, ENVELOPE_POINTS = 40, 200

Purpose = Literal["select", "report", "extend"]


class Key(NamedTuple):
    """What tells one stored run from all others.

    Attributes:
      task: Its name in the suite.
      method: Its name.
      rate: The learning rate; None where the method has one setting.
      horizon: Number of steps.
      seed: Decides initial parameters and batches; None for an envelope over seeds.
      agent: Short for what an AlphaOpt agent learned; None for all others.
    """

    task: str
    method: str
    rate: float | None
    horizon: int
    seed: int | None
    agent: str | None = None


class Store:
    """Finished runs, one JSON object a line, so that an interrupted comparison can go on."""

    def __init__(self, path: Path):
        """Reads what is at `path`, if anything."""
        self._path = path
        self._runs: dict[Key, dict[str, Any]] = {}
        for record in atomic.read_json_lines(path):
            self._runs[Key(*(record.pop(field) for field in Key._fields))] = record

    def __contains__(self, key: Key) -> bool:
        return key in self._runs

    def __getitem__(self, key: Key) -> dict[str, Any]:
        return self._runs[key]

    def get(self, key: Key) -> dict[str, Any] | None:
        """The run, or None."""
        return self._runs.get(key)

    def keys(self) -> Iterable[Key]:
        """All runs there are."""
        return self._runs.keys()

    def add(self, runs: Mapping[Key, Mapping[str, Any]]) -> None:
        """Keeps runs, all in one piece."""
        lines = []
        for key, run in runs.items():
            record = {name: _short(value) for name, value in run.items()}
            self._runs[key] = record
            lines.append(key._asdict() | record)
        atomic.add_json_lines(self._path, lines)

    def versions(self, method: str) -> list[str | None]:
        """What learned, or its constants, in short, in the order in which it was run."""
        return list(dict.fromkeys(key.agent for key in self._runs if key.method == method))

    def compact(self) -> None:
        """Leaves of each method its last two versions, to compare them, and curves of the last.

        Pictures show no others, and curves are most of the file.
        """
        last = {key.method: self.versions(key.method)[-2:] for key in self._runs}
        kept = {key: run for key, run in self._runs.items() if key.agent in last[key.method]}
        for key, run in kept.items():
            if key.agent != last[key.method][-1]:
                run.pop("curve", None)
        self._runs = kept
        lines = (json.dumps(key._asdict() | run) + "\n" for key, run in kept.items())
        atomic.write(self._path, "".join(lines).encode())


def _short(value: Any) -> Any:
    """Six digits are enough; JSON has no infinities."""
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_short(float(each)) if each is not None else None for each in value]
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value


@dataclasses.dataclass(frozen=True)
class Settings:
    """How much is run of each; the defaults are the protocol.

    Attributes:
      grid: Learning rates of the tuned methods.
      seeds: What is reported.
      selection_seeds: What rates are chosen on.
      horizons: Numbers of steps on every task.
      full: Whether to run the cheap tasks for `LONG` steps, the large networks, and Adam further.
    """

    grid: tuple[float, ...] = contenders.GRID
    seeds: tuple[int, ...] = SEEDS
    selection_seeds: tuple[int, ...] = SELECTION_SEEDS
    horizons: tuple[int, ...] = HORIZONS
    full: bool = False


@dataclasses.dataclass(frozen=True)
class Unit:
    """Runs of one method on one task that are made together.

    Attributes:
      method: What trains.
      task: What is trained.
      horizons: Numbers of steps.
      purpose: "select" runs the whole grid on the selection seeds; "report" runs the chosen rates,
        or the one setting, on the reported seeds; "extend" runs the best rate and the next two
        below it for longer, on the selection seeds.
    """

    method: contenders.Method
    task: catalog.SuiteTask
    horizons: tuple[int, ...]
    purpose: Purpose


def plan(
    tasks: Sequence[catalog.SuiteTask], methods: Sequence[contenders.Method], settings: Settings
) -> list[Unit]:
    """All units in the order in which they can run: choices come before what depends on them."""
    small = [task for task in tasks if task.name in catalog.SUITE]
    cheap = [task for task in small if task.cheap]
    units = list(_block(small, methods, settings.horizons))
    if settings.full:
        large = [task for task in tasks if task.name in catalog.LARGE]
        one_setting = [each for each in methods if each.group in ("default", "candidate")]
        if contenders.ADAM in methods:
            one_setting.append(contenders.ADAM)
        units += [
            Unit(method, task, (LARGE_HORIZON,), "report")
            for method in one_setting
            for task in large
        ]
        # To learn for 20,000 steps on six tasks, run by run, would take an hour.
        lasting = [each for each in methods if not each.learns]
        units += _block(cheap, lasting, (LONG,))
        units += [
            Unit(method, task, (SHORTER,), "report")
            for method in lasting
            if method.group == "candidate"
            for task in cheap
        ]
        if contenders.ADAM in methods:
            rest = [task for task in small if not task.cheap]
            units += [Unit(contenders.ADAM, task, (EXTENDED,), "extend") for task in rest]
    return units


def _block(
    tasks: Sequence[catalog.SuiteTask],
    methods: Sequence[contenders.Method],
    horizons: tuple[int, ...],
) -> Iterator[Unit]:
    for method in methods:
        if method.group == "grid":
            yield from (Unit(method, task, horizons, "select") for task in tasks)
        yield from (Unit(method, task, horizons, "report") for task in tasks)


def chosen_rate(
    store: Store, method: str, task: str, horizon: int, settings: Settings
) -> float | None:
    """The grid's best rate on the selection seeds; None if they were not run."""
    losses = _selection_losses(store, method, task, horizon, settings)
    return None if losses is None else settings.grid[int(np.argmin(losses))]


def single_rate(
    store: Store, method: str, tasks: Sequence[str], settings: Settings
) -> float | None:
    """The one rate whose losses are the least over all tasks and horizons, as ratios to the best.

    None if some task of the suite was not run at all rates.
    """
    table = [
        _selection_losses(store, method, task, horizon, settings)
        for task in tasks
        for horizon in settings.horizons
    ]
    rows = [row - row.min() for row in table if row is not None]
    if not rows or len(rows) < len(table):
        return None
    return settings.grid[int(np.argmin(np.mean(rows, axis=0)))]


def _selection_losses(
    store: Store, method: str, task: str, horizon: int, settings: Settings
) -> np.ndarray | None:
    """Logarithms of losses, mean over the selection seeds, `float[R]`; None if not all were run."""
    losses = []
    for rate in settings.grid:
        runs = [store.get(Key(task, method, rate, horizon, s)) for s in settings.selection_seeds]
        found = [run for run in runs if run is not None]
        if len(found) < len(runs):
            return None
        losses.append([statistics.log_loss(run["train"], run["initial"]) for run in found])
    return np.mean(losses, axis=1)


def rates_to_run(
    unit: Unit, horizon: int, tasks: Sequence[str], store: Store, settings: Settings
) -> tuple[float | None, ...]:
    """The learning rates of a unit at one of its horizons."""
    if unit.method.group != "grid":
        return (None,)
    if unit.purpose == "select":
        return settings.grid
    name = unit.method.name
    if unit.purpose == "extend":
        best = chosen_rate(store, name, unit.task.name, settings.horizons[-1], settings)
        if best is None:
            return ()
        index = settings.grid.index(best)
        return settings.grid[max(0, index - 2) : index + 1]
    default = contenders.ADAM_DEFAULT_RATE if unit.method == contenders.ADAM else None
    if unit.task.name in catalog.LARGE:
        return (default,)
    single = single_rate(store, name, tasks, settings) if unit.method != contenders.SGD else None
    chosen = chosen_rate(store, name, unit.task.name, horizon, settings)
    return tuple(sorted({rate for rate in (default, single, chosen) if rate is not None}))


def run(
    unit: Unit,
    tasks: Sequence[str],
    store: Store,
    settings: Settings,
    on_progress: Callable[[int], None] | None = None,
) -> int:
    """Runs what the store does not have yet of a unit.

    Args:
      unit: What to run.
      tasks: Names of all tasks over which a single rate is chosen.
      store: Where finished runs are looked up and put.
      settings: How much to run.
      on_progress: As in `evaluation.TrainingOptions`.

    Returns:
      The number of runs made.
    """
    seeds = settings.seeds if unit.purpose == "report" else settings.selection_seeds
    wanted = {
        horizon: rates_to_run(unit, horizon, tasks, store, settings) for horizon in unit.horizons
    }
    if not unit.method.knows_horizon:  # Every rate is run to the end, and measured on the way.
        together = tuple(dict.fromkeys(rate for rates in wanted.values() for rate in rates))
        return _run_together(unit, unit.horizons, together, seeds, store, on_progress)
    return sum(
        _run_together(unit, (horizon,), rates, seeds, store, on_progress)
        for horizon, rates in wanted.items()
    )


def _run_together(
    unit: Unit,
    horizons: tuple[int, ...],
    rates: Sequence[float | None],
    seeds: Sequence[int],
    store: Store,
    on_progress: Callable[[int], None] | None,
) -> int:
    method, task = unit.method, unit.task.name

    def key(rate: float | None, horizon: int, seed: int) -> Key:
        return Key(task, method.name, rate, horizon, seed, method.agent)

    def missing(rate: float | None, seed: int) -> bool:
        return any(key(rate, horizon, seed) not in store for horizon in horizons)

    rates = [rate for rate in rates if any(missing(rate, seed) for seed in seeds)]
    seeds = [seed for seed in seeds if any(missing(rate, seed) for rate in rates)]
    if not rates or not seeds:
        return 0
    last = max(horizons)
    outcome = evaluation.train_rates(
        unit.task.family,
        lambda rate: method.make(rate, last),
        [1.0 if rate is None else rate for rate in rates],
        last,
        seeds,
        options=evaluation.TrainingOptions(
            checkpoints=horizons,
            evaluation_params=method.evaluation_params,
            vectorize=not method.learns,
            on_progress=on_progress,
        ),
    )
    smoothed = evaluation.exponential_average(outcome.curves)
    runs: dict[Key, dict[str, Any]] = {}
    for i, seed in enumerate(seeds):
        for j, rate in enumerate(rates):
            for c, horizon in enumerate(outcome.checkpoints):
                record = {
                    "train": outcome.train_losses[i, j, c],
                    "eval": outcome.evaluation_losses[i, j, c],
                    "initial": outcome.initial_losses[i],
                    "smoothed": smoothed[i, j, horizon - 1],
                    "ms": 1e3 * outcome.seconds / (last * len(seeds) * len(rates)),
                }
                if unit.purpose == "report" and horizon == last:
                    marks = statistics.marks(last, CURVE_POINTS)
                    record["curve"] = smoothed[i, j, marks - 1]
                runs[key(rate, horizon, seed)] = record
    if method == contenders.ADAM and unit.purpose != "report":
        marks = statistics.marks(last, ENVELOPE_POINTS)
        curve = statistics.envelope(smoothed)[marks - 1]
        runs[Key(task, ENVELOPE, None, last, None)] = {"curve": curve}
    store.add(runs)
    return len(seeds) * len(rates)

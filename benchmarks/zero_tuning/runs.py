"""The runs of `benchmarks.zero_tuning`: their order, their learning rates, and running them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
import math
from pathlib import Path
import time
from typing import Any, Literal, NamedTuple

import numpy as np
from rich import progress as rich_progress

from alphaopt_jax import evaluation
from alphaopt_jax.tasks.suite import catalog
from benchmarks.common.run_store import RunStore
from benchmarks.zero_tuning import optimizers, statistics

HORIZONS = (200, 2000)
LONG = 20_000
SHORTER = 5_000  # The loss of AlphaOpt at `LONG` steps is compared with that after these.
LARGE_HORIZON = 200
EXTENDED = 10_000  # Steps of Adam at a few rates, to find when it reaches the loss of AlphaOpt.
SEEDS = (0, 1, 2, 3, 4)
SELECTION_SEEDS = (100, 101)
ENVELOPE = "Adam envelope"
"""Name in the store of Adam's least loss over all rates by each step: `statistics.envelope`."""
CURVE_POINTS, ENVELOPE_POINTS = 40, 200

Purpose = Literal["select", "report", "extend"]


class Key(NamedTuple):
    """Key of one stored run.

    Attributes:
      task: Name of the task in the suite.
      optimizer: Name of the optimizer.
      rate: The learning rate; None if the optimizer has one setting.
      horizon: Number of steps.
      seed: Seed of initial parameters and batches; None for an envelope over seeds.
      version: Version of AlphaOpt; None for all other optimizers.
    """

    task: str
    optimizer: str
    rate: float | None
    horizon: int
    seed: int | None
    version: str | None = None


Store = RunStore[Key]


def open_store(path: Path) -> Store:
    """Returns the store of finished runs in a file."""
    return RunStore(path, Key)


def versions(store: Store, optimizer: str) -> list[str | None]:
    """Stored versions of an optimizer, in the order in which they were run."""
    return list(dict.fromkeys(key.version for key in store if key.optimizer == optimizer))


def compact(store: Store) -> None:
    """Keeps the last two versions of each optimizer, and the curves of the last one only.

    `benchmarks.zero_tuning.versions` compares these two; pictures show curves of the last one.
    Curves are most of the file.
    """
    last = {key.optimizer: versions(store, key.optimizer)[-2:] for key in store}
    kept = {}
    for key in store:
        if key.version in last[key.optimizer]:
            kept[key] = dict(store[key])
            if key.version != last[key.optimizer][-1]:
                kept[key].pop("curve", None)
    store.replace(kept)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Size of the comparison; the defaults are the protocol.

    Attributes:
      grid: Learning rates of the tuned optimizers, restricted to each one's own grid.
      seeds: Seeds of the reported runs.
      selection_seeds: Seeds of the runs by which learning rates are chosen.
      horizons: Numbers of steps on every task.
      full: Whether to run the cheap tasks for `LONG` steps, the large networks, and Adam for
        `EXTENDED` steps.
    """

    grid: tuple[float, ...] = optimizers.GRID
    seeds: tuple[int, ...] = SEEDS
    selection_seeds: tuple[int, ...] = SELECTION_SEEDS
    horizons: tuple[int, ...] = HORIZONS
    full: bool = False

    def rates(self, spec: optimizers.OptimizerSpec) -> tuple[float, ...]:
        """Learning rates of a tuned optimizer, in ascending order."""
        return tuple(rate for rate in self.grid if rate in spec.grid)


@dataclasses.dataclass(frozen=True)
class Unit:
    """Runs of one optimizer on one task that are made together.

    Attributes:
      optimizer: The optimizer.
      task: The task.
      horizons: Numbers of steps.
      purpose: "select" runs the whole grid on the selection seeds; "report" runs the chosen rates,
        or the one setting, on the reported seeds; "extend" runs the best rate and the next two
        below it for longer, on the selection seeds.
    """

    optimizer: optimizers.OptimizerSpec
    task: catalog.SuiteTask
    horizons: tuple[int, ...]
    purpose: Purpose


def plan(
    tasks: Sequence[catalog.SuiteTask],
    specs: Sequence[optimizers.OptimizerSpec],
    settings: Settings,
) -> list[Unit]:
    """All units in an order in which they can run: rates are chosen before they are reported.

    The rivals run last, and only for the settings' numbers of steps.
    """
    rivals = [each for each in specs if each in optimizers.RIVALS]
    specs = [each for each in specs if each not in optimizers.RIVALS]
    small = [task for task in tasks if task.name in catalog.SUITE]
    cheap = [task for task in small if task.cheap]
    units = list(_block(small, specs, settings.horizons))
    if settings.full:
        large = [task for task in tasks if task.name in catalog.LARGE]
        one_setting = [each for each in specs if each.group in ("default", "alphaopt")]
        if optimizers.ADAM in specs:
            one_setting.append(optimizers.ADAM)
        units += [
            Unit(spec, task, (LARGE_HORIZON,), "report") for spec in one_setting for task in large
        ]
        # Learning for 20,000 steps on six tasks, one run at a time, would take an hour.
        lasting = [each for each in specs if not each.learns]
        units += _block(cheap, lasting, (LONG,))
        units += [
            Unit(spec, task, (SHORTER,), "report")
            for spec in lasting
            if spec.group == "alphaopt"
            for task in cheap
        ]
        if optimizers.ADAM in specs:
            rest = [task for task in small if not task.cheap]
            units += [Unit(optimizers.ADAM, task, (EXTENDED,), "extend") for task in rest]
    return [*units, *_block(small, rivals, settings.horizons)]


def _block(
    tasks: Sequence[catalog.SuiteTask],
    specs: Sequence[optimizers.OptimizerSpec],
    horizons: tuple[int, ...],
) -> Iterator[Unit]:
    for spec in specs:
        if spec.group == "grid":
            yield from (Unit(spec, task, horizons, "select") for task in tasks)
        yield from (Unit(spec, task, horizons, "report") for task in tasks)


def chosen_rate(
    store: Store,
    spec: optimizers.OptimizerSpec,
    task: str,
    horizon: int,
    settings: Settings,
) -> float | None:
    """The best rate of the grid on the selection seeds; None if some of them were not run."""
    losses = _selection_losses(store, spec, task, horizon, settings)
    return None if losses is None else settings.rates(spec)[int(np.argmin(losses))]


def single_rate(
    store: Store, spec: optimizers.OptimizerSpec, tasks: Sequence[str], settings: Settings
) -> float | None:
    """The rate with the least mean log ratio to the best rate, over all tasks and horizons.

    None if some task of the suite was not run at all rates.
    """
    table = [
        _selection_losses(store, spec, task, horizon, settings)
        for task in tasks
        for horizon in settings.horizons
    ]
    rows = [row - row.min() for row in table if row is not None]
    if not rows or len(rows) < len(table):
        return None
    return settings.rates(spec)[int(np.argmin(np.mean(rows, axis=0)))]


def _selection_losses(
    store: Store,
    spec: optimizers.OptimizerSpec,
    task: str,
    horizon: int,
    settings: Settings,
) -> np.ndarray | None:
    """Mean log losses over the selection seeds, `float[R]`; None if some were not run."""
    losses = []
    for rate in settings.rates(spec):
        runs = [store.get(Key(task, spec.name, rate, horizon, s)) for s in settings.selection_seeds]
        found = [run for run in runs if run is not None]
        if len(found) < len(runs):
            return None
        losses.append([statistics.log_loss(run["train"], run["initial"]) for run in found])
    return np.mean(losses, axis=1)


def rates_to_run(
    unit: Unit, horizon: int, tasks: Sequence[str], store: Store, settings: Settings
) -> tuple[float | None, ...]:
    """The learning rates of a unit at one of its horizons."""
    spec = unit.optimizer
    if spec.group != "grid":
        return (None,)
    grid = settings.rates(spec)
    if unit.purpose == "select":
        return grid
    if unit.purpose == "extend":
        best = chosen_rate(store, spec, unit.task.name, settings.horizons[-1], settings)
        if best is None:
            return ()
        index = grid.index(best)
        return grid[max(0, index - 2) : index + 1]
    default = optimizers.ADAM_DEFAULT_RATE if spec == optimizers.ADAM else None
    if unit.task.name in catalog.LARGE:
        return (default,)
    has_single = spec != optimizers.SGD
    single = single_rate(store, spec, tasks, settings) if has_single else None
    chosen = chosen_rate(store, spec, unit.task.name, horizon, settings)
    return tuple(sorted({rate for rate in (default, single, chosen) if rate is not None}))


def run_all(units: Sequence[Unit], tasks: Sequence[str], store: Store, settings: Settings) -> None:
    """Makes all runs that are not stored, with one progress bar for all and one for each unit."""
    columns = (
        rich_progress.TextColumn("{task.description:<44}"),
        rich_progress.BarColumn(bar_width=24),
        rich_progress.TextColumn("{task.completed:.0f} / {task.total:.0f}"),
        rich_progress.TimeElapsedColumn(),
        rich_progress.TimeRemainingColumn(),
    )
    with rich_progress.Progress(*columns) as bar:
        whole = bar.add_task("all", total=len(units))
        current = bar.add_task("", total=1)
        for number, unit in enumerate(units):
            text = f"{unit.optimizer.name}, {unit.task.name}, {unit.purpose}"
            bar.reset(current, description=text, total=max(unit.horizons))
            began = time.perf_counter()
            made = run(
                unit, tasks, store, settings, lambda step: bar.update(current, completed=step)
            )
            if made:
                seconds = time.perf_counter() - began
                bar.console.print(
                    f"{number + 1}/{len(units)} {text}: {made} runs of {max(unit.horizons)} steps,"
                    f" {seconds:.0f} s",
                    highlight=False,
                )
            bar.advance(whole)


def run(
    unit: Unit,
    tasks: Sequence[str],
    store: Store,
    settings: Settings,
    on_progress: Callable[[int], None] | None = None,
) -> int:
    """Makes the runs of a unit that are not stored.

    Args:
      unit: The unit.
      tasks: Names of all tasks over which a single rate is chosen.
      store: The store of finished runs.
      settings: Size of the comparison.
      on_progress: As in `evaluation.TrainingOptions`.

    Returns:
      The number of runs made.
    """
    seeds = settings.seeds if unit.purpose == "report" else settings.selection_seeds
    rates = {
        horizon: rates_to_run(unit, horizon, tasks, store, settings) for horizon in unit.horizons
    }
    if unit.optimizer.needs_horizon:
        batches = [_Batch(unit, (horizon,), each) for horizon, each in rates.items()]
    else:  # Every rate runs to the last horizon and is measured at the others on the way.
        every = tuple(dict.fromkeys(rate for each in rates.values() for rate in each))
        batches = [_Batch(unit, unit.horizons, every)]
    return sum(_run_batch(batch, seeds, store, on_progress) for batch in batches)


class _Batch(NamedTuple):
    """Runs of a unit at several rates, which are compiled together."""

    unit: Unit
    horizons: tuple[int, ...]
    rates: Sequence[float | None]

    def key(self, rate: float | None, horizon: int, seed: int) -> Key:
        spec = self.unit.optimizer
        return Key(self.unit.task.name, spec.name, rate, horizon, seed, spec.version)

    def without_stored(
        self, seeds: Sequence[int], store: Store
    ) -> tuple[list[float | None], list[int]]:
        """The rates and seeds of which a run is missing."""

        def missing(rate: float | None, seed: int) -> bool:
            return any(self.key(rate, horizon, seed) not in store for horizon in self.horizons)

        rates = [rate for rate in self.rates if any(missing(rate, seed) for seed in seeds)]
        return rates, [seed for seed in seeds if any(missing(rate, seed) for rate in rates)]


def _run_batch(
    batch: _Batch,
    seeds: Sequence[int],
    store: Store,
    on_progress: Callable[[int], None] | None,
) -> int:
    rates, seeds = batch.without_stored(seeds, store)
    if not rates or not seeds:
        return 0
    unit, last = batch.unit, max(batch.horizons)
    outcome = evaluation.train_rates(
        unit.task.family,
        lambda rate: unit.optimizer.optimizer_fn(rate, last),
        [1.0 if rate is None else rate for rate in rates],
        last,
        seeds,
        options=evaluation.TrainingOptions(
            checkpoints=batch.horizons,
            evaluation_params=unit.optimizer.evaluation_params,
            vectorize=not unit.optimizer.learns,
            on_progress=on_progress,
        ),
    )
    smoothed = evaluation.exponential_average(outcome.curves)
    runs: dict[Key, Mapping[str, Any]] = {}
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
                runs[batch.key(rate, horizon, seed)] = rounded(record)
    if unit.optimizer == optimizers.ADAM and unit.purpose != "report":
        marks = statistics.marks(last, ENVELOPE_POINTS)
        curve = statistics.envelope(smoothed)[marks - 1]
        key = Key(unit.task.name, ENVELOPE, None, last, None)
        runs[key] = rounded({"curve": curve})
    store.add(runs)
    return len(seeds) * len(rates)


def rounded(run: Mapping[str, Any]) -> dict[str, Any]:
    """Rounds all numbers to five digits; those that are not finite become None, as JSON has none.

    Example:
      >>> rounded({"train": 0.1234567, "curve": [float("inf"), 1.0]})
      {'train': 0.12346, 'curve': [None, 1.0]}
    """
    return {name: _short(value) for name, value in run.items()}


def _short(value: Any) -> Any:
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_short(float(each)) if each is not None else None for each in value]
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value

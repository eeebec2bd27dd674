"""Zero tuning: one setting for all tasks, against optimizers that are tuned on each.

`python -m benchmarks.zero_tuning --full` trains every task of `alphaopt_jax.tasks.suite`, none of
which any agent was trained on, with AlphaOpt and its peers, and writes tables, pictures and claims.
It takes hours on one core; finished runs are kept, so that it goes on where it was stopped.
`--quick` is a look at what comes out; `--agent FILE` tests another agent against the kept runs of
the peers, and writes `zero_tuning_retrained.json` and `.md`, without claims.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import math
from pathlib import Path
import shlex
import sys
import time
from typing import Any

import numpy as np
from rich import console as rich_console
from rich import progress as rich_progress
from rich import table as rich_table
import tyro

from alphaopt_jax.tasks.suite import catalog
from benchmarks.common import results
from benchmarks.zero_tuning import optimizers as contenders
from benchmarks.zero_tuning import plots, runs, statistics
from benchmarks.zero_tuning import report as tables

_QUICK = runs.Settings(
    grid=contenders.GRID[6:12], seeds=(0, 1), selection_seeds=(100,), horizons=(100,)
)
_QUICK_TASKS = ("breast_cancer", "raw_wine", "diabetes")


@dataclasses.dataclass(frozen=True)
class Arguments:
    """How much to run.

    Attributes:
      full: Also 20,000 steps on the cheap tasks, the large networks, and Adam for longer.
      quick: Three cheap tasks, 100 steps, two seeds: a look at what comes out, in a minute or two.
      tasks: Names of tasks; by default all.
      methods: Names of methods; by default all.
      agent: File of the agent to test; by default the one that `alphaopt()` uses.
    """

    full: bool = False
    quick: bool = False
    tasks: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    agent: Path | None = None


def run_all(
    units: Sequence[runs.Unit], tasks: Sequence[str], store: runs.Store, settings: runs.Settings
) -> None:
    """Runs what is missing, with a bar for all and one for the training that is under way."""
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
            text = f"{unit.method.name}, {unit.task.name}, {unit.purpose}"
            bar.reset(current, description=text, total=max(unit.horizons))
            began = time.perf_counter()
            made = runs.run(
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


SUMMARY_COLUMNS = {
    "optimizer": "optimizer",
    "tuned": "tuned",
    "ratio": "loss ratio to tuned Adam",
    "ratio_interval": "95 % interval",
    "rank": "rank",
    f"wins: {tables.ADAM_TUNED}": "wins: tuned Adam",
    f"wins: {tables.COSINE_TUNED}": "tuned cosine Adam",
    f"wins: {tables.BEST_FREE}": "best tuning-free",
    f"wins: {tables.ADAM_DEFAULT}": "Adam 1e-3",
    "speed_up": "speed-up",
    "diverged": "diverged",
}
_PAIR_ENTRIES = (
    tables.ALPHAOPT,
    tables.NOT_GIVEN,
    tables.LEARNING,
    tables.ADAM_TUNED,
    tables.COSINE_TUNED,
    tables.BEST_FREE,
    tables.ADAM_DEFAULT,
)


def displayed(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of the methods as tables show them."""
    shown = []
    for row in rows:
        low, high = row["ratio_interval"]
        cells = {key: row.get(key) for key in SUMMARY_COLUMNS}
        cells |= {
            "tuned": "per task" if row["optimizer"] in tables.TUNED else "no",
            "ratio_interval": f"{results.cell(low)} to {results.cell(high)}",
        }
        for key, value in cells.items():
            if key.startswith("wins: ") and value is not None:
                cells[key] = f"{100 * value:.0f} %"
        if row.get("speed_up") is not None and row["speed_up_censored"]:
            cells["speed_up"] = f"> {results.cell(row['speed_up'])}"
        shown.append(cells)
    return shown


def loss_table(table: tables.Table, figure: str) -> str:
    """A line for each task and number of steps, as Markdown.

    Args:
      table: All results.
      figure: "train" or "evaluation".
    """
    pairs = sorted({key[1:] for key in table.results}, key=lambda pair: (pair[1], pair[0]))
    lines = []
    for task, horizon in pairs:
        line: dict[str, Any] = {"task": task, "steps": horizon}
        for entry in _PAIR_ENTRIES:
            try:
                result = table.find(entry, task, horizon)
            except KeyError:
                continue
            values = [math.nan if each is None else each for each in getattr(result, figure)]
            line[entry] = results.cell(float(np.mean(values)))
            if entry in tables.TUNED:
                line[entry] += f" ({result.rate:g})"
            elif entry == tables.BEST_FREE:
                line[entry] += f" ({table.best_free(task, horizon)})"
        lines.append(line)
    columns = [entry for entry in _PAIR_ENTRIES if any(entry in line for line in lines)]
    return results.markdown_table(lines, {key: key for key in ("task", "steps", *columns)})


def markdown(
    table: tables.Table, rows: Sequence[Mapping[str, Any]], command: str, name: str = "zero_tuning"
) -> str:
    """The page beside the JSON file."""
    settings = table.settings
    horizons = " and ".join(f"{each:,}" for each in settings.horizons)
    summary = results.markdown_table(displayed(rows), SUMMARY_COLUMNS)
    return (
        f"# Zero tuning\n\nMade by `{command}`.\n\n"
        f"{len(table.tasks)} tasks that no agent was trained on, at {horizons} steps,"
        f" {len(settings.seeds)} seeds. The training loss is the mean over 32 batches, the same for"
        " all, at the final parameters. Tuned methods have the best of"
        f" {len(settings.grid)} learning rates for each task and number of steps, chosen on"
        f" {len(settings.selection_seeds)} other seeds; all others have one setting for all tasks."
        ' "Best single rate" is the one that is best over the whole suite; "best tuning-free" is'
        " the best of optax's tuning-free optimizers on each task and number of steps, chosen on"
        " the reported seeds, which favours them.\n\n"
        "Ratios are geometric means, with a bootstrap over tasks and seeds. A loss counts as at"
        f" least {statistics.FLOOR:g} and at most {statistics.CEILING:g} times the initial one,"
        " and as the latter if it is not finite. The rank is among the methods with one setting."
        " The speed-up is the number of steps in which Adam, at whichever rate is best by then,"
        " reaches the same smoothed training loss, divided by the method's own steps; > means that"
        " on some tasks Adam was not run long enough to reach it, and counts with the steps it was"
        f" run.\n\n{summary}\n"
        f"![Ratios]({name}/ratios.png)\n\n![Profile]({name}/profile.png)\n\n"
        f"![Curves]({name}/curves.png)\n\n"
        "## Training losses\n\nMeans over the seeds; in brackets the rate, or which one. – is not"
        f" finite.\n\n{loss_table(table, 'train')}\n"
        f"## Evaluation losses\n\nOf the same runs.\n\n{loss_table(table, 'evaluation')}"
    )


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints the methods, the best first, in few enough columns for a terminal."""
    columns = {"optimizer": "", "ratio": "loss ratio", "rank": "rank"}
    columns |= {
        key: heading for key, heading in SUMMARY_COLUMNS.items() if key.startswith("wins: ")
    }
    table = rich_table.Table(title="The best first; ratios are to Adam tuned on each task")
    for heading in columns.values():
        table.add_column(heading, justify="right" if heading else "left")
    for row in displayed(rows):
        table.add_row(*(results.cell(row[key]) for key in columns))
    rich_console.Console().print(table)


def main(arguments: Arguments) -> int:
    """Runs everything, prints the table, writes the files; returns 0 if the claims hold."""
    settings = _QUICK if arguments.quick else runs.Settings(full=arguments.full)
    names = arguments.tasks or (_QUICK_TASKS if arguments.quick else tuple(catalog.SUITE))
    if arguments.full and not arguments.tasks:
        names += tuple(catalog.LARGE)
    _refuse_unknown("task", names, [*catalog.SUITE, *catalog.LARGE])
    known = [*contenders.CANDIDATES, *(each.name for each in contenders.PEERS)]
    _refuse_unknown("method", arguments.methods, known)
    wanted = arguments.methods or known
    methods = [
        contenders.candidate(name, arguments.agent)
        for name in contenders.CANDIDATES
        if name in wanted
    ]
    methods += [each for each in contenders.PEERS if each.name in wanted]
    quick_folder = results.RESULTS / "quick"
    store_folder = quick_folder if arguments.quick else results.RESULTS
    store = runs.Store(store_folder / "zero_tuning_runs.jsonl")
    every = {**catalog.SUITE, **catalog.LARGE}
    units = runs.plan([every[name] for name in names], methods, settings)
    run_all(units, [name for name in names if name in catalog.SUITE], store, settings)

    table = tables.collect(store, names, methods, settings)
    rows = tables.method_rows(table)
    print_table(rows)
    complete = not arguments.quick and tables.is_complete(table)
    ships = arguments.agent is None
    name = "zero_tuning" if ships else "zero_tuning_retrained"
    claims = tables.make_claims(table, rows) if complete and ships else []
    folder = results.RESULTS if complete else quick_folder
    command = shlex.join(["python", "-m", "benchmarks.zero_tuning", *sys.argv[1:]])
    results.write(
        name,
        rows=[*rows, *tables.pair_rows(table)],
        claims=claims,
        seeds=settings.seeds,
        command=command,
        folder=folder,
    )
    (folder / f"{name}.md").write_text(markdown(table, rows, command, name))
    plots.write(table, folder / name)
    if ships:
        store.compact()
    print(f"Wrote {folder}/{name}.json, .md and pictures.")
    return 0 if all(claim.holds for claim in claims) else 1


def _refuse_unknown(kind: str, given: Sequence[str], known: Sequence[str]) -> None:
    unknown = [name for name in given if name not in known]
    if unknown:
        raise SystemExit(f"There is no {kind} {unknown[0]!r}. There are: {', '.join(known)}.")


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))

"""Zero tuning: one setting for all tasks, compared with optimizers that are tuned on each task.

`python -m benchmarks.zero_tuning --full` trains every task of `alphaopt_jax.tasks.suite`, on which
no agent was trained, with AlphaOpt and other optimizers, and writes tables, pictures and claims. It
takes hours on one core; finished runs are stored, so that an interrupted comparison continues where
it stopped. `--quick` takes a minute or two and shows the form of the output. `--agent FILE` tests
another agent against the stored runs of the other optimizers, and writes
`zero_tuning_retrained.json` and `.md`, without claims.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from pathlib import Path
import shlex
import sys

import tyro

from alphaopt_jax.tasks.suite import catalog
from benchmarks.common import results
from benchmarks.zero_tuning import comparison, optimizers, plots, report, runs

_QUICK = runs.Settings(
    grid=optimizers.GRID[6:12], seeds=(0, 1), selection_seeds=(100,), horizons=(100,)
)
_QUICK_TASKS = ("breast_cancer", "raw_wine", "diabetes")


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Size of the comparison.

    Attributes:
      full: Also 20,000 steps on the cheap tasks, the large networks, and Adam for longer.
      quick: Three cheap tasks, 100 steps and two seeds, in a minute or two.
      tasks: Names of tasks; by default all.
      optimizers: Names of optimizers; by default all.
      agent: File of the agent to test; by default the one that `alphaopt()` uses.
    """

    full: bool = False
    quick: bool = False
    tasks: tuple[str, ...] = ()
    optimizers: tuple[str, ...] = ()
    agent: Path | None = None


def main(arguments: Arguments) -> int:
    """Runs everything, prints the table, writes the files; returns 0 if the claims hold."""
    settings = _QUICK if arguments.quick else runs.Settings(full=arguments.full)
    names = arguments.tasks or (_QUICK_TASKS if arguments.quick else tuple(catalog.SUITE))
    if arguments.full and not arguments.tasks:
        names += tuple(catalog.LARGE)
    _refuse_unknown("task", names, [*catalog.SUITE, *catalog.LARGE])
    specs = _chosen_optimizers(arguments)
    quick_folder = results.RESULTS / "quick"
    store_folder = quick_folder if arguments.quick else results.RESULTS
    store = runs.open_store(store_folder / "zero_tuning_runs.jsonl")
    every = {**catalog.SUITE, **catalog.LARGE}
    units = runs.plan([every[name] for name in names], specs, settings)
    runs.run_all(units, [name for name in names if name in catalog.SUITE], store, settings)

    table = comparison.collect(store, names, specs, settings)
    rows = comparison.optimizer_rows(table)
    report.print_table(rows)
    complete = not arguments.quick and comparison.is_complete(table)
    is_default = arguments.agent is None
    name = "zero_tuning" if is_default else "zero_tuning_retrained"
    claims = report.make_claims(table, rows) if complete and is_default else []
    folder = results.RESULTS if complete else quick_folder
    command = shlex.join(["python", "-m", "benchmarks.zero_tuning", *sys.argv[1:]])
    results.write(
        name,
        rows=[*rows, *comparison.pair_rows(table)],
        claims=claims,
        seeds=settings.seeds,
        command=command,
        folder=folder,
    )
    (folder / f"{name}.md").write_text(report.page(table, rows, command, name))
    plots.write(table, folder / name)
    if is_default:
        runs.compact(store)
    print(f"Wrote {folder}/{name}.json, .md and pictures.")
    return 0 if all(claim.holds for claim in claims) else 1


def _chosen_optimizers(arguments: Arguments) -> list[optimizers.OptimizerSpec]:
    known = [*optimizers.MODES, *(each.name for each in optimizers.BASELINES)]
    _refuse_unknown("optimizer", arguments.optimizers, known)
    chosen = arguments.optimizers or known
    specs = [
        optimizers.alphaopt_spec(name, arguments.agent)
        for name in optimizers.MODES
        if name in chosen
    ]
    return specs + [each for each in optimizers.BASELINES if each.name in chosen]


def _refuse_unknown(kind: str, given: Sequence[str], known: Sequence[str]) -> None:
    unknown = [name for name in given if name not in known]
    if unknown:
        raise SystemExit(f"There is no {kind} {unknown[0]!r}. There are: {', '.join(known)}.")


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))

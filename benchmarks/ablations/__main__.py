"""Ablations: the loss without each part of the pretrained agent.

`python -m benchmarks.ablations` trains the tasks of the test suite with the agent as it is and
without one of its parts: without rotated coordinates, with one side rotated, with matrices rotated
but no vectors, without averaged parameters, without the agent (the best constant log rate in the
same coordinates). Then it trains the cheap tasks with `learning_rate` from a hundredth to a hundred
times its default, which the agent does not observe. It takes two hours on one core; finished runs
are kept, and the same command goes on.
`--quick` runs two tasks.
"""

from __future__ import annotations

import dataclasses
import shlex
import sys

import tyro

from alphaopt_jax.tasks.suite import catalog
from benchmarks.ablations import report, variants
from benchmarks.common import results
from benchmarks.zero_tuning import runs

_QUICK_TASKS = ("diabetes", "raw_wine")
_SETTINGS = runs.Settings(seeds=(0, 1))


@dataclasses.dataclass(frozen=True)
class Arguments:
    """How much to run.

    Attributes:
      quick: Two tasks, 100 steps.
    """

    quick: bool = False


def main(arguments: Arguments) -> int:
    """Runs and reports; returns 0 if the claims hold."""
    settings = dataclasses.replace(_SETTINGS, horizons=(100,)) if arguments.quick else _SETTINGS
    names = _QUICK_TASKS if arguments.quick else tuple(catalog.SUITE)
    cheap = [name for name in names if catalog.SUITE[name].cheap]
    longest = (settings.horizons[-1],)
    folder = results.RESULTS / ("quick" if arguments.quick else "")
    folder.mkdir(exist_ok=True)
    store = runs.open_store(folder / "ablations_runs.jsonl")
    parts, multiplied = variants.variants(), variants.multiplied()
    units = [
        runs.Unit(variant.spec, catalog.SUITE[name], settings.horizons, "report")
        for variant in parts
        for name in names
    ]
    units += [
        runs.Unit(variant.spec, catalog.SUITE[name], longest, "report")
        for variant in multiplied
        for name in cheap
    ]
    runs.run_all(units, names, store, settings)

    rows = report.rows(store, parts, names, settings)
    rows += report.multiplier_rows(store, multiplied, cheap, longest[0], settings)
    command = shlex.join(["python", "-m", "benchmarks.ablations", *sys.argv[1:]])
    claims = [] if arguments.quick else report.make_claims(rows)
    results.write(
        "ablations",
        rows=rows,
        claims=claims,
        seeds=settings.seeds,
        command=command,
        folder=folder,
    )
    page = report.page(rows, command)
    print(page)
    (folder / "ablations.md").write_text(page)
    return 0 if all(claim.holds for claim in claims) else 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))

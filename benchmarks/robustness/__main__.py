"""Faults, games and reported situations: `python -m benchmarks.robustness`, ten minutes.

Each optimizer trains a small classifier, without a fault and with each of `faults.FAULTS`.
AlphaOpt's parameters must stay finite, every step that cannot be made must be skipped and counted,
and training must continue after the fault. `games` has trainings whose loss rises for good reasons.
Situations that users of other optimizers reported, and others of the same kind, must have their
right outcome; `--only situations` runs only these.
"""

from __future__ import annotations

import dataclasses
import shlex
import sys
from typing import Any, Literal

from rich import progress as rich_progress
import tyro

from alphaopt_jax import plotting
from benchmarks.common import results
from benchmarks.robustness import games, optimizers, plots, report
from benchmarks.robustness.situations import report as situations


@dataclasses.dataclass(frozen=True)
class Arguments:
    """How much to run.

    Attributes:
      seeds: Runs of each optimizer with each fault.
      quick: One run of each, without the agents that learn and without the situations.
      only: Run only this part, and keep the other results.
    """

    seeds: int = 5
    quick: bool = False
    only: Literal["situations"] | None = None


def main(arguments: Arguments) -> int:
    """Runs and reports; returns 0 if the claims hold."""
    if arguments.only == "situations":
        ran = situations.replace(results.RESULTS)
        print(situations.table(ran))
        return 0 if all(row["holds"] for row in ran) else 1
    seeds = range(1 if arguments.quick else arguments.seeds)
    found = optimizers.optimizers(seeds, quick=arguments.quick)
    rows: list[dict[str, Any]] = []
    for name, tx in rich_progress.track(found.items(), "faults"):
        rows += report.optimizer_rows(name, tx, seeds)
    played: list[dict[str, Any]] = []
    for name, optimizer in rich_progress.track(games.game_optimizers().items(), "games"):
        if not (arguments.quick and name == games.LEARNING):
            played += games.game_rows(name, optimizer, range(1 if arguments.quick else games.SEEDS))
    folder = results.RESULTS / ("quick" if arguments.quick else "")
    claims = report.make_claims(rows) + games.make_claims(played)
    reported = [] if arguments.quick else situations.rows()
    claims += situations.make_claims(reported) if reported else []
    command = shlex.join(["python", "-m", "benchmarks.robustness", *sys.argv[1:]])
    results.write(
        "robustness",
        rows=[*rows, *played, *reported],
        claims=claims,
        seeds=seeds,
        command=command,
        folder=folder,
    )
    page = report.page(rows, played, command)
    if reported:
        page = situations.with_section(page, situations.section(reported))
    (folder / "robustness.md").write_text(page)
    plotting.save_png(plots.kept_figure(rows), folder / "robustness.png")
    print(report.table(rows))
    print(games.table(played))
    return 0 if all(claim.holds for claim in claims) else 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))

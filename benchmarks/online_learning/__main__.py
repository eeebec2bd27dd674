"""Online learning: `learn=True` against the same pretrained agent frozen.

`python -m benchmarks.online_learning` compares the two where the agent's training helps least: on
two-dimensional landscapes, and on the suite's cheap tasks with a tenth of the rates that it
chooses, as if they needed ten times higher rates than any task of its training.
(`benchmarks.zero_tuning` compares the two on the suite as it is.) It takes a few minutes;
`--quick` runs one landscape and one task.
"""

from __future__ import annotations

import dataclasses
import shlex
import sys
from typing import Any

from rich import progress as rich_progress
import tyro

from alphaopt_jax import plotting
from benchmarks.common import results
from benchmarks.online_learning import plots, report, runs, tasks

_QUICK = ("bowl", "diabetes")


@dataclasses.dataclass(frozen=True)
class Arguments:
    """How much to run.

    Attributes:
      seeds: Runs on each task.
      quick: One landscape, one task, two seeds.
    """

    seeds: int = 5
    quick: bool = False


def main(arguments: Arguments) -> int:
    """Runs and reports; returns 0 if the claims hold."""
    seeds = range(2 if arguments.quick else arguments.seeds)
    chosen = [case for case in tasks.cases() if not arguments.quick or case.name in _QUICK]
    rows: list[dict[str, Any]] = []
    for case in rich_progress.track(chosen, "online learning"):
        frozen, learning = (runs.train(case, learn, seeds) for learn in (False, True))
        rows += report.case_rows(case, frozen, learning)
        print(f"{case.name}: " + ", ".join(f"{row['ratio']:.3g}" for row in rows[-2:]), flush=True)
    summary = report.group_rows(rows)
    command = shlex.join(["python", "-m", "benchmarks.online_learning", *sys.argv[1:]])
    page = report.page(rows, summary, command)
    print(page)
    claims = [] if arguments.quick else report.make_claims(summary)
    folder = results.RESULTS / ("quick" if arguments.quick else "")
    results.write(
        "online_learning",
        rows=[*summary, *rows],
        claims=claims,
        seeds=list(seeds),
        command=command,
        folder=folder,
    )
    (folder / "online_learning.md").write_text(page)
    plotting.save_png(plots.ratios_figure(rows), folder / "online_learning.png")
    return 0 if all(claim.holds for claim in claims) else 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))

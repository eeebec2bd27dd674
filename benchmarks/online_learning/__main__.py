"""Online learning: `learn=True` against the same agent without learning.

`python -m benchmarks.online_learning` multiplies all rates by a hundredth to ten, for the
pretrained agent and for a fresh one, on tasks of the kinds that validated the pretrained agent and
on cheap ones of the test suite: does an agent find the right rates within a training? It also
compares both on two-dimensional landscapes. It takes an hour on one core and goes on where it
stopped; `--quick` runs one landscape and one task.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import shlex
import sys
from typing import Any

from matplotlib.figure import Figure
from rich import progress as rich_progress
import tyro

from alphaopt_jax import plotting
from benchmarks.common import results
from benchmarks.online_learning import plots, report, runs, tasks

_QUICK = ("bowl", "diabetes")
_COURSE = ("conv_patches", "diabetes")
"""The network of the picture of one training; the second one in a quick run."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """How much to run.

    Attributes:
      seeds: Runs on each network; landscapes have five.
      quick: One landscape, one task, two seeds.
    """

    seeds: int = 3
    quick: bool = False


def main(arguments: Arguments) -> int:
    """Runs and reports; returns 0 if the claims hold."""
    seeds = 2 if arguments.quick else arguments.seeds
    folder = results.RESULTS / ("quick" if arguments.quick else "")
    store = runs.open_store(folder / "online_learning_runs.jsonl")
    landscapes, networks = (
        [case for case in cases if not arguments.quick or case.name in _QUICK]
        for cases in (tasks.landscapes(), tasks.networks())
    )
    landscape_rows: list[dict[str, Any]] = []
    for case in rich_progress.track(landscapes, "landscapes"):
        losses = [runs.on_landscape(case, learn, range(5)) for learn in (False, True)]
        landscape_rows += report.landscape_rows(case.name, *losses)
    rows: list[dict[str, Any]] = []
    for case in rich_progress.track(networks, "multipliers"):
        for agent, name in report.AGENTS.items():
            losses = [
                runs.with_multipliers(case, agent, learn, seeds, store) for learn in (False, True)
            ]
            rows += report.rate_rows(case.name, name, tasks.MULTIPLIERS, *losses)
        print(f"{case.name}: " + _figures(rows[-2 * len(tasks.MULTIPLIERS) :]), flush=True)
    gaps, summary = report.gap_rows(rows), report.landscape_summary(landscape_rows)
    command = shlex.join(["python", "-m", "benchmarks.online_learning", *sys.argv[1:]])
    page = report.page(landscape_rows, rows, command)
    print(page)
    claims = [] if arguments.quick else report.make_claims(gaps, summary)
    results.write(
        "online_learning",
        rows=[summary, *gaps, *landscape_rows, *rows],
        claims=claims,
        seeds=list(range(seeds)),
        command=command,
        folder=folder,
    )
    (folder / "online_learning.md").write_text(page)
    plotting.save_png(plots.multipliers_figure(rows), folder / "online_learning.png")
    shown = next(case for case in networks if case.name == _COURSE[arguments.quick])
    plotting.save_png(_course_figure(shown), folder / "online_learning_course.png")
    return 0 if all(claim.holds for claim in claims) else 1


def _course_figure(case: tasks.Case) -> Figure:
    """One training with rates thirty times too small, without and with learning."""
    small = 1.0 / 30.0
    courses = {
        f"learning_rate={multiplier:.2g}, learn={learn}": runs.course(case, multiplier, learn, 600)
        for multiplier, learn in ((small, False), (small, True), (report.USUAL, False))
    }
    return plots.course_figure(courses, f"Rates thirty times too small: {case.name}")


def _figures(rows: Sequence[dict[str, Any]]) -> str:
    """Losses without and with learning, for the progress report."""
    return ", ".join(f"{row['frozen']:.3g} {row['learning']:.3g}" for row in rows)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))

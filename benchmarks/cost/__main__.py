"""Cost: time and memory of one optimizer step, compared with Adam, from 1e4 to 1e8 parameters.

`python -m benchmarks.cost` times, interleaved in one run: one jitted step (update and apply, with
donated buffers) of every optimizer on one tensor of several sizes and on trees with the shapes of
ResNet-50 and GPT-2 small, in float32 and bfloat16; whole train steps of four networks; and a
triad, which measures the machine's memory bandwidth. Every timing covers whole cycles of 16 steps,
so that it includes the periodic refresh of the rate multipliers. `--quick` takes two minutes.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

from rich import console as rich_console
from rich import progress as rich_progress
import tyro

from benchmarks.common import results, timing
from benchmarks.cost import plots, report, runs


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Size of the measurement.

    Attributes:
      sizes: Numbers of parameters of the one tensor.
      rounds: Least number of rounds, in each of which every optimizer is timed.
      max_parameters: Size of the largest model.
      quick: Up to a million parameters, and no trees.
    """

    sizes: tuple[int, ...] = (
        10_000,
        100_000,
        runs.SQUARE_SIZE,
        1_000_000,
        10_000_000,
        25_557_032,
        100_000_000,
    )
    rounds: int = 7
    max_parameters: int = 130_000_000
    quick: bool = False


def main(arguments: Arguments) -> int:
    """Measures everything, prints the tables, writes the files; returns 0 if the claims hold."""
    sizes = [size for size in arguments.sizes if size <= 1_000_000 or not arguments.quick]
    rounds = 3 if arguments.quick else arguments.rounds
    trees = [
        tree
        for tree in runs.trees(sizes, quick=arguments.quick)
        if tree.size <= arguments.max_parameters
    ]
    bandwidth = timing.triad_bandwidth()
    rows: list[dict[str, Any]] = [{"kind": "triad", "gigabytes_a_second": bandwidth / 1e9}]
    with rich_progress.Progress() as progress:
        task = progress.add_task("timing", total=runs.num_turns(len(trees), rounds))

        def advance() -> None:
            progress.advance(task)

        for tree in trees:
            rows += runs.measure_steps(tree, rounds, bandwidth, advance)
        for model in runs.MODELS:
            rows += runs.measure_train_steps(model, rounds, advance)
        progress.update(task, completed=progress.tasks[0].total)
    claims = report.make_claims(rows)
    console = rich_console.Console()
    for title, table in report.tables(rows).items():
        console.print(title, style="bold")
        console.print(table)
    for claim in claims:
        console.print(
            f"{'holds' if claim.holds else 'FAILS'}: {claim.text}: {claim.value:.3g} {claim.bar}"
        )
    if arguments.quick:
        console.print("A quick measurement: nothing was written.")
        return 0
    results.write(
        "cost",
        rows=rows,
        claims=claims,
        seeds=(0,),
        command=" ".join(["python -m benchmarks.cost", *sys.argv[1:]]),
    )
    plots.write(rows, results.RESULTS)
    (results.RESULTS / "cost.md").write_text(report.page(rows))
    return 0 if all(claim.holds for claim in claims) else 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))

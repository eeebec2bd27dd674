"""The LSTM of "Learning to learn by gradient descent by gradient descent" on the paper's tasks.

`python -m benchmarks.l2l` compares the pretrained LSTMs with tuned hand-designed optimizers and
AlphaOpt. `alphaopt train-baseline l2l-quadratics runs/l2l-quadratics` and `alphaopt train-baseline
l2l-mnist runs/l2l-mnist` train the LSTMs again; `--runs runs` measures those. `--quick` runs a
little of everything.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
import shlex
import sys

from rich import progress as rich_progress
import tyro

from alphaopt_jax import plotting
from alphaopt_jax.baselines.l2l import load_lstm
from benchmarks.common import results
from benchmarks.l2l import plots, report
from benchmarks.l2l.optimizers import BASELINES, RATES
from benchmarks.l2l.problems import PROBLEMS
from benchmarks.l2l.runs import TEST_KEY, TUNING_KEY, Curve, measure


@dataclasses.dataclass(frozen=True)
class Arguments:
    """How much to run.

    Attributes:
      runs: Folder with one folder per LSTM; by default the pretrained ones are measured.
      quick: A few runs and learning rates on the first two problems.
    """

    runs: Path | None = None
    quick: bool = False

    def lstm(self, name: str) -> Path | str:
        """Path of an LSTM, or its name if it is a pretrained one."""
        return name if self.runs is None else self.runs / name / f"{name}.safetensors"


def main(arguments: Arguments) -> int:
    """Runs and reports; returns 0 if the claims hold."""
    problems = PROBLEMS[:2] if arguments.quick else PROBLEMS
    rates = RATES[5:12:3] if arguments.quick else RATES
    folder = results.RESULTS / ("quick" if arguments.quick else "")
    curves: list[Curve] = []
    with rich_progress.Progress() as progress:
        total = len(problems) * (len(BASELINES) * len(rates) + 2)
        bar = progress.add_task("measuring", total=total)
        for problem in problems:
            curves += measure(
                problem,
                load_lstm(arguments.lstm(problem.lstm)),
                min(problem.runs, 4) if arguments.quick else problem.runs,
                rates,
                lambda note: progress.update(bar, advance=1, description=note),
            )
    rows = report.summarize(curves, problems)
    print(results.markdown_table(rows, report.COLUMNS))
    claims = report.make_claims(rows)
    command = shlex.join(["python", "-m", "benchmarks.l2l", *sys.argv[1:]])
    results.write(
        "l2l",
        rows=rows,
        claims=[] if arguments.quick else claims,
        seeds=[TUNING_KEY, TEST_KEY],
        command=command,
        folder=folder,
    )
    (folder / "l2l.md").write_text(report.page(rows, command))
    plotting.save_png(plots.curves_figure(curves), folder / "l2l.png")
    return 0 if arguments.quick or all(claim.holds for claim in claims) else 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))
